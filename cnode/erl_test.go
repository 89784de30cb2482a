package cnode

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Real Erlang nodes, each with an evaluator on its standard input, and a private epmd
// that no other node of this machine uses.

// otp is one installation: this machine's, or a chroot of HALLEY_OTP_ROOTS.
type otp struct{ root string }

func (o otp) String() string {
	if o.root == "" {
		return "otp=host"
	}
	return "otp=" + filepath.Base(o.root)
}

func (o otp) command(name string, args ...string) *exec.Cmd {
	if o.root == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("chroot", append([]string{o.root, name}, args...)...)
}

// forEachOTP runs a test with every Erlang there is.
func forEachOTP(t *testing.T, test func(t *testing.T, o otp)) {
	needErl(t)
	t.Run(otp{}.String(), func(t *testing.T) { test(t, otp{}) })
	for _, root := range filepath.SplitList(os.Getenv("HALLEY_OTP_ROOTS")) {
		o := otp{root}
		t.Run(o.String(), func(t *testing.T) { test(t, o) })
	}
}

// needErl skips the test where there is no Erlang, but not in CI.
func needErl(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"erl", "epmd"} {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is needed: %v", tool, err)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
}

// startEPMD runs a private epmd in the foreground and gives its port.
func startEPMD(t *testing.T) int {
	t.Helper()
	needErl(t)
	port := freePort(t)
	runEPMD(t, port)
	return port
}

func runEPMD(t *testing.T, port int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("epmd", "-port", strconv.Itoa(port))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { killProcess(cmd) })
	eventually(t, "epmd", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return cmd
}

func killProcess(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// erlNode is a running Erlang node.
type erlNode struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // answers
	done  chan struct{}
	mu    sync.Mutex
	other strings.Builder // what else it printed
}

// evaluator reads an expression a line and prints its value after "=> ".
const evaluator = `L = fun L(B) -> case io:get_line("") of eof -> halt(); S -> ` +
	`{V, N} = try {ok, T, _} = erl_scan:string(S), {ok, E} = erl_parse:parse_exprs(T), ` +
	`{value, X, B1} = erl_eval:exprs(E, B), {X, B1} catch C:R -> {{C, R}, B} end, ` +
	`io:format("=> ~0p~n", [V]), L(N) end end, io:format("=> ready~n"), L([]).`

// startErl starts a node called name; args may replace the defaults.
func startErl(t *testing.T, o otp, epmd int, name string, args ...string) *erlNode {
	t.Helper()
	kind := "-sname"
	if longName(name) {
		kind = "-name"
	}
	all := append([]string{kind, name, "-setcookie", testCookie, "-noshell"}, args...)
	cmd := o.command("erl", append(all, "-eval", evaluator)...)
	cmd.Env = append(os.Environ(), fmt.Sprintf("ERL_EPMD_PORT=%d", epmd), "HOME="+t.TempDir())
	if o.root != "" {
		cmd.Env = append(cmd.Env, "HOME=/tmp")
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	e := &erlNode{t: t, name: name, cmd: cmd, in: in, lines: make(chan string, 16), done: make(chan struct{})}
	go e.read(out)
	t.Cleanup(func() {
		e.kill()
		if t.Failed() {
			e.mu.Lock()
			t.Logf("%s printed:\n%s", name, e.other.String())
			e.mu.Unlock()
		}
	})
	if got := e.answer(); got != "ready" {
		t.Fatalf("%s: %s", name, got)
	}
	return e
}

func (e *erlNode) read(out io.Reader) {
	defer close(e.done)
	s := bufio.NewScanner(out)
	s.Buffer(nil, 16<<20) // for terms as text
	for s.Scan() {
		if line, found := strings.CutPrefix(s.Text(), "=> "); found {
			e.lines <- line
			continue
		}
		e.mu.Lock()
		fmt.Fprintln(&e.other, s.Text())
		e.mu.Unlock()
	}
}

func (e *erlNode) answer() string {
	e.t.Helper()
	select {
	case line := <-e.lines:
		return line
	case <-e.done:
		e.t.Fatalf("%s has ended", e.name)
	case <-time.After(60 * time.Second):
		e.t.Fatalf("%s does not answer", e.name)
	}
	return ""
}

// eval gives the value of an expression, as Erlang prints it.
func (e *erlNode) eval(format string, args ...any) string {
	e.t.Helper()
	expr := fmt.Sprintf(format, args...)
	fmt.Fprintf(e.in, "%s.\n", expr)
	return e.answer()
}

// want evaluates and compares.
func (e *erlNode) want(value, format string, args ...any) {
	e.t.Helper()
	if got := e.eval(format, args...); got != value {
		e.t.Errorf("%s: got %s, want %s", fmt.Sprintf(format, args...), got, value)
	}
}

// erlTerm is an Erlang expression for a term of these bytes.
func erlTerm(term []byte) string {
	text := strings.ReplaceAll(strings.Trim(fmt.Sprint(term), "[]"), " ", ",")
	return "binary_to_term(<<131," + text + ">>)"
}

// kill is kill -9; what it started dies with its input.
func (e *erlNode) kill() {
	if e.cmd.ProcessState != nil {
		return
	}
	e.cmd.Process.Signal(syscall.SIGKILL)
	<-e.done
	e.cmd.Wait()
}
