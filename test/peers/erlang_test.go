package peers

import (
	"bufio"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// sender is a real Erlang node that evaluates one expression a line and prints its
// value.
type sender struct {
	t     *testing.T
	in    *bufio.Writer
	lines *bufio.Reader
}

const evaluator = `L = fun F() -> case io:get_line("") of eof -> halt(); S -> ` +
	`{ok, T, _} = erl_scan:string(S), {ok, E} = erl_parse:parse_exprs(T), ` +
	`V = try {value, X, _} = erl_eval:exprs(E, []), X catch C:R -> {C, R} end, ` +
	`io:format("=> ~0p~n", [V]), F() end end, L()`

// startErlang starts an epmd and a node beside it.
func startErlang(t *testing.T, ticktime string) (*sender, int) {
	t.Helper()
	for _, tool := range []string{"erl", "epmd"} {
		if _, err := exec.LookPath(tool); err != nil && os.Getenv("CI") == "true" {
			t.Fatal(err)
		} else if err != nil {
			t.Skip(err)
		}
	}
	_, port, _ := net.SplitHostPort(freeAddr(t))
	epmd, _ := strconv.Atoi(port)
	daemon := exec.Command("epmd", "-port", port)
	daemon.SysProcAttr = ownGroup()
	begin(t, daemon)
	eventually(t, "epmd answers", func() bool {
		c, err := net.Dial("tcp", "127.0.0.1:"+port)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".erlang.cookie"), []byte(testCookie), 0o400); err != nil {
		t.Fatal(err)
	}
	erl := exec.Command("erl", "-sname", fmt.Sprintf("sender_%d@%s", os.Getpid(), testHost),
		"-kernel", "net_ticktime", ticktime, "-start_epmd", "false", "-noshell", "-eval", evaluator)
	erl.Env = append(os.Environ(), "ERL_EPMD_PORT="+port, "HOME="+home, "ERL_CRASH_DUMP=/dev/null")
	erl.SysProcAttr = ownGroup()
	erl.Stderr = logWriter{t}
	in, err := erl.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := erl.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin(t, erl)
	return &sender{t, bufio.NewWriter(in), bufio.NewReader(out)}, epmd
}

func begin(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
}

// eval gives the value of an expression as Erlang prints it.
func (s *sender) eval(format string, args ...any) string {
	s.t.Helper()
	fmt.Fprintf(s.in, format+".\n", args...)
	s.in.Flush()
	for {
		line, err := s.lines.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the Erlang node: %v", err)
		}
		if value, found := strings.CutPrefix(line, "=> "); found {
			return strings.TrimSpace(value)
		}
	}
}

// numbers sends messages First to Last of Bytes bytes to each uid from 1 to Uids: "SEQ
// MICROS xxx", one by one, or a list for each number.
const numbers = `Body = fun(N) -> H = <<(integer_to_binary(N))/binary, " ", (integer_to_binary(os:system_time(microsecond)))/binary, " ">>, ` +
	`<<H/binary, (binary:copy(<<"x">>, %d - byte_size(H)))/binary>> end, ` +
	`[case %v of true -> %s ! [{U, Body(N)} || U <- lists:seq(1, %d)]; ` +
	`false -> [%s ! {U, Body(N)} || U <- lists:seq(1, %d)] end || N <- lists:seq(%d, %d)], sent`

func (s *sender) send(d *Erlang, lists bool, uids, first, last, bytes int) {
	s.t.Helper()
	if got := s.eval(numbers, bytes, lists, d, uids, d, uids, first, last); got != "sent" {
		s.t.Fatal(got)
	}
}

// What every peer that Erlang sends to must do.
func testErlangPeer(t *testing.T, name string) {
	ticktime := "60"
	if name == "cnode" {
		ticktime = "4" // a C node answers ticks, an Erlang node keeps to its own time
	}
	erl, epmd := startErlang(t, ticktime)
	p := start(t, name, epmd)
	d := p.Dest.Erlang
	if got := erl.eval("net_adm:ping('%s')", d.Node); got != "pong" {
		t.Errorf("ping: %s", got)
	}
	const uids = 4
	var streams [uids]*stream
	for i := range streams {
		streams[i] = open(t, p.URL, i+1)
	}
	seq := 1
	for _, c := range []struct {
		count, bytes int
		lists        bool
	}{{200, 100, false}, {3, 200_000, false}, {200, 1500, true}} {
		if c.lists && !d.Lists {
			continue
		}
		erl.send(d, c.lists, uids, seq, seq+c.count-1, c.bytes)
		for _, s := range streams {
			s.numbered(seq, c.count, c.bytes)
		}
		seq += c.count
	}
	// What it cannot use does no harm, nor does nobody's message.
	erl.eval(`[%s ! M || M <- [nonsense, {1, 2, 3}, {a, <<>>}, {1, 2}, [], {1 bsl 70, <<"x">>}, {-1, <<"x">>}, {77777, <<"x">>}, #{}]]`, d)
	streams[2].conn.Close()
	erl.send(d, false, uids, seq, seq+50, 100)
	for _, i := range []int{0, 1, 3} {
		streams[i].numbered(seq, 51, 100)
	}
	// Ticks are answered: the connection lives longer than net_ticktime.
	if ticktime == "4" {
		if got := erl.eval("net_kernel:monitor_nodes(true, [{node_type, all}]), receive {nodedown, N, _} -> N after 6000 -> up end"); got != "up" {
			t.Errorf("nodedown: %s", got)
		}
	}
	streams[2] = open(t, p.URL, 3)
	erl.send(d, false, uids, 1, 2, 100)
	streams[2].numbered(1, 2, 100)
}

func TestCNode(t *testing.T) { testErlangPeer(t, "cnode") }

func TestCNodeQueue(t *testing.T) { testErlangPeer(t, "cnode-queue") }

func TestMochiweb(t *testing.T) { testErlangPeer(t, "mochiweb") }

func TestMochiwebETS(t *testing.T) { testErlangPeer(t, "mochiweb-ets") }
