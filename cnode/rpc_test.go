package cnode

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestCalls_Connections(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		a, b, c := f.open(5), f.open(5), f.open(6)
		e.want("ok", "To = {httpd, '%s'}, [A, B, C] = [%s, %s, %s], ok", n.o.Name, f.pid(a), f.pid(b), f.pid(c))
		e.want("true", "[A, B] =:= gen_server:call(To, {whereis, 5})")
		e.want("[]", "gen_server:call(To, {whereis, 7})")
		e.want("[]", "gen_server:call(To, {whereis, <<\"nobody\">>})")
		e.want("{error,{bad_request,{whereis,0}}}", "gen_server:call(To, {whereis, 0})")
		e.want("true", "gen_server:call(To, {info, A}) =:= #{uid => 5, transport => chunked, peer => {{192,0,2,1}, 4711}, age => 90, pending => 17, bytes => 1 bsl 40}")
		e.want("true", "gen_server:call(To, {info, C}) =:= #{uid => <<\"joe\">>, transport => chunked, peer => {{16#2001,16#db8,0,0,0,0,0,1}, 80}, age => 90, pending => 17}")
		e.want("undefined", "gen_server:call(To, {info, self()})")
		e.want("undefined", "gen_server:call(To, {info, %s})", erlTerm(tPid(n.o.Name, uint32(a), uint32(a>>32), n.creation+1)))
		e.want("{error,{bad_request,{info,a}}}", "gen_server:call(To, {info, a})")
		f.end(a, "normal", nil)
		e.want("undefined", "gen_server:call(To, {info, A})")
		e.want("{ok,1}", "gen_server:call(To, {deliver, 5, <<\"x\">>})")

		// gen_statem and gen:call have tags of other forms; an old C node has no alias.
		e.want("{ok,1}", "gen_statem:call(To, {deliver, 5, <<\"x\">>})")
		e.want("{ok,1}", "gen_statem:call(To, {deliver, 5, <<\"x\">>}, {clean_timeout, 5000})")
		e.want("{ok,1}", "gen_statem:call(To, {deliver, 5, <<\"x\">>}, {dirty_timeout, 5000})")
		e.want("true", "gen_server:multi_call(['%[1]s'], httpd, {deliver, 5, <<\"x\">>}) =:= {[{'%[1]s', {ok, 1}}], []}", n.o.Name)
		e.want("{reply,{ok,1}}", "gen_server:wait_response(gen_server:send_request(To, {deliver, 5, <<\"x\">>}), 5000)")
		e.want("{ok,1}", "(fun(R) -> To ! {'$gen_call', {self(), R}, {deliver, 5, <<\"x\">>}}, receive {R, V} -> V after 3000 -> nothing end end)(make_ref())")
		e.want("[]", "element(2, process_info(self(), messages))")
	})
}

// The tags whose alias a reply goes to, and those of which it goes to the pid.
func TestCalls_Alias(t *testing.T) {
	n := bareNode(t)
	ref := tRef("e@localhost", 1, 2, 3, 4, 5)
	alias := tImproper(ref, tAtom("alias"))
	for _, tc := range []struct {
		name  string
		tag   []byte
		alias bool
	}{
		{"alias", alias, true},
		{"alias-first", tImproper(tSmall(1), alias), true},
		{"alias-first-of-list", tList(alias, tAtom("x")), true},
		{"reference", ref, false},
		{"proper-list", tList(tAtom("alias"), ref), false},
		{"two-before", tImproper(ref, tAtom("alias"), tAtom("x")), false},
		{"no-reference", tImproper(tSmall(1), tAtom("alias")), false},
		{"other-atom", tImproper(ref, tAtom("alia")), false},
		{"too-deep", tList(tList(alias)), false},
		{"nil", tNil(), false},
	} {
		for _, flags := range []uint64{flagAlias, 0} {
			c := bareConn(n, new(recorder))
			c.info.flags = flags
			c.packet(packetOf(tTuple(tSmall(6), peerPid, tAtom(""), tAtom("net_kernel")),
				tTuple(tAtom("$gen_call"), tTuple(peerPid, tc.tag), tTuple(tAtom("is_auth"), tAtom("e@localhost"))))[4:])
			control := tTuple(tSmall(2), tAtom(""), peerPid)
			if tc.alias && flags != 0 {
				control = tTuple(tSmall(33), n.appendSenderPid(nil), ref)
			}
			if diff := cmp.Diff(packetOf(control, tTuple(tc.tag, tAtom("yes"))), answers(c)); diff != "" {
				t.Errorf("%s, flags %#x: %s", tc.name, flags, diff)
			}
		}
	}
}

