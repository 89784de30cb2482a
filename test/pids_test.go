package test

import (
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
)

// Every connection is an Erlang pid.

// compile loads a module from its source file into the node.
func (e *erlNode) compile(file string) {
	e.t.Helper()
	source, err := os.ReadFile(file)
	if err != nil {
		e.t.Fatal(err)
	}
	e.want("ok", "file:write_file(\"/tmp/%s.erl\", base64:decode(\"%s\"))", e.name, base64.StdEncoding.EncodeToString(source))
	e.want("module", "(fun({ok, M, Bin}) -> element(1, code:load_binary(M, \"x.erl\", Bin)) end)(compile:file(\"/tmp/%s.erl\", [binary, report]))", e.name)
	e.want("ok", "file:delete(\"/tmp/%s.erl\")", e.name)
}

func TestPids(t *testing.T) { testPids(t, otp{}) }

// testPids does to connections what Erlang does to processes, from one that traps exits.
func testPids(t *testing.T, o otp) {
	h := startHalley(t, halleyOptions{})
	e := startErl(t, erlOptions{otp: o})
	e.want("pong", "net_adm:ping('%s')", h.name)
	e.eval("process_flag(trap_exit, true)")
	const wait = "after 10000 -> nothing end"
	// A signal is under way when monitor/2 returns; a call behind it comes after it.
	arrived := func(p string) { e.want("true", "is_map(gen_server:call(%s, {info, %s}))", h.to, p) }
	opened := func(uid string) (*stream, string) {
		s := h.open(uid)
		e.want("1", "length(gen_server:call(%s, {whereis, %s}))", h.to, uid)
		e.eval("[P%s] = gen_server:call(%s, {whereis, %s})", uid, h.to, uid)
		return s, "P" + uid
	}

	// Messages, in the order sent, whatever way they go.
	s, p := opened("1")
	e.want("ok", "%[1]s ! <<\"a\">>, %[2]s ! {1, <<\"b\">>}, %[1]s ! {router_msg, \"c\"}, %[1]s ! [\"d\", $e, <<\"f\">>], gen_server:cast(%[1]s, x), %[1]s ! <<\"g\">>, ok", p, h.to)
	s.want("a", "b", "c", "def", "g")
	h.atRest(6)
	if n := h.metric(`messages_discarded_total{reason="bad"}`); n != 1 {
		t.Errorf("%d bad messages, want the cast", n)
	}
	e.want("{1,chunked,0}", "(fun(#{uid := U, transport := T, pending := N}) -> {U, T, N} end)(gen_server:call(%s, {info, %s}))", h.to, p)
	e.want("undefined", "gen_server:call(%s, {info, self()})", h.to)
	e.want("true", "rpc:call('%s', halley, connections, [1]) =:= [%s]", h.name, p)
	e.want("1", "maps:get(uid, erpc:call('%s', halley, info, [%s]))", h.name, p)

	// Monitors and links, made and taken back.
	e.eval("R1 = erlang:monitor(process, %s), link(%s), link(%s)", p, p, p)
	e.want("true", "erlang:demonitor(R1), unlink(%s)", p)
	e.eval("R2 = erlang:monitor(process, %s), link(%s)", p, p)
	e.want("true", "exit(%s, normal)", p) // ignored
	e.eval("%s ! <<\"still\">>", p)
	s.want("still")
	e.want("{bye,1}", "%s ! <<\"last\">>, %s ! {close, {bye, 1}}, receive {'DOWN', R2, process, _, W1} -> W1 %s", p, p, wait)
	e.want("{bye,1}", "receive {'EXIT', %s, W2} -> W2 %s", p, wait)
	s.want("last")
	s.wantEnd()
	// Gone: noproc at once, and no message reaches anybody.
	e.want("noproc", "R3 = erlang:monitor(process, %s), receive {'DOWN', R3, process, _, W3} -> W3 %s", p, wait)
	e.want("noproc", "link(%s), receive {'EXIT', %s, W4} -> W4 %s", p, p, wait)
	e.eval("%s ! <<\"nobody\">>", p)
	e.want("[]", "gen_server:call(%s, {whereis, 1})", h.to)

	// The reasons for which connections end.
	for uid, end := range map[string]struct{ how, reason string }{
		"2": {"exit(P2, kill)", "killed"},
		"3": {"exit(P3, {my, reason})", "{my,reason}"},
		"4": {h.to + " ! {close, 4, kicked}", "kicked"},
		"5": {"1 = element(2, rpc:call('" + h.name + "', halley, close, [5]))", "kicked"},
		"6": {"spawn(fun() -> link(P6), exit(crash) end)", "crash"},
	} {
		s, p := opened(uid)
		e.want(end.reason, "Ref%[1]s = erlang:monitor(process, %[2]s), %[3]s, receive {'DOWN', Ref%[1]s, _, _, Why%[1]s} -> Why%[1]s %[4]s", uid, p, end.how, wait)
		s.wantEnd()
	}
	s, p = opened("7")
	e.want("normal", "spawn(fun() -> link(%s) end), exit(%s, normal), R7 = erlang:monitor(process, %s), spawn(fun() -> timer:sleep(200), %s ! <<\"x\">> end), receive {'DOWN', R7, _, _, W7} -> W7 after 500 -> normal end", p, p, p, p)
	s.want("x") // a partner that ended normally, and exit/2 with normal, have not ended it
	s.conn.Close()
	e.want("normal", "receive {'DOWN', R7, _, _, W7} -> W7 %s", wait)
	s, p = opened("8")
	e.eval("R8 = erlang:monitor(process, %s)", p)
	arrived(p)
	s.conn.SetLinger(0)
	s.conn.Close()
	e.want("{tcp,reset}", "receive {'DOWN', R8, _, _, W8} -> W8 %s", wait)

	// What rpc may call is a short list; a call that nobody waits for leaves nothing.
	e.want("[undef,undef,undef]", "[element(1, element(2, element(2, rpc:call('%s', M, F, A)))) || {M, F, A} <- [{os, cmd, [\"ls\"]}, {halley, nothing, []}, {erlang, halt, []}]]", h.name)
	e.want("timeout", "(catch gen_server:call({nobody, '%s'}, x, 200)), catch element(1, element(2, catch gen_server:call(%s, stats, 0)))", h.name, h.to)
	e.want("nothing", "receive {Ref, _} when is_reference(Ref) -> late after 500 -> nothing end")

	// Halley's own end: a pid of before is nobody's, also when another has its slot.
	s, p = opened("9")
	e.eval("R9 = erlang:monitor(process, %s)", p)
	arrived(p)
	h.signal(syscall.SIGTERM)
	s.wantEnd()
	e.want("drained", "receive {'DOWN', R9, _, _, W9} -> W9 %s", wait)
	h.wantExit(0, patience)
	again := startHalley(t, halleyOptions{name: h.name})
	e.want("pong", "net_adm:ping('%s')", h.name)
	other := again.open("9")
	e.want("noproc", "R10 = erlang:monitor(process, %s), %s ! <<\"stranger\">>, receive {'DOWN', R10, _, _, W10} -> W10 %s", p, p, wait)
	e.eval("%s ! {9, <<\"mine\">>}", again.to)
	other.want("mine")
}

