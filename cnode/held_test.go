package cnode

import (
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestHold_Size(t *testing.T) {
	if size := unsafe.Sizeof(hold{}); size != 64 {
		t.Errorf("a hold has %d bytes", size)
	}
}

func bareHeld(n *Node, wake func()) *held { return newHeld(n, "e@localhost", wake) }

// signalsOf reads packets of exits and downs, checked against the terms that are due.
func signalsOf(t interface{ Fatalf(string, ...any) }, b []byte) (signals []string) {
	for len(b) > 0 {
		size := int(binary.BigEndian.Uint32(b))
		p := b[4 : 4+size]
		b = b[4+size:]
		rest, ok := refSkip(p[2:])
		if !ok || p[0] != 112 || p[1] != 131 || len(rest) == 0 || rest[0] != 131 {
			t.Fatalf("not a packet: %v", p)
		}
		control, _ := appendText(nil, p[2:], 0)
		reason, after := appendText(nil, rest[1:], 0)
		if len(after) != 0 {
			t.Fatalf("%d bytes after a packet's message", len(after))
		}
		conn := binary.BigEndian.Uint64(swapWords(p[5+2+len("halley@localhost")+2:]))
		by := p[len(p)-len(rest)-4*3:] // of a link
		if p[3] == 4 {
			ref := refOfTest(p[:len(p)-len(rest)])
			by = p[len(p)-len(rest)-ref-4*3:]
		}
		signals = append(signals, fmt.Sprintf("%d %s %#x %d %s", p[5], control[:1], conn, binary.BigEndian.Uint32(by), reason))
	}
	return signals
}

// swapWords makes a number of a pid's id and serial.
func swapWords(b []byte) []byte {
	return append(slices.Clone(b[4:8]), b[:4]...)
}

// refOfTest is the length of the reference that a control message ends with.
func refOfTest(control []byte) int {
	for _, words := range []int{3, 5} {
		n := 3 + 2 + len("e@localhost") + 4 + 4*words
		if at := len(control) - n; at > 0 && control[at] == 90 && control[at+2] == byte(words) {
			return n
		}
	}
	panic("no reference")
}

// Whatever is done in whatever order, what is written is what a plain model says.
func TestHeld_AgainstModel(t *testing.T) {
	n := bareNode(t)
	rapid.Check(t, func(t *rapid.T) {
		type key struct {
			conn uint64
			by   uint32
			ref  uint32 // 0: a link
		}
		woken := 0
		h := bareHeld(n, func() { woken++ })
		live := map[key]bool{}
		fired := map[key]string{}
		ended := map[uint64]bool{}
		conns := []uint64{1 << 32, 1<<32 | 1, 2 << 32, 1<<63 | 7}
		draw := func() (k key, by process, kind holdKind, ref reference) {
			k.conn = rapid.SampledFrom(conns).Draw(t, "conn")
			k.by = rapid.Uint32Range(100, 102).Draw(t, "by")
			k.ref = rapid.Uint32Range(0, 2).Draw(t, "ref")
			by, kind = process{k.by, 3, 5}, holdLink
			if k.ref != 0 {
				kind, ref = holdMonitor, reference{creation: 77, word: [5]uint32{k.ref, 2, 3}, words: 3}
				if k.ref == 2 {
					ref.word, ref.words = [5]uint32{k.ref, 2, 3, 4, 5}, 5
				}
			}
			return k, by, kind, ref
		}
		signal := func(k key, why string) string {
			if k.ref == 0 {
				return fmt.Sprintf("24 { %#x %d %s", k.conn, k.by, why)
			}
			return fmt.Sprintf("28 { %#x %d %s", k.conn, k.by, why)
		}
		write := func() {
			out, packets, left := h.appendFired(nil)
			got := signalsOf(t, out)
			var want []string
			for k, why := range fired {
				want = append(want, signal(k, why))
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" || packets != len(got) || left {
				t.Fatalf("%d packets, left %t: %s", packets, left, diff)
			}
			clear(fired)
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			switch rapid.SampledFrom([]string{"add", "add", "add", "remove", "remove", "fire", "write"}).Draw(t, "step") {
			case "add":
				k, by, kind, ref := draw()
				known := false
				waiting := false // signals of an earlier end of it
				for other := range live {
					known = known || other.conn == k.conn
				}
				for other := range fired {
					waiting = waiting || other.conn == k.conn
				}
				watch, ok := h.add(k.conn, by, kind, ref)
				if !ok {
					t.Fatal("no room")
				}
				switch {
				case live[k], fired[k] != "":
				case ended[k.conn] && !watch && !known:
					fired[k] = "noproc" // known to be gone
				default:
					live[k] = true
				}
				if known && watch || !known && !waiting && !ended[k.conn] && !watch {
					t.Fatalf("watch %t of a connection that is known %t", watch, known)
				}
				if watch && ended[k.conn] { // the loop's answer
					h.fire(k.conn, "noproc", nil)
					delete(live, k)
					fired[k] = "noproc"
				}
			case "remove":
				k, by, kind, ref := draw()
				_, was := fired[k]
				if got := h.remove(k.conn, by, kind, ref); got != (was || live[k]) {
					t.Fatalf("removed %t, live %t, fired %t", got, live[k], was)
				}
				delete(live, k)
				delete(fired, k)
			case "fire":
				conn := rapid.SampledFrom(conns).Draw(t, "conn")
				if ended[conn] {
					continue
				}
				ended[conn] = true
				why, reason, want := "slow", []byte(nil), "slow"
				if rapid.Bool().Draw(t, "given") {
					want = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "reason")
					reason = tAtom(want)
				}
				before := woken
				h.fire(conn, why, reason)
				for k := range live {
					if k.conn == conn {
						delete(live, k)
						fired[k] = want
						if woken == before {
							t.Fatal("the writer is not woken")
						}
					}
				}
			case "write":
				write()
			}
			linked := false
			conn := rapid.SampledFrom(conns).Draw(t, "of")
			for k := range live {
				linked = linked || k.conn == conn && k.ref == 0
			}
			for k := range fired {
				linked = linked || k.conn == conn && k.ref == 0
			}
			if h.linked(conn) != linked {
				t.Fatalf("linked: %t, want %t", !linked, linked)
			}
		}
		write()
		if h.size() != len(live) {
			t.Fatalf("%d are held, want %d", h.size(), len(live))
		}
		if len(h.reasons.given) != 0 {
			t.Fatalf("%d reasons are kept", len(h.reasons.given))
		}
		for k := range live {
			h.fire(k.conn, "normal", nil)
		}
		h.appendFired(nil)
		if h.size() != 0 || len(h.first) != 0 {
			t.Fatal("something is left")
		}
	})
}