// A caller that has given up gets nothing.
func TestCalls_LateReply(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		f.keep(true)
		for _, call := range []string{
			"gen_server:call({httpd, '%s'}, {deliver, 5, <<>>}, 50)",
			"gen_server:call({httpd, '%s'}, {whereis, 5}, 50)",
			"gen_statem:call({httpd, '%s'}, {whereis, 5}, {dirty_timeout, 50})",
			"rpc:call('%s', halley, connections, [5], 50)",
			"erpc:call('%s', halley, close, [5], 50)",
		} {
			e.want("timeout", "try "+call+" of {badrpc, timeout} -> timeout; V -> V catch exit:{timeout, _} -> timeout; error:{erpc, timeout} -> timeout end", n.o.Name)
		}
		if late := f.keep(false); late != 5 {
			t.Errorf("%d late replies", late)
		}
		e.want("{ok,0}", "gen_server:call({httpd, '%s'}, {deliver, 5, <<>>})", n.o.Name)
		e.want("[]", "timer:sleep(50), element(2, process_info(self(), messages))")
		e.want("{monitors,[]}", "process_info(self(), monitors)")

		// So does one that is dead.
		f.keep(true)
		e.want("killed", "(fun() -> {P, M} = spawn_monitor(fun() -> erpc:call('%s', halley, connections, [5]) end), timer:sleep(100), exit(P, kill), receive {'DOWN', M, _, _, W} -> W end end)()", n.o.Name)
		eventually(t, "the call", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.held) == 1 })
		f.keep(false)
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		if lost := n.Stats().PeersLost; lost != 0 {
			t.Errorf("%d peers lost", lost)
		}
	})
}

// The functions that can be called, by every way there is.
func TestRPC(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, func(o *Options) {
			o.Version = "1.2.3"
			o.Stats = func() []Stat { return []Stat{{"connections", 3}, {"users", 2}} }
		})
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		a, b, c := f.open(5), f.open(5), f.open(200)
		e.want("ok", "N = '%s', [A, B, C] = [%s, %s, %s], ok", n.o.Name, f.pid(a), f.pid(b), f.pid(c))
		e.want("true", "rpc:call(N, erlang, node, []) =:= N")
		e.want("true", "rpc:call(N, erlang, node, [], 5000) =:= N")
		e.want("true", "erpc:call(N, erlang, node, []) =:= N")
		e.want("true", "rpc:call(N, halley, info, []) =:= #{node => N, version => <<\"1.2.3\">>, connections => 3, users => 2}")
		e.want("true", "rpc:call(N, halley, connections, [5]) =:= [A, B]")
		e.want("true", "rpc:call(N, halley, connections, [200]) =:= [C]") // arguments that are a string list
		e.want("[]", "erpc:call(N, halley, connections, [<<\"nobody\">>])")
		e.want("5", "maps:get(uid, rpc:call(N, halley, info, [A]))")
		e.want("undefined", "rpc:call(N, halley, info, [self()])")
		e.want("true", "erpc:receive_response(erpc:send_request(N, halley, connections, [200])) =:= [C]")
		e.want("true", "[erpc:receive_response(R) || R <- [erpc:send_request(N, erlang, node, []) || _ <- lists:seq(1, 1000)]] =:= lists:duplicate(1000, N)")
		e.want("true", "rpc:multicall([N, node(), N], erlang, node, []) =:= {[N, node(), N], []}")
		e.want("true", "erpc:multicall([N, node()], erlang, node, []) =:= [{ok, N}, {ok, node()}]")
		e.want("true", "erpc:multicall([N], halley, connections, [5], 5000) =:= [{ok, [A, B]}]")
		e.want("true", "rpc:yield(rpc:async_call(N, erlang, node, [])) =:= N")

		e.want("true", "process_flag(trap_exit, true), link(A), is_reference(monitor(process, B))")
		e.want("{ok,2}", "rpc:call(N, halley, close, [5])")
		e.want("kicked", "receive {'EXIT', A, W1} -> W1 after 3000 -> nothing end")
		e.want("kicked", "receive {'DOWN', _, process, B, W2} -> W2 after 3000 -> nothing end")
		e.want("{ok,0}", "erpc:call(N, halley, close, [5])")
		e.want("ok", "erpc:cast(N, halley, close, [200])")
		eventually(t, "the end of C", func() bool { return !f.alive(c) })
		d := f.open(201)
		e.want("true", "rpc:cast(N, halley, close, [201])")
		eventually(t, "the end of D", func() bool { return !f.alive(d) })
		e.want("[]", "timer:sleep(50), element(2, process_info(self(), messages))")
		e.want("{monitors,[]}", "process_info(self(), monitors)")
	})
}

