package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/urfave/cli/v2"
)

func TestSize(t *testing.T) {
	for text, want := range map[string]size{
		"0": 0, "7": 7, "7B": 7, "64KiB": 64 << 10, "8MiB": 8 << 20, "1 GiB": 1 << 30,
		"": -1, "-1": -1, "1KB": -1, "KiB": -1, "1.5MiB": -1, "9999999999GiB": -1,
	} {
		got := size(-1)
		if err := got.Set(text); (err == nil) != (want >= 0) || got != want {
			t.Errorf("%q: %d, %v, want %d", text, got, err, want)
		}
	}
	for value, want := range map[size]string{0: "0", 7: "7", 64 << 10: "64KiB", 3 << 20: "3MiB", 1 << 30: "1GiB", 1025: "1025"} {
		if got := value.String(); got != want {
			t.Errorf("%d: %q, want %q", value, got, want)
		}
	}
}

// TestDocs_HaveExactlyTheFlags compares the table of docs/configuration.md with
// the binary.
func TestDocs_HaveExactlyTheFlags(t *testing.T) {
	text, err := os.ReadFile("docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var documented, real []string
	for _, m := range regexp.MustCompile("(?m)^\\| `--([a-z-]+)` \\|").FindAllStringSubmatch(string(text), -1) {
		documented = append(documented, m[1])
	}
	for _, f := range serveCommand().Flags {
		real = append(real, f.Names()[0])
		if e := f.(cli.DocGenerationFlag).GetEnvVars(); len(e) != 1 || e[0] != env(f.Names()[0])[0] {
			t.Errorf("--%s has the variables %v", f.Names()[0], e)
		}
	}
	slices.Sort(documented)
	slices.Sort(real)
	if diff := cmp.Diff(real, documented); diff != "" {
		t.Errorf("flags and docs/configuration.md differ (-binary +docs):\n%s", diff)
	}
}

// runConfig runs `serve` up to the reading of its flags.
func runConfig(t *testing.T, yaml string, args ...string) (*cli.Context, error) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "halley.yaml")
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	var got *cli.Context
	a := app()
	for _, c := range a.Commands {
		c.Action = func(c *cli.Context) error { got = c; return nil }
	}
	err := a.Run(append([]string{"halley", "serve", "--config", file}, args...))
	return got, err
}

func TestConfig_FlagBeforeVariableBeforeFile(t *testing.T) {
	t.Setenv("HALLEY_MAX_UID", "20")
	t.Setenv("HALLEY_PATH", "/variable/{uid}")
	c, err := runConfig(t, "path: /file/{uid}\nmax-uid: 10\nslow: drop\nmax-pending: 1MiB\nlisten: ['127.0.0.1:1', '127.0.0.1:2']\n",
		"--max-uid", "30")
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Int64("max-uid"); got != 30 {
		t.Errorf("max-uid %d, want the flag's 30", got)
	}
	if got := c.String("path"); got != "/variable/{uid}" {
		t.Errorf("path %q, want the variable's", got)
	}
	if c.String("slow") != "drop" || sizeOf(c, "max-pending") != 1<<20 {
		t.Errorf("slow %q, max-pending %d: want the file's", c.String("slow"), sizeOf(c, "max-pending"))
	}
	if diff := cmp.Diff([]string{"127.0.0.1:1", "127.0.0.1:2"}, c.StringSlice("listen")); diff != "" {
		t.Error(diff)
	}
}

func TestConfig_Mistakes(t *testing.T) {
	for yaml, want := range map[string]string{
		"slow: drop\nmax-pendin: 1\n": `line 2: "max-pendin" is no flag of halley serve`,
		"config: x\n":                 `line 1: "config" is no flag`,
		"max-pending: lots\n":         `line 1: max-pending: "lots": must be a size`,
		"slow: [a, b]\n":              "line 1: slow takes one value, not a list",
		"slow: {a: b}\n":              "line 1: slow takes a plain value",
		"- a\n":                       "line 1: must have lines such as",
		"slow: drop\nslow: close\n":   "line 2: slow is there twice",
		"a: b: c\n":                   "mapping values are not allowed",
	} {
		if _, err := runConfig(t, yaml); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", yaml, err, want)
		}
	}
	if _, err := runConfig(t, ""); err != nil {
		t.Errorf("an empty file: %v", err)
	}
	if err := app().Run([]string{"halley", "serve", "--config", "/does/not/exist"}); err == nil {
		t.Error("a missing file was taken")
	}
}

// TestHelp_HidesTheCookie: what the environment has must not be shown as a default.
func TestHelp_HidesTheCookie(t *testing.T) {
	t.Setenv("HALLEY_COOKIE", "sesame-open")
	for _, args := range [][]string{{"halley"}, {"halley", "serve", "--help"}, {"halley", "send", "--help"}} {
		var out strings.Builder
		a := app()
		a.Writer = &out
		if err := a.Run(args); err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out.String(), "sesame-open") {
			t.Errorf("%v shows the cookie", args)
		}
		if out.Len() < 100 {
			t.Errorf("%v: %q", args, out.String())
		}
	}
}

// TestFlood_WrongUse: mistakes name the flag and end with the status of usage.
func TestFlood_WrongUse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"--connections", "0"}, "--connections 0 must be 1 or more"},
		{[]string{"--uids", "9-1"}, `--uids "9-1" must be a range`},
		{[]string{"--stall", "200%"}, `--stall "200%" must be a share`},
		{[]string{"--from", "127.0.0.1-"}, `--from: "" is no address`},
		{[]string{"--url", "http://127.0.0.1:1/"}, "must have {uid} once"},
		{[]string{"--publish", "a@localhost", "--publish-rate", "0"}, "--publish-rate 0 must be more than 0"},
		{[]string{"--publish", "a@localhost", "--publish-uids", "all"}, `--publish-uids "all" must be one of`},
		{[]string{"x"}, "flood takes no argument"},
	} {
		err := app().Run(append([]string{"halley", "flood"}, c.args...))
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
}

func TestMemlog_WrongUse(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "takes the PIDs"},
		{[]string{"x"}, `"x" is no PID`},
		{[]string{"--plot", "x.gif", "1"}, `--plot "x.gif" must end in .png or .svg`},
		{[]string{"--log", "x"}, "--log goes with --plot"},
		{[]string{"--every", "0s", "1"}, "--every 0s must be 10ms or more"},
	} {
		err := app().Run(append([]string{"halley", "memlog"}, c.args...))
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: %v, want %q", c.args, err, c.want)
		}
	}
	if err := app().Run([]string{"halley", "memlog", "--log", "/does/not/exist", "--plot", "x.png"}); err == nil {
		t.Error("a missing log was drawn")
	}
}

// TestMemlog_LogThenPlot logs this process and draws the log.
func TestMemlog_LogThenPlot(t *testing.T) {
	log, picture := filepath.Join(t.TempDir(), "memory.log"), filepath.Join(t.TempDir(), "memory.png")
	f, err := os.Create(log)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	a := app()
	a.Writer = f
	if err := a.RunContext(ctx, []string{"halley", "memlog", "--every", "20ms", strconv.Itoa(os.Getpid())}); err != nil {
		t.Fatal(err)
	}
	if err := app().Run([]string{"halley", "memlog", "--log", log, "--plot", picture}); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(picture); err != nil || info.Size() < 1000 {
		t.Errorf("%v, %v", info, err)
	}
}
