package cnode

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"syscall"
	"testing"
	"time"
)

func withPresence(o *Options) { o.Presence = "listener" }

// online waits until Erlang's picture is complete: epochs so far, all of them there, and
// nothing that could not be.
func (e *erlNode) online(epochs, size int) {
	e.t.Helper()
	e.told(fmt.Sprintf("{%d,true,%d,[]}", epochs, size), "told:summary(listener)")
}

// A router can be built from what comes: batches, the end mark, and what happens before,
// between and after them, with versions without a gap.
func TestPresence_Epoch(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		loadTold(e)
		e.want("ok", "told:listen(listener)")
		n, w := startCrowd(t, epmd, 4, withPresence)
		conns := w.open(10500)
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		for round := range 20 { // while they are told of
			conns = append(conns, w.open(100)...)
			w.close("normal", conns[round*10:round*10+50]...)
			conns = append(conns[:round*10], conns[round*10+50:]...)
		}
		w.settled()
		e.online(1, len(conns))
		more := w.open(200)
		w.close("normal", conns[:300]...)
		e.online(1, len(conns)-300+200)
		w.close("normal", more...)
		w.close("normal", conns[300:]...)
		e.online(1, 0)
		if s := n.Stats().Told; s.PresenceEpochs != 1 || s.PresenceCuts != 0 || s.PresenceTold < 10500 {
			t.Errorf("%+v", s)
		}
	})
}

// What is told of one loop's connections, event by event: a batch that is being filled goes
// before the end of one that may be in it.
func TestPresence_BatchBeforeEnd(t *testing.T) {
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	loadTold(e)
	e.want("ok", "told:keep(listener)")
	subs := make(chan Subscriber, 1)
	n := startNode(t, epmd, func(o *Options, _ *testNode) {
		withPresence(o)
		o.Subscribe = func(sub Subscriber) func() { subs <- sub; return func() {} }
	})
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
	sub := <-subs
	conn := func(id int64) uint64 { return 1<<32 | uint64(id) }
	sub.Opened(conn(1), 1, nil, "chunked", true)
	sub.Opened(conn(2), 0, []byte("b"), "chunked", true)
	sub.Opened(conn(3), 3, nil, "identity", false)
	sub.Closed(conn(1), 1, nil, "normal", nil)
	sub.Opened(conn(4), 4, nil, "chunked", true)
	sub.Caught(0, 2)
	sub.Closed(conn(3), 3, nil, "normal", nil)
	for id := int64(5); id < 5+2000; id++ {
		sub.Opened(conn(id), id, nil, "chunked", true)
	}
	sub.Caught(1, 2)
	e.told("[{new,3,1,identity},{all,2},{gone,1},{all,1},{gone,3},{all,1000},{all,1000},{all,"+n.o.Name+"}]", shortPresence)
}

// shortPresence is what was kept as listener, without pids and epochs; {all, Node} is the
// end mark.
const shortPresence = `[case M of {all_present, _, N} when is_atom(N) -> {all, N}; {all_present, _, L} -> {all, length(L)}; ` +
	`{connected, U, _, #{version := V, transport := T}} -> {new, U, V, T}; {disconnected, U, _, _} -> {gone, U} end || M <- told:kept(listener)]`

// The reason of an end is the term that it was ended with, or the word's.
func TestPresence_Reasons(t *testing.T) {
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	loadTold(e)
	e.want("ok", "told:keep(listener)")
	n, w := startCrowd(t, epmd, 1, withPresence)
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
	w.settled()
	conns := w.open(4)
	w.close("reset", conns[0])
	w.close("idle", conns[1])
	w.loops[0].on(func() { w.loops[0].close(conns[2], "kicked", []byte("\x68\x02\x77\x01a\x6d\x00\x00\x00\x01b")) })
	e.told("4", "length([1 || {connected, _, _, _} <- told:kept(listener)])")
	e.told("[{tcp,reset},idle,{a,<<\"b\">>}]", "[R || {disconnected, _, _, R} <- told:kept(listener)]")
	e.want("true", "begin [{connected, 1, P, #{epoch := E, version := 1}}] = [M || {connected, 1, _, _} = M <- told:kept(listener)], "+
		"[{disconnected, 1, P, _}] = [M || {disconnected, 1, _, _} = M <- told:kept(listener)], "+
		"[{all_present, E, node(P)}] =:= [M || {all_present, _, _} = M <- told:kept(listener)] andalso P =:= %s end", erlPid(n, conns[0]))
}

