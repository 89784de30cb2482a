package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// cometDir is the example: the articles' router and mochiweb front.
const cometDir = "../erlang/examples/comet"

// tool is a command of the installation, erlc say.
func (o otp) tool(name string, args ...string) *exec.Cmd {
	if o.root == "" {
		return exec.Command(name, args...)
	}
	return exec.Command("chroot", append([]string{o.root, name}, args...)...)
}

// folder is a new folder: dir as we see it, inside as that Erlang does.
func (o otp) folder(t *testing.T) (dir, inside string) {
	t.Helper()
	if o.root == "" {
		dir = t.TempDir()
		return dir, dir
	}
	dir, err := os.MkdirTemp(filepath.Join(o.root, "tmp"), "comet-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir, strings.TrimPrefix(dir, o.root)
}

// buildComet compiles the example as docs/migrating.md does, but with every warning an
// error, and gives the folder of its beams as that Erlang sees it.
func buildComet(t *testing.T, o otp) string {
	t.Helper()
	need(t, "erlc")
	dir, inside := o.folder(t)
	sources, err := filepath.Glob(cometDir + "/src/*.erl")
	if err != nil || len(sources) == 0 {
		t.Fatalf("no sources in %s: %v", cometDir, err)
	}
	args := []string{"-Werror", "+warn_missing_spec_all", "+warn_untyped_record", "-o", inside}
	for _, source := range sources {
		copyFile(t, source, filepath.Join(dir, filepath.Base(source)))
		args = append(args, filepath.Join(inside, filepath.Base(source)))
	}
	copyFile(t, cometDir+"/src/comet.app.src", filepath.Join(dir, "comet.app"))
	if out, err := o.tool("erlc", args...).CombinedOutput(); err != nil {
		t.Fatalf("erlc: %v\n%s", err, out)
	}
	return inside
}

func copyBeams(t *testing.T, o otp, from string) string {
	t.Helper()
	dir, inside := o.folder(t)
	beams, err := filepath.Glob(from + "/*.beam")
	if err != nil || len(beams) == 0 {
		t.Fatalf("no beams in %s: %v", from, err)
	}
	for _, beam := range beams {
		copyFile(t, beam, filepath.Join(dir, filepath.Base(beam)))
	}
	return inside
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	text, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, text, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// findLibrary is the folder of the beams of one of Erlang's libraries; the test is skipped
// where it is missing, but not in CI.
func findLibrary(t *testing.T, name string) string {
	t.Helper()
	need(t, "erl")
	out, err := exec.Command("erl", "-noshell", "-eval", "io:put_chars(code:lib_dir("+name+")), halt().").CombinedOutput()
	switch {
	case err == nil:
	case os.Getenv("CI") == "true":
		t.Fatalf("%s is needed: %s", name, out)
	default:
		t.Skipf("%s is not installed", name)
	}
	return filepath.Join(string(out), "ebin")
}

// comet is an Erlang node that runs the example.
type comet struct {
	*erlNode
	front string // the address of mochiweb
}

// startComet compiles and starts the example, as a team runs it: name "" is a new name.
func startComet(t *testing.T, o otp, name string, timeoutMs int) *comet {
	t.Helper()
	mochiweb := findLibrary(t, "mochiweb")
	c := &comet{erlNode: startErl(t, erlOptions{otp: o, name: name})}
	c.want("true", "code:add_patha(%q)", buildComet(t, o))
	c.want("ok", "application:load(comet)")
	c.want("[ok,ok]", "[application:set_env(comet, K, V) || {K, V} <- [{port, 0}, {timeout, %d}]]", timeoutMs)
	if o.root == "" {
		c.want("ok", "element(1, application:ensure_all_started(comet))")
	} else { // Debian's mochiweb runs there, too, but as an application it asks for ssl and more
		c.want("true", "code:add_patha(%q)", copyBeams(t, o, mochiweb))
		c.want("true", "code:add_pathz(%q)", copyBeams(t, o, findLibrary(t, "inets")))
		c.want("ok", "element(1, comet_sup:start_link())")
	}
	c.front = "127.0.0.1:" + c.eval("mochiweb_socket_server:get(comet_web, port)")
	return c
}

// pids asks the router's table who is logged in under an id: how many on its node, and
// how many elsewhere. The articles' tables can be read by every process of their node.
func (c *comet) pids(id int) (here, elsewhere int) {
	c.t.Helper()
	text := c.eval("(fun({_, _, T}) -> {H, E} = lists:partition(fun({_, P}) -> node(P) =:= node() end, ets:lookup(T, %d)), "+
		"{length(H), length(E)} end)(sys:get_state({global, router}))", id)
	if _, err := fmt.Sscanf(text, "{%d,%d}", &here, &elsewhere); err != nil {
		c.t.Fatalf("the router's table: %s", text)
	}
	return here, elsewhere
}

// wantPids waits until so many are logged in.
func (c *comet) wantPids(id, here, elsewhere int) {
	c.t.Helper()
	var h, e int
	defer func() {
		if c.t.Failed() {
			c.t.Logf("uid %d: %d at mochiweb, %d at Halley", id, h, e)
		}
	}()
	eventually(c.t, fmt.Sprintf("uid %d: %d at mochiweb, %d at Halley", id, here, elsewhere), func() bool {
		h, e = c.pids(id)
		return h == here && e == elsewhere
	})
}

// startSender sends lines "N" with N from 1 to each of the ids, through the router, until
// stopSender; after each 20 it pauses for a ms.
func (c *comet) startSender(ids ...int) {
	c.t.Helper()
	c.want("ok", "C = counters:new(1, []), ok")
	c.want("ok", "S = spawn(fun() -> (fun F(N) -> "+
		"counters:put(C, 1, N), [router:send(I, [integer_to_list(N), <<\"\\n\">>]) || I <- %s], "+
		"receive {stop, P} -> P ! {last, N} after case N rem 20 of 0 -> 1; _ -> 0 end -> F(N + 1) end end)(1) end), ok", list(ids))
}

// sent is the number of the last round that has begun to be sent.
func (c *comet) sent() int {
	c.t.Helper()
	n, err := strconv.Atoi(c.eval("counters:get(C, 1)"))
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// stopSender ends it and gives the number of the last round.
func (c *comet) stopSender() int {
	c.t.Helper()
	n, err := strconv.Atoi(c.eval("S ! {stop, self()}, receive {last, Last} -> Last end"))
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// list writes numbers as Erlang does.
func list(numbers []int) string {
	return strings.ReplaceAll(fmt.Sprint(numbers), " ", ",")
}
