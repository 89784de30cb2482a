package test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The command line.

// command runs halley to its end, with a home of its own.
type command struct {
	args  []string
	env   []string
	stdin string
}

func (c command) run(t *testing.T) (code int, out string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, halleyBin, c.args...)
	cmd.Env = cleanEnv(append([]string{"HOME=" + t.TempDir()}, c.env...)...)
	cmd.Stdin = strings.NewReader(c.stdin)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	dieWithUs(cmd)
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("halley %v: %v\n%s", c.args, err, b.String())
	}
	if strings.Contains(b.String(), testCookie) {
		t.Errorf("halley %v shows the cookie", c.args)
	}
	return cmd.ProcessState.ExitCode(), b.String()
}

// wants runs it, and checks the status and that the output has all parts.
func (c command) wants(t *testing.T, code int, parts ...string) {
	t.Helper()
	got, out := c.run(t)
	if got != code {
		t.Errorf("halley %v: exit status %d, want %d\n%s", c.args, got, code, out)
	}
	for _, part := range parts {
		if !strings.Contains(out, part) {
			t.Errorf("halley %v: no %q in\n%s", c.args, part, out)
		}
	}
}

func TestCLI_Usage(t *testing.T) {
	command{args: []string{}}.wants(t, 0, "halley", "serve", "send", "version")
	command{args: []string{"version"}}.wants(t, 0, "halley ", "go1.")
	command{args: []string{"nonsense"}}.wants(t, 2, `"nonsense"`, "--help")
	command{args: []string{"serve", "--nonsense"}}.wants(t, 2, "-nonsense", "halley serve --help")
	command{args: []string{"serve", "argument"}}.wants(t, 2, `"argument"`, "--help")
	command{args: []string{"send", "--nonsense"}}.wants(t, 2, "-nonsense", "halley send --help")
	command{args: []string{"send", "1"}}.wants(t, 2, "UID and BODY")
	command{args: []string{"send", "--all", "1", "2"}}.wants(t, 2, "--all")
	command{args: []string{"send", strings.Repeat("x", 256), "body"}}.wants(t, 2, "UID has 256 bytes")
}

func TestCLI_WrongValues(t *testing.T) {
	cookie := "--cookie=" + testCookie
	for _, flag := range []string{"name=x", "name=a b@c", "connect=x", "connect=halley@localhost", "register=", "register=net_kernel",
		"listen=nonsense", "path=/x", "path=x/{uid}", "path=/{uid}x", "uids=some", "max-uid=-1", "max-uid=x", "welcome={id}",
		"max-connections=0", "max-per-uid=-1", "max-pending=lots", "max-pending=0", "max-pending=-1", "max-pending-total=1TB",
		"max-packet=1", "max-packet=4GiB", "slow=maybe", "drain=soon", "drain=-1s", "keep-alive=0s", "keep-alive=10h", "engine=kqueue", "loops=-1", "loops=5000", "pin=maybe", "epmd=x", "epmd=localhost:0",
		"net-ticktime=1", "net-ticktime=1ms", "dist-listen=localhost:x", "log-level=loud", "log-format=xml"} {
		t.Run(flag, func(t *testing.T) {
			name, _, _ := strings.Cut(flag, "=")
			command{args: []string{"serve", cookie, "--" + flag}}.wants(t, 2, "-"+name)
			if name != "connect" && name != "listen" { // a variable's list is split at its commas first
				variable := "HALLEY_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_"))
				_, value, _ := strings.Cut(flag, "=")
				if value != "" {
					command{args: []string{"serve", cookie}, env: []string{variable + "=" + value}}.wants(t, 2)
				}
			}
		})
	}
}

func TestCLI_Help(t *testing.T) {
	_, out := command{args: []string{"serve", "--help"}, env: []string{"HALLEY_COOKIE=" + testCookie}}.run(t)
	for _, flag := range []string{"name", "cookie", "cookie-file", "connect", "register", "dist-listen", "epmd", "net-ticktime",
		"listen", "path", "uids", "max-uid", "max-connections", "max-pending", "max-pending-total", "slow", "max-per-uid",
		"max-packet", "welcome", "admin", "engine", "loops", "pin", "keep-alive", "drain", "log-level", "log-format", "config"} {
		variable := "$HALLEY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
		if !regexp.MustCompile(`(?m)^ +--` + flag + `\b.*` + regexp.QuoteMeta(variable) + `\b`).MatchString(out) {
			t.Errorf("no --%s with %s", flag, variable)
		}
	}
	if !strings.Contains(out, "Examples:") {
		t.Error("no examples")
	}
	for _, args := range [][]string{{"--help"}, {"send", "--help"}, {"version", "--help"}} {
		command{args: args, env: []string{"HALLEY_COOKIE=" + testCookie}}.wants(t, 0, "halley")
	}
}

