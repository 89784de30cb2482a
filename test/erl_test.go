package test

import (
	"bufio"
	_ "embed"
	"encoding/base64"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// loadErl is the module `load`: what sends much, compiled in the node that uses it.
//
//go:embed load.erl
var loadErl string

// otp is one installation of Erlang: this machine's, or a chroot of HALLEY_OTP_ROOTS.
type otp struct{ root string }

func (o otp) command(args ...string) *exec.Cmd {
	if o.root == "" {
		return exec.Command("erl", args...)
	}
	return exec.Command("chroot", append([]string{o.root, "erl"}, args...)...)
}

// erlNode is a running Erlang node with an evaluator on its standard input.
type erlNode struct {
	t     *testing.T
	name  string
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string // answers
	ended chan struct{}
	once  sync.Once
	mu    sync.Mutex // protects other
	other strings.Builder
}

// evaluator reads an expression a line and prints its value after "=> ". All are
// evaluated by one and the same Erlang process. The line "reset" makes it forget its
// variables and messages.
const evaluator = `F = fun F() -> receive _ -> F() after 0 -> [] end end, ` +
	`L = fun L(B) -> case io:get_line("") of eof -> halt(); "reset\n" -> L(F()); S -> ` +
	`{V, N} = try {ok, T, _} = erl_scan:string(S), {ok, E} = erl_parse:parse_exprs(T), ` +
	`{value, X, B1} = erl_eval:exprs(E, B), {X, B1} catch C:R -> {{C, R}, B} end, ` +
	`io:format("=> ~0p~n", [V]), L(N) end end, io:format("=> ready~n"), L([]).`

// loader compiles and loads a module from its source.
const loader = `Fs = fun F(T, A) -> case erl_scan:tokens([], T, 1) of {done, {ok, K, _}, R} -> ` +
	`{ok, P} = erl_parse:parse_form(K), F(R, [P | A]); _ -> lists:reverse(A) end end, ` +
	`{ok, M, Bin} = compile:forms(Fs(binary_to_list(base64:decode("%s")) ++ "\n", [])), ` +
	`{module, M} = code:load_binary(M, "load.erl", Bin), loaded`

type erlOptions struct {
	otp    otp
	name   string // "": unique, at localhost
	cookie string // "": testCookie
	epmd   int    // 0: the run's own
}

// shared is a node for tests, one after the other, that leave it as it was: on a busy
// machine the start of a node takes seconds.
var shared *erlNode

// sharedErl gives the shared node with a fresh evaluator.
func sharedErl(t *testing.T) *erlNode {
	t.Helper()
	if shared == nil {
		shared = newErl(t, erlOptions{})
	}
	e := shared
	e.t = t
	fmt.Fprintln(e.in, "reset")
	t.Cleanup(func() {
		if t.Failed() { // who knows what it does
			e.kill()
			t.Logf("%s printed:\n%s", e.name, e.printed())
			shared = nil
		}
	})
	return e
}

// startErl starts a node of the test's own.
func startErl(t *testing.T, o erlOptions) *erlNode {
	t.Helper()
	e := newErl(t, o)
	t.Cleanup(func() {
		e.kill()
		if t.Failed() {
			t.Logf("%s printed:\n%s", e.name, e.printed())
		}
	})
	return e
}

func newErl(t *testing.T, o erlOptions) *erlNode {
	t.Helper()
	if o.epmd == 0 {
		o.epmd = epmd.use(t)
	}
	if o.name == "" {
		o.name = uniqueName("e") + "@localhost"
	}
	if o.cookie == "" {
		o.cookie = testCookie
	}
	kind := "-sname"
	if _, host, _ := strings.Cut(o.name, "@"); strings.ContainsAny(host, ".:") {
		kind = "-name"
	}
	cmd := o.otp.command(kind, o.name, "-setcookie", o.cookie, "-start_epmd", "false", "-noshell", "-eval", evaluator)
	home := workDir
	if o.otp.root != "" {
		home = "/tmp"
	}
	cmd.Env = cleanEnv(fmt.Sprintf("ERL_EPMD_PORT=%d", o.epmd), "HOME="+home, "ERL_CRASH_DUMP=/dev/null")
	dieWithUs(cmd)
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
	e := &erlNode{t: t, name: o.name, cmd: cmd, in: in, lines: make(chan string, 64), ended: make(chan struct{})}
	go e.read(out)
	if got := e.answer(); got != "ready" {
		e.kill()
		t.Fatalf("%s: %s", e.name, got)
	}
	e.want("loaded", "%s", fmt.Sprintf(loader, base64.StdEncoding.EncodeToString([]byte(loadErl))))
	return e
}

func (e *erlNode) read(out io.Reader) {
	defer close(e.ended)
	s := bufio.NewScanner(out)
	s.Buffer(nil, 1<<20)
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

// printed is what it printed beside its answers: reports of its logger.
func (e *erlNode) printed() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.other.String()
}

func (e *erlNode) answer() string {
	e.t.Helper()
	select {
	case line := <-e.lines:
		return line
	case <-e.ended:
		e.t.Fatalf("%s has ended", e.name)
	case <-time.After(2 * time.Minute):
		e.t.Fatalf("%s does not answer", e.name)
	}
	return ""
}

// eval gives the value of an expression, as Erlang prints it.
func (e *erlNode) eval(format string, args ...any) string {
	e.t.Helper()
	fmt.Fprintf(e.in, "%s.\n", fmt.Sprintf(format, args...))
	return e.answer()
}

// want evaluates and compares.
func (e *erlNode) want(value, format string, args ...any) {
	e.t.Helper()
	if got := e.eval(format, args...); got != value {
		e.t.Errorf("%s: got %s, want %s", fmt.Sprintf(format, args...), got, value)
	}
}

// kill is kill -9; what it started ends with its input.
func (e *erlNode) kill() {
	e.once.Do(func() {
		e.cmd.Process.Kill()
		<-e.ended
		e.cmd.Wait()
	})
}