// The process that is told ends and another takes its name: a new epoch, and the loss of
// nobody but what happened between is seen.
func TestPresence_ProcessRestarts(t *testing.T) {
	epmd := startEPMD(t)
	e := startErl(t, otp{}, epmd, uniqueName("e")+"@localhost")
	loadTold(e)
	n, w := startCrowd(t, epmd, 2, withPresence)
	e.want("pong", "net_adm:ping('%s')", n.o.Name)
	conns := w.open(2500)
	time.Sleep(nameRetry / 2) // nobody is there: nothing happens
	if s := n.Stats().Told; s.PresenceEpochs != 0 || s.PresenceTold != 0 {
		t.Errorf("%+v", s)
	}
	e.want("ok", "told:listen(listener)")
	e.online(1, 2500)
	e.want("[1]", "[length([P || {process, P} <- [{process, P} || P <- L], node(P) =:= '%s']) || {monitored_by, L} <- [process_info(whereis(listener), monitored_by)]]", n.o.Name)
	e.want("ok", "told:unlisten(listener)")
	eventually(t, "its end", func() bool { return w.subs.Load() != nil && len(*w.subs.Load()) == 0 })
	w.close("normal", conns[:100]...)
	e.want("ok", "told:listen(listener)")
	e.online(1, 2400)
	if s := n.Stats().Told; s.PresenceEpochs != 2 || s.PresenceCuts != 0 {
		t.Errorf("%+v", s)
	}
}

// The monitor is taken back when the node stops.
func TestPresence_StopDemonitors(t *testing.T) {
	n, _ := startCrowd(t, startEPMD(t), 1, withPresence)
	raw := dialRaw(t, n)
	raw.connect("raw@localhost")
	eventually(t, "two monitors", func() bool { return n.Stats().PacketsOut >= 2 })
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
	sent, err := io.ReadAll(raw.Conn)
	if err != nil {
		t.Fatal(err)
	}
	var ops []int64
	for len(sent) > lengthBytes {
		size := int(binary.BigEndian.Uint32(sent))
		if packet := sent[lengthBytes : lengthBytes+size]; size > 2 {
			_, elements := tupleOf(packet[2:])
			first, _ := next(elements)
			op, _ := integer(first)
			ops = append(ops, op)
		}
		sent = sent[lengthBytes+size:]
	}
	if !slices.Equal(ops, []int64{opMonitor, opMonitor, opDemonitor}) {
		t.Errorf("sent %v", ops)
	}
}

