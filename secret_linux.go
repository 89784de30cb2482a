package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
)

// hideCookie overwrites the cookie in what others can see of this process,
// /proc/PID/cmdline and /proc/PID/environ, and returns the arguments with it.
// Where the system does not let it the cookie stays visible, as it was for the
// moment since the start: --cookie-file is better.
func hideCookie() []string {
	args := make([]string, len(os.Args)) // os.Args points into what is overwritten
	for i, arg := range os.Args {
		args[i] = strings.Clone(arg)
	}
	argStart, argEnd, envStart, envEnd, err := areas()
	if err != nil {
		return args
	}
	mem, err := os.OpenFile("/proc/self/mem", os.O_RDWR, 0)
	if err != nil {
		return args
	}
	defer mem.Close()
	blank(mem, argStart, argEnd, "cookie")
	blank(mem, envStart, envEnd, env("cookie")[0])
	return args
}

// areas are the addresses of the arguments and of the environment: fields 48 to
// 51 of /proc/self/stat (proc(5)).
func areas() (argStart, argEnd, envStart, envEnd int64, err error) {
	text, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		return
	}
	_, rest, _ := strings.Cut(string(text), ") ") // field 2 is a name in parentheses
	fields := strings.Fields(rest)
	const state = 3 // the first field of rest
	if len(fields) <= 51-state {
		return 0, 0, 0, 0, fmt.Errorf("/proc/self/stat has %d fields", len(fields))
	}
	_, err = fmt.Sscan(strings.Join(fields[48-state:52-state], " "), &argStart, &argEnd, &envStart, &envEnd)
	return
}

// blank overwrites the value of name among the strings from start to end: behind
// name= and, where name is a flag, in the string behind it.
func blank(mem *os.File, start, end int64, name string) {
	area := make([]byte, end-start)
	if _, err := mem.ReadAt(area, start); err != nil {
		return
	}
	flag := false // the string before was the flag
	for at := 0; at < len(area); {
		n := bytes.IndexByte(area[at:], 0)
		if n < 0 {
			n = len(area) - at
		}
		text := string(area[at : at+n])
		bare := strings.TrimLeft(text, "-")
		value := n
		if strings.HasPrefix(bare, name+"=") {
			value = strings.IndexByte(text, '=') + 1
		} else if flag {
			value = 0
		}
		if value < n {
			_, _ = mem.WriteAt(bytes.Repeat([]byte{'*'}, n-value), start+int64(at+value))
		}
		flag = bare == name && bare != text
		at += n + 1
	}
}