func TestRouter_Unchanged(t *testing.T) { testRouter(t, otp{}) }

// testRouter runs a router in the articles' shape, which knows nothing of Halley: it is
// called with a pid, links to it, and sends to it.
func testRouter(t *testing.T, o otp) {
	name := uniqueName("e") + "@localhost"
	startNode := func() *erlNode {
		e := startErl(t, erlOptions{otp: o, name: name})
		e.compile("../erlang/examples/comet/src/router.erl")
		e.want("ok", "element(1, gen_server:start({global, router}, router, [], []))")
		return e
	}
	// rows is what both tables of the router have.
	rows := func(e *erlNode, n int) {
		t.Helper()
		eventually(t, fmt.Sprintf("%d logged in", n), func() bool {
			return e.eval("[ets:info(T, size) || T <- tl(tuple_to_list(sys:get_state(global:whereis_name(router))))]") == fmt.Sprintf("[%d,%d]", n, n)
		})
	}
	e := startNode()
	options := halleyOptions{args: []string{"--connect", name, "--login", "router:login", "--logout", "router:logout"}}
	h := startHalley(t, options)
	h.connected(e)
	a, b, c := h.open("123"), h.open("123"), h.open("someone")
	rows(e, 3)
	e.want("ok", "router:send(123, <<\"to both\">>), router:send(<<\"someone\">>, \"hello\"), router:send(7, <<\"nobody\">>)")
	a.want("to both")
	b.want("to both")
	c.want("hello")

	// A browser closes: the router hears of it by its link.
	a.conn.Close()
	rows(e, 2)
	e.want("ok", "router:send(123, <<\"to one\">>)")
	b.want("to one")
	if m := h.metrics(); m.sum("logouts_total") != 0 || m.of(t, `logins_total{result="ok"}`) != 3 {
		t.Errorf("%d logouts, want none beside the link; %d logins", m.sum("logouts_total"), m.of(t, `logins_total{result="ok"}`))
	}

	// Erlang is killed and comes back: who is there is logged in again.
	e.kill()
	eventually(t, "the peer is gone", func() bool { return h.metric("peers") == 0 })
	d := h.open("7") // meanwhile
	e = startNode()
	h.connected(e)
	rows(e, 3)
	e.want("ok", "[router:send(Id, <<\"back\">>) || Id <- [123, <<\"someone\">>, 7]], ok")
	b.want("back")
	c.want("back")
	d.want("back")

	// Halley is killed: the router forgets its pids. It comes back.
	h.kill()
	rows(e, 0)
	options.name = h.name
	h = startHalley(t, options)
	h.connected(e)
	b = h.open("123")
	rows(e, 1)
	e.want("ok", "router:send(123, <<\"again\">>)")
	b.want("again")

	// The router crashes, and takes with it whom it is linked to, as it always did. Nobody
	// asks the next one to log them out.
	e.want("true", "exit(global:whereis_name(router), kill)")
	b.wantEnd()
	e.want("ok", "element(1, gen_server:start({global, router}, router, [], []))")
	b = h.open("123")
	rows(e, 1)
	if n := h.metrics().sum("logouts_total"); n != 0 {
		t.Errorf("%d logouts", n)
	}
	h.signal(syscall.SIGTERM)
	b.wantEnd()
	rows(e, 0)
	h.wantExit(0, patience)
}

