package cnode

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What Erlang sends to the pid of a connection arrives, in order with what it sends to
// its uid.
func TestPids_Messages(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		conn, other := f.open(7), f.open(7)
		e.want("true", "P = %s, node(P) =:= '%s'", f.pid(conn), n.o.Name)
		e.want("ok", "To = {httpd, '%s'}, ok", n.o.Name)
		e.want("ok", "P ! <<\"binary\">>, To ! {7, <<\"uid\">>}, P ! {router_msg, <<\"tagged\">>}, ok")
		e.want("ok", "P ! [<<\"io\">>, \"list\", $!], P ! {t, [\"tagged \" | <<\"iolist\">>]}, P ! io_lib:format(\"~w ~s\", [a, \"b\"]), ok")
		e.want("ok", "P ! \"string\", P ! {'', <<\"\">>}, P ! {list_to_atom(lists:duplicate(255, 16#20ac)), <<\"long tag\">>}, P ! <<>>, P ! [], ok")
		e.want("ok", "gen_server:cast(P, {router_msg, <<\"cast\">>}), gen_server:cast(P, <<\"cast binary\">>), ok")
		e.want("ok", "seq_trace:set_token(label, 17), P ! <<\"traced\">>, seq_trace:set_token([]), ok")
		e.want("ok", "P ! an_atom, P ! {1, <<\"no tag\">>}, P ! {tag, not_a_body}, P ! {a, b, c}, P ! 1, P ! #{}, P ! <<1:1>>, P ! {}, P ! {tag}, ok")
		e.want("{error,{bad_request,what}}", "gen_server:call(P, what)")
		e.want("ok", "[begin P ! integer_to_binary(I), To ! {7, integer_to_binary(I + 1)}, P ! {t, integer_to_binary(I + 2)} end || I <- lists:seq(1, 3000, 3)], ok")
		e.want("{ok,2}", "gen_server:call(To, {deliver, 7, <<\"end\">>})")

		want := []string{"binary", "uid", "tagged", "iolist!", "tagged iolist", "a b", "string", "", "long tag", "", "",
			"cast", "cast binary", "traced"}
		for i := range 3000 {
			want = append(want, fmt.Sprint(i+1))
		}
		if diff := cmp.Diff(append(want, "end"), f.got(conn)); diff != "" {
			t.Error(diff)
		}
		if got := f.got(other); len(got) != 1002 {
			t.Errorf("the uid's other connection got %d messages", len(got))
		}
		if f.bad != 10 {
			t.Errorf("%d bad", f.bad)
		}
		if n.log.count("message not usable", "an_atom") != 1 {
			t.Errorf("the first is not logged:\n%s", n.log)
		}

		// Nobody: another start of ours, and a connection that has gone.
		before := n.Stats().BadMessages["unknown"]
		e.want("ok", "%s ! <<\"x\">>, P ! <<\"y\">>, ok", erlTerm(tPid(n.o.Name, uint32(conn), uint32(conn>>32), n.creation+1)))
		f.end(conn, "normal", nil)
		e.want("ok", "P ! <<\"z\">>, ok")
		e.want("{ok,1}", "gen_server:call(To, {deliver, 7, <<\"end\">>})")
		if got := n.Stats().BadMessages["unknown"] - before; got != 1 {
			t.Errorf("%d unknown", got)
		}
		e.want("ok", "%s ! {close, {because, \"of that\"}}, %[1]s ! {close, <<\"again\">>}, ok", f.pid(other))
		e.want("{ok,0}", "gen_server:call(To, {deliver, 7, <<>>})")
		if diff := cmp.Diff([]string{`exit {because,"of that"}`, "exit again"}, f.log); diff != "" {
			t.Error(diff)
		}
	})
}

// A pid of the node before a restart is nobody's, though the number is in use.
func TestPids_OldCreation(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		name := uniqueName("halley") + "@localhost"
		old, f := startFront(t, epmd, func(o *Options) { o.Name = name })
		conn := f.open(7)
		e.want("ok", "process_flag(trap_exit, true), P = %s, link(P), M = monitor(process, P), P ! <<\"one\">>, ok", f.pid(conn))
		eventually(t, "the message", func() bool { return len(f.got(conn)) == 1 && old.Stats().Held == 2 })
		if err := old.stop(); err != nil {
			t.Fatal(err)
		}
		e.want("noconnection", "receive {'EXIT', P, R1} -> R1 after 3000 -> nothing end")
		e.want("noconnection", "receive {'DOWN', M, process, P, R2} -> R2 after 3000 -> nothing end")

		n, f := startFront(t, epmd, func(o *Options) { o.Name = name })
		if again := f.open(8); again != conn {
			t.Fatalf("another number: %#x, %#x", conn, again)
		}
		e.want("true", "net_kernel:connect_node('%s')", name)
		e.want("ok", "P ! <<\"two\">>, exit(P, kill), link(P), M2 = monitor(process, P), ok")
		e.want("noproc", "receive {'EXIT', P, R3} -> R3 after 3000 -> nothing end")
		e.want("noproc", "receive {'DOWN', M2, process, P, R4} -> R4 after 3000 -> nothing end")
		if !f.alive(conn) || len(f.got(conn)) != 0 || n.Stats().Held != 0 || n.Stats().BadMessages["unknown"] != 1 {
			t.Errorf("a stranger got it: %q, %+v", f.got(conn), n.Stats())
		}
	})
}

