package cnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/ergo-services/ergo/etf"
	"go.uber.org/goleak"
)

// What goes wrong around a node, and how it goes on.

func TestFault_PeerKilledAndBack(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		name := uniqueName("e") + "@localhost"
		n := startNode(t, epmd, func(o *Options, n *testNode) {
			o.Connect = []string{name}
			n.all = new(recorder)
		})
		eventually(t, "a log line", func() bool { return n.log.count("cannot connect", `reason="no such node"`) == 1 })
		for round := 1; round <= 3; round++ {
			e := startErl(t, o, epmd, name)
			eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
			e.want("{ok,1}", "gen_server:call({httpd, '%s'}, {deliver, %d, <<\"x\">>})", n.o.Name, round)
			e.kill()
			eventually(t, "lost", func() bool { return n.log.count("peer lost", `reason="closed by peer"`) == round })
		}
		eventually(t, "the feed's end", func() bool { n.all.mu.Lock(); defer n.all.mu.Unlock(); return n.all.ended })
		if got := n.Stats(); got.Reconnects != 2 || got.PeersLost != 3 {
			t.Errorf("%+v", got)
		}
	})
}

// A frozen peer says nothing more; it is found within 1.25 x net_ticktime.
func TestFault_PeerFrozen(t *testing.T) {
	epmd := startEPMD(t)
	const tick = 2 * time.Second
	n := startNode(t, epmd, func(o *Options, _ *testNode) { o.NetTickTime = tick })
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost", "-kernel", "net_ticktime", "2")
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
	time.Sleep(2 * tick) // both sides tick: nothing happens
	if len(n.Peers()) != 1 || e.eval("nodes(hidden) =/= []") != "true" {
		t.Fatal("idle connection lost")
	}
	began := time.Now()
	e.cmd.Process.Signal(syscall.SIGSTOP)
	defer e.cmd.Process.Signal(syscall.SIGCONT)
	eventually(t, "found", func() bool { return n.log.count("peer lost", `reason="peer silent"`) == 1 })
	if took := time.Since(began); took > tick*3/2 {
		t.Errorf("found after %v", took)
	}
}

// A peer that does not read is given up, with ticks and answers still queued for it.
func TestFault_PeerDoesNotRead(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	p := dialRaw(t, n)
	p.Conn.(*net.TCPConn).SetReadBuffer(4096)
	p.connect("raw@localhost")
	eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
	c := n.registry.conn("raw@localhost")
	big := make([]byte, 1<<20)
	eventually(t, "given up", func() bool {
		return c.send(packetOf(tTuple(tSmall(2), tAtom(""), peerPid), tBin(string(big)))) != nil
	})
	eventually(t, "a log line", func() bool { return n.log.count("peer lost", `reason="peer does not read"`) == 1 })
	if err := n.Send("raw@localhost", "x", etf.Atom("y")); err == nil || !strings.Contains(err.Error(), "not connected") {
		t.Error(err)
	}
}

func TestFault_GarbageAfterHandshake(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	good := dialRaw(t, n)
	good.connect("good@localhost")
	for name, packet := range map[string][]byte{
		"4gib":            {255, 255, 255, 255},
		"no-pass-through": {0, 0, 0, 2, 131, 97},
		"type-byte-only":  {0, 0, 0, 1, 112},
		"no-tuple":        packetOf(tSmall(1)),
		"empty-tuple":     packetOf(tTuple()),
		"unknown-op":      packetOf(tTuple(tSmall(99))),
		"altact":          packetOf(tTuple(tSmall(37), tSmall(0), tNil(), tNil())),
		"op-not-integer":  packetOf(tTuple(tAtom("x"))),
		"wrong-arity":     packetOf(tTuple(tSmall(1), peerPid)),
		"truncated":       packetOf(tTuple(tSmall(6), peerPid, tAtom(""), tAtom("httpd"))[:20]),
		"link-no-pid":     packetOf(tTuple(tSmall(1), tSmall(1), tSmall(2))),
		"monitor-no-ref":  packetOf(tTuple(tSmall(19), peerPid, tAtom("httpd"), tSmall(2))),
		"name-no-atom":    packetOf(tTuple(tSmall(6), peerPid, tAtom(""), tSmall(1)), tSmall(1)),
		"deep-control":    packetOf(append([]byte{104, 1, 104, 1}, tList(make([][]byte, 2000)...)...)),
	} {
		p := dialRaw(t, n)
		p.connect("bad@localhost")
		p.Conn.Write(packet)
		if !p.closed(2 * time.Second) {
			t.Errorf("%s: not closed", name)
		}
		p.Close()
		eventually(t, "forgotten", func() bool { return len(n.Peers()) == 1 })
	}
	good.Conn.Write(toHTTPD(tTuple(tSmall(1), tBin("x"))))
	eventually(t, "the good peer's message", func() bool { return len(n.of("good@localhost").list()) == 1 })
	if got := n.Stats().BadPackets; got != 14 {
		t.Errorf("%d bad packets", got)
	}
}