// The order: of a connection's holds that in which they came, and noproc of a later one
// behind them; of connections that in which they ended.
func TestHeld_Order(t *testing.T) {
	h := bareHeld(bareNode(t), func() {})
	ref := reference{creation: 77, word: [5]uint32{1, 2, 3}, words: 3}
	h.add(2<<32, process{id: 1}, holdLink, reference{})
	h.add(1<<32, process{id: 1}, holdLink, reference{})
	h.add(1<<32, process{id: 2}, holdMonitor, ref)
	h.add(1<<32, process{id: 3}, holdLink, reference{})
	h.fire(1<<32, "reset", nil)
	h.fire(2<<32, "normal", nil)
	h.add(1<<32, process{id: 4}, holdLink, reference{})
	h.remove(1<<32, process{id: 1}, holdLink, reference{})
	out, packets, left := h.appendFired(nil)
	want := []string{"28 { 0x100000000 2 {tcp,reset}", "24 { 0x100000000 3 {tcp,reset}", "24 { 0x100000000 4 noproc", "24 { 0x200000000 1 normal"}
	if diff := cmp.Diff(want, signalsOf(t, out)); diff != "" || packets != 4 || left {
		t.Error(packets, left, diff)
	}
}

func TestHeld_Bounds(t *testing.T) {
	n := bareNode(t)
	h := bareHeld(n, func() {})
	h.count = maxHeld - 1
	if _, ok := h.add(1<<32, process{id: 1}, holdLink, reference{}); !ok {
		t.Error("refused below the bound")
	}
	if _, ok := h.add(1<<32, process{id: 2}, holdLink, reference{}); ok {
		t.Error("taken beyond the bound")
	}
	if _, ok := h.add(1<<32, process{id: 1}, holdLink, reference{}); !ok {
		t.Error("the same once more is refused at the bound")
	}

	// Beyond it Erlang is told noproc, and so is who has somebody else link.
	c := bareConn(n, new(recorder))
	c.held.count = maxHeld
	conn := tPid("halley@localhost", 5, 1, 42)
	ref := tRef("e@localhost", 1, 2, 3, 4, 5)
	for _, control := range [][]byte{
		tTuple(tSmall(1), peerPid, conn),
		tTuple(tSmall(19), peerPid, conn, ref),
	} {
		c.packet(packetOf(control)[4:])
	}
	c.held.count = 0
	other := tPid("other@localhost", 1, 0, 1)
	c.packet(packetOf(tTuple(tSmall(1), other, conn))[4:])
	c.packet(packetOf(tTuple(tSmall(19), peerPid, conn, tRef("other@localhost", 1, 2, 3)))[4:])
	want := packetOf(tTuple(tSmall(24), conn, peerPid), tAtom("noproc"))
	want = append(want, packetOf(tTuple(tSmall(28), conn, peerPid, ref), tAtom("noproc"))...)
	want = append(want, packetOf(tTuple(tSmall(24), conn, other), tAtom("noproc"))...)
	want = append(want, packetOf(tTuple(tSmall(28), conn, peerPid, tRef("other@localhost", 1, 2, 3)), tAtom("noproc"))...)
	if diff := cmp.Diff(want, answers(c)); diff != "" {
		t.Error(diff)
	}

	// Reasons that would take too much memory are told by their kind.
	h = bareHeld(n, func() {})
	big := make([]byte, maxReasonBytes-5)
	for i := range uint64(2 * maxReasonsBytes / maxReasonBytes) {
		h.add((i+1)<<32, process{id: 1}, holdLink, reference{})
		binary.BigEndian.PutUint64(big, i)
		h.fire((i+1)<<32, "kicked", tBin(string(big)))
	}
	if h.reasons.bytes > maxReasonsBytes || len(h.reasons.given) != maxReasonsBytes/maxReasonBytes {
		t.Errorf("%d bytes in %d reasons", h.reasons.bytes, len(h.reasons.given))
	}
	total, kicked := 0, 0
	for left := true; left; {
		var out []byte
		if out, _, left = h.appendFired(nil); len(out) > firedBytes+bytesPerGo+maxReasonBytes+200 {
			t.Errorf("%d bytes in a write", len(out))
		}
		for _, s := range signalsOf(t, out) {
			if total++; len(s) < 60 {
				kicked++
			}
		}
	}
	if total != 2*maxReasonsBytes/maxReasonBytes || kicked != maxReasonsBytes/maxReasonBytes {
		t.Errorf("%d signals, %d without their reason", total, kicked)
	}
}