func TestCLI_Cookie(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		return file
	}
	for _, c := range []struct{ name, file, want string }{
		{"missing", filepath.Join(dir, "none"), "no such file"},
		{"open-to-others", write("open", testCookie, 0o644), "chmod 400"},
		{"open-to-group", write("group", testCookie, 0o440), "chmod 400"},
		{"directory", dir, "not a regular file"},
		{"empty", write("empty", "\n", 0o400), "empty"},
		{"two-words", write("words", testCookie+" and more", 0o400), "space"},
		{"too-long", write("long", strings.Repeat(testCookie, 20), 0o400), "bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			code, out := command{args: []string{"serve", "--cookie-file", c.file}}.run(t)
			if code == 0 || !strings.Contains(out, c.file) || !strings.Contains(out, c.want) {
				t.Errorf("exit status %d\n%s", code, out)
			}
		})
	}
	command{args: []string{"serve"}}.wants(t, 1, ".erlang.cookie", "no such file") // that of the home directory
	command{args: []string{"send", "1", "x"}}.wants(t, 1, ".erlang.cookie", "no such file")
}

func TestCLI_InUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	e := sharedErl(t)
	name := uniqueName("halley") + "@localhost"
	base := []string{"serve", "--cookie", testCookie, "--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t)),
		"--name", name, "--admin", "127.0.0.1:0", "--listen", "127.0.0.1:0"}
	used := l.Addr().String()
	for _, c := range []struct{ flag, value, want string }{
		{"--admin", used, used},
		{"--dist-listen", used, used},
		{"--name", e.name, e.name},
	} {
		t.Run(c.flag, func(t *testing.T) {
			command{args: append(append([]string{}, base...), c.flag, c.value)}.wants(t, 1, c.want, "in use")
		})
	}
	t.Run("--listen", func(t *testing.T) {
		command{args: append(append([]string{}, base...), "--listen", used)}.wants(t, 1, used, "in use")
	})
	e.want("false", "lists:member('%s', nodes(hidden))", name)
}

// Flags go before variables, variables before the file; lists are lists.
func TestCLI_Config(t *testing.T) {
	one, two := sharedErl(t), startErl(t, erlOptions{})
	file := filepath.Join(t.TempDir(), "halley.yaml")
	text := fmt.Sprintf("# a comment\nconnect:\n  - %s\n  - %s\nlisten: [\"127.0.0.1:0\", \"127.0.0.1:0\"]\n"+
		"welcome: from the file {uid}\npath: /file/{uid}\nmax-uid: 10\nslow: drop\nmax-pending: 1MiB\ndrain: 1s\n", one.name, two.name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	name := uniqueName("halley") + "@localhost"
	cmd := exec.Command(halleyBin, "serve", "--config", file, "--max-uid", "30")
	cmd.Env = cleanEnv("HOME="+t.TempDir(), "HALLEY_NAME="+name, "HALLEY_COOKIE="+testCookie, "HALLEY_ADMIN=127.0.0.1:0",
		fmt.Sprintf("HALLEY_EPMD=127.0.0.1:%d", epmd.use(t)), "HALLEY_PATH=/variable/{uid}", "HALLEY_MAX_UID=20", "HALLEY_LOG_FORMAT=text")
	h := runHalley(t, name, cmd)
	eventually(t, "two peers", func() bool { return h.metric("peers") == 2 })
	if n := h.log.count("msg=listening"); n != 2 {
		t.Errorf("%d listeners", n)
	}
	c := dial(t, h.addr)
	resp, r := ask(t, c, "GET", "/variable/30")
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: the flag's --max-uid or the variable's path does not hold", resp.Status)
	}
	s := &stream{t: t, conn: c, resp: resp, chunkReader: chunkReader{r: r}}
	s.want("from the file 30")
	if resp, _ := ask(t, dial(t, h.addr), "GET", "/variable/31"); resp.StatusCode != http.StatusServiceUnavailable {
		t.Error(resp.Status)
	}
	one.eval("%s ! {30, <<\"one\">>}", h.to)
	s.want("one")
	h.signal(syscall.SIGINT)
	h.wantExit(0, patience)
}