// Everything else is refused as by a node that has no such function, and at once.
func TestRPC_Refused(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, _ := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.want("ok", "N = '%s', ok", n.o.Name)
		began := time.Now()
		for _, mfa := range []string{"os, cmd, [\"id\"]", "erlang, halt, []", "halley, info, [1, 2]", "halley, nothing, []", "init, stop, []",
			"code, which, [halley]", "erlang, node, [a]", "halley, close, []"} {
			printed := strings.ReplaceAll(mfa, ", ", ",")
			undef := "{undef,[{" + printed + ",[]}]}"
			e.want("{badrpc,{'EXIT',"+undef+"}}", "rpc:call(N, %s)", mfa)
			e.want("{exception,undef,[{"+printed+",[]}]}", "(fun() -> try erpc:call(N, %s) catch error:E -> E end end)()", mfa)
		}
		e.want("{badrpc,{'EXIT',{badarg,[{halley,connections,[a],[]}]}}}", "rpc:call(N, halley, connections, [a])")
		e.want("{badrpc,{'EXIT',{badarg,[{halley,info,[a],[]}]}}}", "rpc:call(N, halley, info, [a])")
		e.want("[{error,{exception,undef,[{m,f,[],[]}]}}]", "erpc:multicall([N], m, f, [])")
		e.want("true", "rpc:multicall([N], m, f, []) =:= {[{badrpc, {'EXIT', {undef, [{m, f, [], []}]}}}], []}")
		e.want("{badrpc,notsup}", "rpc:block_call(N, erlang, node, [])")
		e.want("true", "rpc:cast(N, m, f, [])")
		e.want("ok", "erpc:cast(N, m, f, [])")
		e.want("ok", "rpc:eval_everywhere([N], m, f, []), ok")

		// A fun is a call of erlang:apply/2; a spawned function is none of erpc's.
		e.want("undef", "element(1, element(2, element(2, rpc:call(N, erlang, apply, [fun() -> ok end, []]))))")
		for spawn, want := range map[string]string{
			"spawn(N, m, f, [])":                            "{down,notsup}",
			"spawn(N, fun() -> ok end)":                     "{down,notsup}",
			"spawn_link(N, m, f, [])":                       "{exit,notsup}",
			"element(1, spawn_monitor(N, m, f, []))":        "{error,notsup}",
			"spawn_opt(N, m, f, [], [{priority, high}])":    "{down,notsup}",
			"spawn_opt(N, m, f, [], [link, {priority, x}])": "{error,badarg}",
		} {
			e.want(want, "(fun() -> process_flag(trap_exit, true), try P = %s, M = monitor(process, P), "+
				"receive {'EXIT', P, R} -> {exit, R} after 0 -> receive {'DOWN', M, _, _, R} -> {down, R} after 3000 -> nothing end end catch C:W -> {C, W} end end)()", spawn)
		}
		e.want("ok", "(fun F() -> receive _ -> F() after 50 -> ok end end)()")
		for _, options := range []string{"[]", "[monitor]", "[link]", "[link, monitor]", "[{monitor, [{tag, tag}]}]", "[{reply, error_only}]"} {
			e.want("notsup", "(fun() -> R = spawn_request(N, m, f, [], %s), receive {spawn_reply, R, error, W} -> W after 3000 -> nothing end end)()", options)
		}
		e.want("true", "R1 = spawn_request(N, erpc, execute_call, [make_ref(), erlang, node, []], [link, monitor]), is_reference(R1)")
		e.want("true", "receive {spawn_reply, R1, ok, P1} -> node(P1) =:= N after 3000 -> nothing end")
		e.want("{return,true}", "receive {'EXIT', P1, {_, return, V1}} -> {return, V1 =:= N} after 3000 -> nothing end")
		e.want("{return,true}", "receive {'DOWN', R1, process, P1, {_, return, V2}} -> {return, V2 =:= N} after 3000 -> nothing end")
		e.want("notsup", "(fun() -> R = spawn_request(N, erpc, execute_call, [too, few], []), receive {spawn_reply, R, error, W} -> W after 3000 -> nothing end end)()")
		e.want("{tag,true}", "(fun() -> R = spawn_request(N, erpc, execute_call, [make_ref(), erlang, node, []], [{monitor, [{tag, tag}]}]), "+
			"receive {spawn_reply, R, ok, _} -> ok end, receive {T, R, process, _, {_, return, V}} -> {T, V =:= N} after 3000 -> nothing end end)()")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("took %v", took)
		}
		e.want("pong", "net_adm:ping(N)")
		e.want("[]", "timer:sleep(50), element(2, process_info(self(), messages))")
		if lost := n.Stats().PeersLost; lost != 0 {
			t.Errorf("%d peers lost", lost)
		}
	})
}