// What a link or monitor costs, the map included, and that it goes when they do.
func TestHeld_Memory(t *testing.T) {
	n := bareNode(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, many := range []int{10_000, 100_000, 115_000, 300_000} {
		before := heap()
		h := bareHeld(n, func() {})
		for i := range uint64(many) {
			h.add((i%7+1)<<32|i, process{id: 100, creation: 5}, holdLink, reference{})
		}
		used := float64(int64(heap()-before)) / float64(many)
		for i := range uint64(many) {
			h.add((i%7+1)<<32|i, process{id: 100, creation: 5}, holdMonitor, reference{creation: 1, word: [5]uint32{uint32(i), 2, 3}, words: 3})
		}
		both := float64(int64(heap()-before)) / float64(2*many)
		for i := range uint64(many) {
			h.fire((i%7+1)<<32|i, "normal", nil)
		}
		fired := float64(int64(heap()-before)) / float64(2*many)
		t.Logf("%d links: %.0f bytes each; with as many monitors of the same connections: %.0f, when all have fired: %.0f", many, used, both, fired)
		if used > 120 || both > 120 || fired > 120 {
			t.Error("too much")
		}
		for left := true; left; {
			_, _, left = h.appendFired(nil)
		}
		if after := int64(heap() - before); after > 100<<10 {
			t.Errorf("%d bytes stay", after)
		}
		runtime.KeepAlive(h)
	}
}

// Ends that come faster than the peer reads fill no queue, and packets put meanwhile are
// not kept waiting for all of them.
func TestHeld_SlowPeer(t *testing.T) {
	n := bareNode(t)
	us, them := net.Pipe()
	w := newWriter(us, &n.counters, time.Minute)
	h := bareHeld(n, w.signal)
	w.more = h.appendFired
	ended := make(chan error)
	go func() { ended <- w.run() }()
	const many = 50_000 // times 100 bytes: more than half of maxQueuedBytes
	for i := range uint64(many) {
		h.add(1<<32|i, process{id: 100}, holdLink, reference{})
	}
	for i := range uint64(many) {
		h.fire(1<<32|i, "normal", nil)
	}
	if err := w.put(packetOf(tTuple(tSmall(99)))); err != nil {
		t.Fatal(err)
	}
	w.finish()
	reads, at, total := 0, -1, 0
	them.SetDeadline(time.Now().Add(20 * time.Second))
	b := make([]byte, 2*firedBytes)
	for total < many+1 {
		size, err := them.Read(b) // what was one write
		if err != nil {
			t.Fatal(err)
		}
		reads++
		for p := b[:size]; len(p) > 0; total++ {
			if p[9] == 99 {
				at = total
			}
			p = p[4+binary.BigEndian.Uint32(p):]
		}
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if most := many*100/firedBytes + 3; reads > most {
		t.Errorf("%d writes, at most %d are due", reads, most)
	}
	if at < 0 || at > 2*firedBytes/90 {
		t.Errorf("the packet came after %d signals", at)
	}
	if h.size() != 0 {
		t.Errorf("%d are held", h.size())
	}
	us.Close()
	them.Close()
}

// A hundred thousand connections, each linked and monitored, end at once.
func TestHeld_AllAtOnce(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		const many = 100_000
		epmd := startEPMD(t)
		n, f := startFront(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		conns := make([]uint64, many)
		for i := range conns {
			conns[i] = uint64(i%9+1)<<32 | uint64(i)
			f.conns[conns[i]] = &browser{id: 1}
		}
		e.want("true", "net_kernel:connect_node('%s')", n.o.Name)
		e.want("ok", "process_flag(trap_exit, true), process_flag(message_queue_data, off_heap), "+
			"Pid = fun(I) -> binary_to_term(<<131, 88, 119, %d, \"%s\", I:32, (I rem 9 + 1):32, %d:32>>) end, ok", len(n.o.Name), n.o.Name, n.creation)
		began := time.Now()
		e.want("ok", "[begin P = Pid(I), link(P), monitor(process, P) end || I <- lists:seq(0, %d)], ok", many-1)
		eventually(t, "all held", func() bool { return n.Stats().Held == 2*many })
		t.Logf("%d links and monitors made in %v", many, time.Since(began))
		began = time.Now()
		for _, conn := range conns {
			f.end(conn, "drained", nil)
		}
		told := time.Since(began)
		e.want(fmt.Sprintf("{%d,%[1]d}", many), "(fun C(X, D) when X =:= %d, D =:= %[1]d -> {X, D}; "+
			"C(X, D) -> receive {'EXIT', _, drained} -> C(X + 1, D); {'DOWN', _, process, _, drained} -> C(X, D + 1) after 5000 -> {X, D} end end)(0, 0)", many)
		t.Logf("told in %v, all there and counted in %v", told, time.Since(began))
		if held, lost := n.Stats().Held, n.Stats().PeersLost; held != 0 || lost != 0 {
			t.Errorf("%d are held, %d peers lost", held, lost)
		}
		e.want("[]", "[X || X <- element(2, process_info(self(), links)), is_pid(X), node(X) =/= node()]")
	})
}

func BenchmarkHeld(b *testing.B) {
	n := bareNode(b)
	h := bareHeld(n, func() {})
	var out []byte
	b.ReportAllocs()
	for i := range uint64(b.N) {
		conn := 1<<32 | i%(1<<20)
		h.add(conn, process{id: 100}, holdLink, reference{})
		h.add(conn, process{id: 100}, holdMonitor, reference{creation: 1, word: [5]uint32{1, 2, 3, 4, 5}, words: 5})
		h.fire(conn, "normal", nil)
		if i%1000 == 0 {
			for left := true; left; {
				out, _, left = h.appendFired(out[:0])
			}
		}
	}
}

// TestHeld_FiresBesideMuchElse: signals do not wait for packets that go on coming.
func TestHeld_FiresBesideMuchElse(t *testing.T) {
	n := &Node{pidHead: pidHead("h@x"), creation: 7}
	h := newHeld(n, "p@x", func() {})
	h.add(1<<32|5, process{1, 2, 3}, holdLink, reference{})
	h.fire(1<<32|5, "normal", nil)
	if _, packets, left := h.appendFired(make([]byte, 2*firedBytes)); packets != 1 || left {
		t.Errorf("%d signals, left %v", packets, left)
	}
}