// A thousand bad messages make a few lines and a count of a thousand.
func TestFault_BadMessagesAreLoggedOnce(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	p := dialRaw(t, n)
	p.connect("raw@localhost")
	var stream []byte
	for range 1000 {
		stream = append(stream, toHTTPD(tTuple(tSmall(0), tBin("x")))...)
		stream = append(stream, toHTTPD(tAtom("what"))...)
		stream = append(stream, toHTTPD([]byte{1})...)
		stream = append(stream, packetOf(tTuple(tSmall(6), peerPid, tAtom(""), tAtom("nobody")), tAtom("x"))...)
		stream = append(stream, packetOf(tTuple(tSmall(22), peerPid, tPid(n.o.Name, 1, 1, 1)), tAtom("x"))...)
	}
	p.Conn.Write(stream)
	r := n.of("raw@localhost")
	eventually(t, "all", func() bool { _, bad := r.counts(); return bad == 3000 })
	s := n.Stats().BadMessages
	if s["uid"] != 1000 || s["shape"] != 1000 || s["payload"] != 1000 {
		t.Errorf("%v", s)
	}
	if lines := n.log.count("message not usable"); lines < 3 || lines > 9 {
		t.Errorf("%d lines", lines)
	}
	eventually(t, "unknown", func() bool { return n.Stats().BadMessages["unknown"] == 2000 })
	if len(n.Peers()) != 1 {
		t.Error("the connection did not survive")
	}
}

func TestFault_EPMDRestart(t *testing.T) {
	needErl(t)
	epmd := freePort(t)
	first := runEPMD(t, epmd)
	n := startNode(t, epmd, nil)
	killProcess(first)
	eventually(t, "a log line", func() bool { return n.log.count("epmd lost") == 1 })
	e := func() *erlNode {
		runEPMD(t, epmd)
		eventually(t, "registered again", func() bool { return n.log.count("node registered") == 1 })
		return startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	}()
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
}

// Without any epmd the node starts, says so once, and registers when there is one.
func TestFault_NoEPMDAtStart(t *testing.T) {
	needErl(t)
	t.Setenv("PATH", t.TempDir()) // no epmd binary to start either
	port := freePort(t)
	n := startNode(t, port, func(o *Options, _ *testNode) { o.Connect = []string{"nobody@localhost"} })
	if n.log.count("node not registered") != 1 {
		t.Errorf("log:\n%s", n.log)
	}
	eventually(t, "a line for the peer", func() bool {
		return n.log.count("cannot connect", `reason="epmd unreachable"`, "--epmd") == 1
	})
	fake, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	defer fake.Close()
	c, err := fake.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if lines := n.log.count("node not registered"); lines > 2 {
		t.Errorf("%d lines:\n%s", lines, n.log)
	}
}

// Where epmd is installed and not running it is started, as erl does.
func TestFault_StartsEPMD(t *testing.T) {
	needErl(t)
	port := strconv.Itoa(freePort(t))
	n := startNode(t, 0, func(o *Options, _ *testNode) { o.EPMD = ":" + port })
	if n.log.count("epmd started") != 1 || n.log.count("not registered") != 0 {
		t.Errorf("log:\n%s", n.log)
	}
	if err := n.stop(); err != nil {
		t.Error(err)
	}
	eventually(t, "its end", func() bool {
		return exec.Command("epmd", "-port", port, "-kill").Run() == nil
	})
}

func TestFault_NameInUse(t *testing.T) {
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	o := DefaultOptions()
	o.Name, o.Cookie, o.EPMD = e.name, testCookie, fmt.Sprintf("127.0.0.1:%d", epmd)
	began := time.Now()
	_, err := startNew(t.Context(), o)
	if !errors.Is(err, ErrNameInUse) || !strings.Contains(err.Error(), e.name) || !strings.Contains(err.Error(), "--name") {
		t.Errorf("got %v", err)
	}
	if took := time.Since(began); took > takenWait {
		t.Errorf("took %v", took)
	}

	// A predecessor that has ended, but that epmd still knows: Start waits for it.
	name := uniqueName("halley")
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	old, err := registerName(t.Context(), o.EPMD, name, uint16(nobody.Addr().(*net.TCPAddr).Port))
	if err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(2*takenGrace, func() { old.Close() })
	n := startNode(t, epmd, func(o *Options, _ *testNode) { o.Name = name + "@localhost" })
	if n.log.count("not registered") != 0 {
		t.Errorf("log:\n%s", n.log)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := startNew(ctx, o); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("start under a deadline: %v", err)
	}
}

