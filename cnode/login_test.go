package cnode

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// erlPid is a connection's pid as Erlang can make it from outside.
func erlPid(n *testNode, conn uint64) string {
	return fmt.Sprintf("binary_to_term(<<131, %s>>)", strings.Trim(strings.Join(strings.Fields(fmt.Sprint(n.appendConnPid(nil, conn))), ","), "[]"))
}

func withLogins(o *Options) { o.Login, o.Logout = "told:login", "told:logout" }

// told is a number that Erlang gives.
func (e *erlNode) told(value, format string, args ...any) {
	e.t.Helper()
	eventually(e.t, fmt.Sprintf(format+" = "+value, args...), func() bool { return e.eval(format, args...) == value })
}

// loginCrowd is a node with connections and an Erlang node on which they are logged in.
func loginCrowd(t *testing.T) (*testNode, *crowd, *erlNode) {
	t.Helper()
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	loadTold(e)
	n, w := startCrowd(t, epmd, 2, withLogins)
	if err := n.Connect(t.Context(), e.name); err != nil {
		t.Fatal(err)
	}
	w.settled()
	return n, w, e
}

func calls(n *testNode) (logins, logouts Calls) {
	s := n.Stats().Told
	return s.Logins, s.Logouts
}

// quiet waits until nothing is to be called.
func quiet(t *testing.T, n *testNode) {
	t.Helper()
	eventually(t, "no call waits", func() bool {
		l := n.teller.current.Load()
		if l == nil || !l.idle() {
			return false
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.waiting.n == 0
	})
}

// warm logs one connection in, after which many may be under way.
func warm(t *testing.T, n *testNode, w *crowd) {
	t.Helper()
	w.open(1)
	eventually(t, "the first login", func() bool { l, _ := calls(n); return l.OK == 1 })
}

// Connections from before and after the peer came, that come and go while calls take
// their time: each that stays is logged in once, each that went has both calls in their
// order or none, and no two of one connection are under way at a time.
func TestLogin_Order(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		loadTold(e)
		e.eval("told:mode({sleep, 5})")
		n, w := startCrowd(t, epmd, 4, withLogins)
		stay, go1 := w.open(500), w.open(500)
		if err := n.Connect(t.Context(), e.name); err != nil {
			t.Fatal(err)
		}
		w.settled()
		stay = append(stay, w.open(500)...)
		go2 := w.open(500)
		w.close("normal", go1...)
		w.close("normal", go2...)
		stay = append(stay, w.open(500)...)
		quiet(t, n)
		for _, conn := range stay {
			e.want("[login]", "told:log(%s)", erlPid(n, conn))
		}
		for _, conn := range slices.Concat(go1, go2) {
			if got := e.eval("told:log(%s)", erlPid(n, conn)); got != "[]" && got != "[login,logout]" {
				t.Errorf("%#x: %s", conn, got)
			}
		}
		e.want("{0,0}", "{told:value(overlaps), told:twice()}")
		e.want("true", "told:value(most) =< 1000")
		logins, logouts := calls(n)
		e.want(fmt.Sprintf("{%d,%d}", logins.OK, logouts.OK), "{told:count(login), told:count(logout)}")
		if (logins.Failed + logins.Timeout + logouts.Failed + logouts.Timeout) != 0 {
			t.Errorf("%+v, %+v", logins, logouts)
		}
		e.want("true", "lists:all(fun({_, login, U, _}) -> is_integer(U) orelse is_binary(U); (_) -> true end, ets:tab2list(told_log))")
	})
}

// What waits and ends is never called; what is under way and ends has its logout after
// the answer; no more than maxFlights are under way.
func TestLogin_EndsWhileWaiting(t *testing.T) {
	n, w, e := loginCrowd(t)
	warm(t, n, w)
	e.eval("told:mode(hang)")
	flying := w.open(maxFlights)
	e.told(fmt.Sprint(maxFlights), "ets:info(told_hung, size)")
	waiting := w.open(3000)
	eventually(t, "they wait", func() bool { return n.Stats().Told.LoginsWaiting == 3000 })
	if got := n.Stats().Told.InFlight; got != maxFlights {
		t.Errorf("%d in flight", got)
	}
	w.close("normal", waiting[:2990]...)
	w.close("normal", flying[:10]...)
	l := n.teller.current.Load()
	l.mu.Lock()
	if l.waiting.n != 10 || l.waiting.held > prunedFrom || len(l.state) != maxFlights+10 {
		t.Errorf("%d wait, %d in the queue, %d known", l.waiting.n, l.waiting.held, len(l.state))
	}
	l.mu.Unlock()
	e.want("0", "told:count(logout)")
	e.eval("told:mode(ok)")
	e.eval("told:release()")
	quiet(t, n)
	for _, conn := range flying[:10] {
		e.want("[login,logout]", "told:log(%s)", erlPid(n, conn))
	}
	e.want(fmt.Sprintf("{%d,10}", 1+maxFlights+10), "{told:count(login), told:count(logout)}")
	e.want("{1000,0}", "{told:value(most), told:value(overlaps)}")
	l.mu.Lock()
	if len(l.state) != 0 || len(l.linked) != 0 || l.waiting.held != 0 {
		t.Errorf("left: %d known, %d linked, %d in the queue", len(l.state), len(l.linked), l.waiting.held)
	}
	l.mu.Unlock()
}