// One Erlang process sends 1,000,000 messages by pid, beside as many by uid, and both in
// turn: each connection gets its own, complete and in order.
func TestPids_Million(t *testing.T) {
	const uids = 1000
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "8MiB"}})
	e := startErl(t, erlOptions{})
	e.want("pong", "net_adm:ping('%s')", h.name)
	streams := h.openMany(uids)
	e.want("1000", "length(Pids = load:pids(%s, %d))", h.to, uids)
	last := 0
	for _, part := range []struct{ name, send string }{
		{"by uid", "load:singles(%[1]s, %[2]d, %[3]d, %[4]d)"},
		{"by pid", "load:to_pids(Pids, %[3]d, %[4]d)"},
		{"in turn", "load:uids_and_pids(%[1]s, Pids, %[3]d, %[4]d)"},
	} {
		took := countAll(t, streams, last+1, last+1000)
		e.want("ok", part.send, h.to, uids, last+1, last+1000)
		last += 1000
		t.Logf("1,000,000 messages %s in %v", part.name, took())
	}
	m := h.atRest(last * uids)
	if n := m.of(t, "messages_written_total"); n != last*uids {
		t.Errorf("%d written, want %d", n, last*uids)
	}
}

// What a client sends with POST is a message to the process of --inbox.
func TestInbox(t *testing.T) {
	name := uniqueName("e") + "@localhost"
	h := startHalley(t, halleyOptions{args: []string{"--connect", name, "--inbox", "inbox", "--max-inbox", "1KiB"}})
	post := func(uid, body string) (int, http.Header) {
		t.Helper()
		resp, err := adminClient.Post("http://"+h.addr+"/test/"+uid, "text/plain", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, resp.Header
	}
	if code, head := post("1", "early"); code != http.StatusServiceUnavailable || head.Get("Retry-After") == "" {
		t.Errorf("without a peer: %d %v", code, head)
	}
	e := startErl(t, erlOptions{name: name})
	h.connected(e)
	e.want("true", "register(inbox, self())")
	eventually(t, "taken", func() bool { code, _ := post("someone", "x"); return code == http.StatusAccepted })
	e.want("{message,<<\"someone\">>,undefined,<<\"x\">>}", "receive {message, _, _, _} = M1 -> M1 after 10000 -> nothing end")
	s := h.open("5")
	if code, _ := post("5", "ping"); code != http.StatusAccepted {
		t.Errorf("%d", code)
	}
	e.want("{5,<<\"ping\">>}", "receive {message, U, P, B} -> P ! [B, <<\"-pong\">>], {U, B} after 10000 -> nothing end")
	s.want("ping-pong")
	if code, _ := post("5", strings.Repeat("x", 1025)); code != http.StatusRequestEntityTooLarge {
		t.Errorf("%d", code)
	}
	e.kill()
	eventually(t, "refused", func() bool { code, _ := post("5", "x"); return code == http.StatusServiceUnavailable })
}