func TestFault_ConnectErrors(t *testing.T) {
	epmd := startEPMD(t)
	n := startNode(t, epmd, nil)
	reg, err := registerName(t.Context(), n.o.EPMD, "dead", uint16(freePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	for peer, want := range map[string]error{
		"nobody@localhost":                     errNoSuchNode,
		"dead@localhost":                       errRefused,
		"x@no-such-host.invalid":               errNoHost,
		fmt.Sprintf("x@%s", "127.255.255.254"): nil, // some epmd or none: any error will do
	} {
		err := n.Connect(t.Context(), peer)
		if err == nil || want != nil && !errors.Is(err, want) || !strings.HasPrefix(err.Error(), "connect "+peer+": ") {
			t.Errorf("%s: %v", peer, err)
		}
	}
	for _, peer := range []string{"", "x", "x@", "@y", n.o.Name} {
		if err := n.Connect(t.Context(), peer); err == nil {
			t.Errorf("connect %q succeeds", peer)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Connect(ctx, "nobody@localhost"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// A Feed that blocks slows its peer and nobody else; ticks go on; Stop is not kept up
// longer than the Feed blocks.
func TestFault_SlowFeed(t *testing.T) {
	epmd := startEPMD(t)
	slow := &blocking{release: make(chan struct{})}
	n := startNode(t, epmd, func(o *Options, n *testNode) {
		o.NetTickTime = 2 * time.Second
		o.NewFeed = func(peer string) Feed {
			if strings.HasPrefix(peer, "slow") {
				return slow
			}
			return n.newFeed(peer)
		}
	})
	one := startErl(t, otp{}, epmd, uniqueName("slow")+"@localhost", "-kernel", "net_ticktime", "2")
	two := startErl(t, otp{}, epmd, uniqueName("fast")+"@localhost", "-kernel", "net_ticktime", "2")
	one.want("pong", "net_adm:ping('%s')", n.o.Name)
	one.eval("S = spawn(fun() -> [{httpd, '%s'} ! {1, <<I:8000>>} || I <- lists:seq(1, 20000)], receive die -> ok end end), ok", n.o.Name)
	one.want("suspended", "(fun W() -> case process_info(S, status) of {status, suspended} -> suspended; _ -> timer:sleep(10), W() end end)()")
	two.want("{ok,1}", "gen_server:call({httpd, '%s'}, {deliver, 1, <<>>})", n.o.Name)
	time.Sleep(time.Second) // half a tick time: the longest that Flush may block
	close(slow.release)
	eventually(t, "all of it", func() bool { return slow.got.Load() == 20000 })
	one.want("true", "nodes(hidden) =:= ['%s']", n.o.Name)
	if lost := n.Stats().PeersLost; lost != 0 {
		t.Errorf("%d peers lost", lost)
	}
}

type blocking struct {
	counter
	release chan struct{}
	got     atomic.Int64
}

func (b *blocking) Message(int64, []byte, []byte) { b.got.Add(1) }
func (b *blocking) Flush(done func())             { <-b.release; done() }

// Stop leaves nothing: no goroutine, no name in epmd, no socket.
func TestStop_LeavesNothing(t *testing.T) {
	epmd := startEPMD(t)
	before := goleak.IgnoreCurrent()
	for range 5 {
		n := startNode(t, epmd, func(o *Options, _ *testNode) { o.Connect = []string{"nobody@localhost", "noone@localhost"} })
		p := dialRaw(t, n)
		p.connect("raw@localhost")
		dialRaw(t, n) // silent
		eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
		name, began := n.o.Name, time.Now()
		if err := n.stop(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > finishWait+time.Second {
			t.Errorf("took %v", took)
		}
		if !p.closed(time.Second) {
			t.Error("the peer's socket is open")
		}
		if _, err := lookupPort(t.Context(), fmt.Sprintf("127.0.0.1:%d", epmd), aliveOf(name)); !errors.Is(err, errNoSuchNode) {
			t.Errorf("epmd still knows us: %v", err)
		}
	}
	goleak.VerifyNone(t, before)
}

// What Send has returned for arrives, although the node stops at once.
func TestStop_SendsFirst(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.want("true", "register(box, self())")
		for i := range 5 {
			n := startNode(t, epmd, func(o *Options, _ *testNode) { o.NewFeed = nil })
			if err := n.Connect(t.Context(), e.name); err != nil {
				t.Fatal(err)
			}
			body := make([]byte, 1<<20)
			if err := n.Send(e.name, "box", etf.Tuple{i, body}); err != nil {
				t.Fatal(err)
			}
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
			e.want("1048576", "receive {%d, B%d} -> byte_size(B%d) after 3000 -> nothing end", i, i, i)
		}
	})
}