func TestLogin_Fails(t *testing.T) {
	for _, mode := range []string{"fail", "error"} {
		for _, policy := range []string{loginKeep, loginClose} {
			t.Run(mode+"/"+policy, func(t *testing.T) {
				epmd := startEPMD(t)
				e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
				loadTold(e)
				e.eval("told:mode(%s)", mode)
				n, w := startCrowd(t, epmd, 2, func(o *Options) {
					o.Login, o.LoginFailure = "told:login", policy
				})
				conns := w.open(1500) // more than places for calls
				if err := n.Connect(t.Context(), e.name); err != nil {
					t.Fatal(err)
				}
				eventually(t, "all have failed", func() bool { l, _ := calls(n); return l.Failed == 1500 })
				quiet(t, n)
				want := map[string]int{loginKeep: 1500, loginClose: 0}[policy]
				eventually(t, "those that are to stay", func() bool { return w.size() == want })
				if policy == loginClose {
					events := n.of("").list()
					slices.Sort(events)
					if len(events) != 1500 || len(slices.Compact(events)) != 1500 {
						t.Errorf("%d exits", len(events))
					}
					if want := fmt.Sprintf("exit %#x login_failed %v", conns[0], loginFailedTerm); !slices.Contains(events, want) {
						t.Errorf("%s is not among them; %s is", want, events[0])
					}
				}
				if lines := n.log.count("login failed", "peer="+e.name); lines < 1 || lines > 5 {
					t.Errorf("%d lines", lines)
				}
				if wait, fly := n.Stats().Told.LoginsWaiting, n.Stats().Told.InFlight; wait != 0 || fly != 0 {
					t.Errorf("%d wait, %d fly", wait, fly)
				}
			})
		}
	}
}

// A call that is never answered frees its place, and a late answer is nobody's.
func TestLogin_Hangs(t *testing.T) {
	n, w, e := loginCrowd(t)
	warm(t, n, w)
	e.eval("told:mode(hang)")
	conns := w.open(maxFlights + 5)
	e.told(fmt.Sprint(maxFlights), "ets:info(told_hung, size)")
	w.close("normal", conns[0])
	e.eval("told:mode(ok)")
	l := n.teller.current.Load()
	l.expire(time.Now().Add(callPatience - 2*time.Second))
	if logins, _ := calls(n); logins.Timeout != 0 {
		t.Errorf("%+v before their time", logins)
	}
	l.expire(time.Now().Add(callPatience + time.Second))
	quiet(t, n)
	logins, logouts := calls(n)
	if logins != (Calls{OK: 6, Timeout: maxFlights}) || logouts != (Calls{OK: 1}) {
		t.Errorf("%+v, %+v", logins, logouts)
	}
	e.want("[login,logout]", "told:log(%s)", erlPid(n, conns[0]))
	e.eval("told:release()")
	eventually(t, "late answers", func() bool { return n.Stats().BadMessages["unknown"] == maxFlights })
	if after, _ := calls(n); after != logins {
		t.Errorf("%+v after late answers, %+v before", after, logins)
	}
	if n.log.count("login failed", "no answer") != 1 {
		t.Errorf("log:\n%s", n.log)
	}
}