// down and exit are expressions for why a signal of P came.
const (
	exitOf = "receive {'EXIT', P, Why} -> {exit, Why} after 3000 -> nothing end"
	downOf = "receive {'DOWN', M, process, P, Why} -> {down, Why} after 3000 -> nothing end"
)

// Each end gets its reason, to links and to monitors.
func TestPids_Reasons(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		_, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.eval("process_flag(trap_exit, true)")
		for _, tc := range []struct {
			why, want string
			reason    []byte
		}{
			{"normal", "normal", nil},
			{"reset", "{tcp,reset}", nil},
			{"slow", "slow", nil},
			{"total", "slow", nil},
			{"idle", "idle", nil},
			{"kicked", "kicked", nil},
			{"kicked", "{go,[<<\"away\">>]}", tTuple(tAtom("go"), tList(tBin("away")))},
			{"drained", "drained", nil},
			{"drained", "restart", tAtom("restart")},
			{"replaced", "replaced", nil},
			{"flood", "flood", nil},
			{"timeout", "timeout", nil},
			{"something_new", "something_new", nil},
		} {
			conn := f.open(1)
			e.want("true", "(fun(P) -> link(P) andalso is_reference(put(m, monitor(process, P))) orelse true end)(%s)", f.pid(conn))
			eventually(t, "both", func() bool { return f.node.Stats().Held == 2 })
			f.end(conn, tc.why, tc.reason)
			e.want("{exit,"+tc.want+"}", "(fun(P) -> %s end)(%s)", exitOf, f.pid(conn))
			e.want("{down,"+tc.want+"}", "(fun(P, M) -> %s end)(%s, get(m))", downOf, f.pid(conn))
			if n := f.node.Stats().Held; n != 0 {
				t.Errorf("%s: %d are held", tc.why, n)
			}
		}
		gone := f.pid(99<<32 | 1)
		e.want("{exit,noproc}", "(fun(P) -> link(P), %s end)(%s)", exitOf, gone)
		e.want("{down,noproc}", "(fun(P) -> M = monitor(process, P), %s end)(%s)", downOf, gone)
		e.want("[]", "element(2, process_info(self(), messages))")
		if n := f.node.Stats().Held; n != 0 {
			t.Errorf("%d are held", n)
		}
	})
}

