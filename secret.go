package main

import (
	"os"
	"slices"
	"strings"
	"unsafe"
)

// hideCookie takes the cookie out of what others can see of this process, its
// command line and its environment (/proc/PID/cmdline and environ on Linux), and
// returns the arguments with it. The variable keeps its value for this process.
//
// Both are memory that the system handed to the process and that os.Args and
// os.Getenv point into, so it is overwritten in place. main alone may call this:
// the strings of any other caller could be constants.
func hideCookie() []string {
	args := make([]string, len(os.Args))
	for i, arg := range os.Args {
		args[i] = strings.Clone(arg)
	}
	for i, arg := range args {
		name, _, inline := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		switch {
		case name != "cookie" || !strings.HasPrefix(arg, "-"):
		case inline:
			overwrite(os.Args[i][strings.IndexByte(arg, '=')+1:])
		case i+1 < len(args):
			overwrite(os.Args[i+1])
		}
	}
	name := env("cookie")[0]
	if value, ok := os.LookupEnv(name); ok {
		kept := strings.Clone(value)
		overwrite(value)
		os.Setenv(name, kept)
	}
	return args
}

// overwrite fills the memory of a string that is not Go's with asterisks.
func overwrite(s string) {
	if s != "" {
		b := unsafe.Slice(unsafe.StringData(s), len(s))
		copy(b, slices.Repeat([]byte{'*'}, len(b)))
	}
}