func TestCLI_ConfigMistakes(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"unknown-key", "slow: drop\n\nmax-pendin: 1\n", `line 3: "max-pendin"`},
		{"wrong-value", "max-pending: lots\n", "line 1: max-pending"},
		{"wrong-choice", "slow: maybe\n", "--slow"},
		{"list-for-one", "slow: [a, b]\n", "line 1: slow takes one value"},
		{"no-mapping", "- a\n", "line 1"},
		{"no-yaml", "slow: drop\na: b: c\n", "mapping values are not allowed"},
		{"cookie-twice", "cookie: " + testCookie + "\ncookie: [" + testCookie + "]\n", "cookie"},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "halley.yaml")
			if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, out := command{args: []string{"serve", "--cookie", testCookie, "--config", file}}.run(t)
			if code == 0 || !strings.Contains(out, c.want) {
				t.Errorf("exit status %d, no %q in\n%s", code, c.want, out)
			}
		})
	}
	command{args: []string{"serve", "--config", "/does/not/exist"}}.wants(t, 1, "/does/not/exist")
}

func TestCLI_Send(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	long := startHalley(t, halleyOptions{name: uniqueName("halley") + "@127.0.0.1"})
	base := []string{"send", "--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t)), "--cookie-file", cookieFile(t, testCookie)}
	send := func(more ...string) command { return command{args: append(append([]string{}, base...), more...)} }
	alice, one := h.open("alice"), h.open("123")
	send("--to", h.name, "123", "hello").wants(t, 0)
	one.want("hello")
	send("--to", h.name, "alice", "to a name").wants(t, 0)
	alice.want("to a name")
	stdin := send("--to", h.name, "123", "-")
	stdin.stdin = strings.Repeat("line\n", 1000)
	stdin.wants(t, 0)
	one.want(stdin.stdin)
	send("--to", h.name, "--all", "news").wants(t, 0)
	one.want("news")
	alice.want("news")
	variable := send("123", "by variable")
	variable.env = []string{"HALLEY_TO=" + h.name}
	variable.wants(t, 0)
	one.want("by variable")
	far := long.open("1")
	send("--to", long.name, "1", "long name").wants(t, 0)
	far.want("long name")
	send("--to", uniqueName("nobody")+"@localhost", "--timeout", "2s", "1", "x").wants(t, 1, "nobody")
	command{args: []string{"send", "--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t)), "--cookie", otherCookie, "--to", h.name, "1", "x"}}.
		wants(t, 1, "cookie")
	eventually(t, "they have left", func() bool { return h.metric("peers") == 0 })
}

func TestCLI_LogFormatJSON(t *testing.T) {
	name := uniqueName("halley") + "@localhost"
	cmd := exec.Command(halleyBin, "serve", "--name", name, "--listen", "127.0.0.1:0", "--admin", "", "--log-format", "json", "--drain", "1s",
		"--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t)), "--cookie-file", cookieFile(t, testCookie))
	out := new(logBuffer)
	cmd.Env, cmd.Stderr = cleanEnv("HOME="+t.TempDir()), out
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer kill(cmd)
	eventually(t, "ready", func() bool { return out.count(`"msg":"ready"`) == 1 })
	cmd.Process.Signal(syscall.SIGTERM)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("has not ended")
	}
	for line := range strings.Lines(out.String()) {
		var entry struct{ Time, Level, Msg string }
		if err := json.Unmarshal([]byte(line), &entry); err != nil || entry.Msg == "" || entry.Level == "" {
			t.Errorf("%q: %v", line, err)
		}
	}
	if out.count(`"msg":"admin"`) != 0 {
		t.Error("there is an admin address")
	}
}

// The cookie is not in what ps shows of the process: a variable is taken out of the
// environment of what Halley starts.
func TestCLI_CookieIsNotInherited(t *testing.T) {
	need(t, "erl", "epmd")
	port := freePort(t)
	name := uniqueName("halley") + "@localhost"
	dir := t.TempDir()
	// An epmd that tells its environment, before the real one in PATH.
	script := "#!/bin/sh\nenv >" + filepath.Join(dir, "env") + "\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "epmd"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(halleyBin, "serve", "--name", name, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--epmd", fmt.Sprintf(":%d", port))
	cmd.Env = cleanEnv("HOME="+t.TempDir(), "PATH="+dir+":"+os.Getenv("PATH"), "HALLEY_COOKIE="+testCookie)
	h := runHalley(t, name, cmd)
	text, err := os.ReadFile(filepath.Join(dir, "env"))
	if err != nil || !strings.Contains(string(text), "PATH=") || strings.Contains(string(text), testCookie) {
		t.Errorf("%v, %q", err, text)
	}
	// There is no epmd at all: it says so, and serves HTTP.
	if h.log.count("level=WARN", "epmd could not be started") != 1 || h.log.count("node not registered") == 0 {
		t.Error("no lines on epmd")
	}
	h.open("1")
	startLate := startEPMD(t, port)
	defer kill(startLate)
	e := startErl(t, erlOptions{epmd: port})
	eventually(t, "registered", func() bool { return h.log.count(`msg="node registered"`) == 1 })
	e.want("pong", "net_adm:ping('%s')", h.name)
}
