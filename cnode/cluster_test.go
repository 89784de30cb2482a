package cnode

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/ergo-services/ergo/etf"
)

// Everything here is seen from a real Erlang node.

func TestCluster_HiddenAndPing(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		e.want("[]", "nodes()")
		e.want("true", "['%s'] =:= nodes(hidden)", n.o.Name)
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		e.want("true", "rpc:call('%s', erlang, node, []) =:= '%[1]s'", n.o.Name)
		e.want("{badrpc,notsup}", "gen_server:call({rex, '%s'}, {call, erlang, node, [], user})", n.o.Name)
		e.want("{error,notsup}", "gen_server:call({net_kernel, '%s'}, what)", n.o.Name)
		e.want("true", "net_kernel:disconnect('%s')", n.o.Name)
		eventually(t, "gone", func() bool { return len(n.Peers()) == 0 })
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
	})
}

// dialled says who dials; both must work the same.
func forBothDirections(t *testing.T, test func(t *testing.T, e *erlNode, n *testNode)) {
	forEachOTP(t, func(t *testing.T, o otp) {
		for _, erlangDials := range []bool{true, false} {
			t.Run(fmt.Sprintf("erlang-dials=%t", erlangDials), func(t *testing.T) {
				epmd := startEPMD(t)
				e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
				n := startNode(t, epmd, func(o *Options, _ *testNode) {
					if !erlangDials {
						o.Connect = []string{e.name}
					}
				})
				if erlangDials {
					e.want("true", "net_kernel:connect_node('%s')", n.o.Name)
				}
				eventually(t, "connected", func() bool { return len(n.Peers()) == 1 && n.Peers()[0] == e.name })
				e.want("true", "['%s'] =:= nodes(hidden)", n.o.Name)
				test(t, e, n)
			})
		}
	})
}

func TestCluster_Messages(t *testing.T) {
	forBothDirections(t, func(t *testing.T, e *erlNode, n *testNode) {
		to := "{httpd, '" + n.o.Name + "'}"
		e.eval("%s ! {123, <<\"hello\">>}", to)
		e.eval("%s ! {<<\"joe\">>, [<<\"a\">>, $b, \"cd\", [[]]]}", to)
		e.eval("%s ! {1 bsl 62, \"text\"}", to)
		e.eval("%s ! [{1, <<\"a\">>}, {bad, <<\"b\">>}, {2, [\"c\" | <<\"d\">>]}]", to)
		e.eval("%s ! {1 bsl 64, <<\"bignum\">>}", to)
		e.eval("%s ! #{a => 1}", to)
		e.eval("gen_server:cast(%s, {all, <<\"news\">>})", to)
		e.eval("%s ! {close, 9, {shutdown, \"bye\"}}", to)
		e.eval("seq_trace:set_token(label, 17), %s ! {5, <<\"traced\">>}, seq_trace:set_token([])", to)
		e.eval("{nobody, '%s'} ! hello", n.o.Name)
		e.want("{ok,1}", "gen_server:call(%s, {deliver, 7, <<\"x\">>})", to)
		r := n.of(e.name)
		want := []string{"123 hello", `"joe" abcd`, "4611686018427387904 text", "1 a", "2 cd", "all news",
			`close 9 {shutdown,"bye"}`, "5 traced", `deliver 7 "" x`}
		if got := r.list(); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		if _, bad := r.counts(); bad != 3 {
			t.Errorf("%d bad, want 3", bad)
		}
		if len(n.Peers()) != 1 {
			t.Error("the connection did not survive")
		}
	})
}

func TestCluster_Calls(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, func(o *Options, _ *testNode) {
			o.Stats = func() []Stat { return []Stat{{"written", 17}, {"huge", 1 << 62}, {"less", -5}} }
		})
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		to := "{httpd, '" + n.o.Name + "'}"
		e.want("{ok,1}", "gen_server:call(%s, {deliver, 7, <<\"x\">>})", to)
		e.want("{ok,1}", "gen_server:call(%s, {deliver, <<\"u\">>, [\"x\", 65]}, infinity)", to)
		e.want("true", "gen_server:call(%s, stats) =:= #{huge => 1 bsl 62, less => -5, written => 17}", to)
		e.want("{error,{bad_request,{deliver,0,<<\"x\">>}}}", "gen_server:call(%s, {deliver, 0, <<\"x\">>})", to)
		e.want("{error,{bad_request,{deliver,1,x}}}", "gen_server:call(%s, {deliver, 1, x})", to)
		e.want("true", "R = {what, self(), make_ref(), #{[1] => {}}, 1.5, 1 bsl 100, <<1:3>>, fun lists:map/2}, "+
			"{error, {bad_request, R}} =:= gen_server:call(%s, R)", to)
		e.want("true", "lists:all(fun(I) -> {ok, 1} =:= gen_server:call(%s, {deliver, I, <<\"x\">>}) end, lists:seq(1, 500))", to)
		e.want("ok", "[spawn_monitor(fun() -> {ok, 1} = gen_server:call(%s, {deliver, I, <<\"x\">>}) end) || I <- lists:seq(1, 200)], ok", to)
		e.want("[normal]", "lists:usort([receive {'DOWN', _, _, _, W} -> W end || _ <- lists:seq(1, 200)])")
		e.want("[]", "erlang:process_info(self(), messages), []")
		if n.log.count("message not usable", "reason=call") != 1 {
			t.Errorf("bad calls are not logged once:\n%s", n.log)
		}
	})
}