// Links and monitors as OTP documents them.
func TestPids_Signals(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		held := func(want int) {
			t.Helper()
			eventually(t, fmt.Sprintf("%d held", want), func() bool { return n.Stats().Held == want })
		}
		e.eval("process_flag(trap_exit, true)")

		// Taken back; a link twice is one; the end of it is told nobody.
		conn := f.open(1)
		e.want("ok", "P1 = %s, link(P1), link(P1), M1 = monitor(process, P1), M2 = monitor(process, P1), M3 = monitor(process, P1, [{alias, demonitor}]), ok", f.pid(conn))
		held(4)
		e.want("ok", "unlink(P1), demonitor(M1), demonitor(M3, [flush]), ok")
		held(1)
		e.want("ok", "link(P1), unlink(P1), link(P1), ok")
		held(2)
		e.want("[]", "element(2, process_info(self(), messages))")
		f.end(conn, "normal", nil)
		e.want("{exit,normal}", "(fun(P) -> %s end)(P1)", exitOf)
		e.want("{down,normal}", "(fun(P, M) -> %s end)(P1, M2)", downOf)
		e.want("nothing", "receive Any -> Any after 100 -> nothing end")
		held(0)

		// exit/2: normal is ignored, kill becomes killed, others are the reason.
		a, b := f.open(2), f.open(2)
		e.want("ok", "P2 = %s, Q2 = %s, link(P2), M = monitor(process, P2), exit(P2, normal), P2 ! <<\"still\">>, ok", f.pid(a), f.pid(b))
		eventually(t, "the message", func() bool { return len(f.got(a)) == 1 })
		e.want("ok", "link(Q2), exit(Q2, {go, away}), P2 ! <<\"last\">>, exit(P2, kill), ok")
		e.want("{exit,killed}", "(fun(P) -> %s end)(P2)", exitOf)
		e.want("{down,killed}", "(fun(P) -> %s end)(P2)", downOf)
		e.want("{exit,{go,away}}", "(fun(P) -> %s end)(Q2)", exitOf)
		if want := []string{"exit {go,away}", "exit killed"}; cmp.Diff(want, f.log) != "" {
			t.Errorf("got %q", f.log)
		}

		// A linked process that ends: normal is nothing, another reason ends the connection and
		// goes on to the others; a process that is not linked does nothing.
		c, d := f.open(3), f.open(3)
		e.want("ok", "P3 = %s, Q3 = %s, link(P3), M4 = monitor(process, P3), ok", f.pid(c), f.pid(d))
		e.want("normal", "(fun() -> {S, R} = spawn_monitor(fun() -> link(P3), link(Q3) end), receive {'DOWN', R, _, S, W} -> W end end)()")
		e.want("x", "(fun() -> {S, R} = spawn_monitor(fun() -> link(Q3), unlink(Q3), exit(x) end), receive {'DOWN', R, _, S, W} -> W end end)()")
		e.want("ok", "P3 ! <<\"still\">>, ok")
		eventually(t, "the message", func() bool { return len(f.got(c)) == 1 })
		held(2)
		e.want("ok", "spawn(fun() -> link(P3), link(Q3), unlink(Q3), exit({boom, 1}) end), ok")
		e.want("{exit,{boom,1}}", "(fun(P) -> %s end)(P3)", exitOf)
		e.want("{down,{boom,1}}", "(fun(P, M) -> %s end)(P3, M4)", downOf)
		if f.alive(c) || !f.alive(d) {
			t.Errorf("alive: %t, %t", f.alive(c), f.alive(d))
		}
		held(0)

		// One process kills many by its end.
		var pids []string
		for range 100 {
			pids = append(pids, f.pid(f.open(4)))
		}
		e.want("ok", "Ps = [%s], ok", strings.Join(pids, ","))
		e.want("ok", "spawn(fun() -> [link(X) || X <- Ps], exit(together) end), ok")
		eventually(t, "their end", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.of(4)) == 0 })
		held(0)

		// global monitors what is registered, and forgets it.
		g := f.open(5)
		e.want("yes", "P5 = %s, global:register_name(browser, P5)", f.pid(g))
		e.want("true", "global:whereis_name(browser) =:= P5")
		e.want("ok", "global:send(browser, {router_msg, <<\"by name\">>}), ok")
		eventually(t, "the message", func() bool { return len(f.got(g)) == 1 })
		f.end(g, "normal", nil)
		e.want("undefined", "(fun W() -> case global:whereis_name(browser) of undefined -> undefined; _ -> timer:sleep(5), W() end end)()")
	})
}

// A peer that goes takes its links and monitors with it and leaves the connections;
// another peer's stay.
func TestPids_PeerGone(t *testing.T) {
	epmd := startEPMD(t)
	n, f := startFront(t, epmd, nil)
	one := startErl(t, otp{}, epmd, uniqueName("one")+"@localhost")
	two := startErl(t, otp{}, epmd, uniqueName("two")+"@localhost")
	conn := f.open(1)
	for _, e := range []*erlNode{one, two} {
		e.want("ok", "process_flag(trap_exit, true), P = %s, link(P), M = monitor(process, P), ok", f.pid(conn))
	}
	eventually(t, "all", func() bool { return n.Stats().Held == 4 })
	one.kill()
	eventually(t, "those of one peer", func() bool { return n.Stats().Held == 2 })
	if !f.alive(conn) {
		t.Fatal("the connection died with a peer")
	}
	f.end(conn, "reset", nil)
	two.want("{exit,{tcp,reset}}", "(fun() -> %s end)()", exitOf)
	two.want("{down,{tcp,reset}}", "(fun() -> %s end)()", downOf)
}

// A node without a Feed has no connections.
func TestPids_NoFeed(t *testing.T) {
	epmd := startEPMD(t)
	n := startNode(t, epmd, func(o *Options, _ *testNode) { o.NewFeed = nil })
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	e.want("ok", "process_flag(trap_exit, true), P = %s, P ! <<\"x\">>, link(P), M = monitor(process, P), exit(P, x), ok", erlTerm(n.appendConnPid(nil, 1<<32|1)))
	e.want("{exit,noproc}", "(fun() -> %s end)()", exitOf)
	e.want("{down,noproc}", "(fun() -> %s end)()", downOf)
	e.want("{badrpc,{'EXIT',{badarg,[{halley,close,[1],[]}]}}}", "rpc:call('%s', halley, close, [1])", n.o.Name)
	if got := n.Stats().BadMessages["unknown"]; got != 1 {
		t.Errorf("%d unknown", got)
	}
}