// Two peers have epochs of their own, and those of a Halley that was started anew are
// greater.
func TestPresence_TwoPeersAndRestartOfHalley(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		one := startErl(t, o, epmd, uniqueName("one")+"@localhost")
		two := startErl(t, o, epmd, uniqueName("two")+"@localhost")
		for _, e := range []*erlNode{one, two} {
			loadTold(e)
			e.want("ok", "told:listen(listener)")
		}
		name := uniqueName("halley") + "@localhost"
		for round := 1; round <= 2; round++ {
			n, w := startCrowd(t, epmd, 2, func(o *Options) {
				withPresence(o)
				o.Name, o.Connect = name, []string{one.name, two.name}
			})
			w.open(1500)
			one.online(2*round-1, 1500)
			two.online(round, 1500)
			conns := w.open(10)
			w.close("normal", conns[:4]...)
			one.online(2*round-1, 1506)
			two.online(round, 1506)

			// One goes and comes back; the other is not bothered.
			one.want("true", "net_kernel:disconnect('%s')", name)
			eventually(t, "one is gone", func() bool { return n.Stats().PeersLost == 1 })
			w.open(1)
			one.online(2*round, 1507)
			two.online(round, 1507)
			if s := n.Stats().Told; s.PresenceEpochs != 3 || s.PresenceCuts != 0 {
				t.Errorf("%+v", s)
			}
			if err := n.stop(); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// A peer that does not read has its epoch cut, long before it would be disconnected; the
// other peer notices nothing. When it reads again it is told all anew.
func TestPresence_Cut(t *testing.T) {
	epmd := startEPMD(t)
	slow := startErl(t, otp{}, epmd, uniqueName("slow")+"@localhost")
	good := startErl(t, otp{}, epmd, uniqueName("good")+"@localhost")
	for _, e := range []*erlNode{slow, good} {
		loadTold(e)
		e.want("ok", "told:listen(listener)")
	}
	n, w := startCrowd(t, epmd, 2, withPresence)
	slow.want("pong", "net_adm:ping('%s')", n.o.Name)
	good.want("pong", "net_adm:ping('%s')", n.o.Name)
	w.open(5000)
	slow.online(1, 5000)
	good.online(1, 5000)
	slow.cmd.Process.Signal(syscall.SIGSTOP)
	defer slow.cmd.Process.Signal(syscall.SIGCONT)
	churn := func() {
		w.close("normal", w.open(1000)...)
		good.online(1, 5000) // in its own time: it is not to be cut for the load
	}
	eventually(t, "a cut", func() bool {
		churn()
		return n.Stats().Told.PresenceCuts > 0
	})
	for range 20 { // nothing more waits for it
		churn()
	}
	time.Sleep(presencePause + 3*tellerTick)
	if s := n.Stats().Told; s.PresenceEpochs != 2 {
		t.Errorf("a new epoch although the peer does not read: %+v", s)
	}
	if waiting := n.registry.conn(slow.name).w.waiting(); waiting > presenceBytes {
		t.Errorf("%d bytes wait", waiting)
	}
	if n.log.count("presence cut", "peer="+slow.name) != 1 {
		t.Errorf("log:\n%s", n.log)
	}
	w.open(77)
	slow.cmd.Process.Signal(syscall.SIGCONT)
	slow.online(2, 5077)
	good.online(1, 5077)
	if s := n.Stats(); s.PeersLost != 0 || s.Told.PresenceCuts != 1 || s.Told.PresenceEpochs != 3 {
		t.Errorf("%d peers lost, %+v", s.PeersLost, s.Told)
	}
}

// Loops that ask at the same time do not all get the same room; after the end there is
// none.
func TestPresence_RoomIsShared(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	raw := dialRaw(t, n)
	raw.connect("raw@localhost")
	eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
	c := n.registry.conn("raw@localhost")
	e := newEpoch(n.teller, c, 1, false)
	sum := 0
	for range 20 {
		sum += e.Room()
	}
	if most := presenceRoom / e.pair; sum > most || sum < most-presencePage {
		t.Errorf("20 loops get %d, want at most %d", sum, most)
	}
	for i := range sum {
		e.Opened(1<<32|uint64(i), int64(i+1), nil, "chunked", true)
	}
	if wide := newEpoch(n.teller, c, 2, true); wide.Room() >= presenceRoom/maxPairBytes {
		t.Error("a wide epoch has too much room")
	}
	e.unsubscribe = func() {}
	e.end()
	told := n.Stats().Told.PresenceTold
	e.Opened(1<<32, 1, nil, "chunked", false)
	e.Closed(1<<32, 1, nil, "normal", nil)
	e.Caught(0, 1)
	if e.Room() != 0 || n.Stats().Told.PresenceTold != told {
		t.Error("something comes of it after the end")
	}
}