func TestCluster_Monitors(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		down := func(what string) string {
			return "begin M = erlang:monitor(process, " + what + "), R = receive {'DOWN', M, _, _, W} -> W after 500 -> alive end, erlang:demonitor(M, [flush]), f(M, R), R end"
		}
		f := strings.NewReplacer(", f(M, R)", "").Replace
		in := func(expr string) string { return "(fun() -> " + f(expr) + " end)()" }
		e.want("noproc", "%s", in(down("{nobody, '"+n.o.Name+"'}")))
		e.want("alive", "%s", in(down("{httpd, '"+n.o.Name+"'}")))
		e.want("alive", "%s", in(down("{net_kernel, '"+n.o.Name+"'}")))

		// A pid of ours with nobody behind it, made from its bytes.
		pid := func(id, serial, creation uint32) string {
			return erlTerm(tPid(n.o.Name, id, serial, creation))
		}
		e.want("noproc", "%s", in(down(pid(5, 0, n.creation))))
		e.want("noproc", "%s", in(down(pid(1001, 0, n.creation+1))))
		e.want("noproc", "%s", in(down(pid(5, 3, n.creation+1))))
		link := "(fun() -> process_flag(trap_exit, true), P = %s, link(P), receive {'EXIT', P, W} -> W after 500 -> alive end end)()"
		e.want("noproc", link, pid(5, 0, n.creation))
		e.want("noproc", link, pid(5, 3, n.creation+1))

		// ergo's process, which only sends: it can be watched, and does not die of exits.
		self := n.sender.Self()
		sender := pid(uint32(self.ID), uint32(self.ID>>32), self.Creation)
		e.want("alive", "%s", in(down(sender)))
		e.want("alive", link, sender)
		e.want("true", "unlink(%s)", sender)
		e.want("alive", "(fun() -> P = %s, link(P), unlink(P), exit(P, kill), P ! {hello, world}, receive {'EXIT', P, W} -> W after 100 -> alive end end)()", sender)
		e.want("true", "P1 = spawn(fun() -> link(%s), exit(boom) end), is_pid(P1)", sender)
		e.want("true", "register(box, self())")
		if err := n.Send(e.name, "box", etf.Tuple{etf.Atom("hello"), []byte("bin"), "str", 1 << 40}); err != nil {
			t.Fatal(err)
		}
		e.want("{hello,<<\"bin\">>,\"str\",1099511627776}", "receive H -> H after 2000 -> nothing end")
		e.want("[]", "(fun() -> {_, L} = process_info(self(), links), [P || P <- L, is_pid(P), node(P) =/= node()] end)()")

		// Monitors that are still there when the node ends.
		e.want("true", "Mn = erlang:monitor(process, {httpd, '%s'}), Mp = erlang:monitor(process, %s), true", n.o.Name, sender)
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		e.want("noconnection", "receive {'DOWN', Mn, _, _, W1} -> W1 after 3000 -> nothing end")
		e.want("noconnection", "receive {'DOWN', Mp, _, _, W2} -> W2 after 3000 -> nothing end")
	})
}

func TestCluster_Order(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		all := &ordered{}
		n := startNode(t, epmd, func(o *Options, _ *testNode) { o.NewFeed = func(string) Feed { return all } })
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		to := "{httpd, '" + n.o.Name + "'}"
		e.want("ok", "lists:foreach(fun(I) -> %s ! {1, integer_to_binary(I)} end, lists:seq(1, 200000))", to)
		e.want("{ok,1}", "gen_server:call(%s, {deliver, 1, <<>>}, 60000)", to)
		if all.next != 200_000 || all.wrong != 0 {
			t.Errorf("%d messages in order, %d out of order", all.next, all.wrong)
		}
	})
}

// ordered is a Feed of one sender's numbers. Only the reader touches it until the
// reply to a call has told the test that it is done.
type ordered struct {
	counter
	next, wrong int
}