// Calls do not stay behind, whatever becomes of them.
func TestRPC_Many(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		conn := f.open(1)
		e.want("ok", "P = %s, ok", f.pid(conn))
		e.want("[normal]", "lists:usort([receive {'DOWN', M, _, _, W} -> W end || {_, M} <- [spawn_monitor(fun() -> [[P] = rpc:call('%s', halley, connections, [1]) || _ <- lists:seq(1, 50)] end) || _ <- lists:seq(1, 100)]])", n.o.Name)
		if asked, held := len(n.registry.conn(e.name).asked.open), n.Stats().Held; asked != 0 || held != 0 {
			t.Errorf("%d asked, %d held", asked, held)
		}
	})
}

// The references of what we ask come back as they went.
func TestAsked(t *testing.T) {
	n := bareNode(t)
	c := bareConn(n, new(recorder))
	var got []string
	ask := func(name string) uint64 {
		return c.asked.ask(func(answer []byte, down bool) {
			text, _ := appendText(nil, answer, 0)
			got = append(got, fmt.Sprintf("%s %s %t", name, text, down))
		})
	}
	answer := func(ref uint64, term []byte) {
		c.packet(packetOf(tTuple(tSmall(2), tAtom(""), n.appendSenderPid(nil)), tTuple(n.appendAskedRef(nil, ref), term))[4:])
	}
	n.lastAsked.Store(1<<50 + 1<<20 + 7)
	a, b, d, e := ask("a"), ask("b"), ask("d"), ask("e")
	answer(b, tAtom("hello"))
	answer(b, tAtom("again"))
	if !c.asked.forget(d) || c.asked.forget(d) || c.asked.forget(b) {
		t.Error("forget says what it did not")
	}
	answer(d, tAtom("late"))
	c.packet(packetOf(tTuple(tSmall(28), peerPid, n.appendSenderPid(nil), n.appendAskedRef(nil, a)), tAtom("boom"))[4:])
	c.packet(packetOf(tTuple(tSmall(21), tAtom("name"), n.appendSenderPid(nil), n.appendAskedRef(nil, a), tAtom("again")))[4:])
	c.packet(packetOf(tTuple(tSmall(2), tAtom(""), n.appendSenderPid(nil)), tAtom("what"))[4:])
	c.asked.end()
	if want := "[b hello false a boom true e noconnection true]"; fmt.Sprint(got) != want {
		t.Errorf("got %v, want %s", got, want)
	}
	if ref := ask("late"); ref != 0 {
		t.Error("asks a peer that is gone")
	}
	if unknown := n.Stats().BadMessages["unknown"]; unknown != 3 {
		t.Errorf("%d unknown", unknown)
	}
	_ = e

	c = bareConn(n, new(recorder))
	for i := range maxAsked + 1 {
		if ref := ask("many"); (ref != 0) != (i < maxAsked) {
			t.Fatalf("question %d: %d", i, ref)
		}
	}
	got = nil
	c.asked.end()
	if len(got) != maxAsked {
		t.Errorf("%d answers", len(got))
	}
}