// A peer that links to a connection learns of its end from the link: no call, whichever
// of Ended and Closed comes first. One that does not is called.
func TestLogin_LinkedNeedsNoLogout(t *testing.T) {
	for _, closedFirst := range []bool{false, true} {
		t.Run(fmt.Sprintf("closed-first=%t", closedFirst), func(t *testing.T) {
			epmd := startEPMD(t)
			e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
			loadTold(e)
			n, w := startCrowd(t, epmd, 4, withLogins)
			w.closedFirst = closedFirst
			if err := n.Connect(t.Context(), e.name); err != nil {
				t.Fatal(err)
			}
			w.settled()
			plain := w.open(2000)
			quiet(t, n)
			e.eval("told:mode(link)")
			linked := w.open(5000)
			quiet(t, n)
			w.close("normal", slices.Concat(linked, plain)...)
			quiet(t, n)
			e.told("5000", "told:count(exited)")
			e.want("2000", "told:count(logout)")
			e.want("[login,exited]", "told:log(%s)", erlPid(n, linked[17]))
			e.want("[login,logout]", "told:log(%s)", erlPid(n, plain[17]))
			l := n.teller.current.Load()
			l.mu.Lock()
			if len(l.linked) != 0 {
				t.Errorf("%d ends are told of once", len(l.linked))
			}
			l.mu.Unlock()

			// The link comes when the connection has ended: noproc says it.
			e.eval("told:mode(hang_link)")
			late := w.open(500)
			e.told("500", "ets:info(told_hung, size)")
			w.close("normal", late...)
			e.eval("told:release()")
			quiet(t, n)
			e.told("5500", "told:count(exited)")
			e.want("2000", "told:count(logout)")
		})
	}
}

// The peer is killed and comes back: everybody is logged in again, once, and those that
// went meanwhile are not spoken of.
func TestLogin_PeerCrashesAndReturns(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		name := uniqueName("e") + "@localhost"
		e := startErl(t, o, epmd, name)
		loadTold(e)
		n, w := startCrowd(t, epmd, 2, func(o *Options) {
			withLogins(o)
			o.Connect = []string{name}
		})
		conns := w.open(3000)
		eventually(t, "all", func() bool { l, _ := calls(n); return l.OK == 3000 })
		e.want("3000", "told:count(login)")
		for round := range 2 {
			before, _ := calls(n)
			e.eval("told:mode(hang)")
			more := w.open(500) // under way or waiting when the peer dies
			conns = append(conns, more...)
			e.kill()
			eventually(t, "gone", func() bool { return len(n.Peers()) == 0 && n.teller.current.Load() == nil })
			w.close("normal", conns[:700]...)
			conns = conns[700:]
			if s := n.Stats().Told; s.LoginsWaiting != 0 || s.InFlight != 0 {
				t.Errorf("%+v without a peer", s)
			}
			// Halley is there before the function is.
			e = startErl(t, o, epmd, name)
			eventually(t, "a login that finds nobody", func() bool { l, _ := calls(n); return l.Failed > before.Failed })
			loadTold(e)
			eventually(t, "all again", func() bool { l, _ := calls(n); return l.OK == before.OK+int64(len(conns)) })
			quiet(t, n)
			e.want(fmt.Sprintf("{%d,0,0}", len(conns)), "{told:count(login), told:twice(), told:count(logout)}")
			if l, _ := calls(n); l.Failed-before.Failed > 5 || l.Timeout != 0 || l.OK != before.OK+int64(len(conns)) {
				t.Errorf("round %d: %+v, before %+v", round, l, before)
			}
		}
	})
}

// Two peers: the first connected has the logins, the other when it goes, and stays when
// the first returns.
func TestLogin_Failover(t *testing.T) {
	epmd := startEPMD(t)
	one := startErl(t, otp{}, epmd, uniqueName("one")+"@localhost")
	two := startErl(t, otp{}, epmd, uniqueName("two")+"@localhost")
	loadTold(one)
	loadTold(two)
	n, w := startCrowd(t, epmd, 2, withLogins)
	conns := w.open(2000)
	one.want("pong", "net_adm:ping('%s')", n.o.Name)
	eventually(t, "one is first", func() bool { return n.teller.current.Load() != nil })
	two.want("pong", "net_adm:ping('%s')", n.o.Name)
	quiet(t, n)
	one.told("2000", "told:count(login)")
	two.want("0", "told:count(login)")
	one.want("true", "net_kernel:disconnect('%s')", n.o.Name)
	two.told("2000", "told:count(login)")
	one.want("pong", "net_adm:ping('%s')", n.o.Name)
	w.close("normal", conns[:50]...)
	two.told("50", "told:count(logout)")
	one.want("{2000,0}", "{told:count(login), told:count(logout)}")
	two.want("0", "told:twice()")
	if n.log.count("logins go to this peer") != 2 {
		t.Errorf("log:\n%s", n.log)
	}
}