func (f *ordered) Message(_ int64, _, body []byte) {
	n := 0
	for _, d := range body {
		n = n*10 + int(d-'0')
	}
	if n == f.next+1 {
		f.next = n
	} else {
		f.wrong++
	}
}
func (f *ordered) Deliver(_ int64, _, _ []byte, reply func(int)) { reply(1) }

func TestCluster_LargeMessages(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, func(o *Options, n *testNode) {
			o.MaxPacket = 20 << 20
			n.all = &recorder{quiet: true}
		})
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		to := "{httpd, '" + n.o.Name + "'}"
		e.eval("%s ! {1, binary:copy(<<\"x\">>, 16 bsl 20)}, ok", to)
		e.eval("%s ! {2, <<\"after\">>}", to)
		eventually(t, "both", func() bool { c, _ := n.of(e.name).counts(); return c == 2 })
		if n.all.bytes != 16<<20+5 {
			t.Errorf("%d bytes", n.all.bytes)
		}
		e.eval("%s ! {1, binary:copy(<<\"x\">>, 24 bsl 20)}, ok", to)
		eventually(t, "a log line", func() bool {
			return n.log.count("peer lost", `reason="bad packet"`, "--max-packet") == 1
		})
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
	})
}

func TestCluster_LongNames(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@127.0.0.1")
		n := startNode(t, epmd, func(o *Options, _ *testNode) {
			o.Name = uniqueName("halley") + "@127.0.0.1"
			o.Connect = []string{e.name}
		})
		eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
		e.want("true", "net_kernel:disconnect('%s')", n.o.Name)
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		e.want("true", "['%s'] =:= nodes(hidden)", n.o.Name)
	})
}

func TestCluster_IPv6(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		for _, name := range []string{"@localhost", "@::1"} {
			t.Run(name, func(t *testing.T) {
				epmd := startEPMD(t)
				e := startErl(t, o, epmd, uniqueName("e")+name, "-proto_dist", "inet6_tcp")
				dialsBack := e.eval("element(1, inet:getaddr(\"%s\", inet6))", name[1:]) == "ok" // not all hosts files have localhost for IPv6
				n := startNode(t, epmd, func(o *Options, _ *testNode) {
					o.Name = uniqueName("halley") + name
					o.DistListen = "[::1]:0"
					o.EPMD = fmt.Sprintf(":%d", epmd)
				})
				if dialsBack {
					e.want("pong", "net_adm:ping('%s')", n.o.Name)
					e.want("true", "net_kernel:disconnect('%s')", n.o.Name)
					eventually(t, "gone", func() bool { return len(n.Peers()) == 0 })
				}
				if err := n.Connect(t.Context(), e.name); err != nil {
					t.Fatal(err)
				}
				e.want("true", "['%s'] =:= nodes(hidden)", n.o.Name)
			})
		}
	})
}

func TestCluster_WrongCookie(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost", "-setcookie", "another")
		n := startNode(t, epmd, func(o *Options, _ *testNode) { o.Connect = []string{e.name} })
		eventually(t, "our line", func() bool {
			return n.log.count("cannot connect", `reason="wrong cookie"`, "--cookie") == 1
		})
		e.want("false", "net_kernel:connect_node('%s')", n.o.Name)
		eventually(t, "the other line", func() bool {
			return n.log.count("handshake failed", "peer="+e.name, `reason="wrong cookie"`) >= 1
		})
		e.want("true", "erlang:set_cookie(node(), '%s')", testCookie)
		eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
		if lines := n.log.count("cannot connect"); lines != 1 {
			t.Errorf("%d lines of one cause", lines)
		}
	})
}

// Both sides dial at once, again and again; each time one connection results.
func TestCluster_BothDial(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, func(o *Options, _ *testNode) { o.Name = uniqueName("m") + "@localhost" })
		for _, name := range []string{"a", "z"} { // one less than ours, one greater
			e := startErl(t, o, epmd, uniqueName(name)+"@localhost")
			for i := range 40 {
				fmt.Fprintf(e.in, "net_kernel:connect_node('%s').\n", n.o.Name)
				if i%2 == 0 {
					time.Sleep(time.Duration(i) * 20 * time.Microsecond)
				}
				err := n.Connect(t.Context(), e.name)
				if got := e.answer(); got != "true" || err != nil {
					t.Fatalf("%s, attempt %d: Erlang says %s, we say %v", name, i, got, err)
				}
				e.want("{ok,1}", "gen_server:call({httpd, '%s'}, {deliver, 1, <<>>})", n.o.Name)
				n.registry.conn(e.name).end(endStopping, nil)
				eventually(t, "gone", func() bool { return len(n.Peers()) == 0 })
				e.want("[]", "(fun W(0) -> nodes(hidden); W(I) -> case nodes(hidden) of [] -> []; _ -> timer:sleep(5), W(I - 1) end end)(400)")
			}
			e.kill()
		}
	})
}
