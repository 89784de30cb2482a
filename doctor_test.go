package main

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

func TestDoctor_WrongUse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--connections", "0"}, "--connections 0 must be from 1 to 67108864"},
		{[]string{"--connections", "-1"}, "--connections -1 must be"},
		{[]string{"--connections", "3000000000"}, "--connections 3000000000 must be"},
		{[]string{"--connections", "many"}, `"many"`},
		{[]string{"--connections", "99999999999999999999"}, "out of range; see halley doctor --help"},
		{[]string{"--pid", "0"}, "--pid 0 is no PID"},
		{[]string{"--pid", "-3"}, "--pid -3 is no PID"},
		{[]string{"--json", "--sysctl"}, "exclude each other"},
		{[]string{"x"}, `doctor takes no argument, got "x"`},
	} {
		err := app().Run(append([]string{"halley", "doctor"}, c.args...))
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

func doctorOut(t *testing.T, args ...string) (string, error) {
	t.Helper()
	if runtime.GOOS != "linux" {
		if err := app().Run([]string{"halley", "doctor"}); err == nil || !strings.Contains(err.Error(), "knows Linux only") {
			t.Errorf("%v", err)
		}
		t.Skip("needs Linux")
	}
	var out strings.Builder
	a := app()
	a.Writer = &out
	err := a.Run(append([]string{"halley", "doctor"}, args...))
	return out.String(), err
}

// TestDoctor_ThisMachine: the error, and so the status, agrees with what is printed.
func TestDoctor_ThisMachine(t *testing.T) {
	for _, args := range [][]string{nil, {"--connections", "10"}, {"--pid", strconv.Itoa(os.Getpid())}} {
		out, err := doctorOut(t, append(args, "--json")...)
		var got struct {
			Enough   bool
			Findings []struct{ Name, Verdict string }
		}
		if jsonErr := json.Unmarshal([]byte(out), &got); jsonErr != nil || len(got.Findings) < 10 {
			t.Fatalf("%v\n%s", jsonErr, out)
		}
		if got.Enough != (err == nil) || errors.Is(err, errUsage) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
		table, _ := doctorOut(t, args...)
		for _, f := range got.Findings {
			if !strings.Contains(table, "\n"+f.Name+" ") {
				t.Errorf("%v: no %q in\n%s", args, f.Name, table)
			}
		}
	}
	if _, err := doctorOut(t, "--pid", "2147483646"); !errors.Is(err, errUsage) || !strings.Contains(err.Error(), "no such process") {
		t.Errorf("%v", err)
	}
}

// TestDoctor_UnitStarts: what the unit starts is a command line of serve.
func TestDoctor_UnitStarts(t *testing.T) {
	unit, err := doctorOut(t, "--systemd", "--connections", "2000000")
	if err != nil {
		t.Fatal(err)
	}
	start := regexp.MustCompile(`(?s)\nExecStart=/usr/local/bin/halley serve (.*?[^\\])\n`).FindStringSubmatch(unit)
	if start == nil {
		t.Fatalf("no ExecStart in\n%s", unit)
	}
	c, err := runConfig(t, "", strings.Fields(strings.ReplaceAll(start[1], "\\\n", " "))...)
	if err != nil {
		t.Fatal(err)
	}
	if c.Args().Present() || c.Int("max-connections") != 2000000 || !slices.Equal(c.StringSlice("listen"), []string{"0.0.0.0:8000"}) {
		t.Errorf("%v, %d, %v", c.Args(), c.Int("max-connections"), c.StringSlice("listen"))
	}
}