// Options.LoginNode has the logins whenever it is there; another has them only when it
// has been away for a while.
func TestLogin_Node(t *testing.T) {
	epmd := startEPMD(t)
	other := startErl(t, otp{}, epmd, uniqueName("other")+"@localhost")
	wanted := startErl(t, otp{}, epmd, uniqueName("wanted")+"@localhost")
	loadTold(other)
	loadTold(wanted)
	n, w := startCrowd(t, epmd, 2, func(o *Options) {
		withLogins(o)
		o.LoginNode = wanted.name
	})
	w.open(100)
	other.want("pong", "net_adm:ping('%s')", n.o.Name)
	wanted.want("pong", "net_adm:ping('%s')", n.o.Name)
	wanted.told("100", "told:count(login)")
	other.want("0", "told:count(login)")
	began := time.Now()
	wanted.want("true", "net_kernel:disconnect('%s')", n.o.Name)
	other.told("100", "told:count(login)")
	if took := time.Since(began); took < loginGrace {
		t.Errorf("another had them after %v", took)
	}
	wanted.want("pong", "net_adm:ping('%s')", n.o.Name)
	wanted.told("200", "told:count(login)")
	w.open(10)
	wanted.told("210", "told:count(login)")
	other.want("100", "told:count(login)")
}

// The first connected peer cannot do it: another is found that can, and keeps it.
func TestLogin_NobodyThere(t *testing.T) {
	epmd := startEPMD(t)
	var es [3]*erlNode
	for i := range es {
		es[i] = startErl(t, otp{}, epmd, uniqueName(fmt.Sprintf("e%d", i))+"@localhost")
	}
	loadTold(es[2])
	n, w := startCrowd(t, epmd, 2, withLogins)
	for i, e := range es {
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		eventually(t, "connected", func() bool { return len(n.Peers()) == i+1 })
	}
	conns := w.open(3000)
	es[2].told("3000", "told:count(login)")
	quiet(t, n)
	loadTold(es[0])
	conns = append(conns, w.open(100)...)
	es[2].told("3100", "told:count(login)")
	w.close("normal", conns...)
	es[2].told("3100", "told:count(logout)")
	if l, _ := calls(n); l.OK != 3100 || l.Failed < 2 || l.Failed > 20 {
		t.Errorf("%+v", l)
	}
	es[0].want("0", "told:count(login)")
}

// While nobody is there, --login-failure close costs few clients: the others wait.
func TestLogin_NobodyThereSparesClients(t *testing.T) {
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	n, w := startCrowd(t, epmd, 2, func(o *Options) {
		withLogins(o)
		o.LoginFailure = loginClose
	})
	w.open(1500)
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
	eventually(t, "some find nobody", func() bool { l, _ := calls(n); return l.Failed >= 2 })
	loadTold(e)
	quiet(t, n)
	l, logouts := calls(n)
	if l.Failed > 10 || l.OK != 1500-l.Failed || w.size() != int(l.OK) {
		t.Errorf("%+v, %d connections", l, w.size())
	}
	if logouts.OK+logouts.Failed != l.Failed { // they have ended like others
		t.Errorf("%+v", logouts)
	}
}

// Stop waits for the logouts of connections that have just ended.
func TestLogin_StopSendsLogouts(t *testing.T) {
	n, w, e := loginCrowd(t)
	conns := w.open(3000)
	quiet(t, n)
	w.close("drained", conns...)
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	e.want("3000", "told:count(logout)")
}

// The rate of logins, and what a thousand under way keep of the peer.
func TestLogin_Rate(t *testing.T) {
	n, w, e := loginCrowd(t)
	const many = 20000
	began := time.Now()
	conns := w.open(many)
	eventually(t, "all logged in", func() bool { l, _ := calls(n); return l.OK == many })
	took := time.Since(began)
	t.Logf("%d logins in %v: %.0f a second", many, took, many/took.Seconds())
	began = time.Now()
	w.close("normal", conns...)
	eventually(t, "all logged out", func() bool { _, l := calls(n); return l.OK == many })
	took = time.Since(began)
	t.Logf("%d logouts in %v: %.0f a second", many, took, many/took.Seconds())
	e.want(fmt.Sprintf("{%d,%d,0,0}", many, many), "{told:count(login), told:count(logout), told:value(overlaps), told:twice()}")
	e.want("true", "told:value(most) =< 1000")
}
