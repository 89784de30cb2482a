package cnode

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// readAll feeds pieces to a conn and gives what its Feed got.
func readAll(t testing.TB, n *Node, pieces ...[]byte) (*recorder, *conn, error) {
	t.Helper()
	r := new(recorder)
	c := bareConn(n, r, pieces...)
	err := c.read()
	return r, c, err
}

func TestMessages(t *testing.T) {
	n := bareNode(t)
	for _, tc := range messageTable {
		t.Run(tc.name, func(t *testing.T) {
			r, _, err := readAll(t, n, toHTTPD(tc.term))
			if err.Error() != "EOF" {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tc.want, r.list()); diff != "" {
				t.Error(diff)
			}
			if _, bad := r.counts(); bad != tc.bad {
				t.Errorf("bad: %d, want %d", bad, tc.bad)
			}
		})
	}
}

func TestMessages_UIDs(t *testing.T) {
	n := bareNode(t)
	for _, tc := range uidTable {
		t.Run(tc.name, func(t *testing.T) {
			want := []string{tc.want + " b"}
			if tc.name == "binary-of-255" {
				want = []string{fmt.Sprintf("%q b", make([]byte, 255))}
			} else if tc.want == "" {
				want = nil
			}
			pair := tTuple(tc.term, tBin("b"))
			iolist := tTuple(tc.term, tList(tBin("b"))) // the general way
			for _, m := range [][]byte{pair, iolist, tList(pair), tList(iolist)} {
				r, _, _ := readAll(t, n, toHTTPD(m))
				if want == nil {
					if _, bad := r.counts(); bad != 1 || len(r.list()) != 0 {
						t.Errorf("%v: got %v and %d bad, want 1 bad", m, r.list(), bad)
					}
				} else if diff := cmp.Diff(want, r.list()); diff != "" {
					t.Errorf("%v: %s", m, diff)
				}
			}
		})
	}
}

// What is sent to a connection's pid does the same by every operation; only that to a
// pid of ours arrives.
func TestSends(t *testing.T) {
	n := bareNode(t)
	token := tTuple(tSmall(0), tSmall(1), tSmall(2), peerPid, tSmall(0))
	ops := map[string][]byte{
		"send":                 tTuple(tSmall(2), tAtom(""), ourPid),
		"send-sender":          tTuple(tSmall(22), peerPid, ourPid),
		"send-traced":          tTuple(tSmall(12), tAtom(""), ourPid, token),
		"send-sender-traced":   tTuple(tSmall(23), peerPid, ourPid, token),
		"send-sender-long-tag": tTuple(tInt(22), peerPid, ourPid),
	}
	others := map[string][]byte{
		"creation": tPid("halley@localhost", 0x80000005, 3, 43),
		"node":     tPid("halley@localhosu", 0x80000005, 3, 42),
		"shorter":  tPid("halley@localhos", 0x80000005, 3, 42),
		"longer":   tPid("halley@localhostt", 0x80000005, 3, 42),
		"process":  tPid("halley@localhost", 5, 0, 42),
	}
	for _, tc := range sentTable {
		for op, control := range ops {
			r, _, err := readAll(t, n, packetOf(control, tc.term))
			if err.Error() != "EOF" {
				t.Fatal(err)
			}
			var want []string
			if verb, rest, _ := strings.Cut(tc.want, " "); verb != "" {
				want = []string{fmt.Sprintf("%s %#x %s", verb, uint64(ourConn), rest)}
			}
			if diff := cmp.Diff(want, r.list()); diff != "" {
				t.Errorf("%s by %s: %s", tc.name, op, diff)
			}
			if _, bad := r.counts(); bad != tc.bad {
				t.Errorf("%s by %s: %d bad, want %d", tc.name, op, bad, tc.bad)
			}
		}
		for who, pid := range others {
			before := n.Stats().BadMessages["unknown"]
			r, _, err := readAll(t, n, packetOf(tTuple(tSmall(22), peerPid, pid), tc.term))
			if _, bad := r.counts(); bad != 0 || err.Error() != "EOF" || len(r.list()) != 0 || n.Stats().BadMessages["unknown"] != before+1 {
				t.Errorf("%s to another %s: %v, %v, %d bad", tc.name, who, r.list(), err, bad)
			}
		}
	}
}

// A message that is no term costs itself and nothing else.
func TestMessages_Undecodable(t *testing.T) {
	n := bareNode(t)
	good := toHTTPD(tTuple(tSmall(7), tBin("a")))
	for _, tc := range undecodable {
		t.Run(tc.name, func(t *testing.T) {
			for _, m := range [][]byte{tc.term, tTuple(tSmall(1), tc.term), tList(tTuple(tSmall(1), tBin("lost")), tc.term)} {
				r, _, err := readAll(t, n, good, toHTTPD(m), good)
				if err.Error() != "EOF" {
					t.Fatal(err)
				}
				if diff := cmp.Diff([]string{"7 a", "7 a"}, r.list()); diff != "" {
					t.Error(diff)
				}
				if _, bad := r.counts(); bad != 1 {
					t.Errorf("bad: %d, want 1", bad)
				}
				if len(m) == 0 {
					continue
				}
				r, _, err = readAll(t, n, good, toConn(m), good)
				if _, bad := r.counts(); bad != 1 || err.Error() != "EOF" || len(r.list()) != 2 {
					t.Errorf("to a connection: %v, %d bad, %v", r.list(), bad, err)
				}
			}
		})
	}
}

func TestMessages_DeepNesting(t *testing.T) {
	n := bareNode(t)
	const depth = 500_000
	list := append(bytes.Repeat([]byte{108, 0, 0, 0, 1}, depth), tBin("deep")...)
	list = append(list, bytes.Repeat([]byte{106}, depth)...)
	tuples := append(bytes.Repeat([]byte{104, 1}, depth), 106)

	r, _, _ := readAll(t, n, toHTTPD(tTuple(tSmall(7), list)), toHTTPD(tTuple(tSmall(7), tuples)), toHTTPD(tTuple(tAtom("close"), tSmall(7), tuples)))
	events := r.list()
	if len(events) != 2 || events[0] != "7 deep" || !strings.HasPrefix(events[1], "close 7 {{{") {
		t.Errorf("got %.100q", events)
	}
	if _, bad := r.counts(); bad != 1 {
		t.Errorf("bad: %d, want 1", bad)
	}
}

// The same stream gives the same messages wherever it is cut.
func TestReader_EveryCut(t *testing.T) {
	n := bareNode(t)
	stream := []byte{0, 0, 0, 0} // a tick
	for _, tc := range messageTable {
		stream = append(stream, toHTTPD(tc.term)...)
	}
	for _, tc := range sentTable {
		if len(tc.term) < 1000 {
			stream = append(stream, toConn(tc.term)...)
		}
	}
	stream = append(stream, packetOf(tTuple(tSmall(1), peerPid, ourPid))...)
	stream = append(stream, packetOf(tTuple(tSmall(35), tSmall(1), peerPid, tPid("halley@localhost", 1, 1, 42)))...)
	whole, c, _ := readAll(t, n, stream)
	want, sent := whole.list(), answers(c)
	if len(want) < 10 || len(sent) == 0 {
		t.Fatalf("got %d events, %d bytes of answers", len(want), len(sent))
	}
	for cut := 1; cut < len(stream); cut++ {
		r, _, _ := readAll(t, n, stream[:cut:cut], stream[cut:])
		if diff := cmp.Diff(want, r.list()); diff != "" {
			t.Fatalf("cut at %d: %s", cut, diff)
		}
	}
	single := make([][]byte, len(stream))
	for i := range stream {
		single[i] = stream[i : i+1]
	}
	r, _, _ := readAll(t, n, single...)
	if diff := cmp.Diff(want, r.list()); diff != "" {
		t.Fatalf("byte by byte: %s", diff)
	}
}

// Packets of all sizes around those of blocks, in random pieces, with a Feed that
// gives blocks back late: bodies must be intact at their Flush.
func TestReader_SizesAndPieces(t *testing.T) {
	n := bareNode(t)
	rapid.Check(t, func(t *rapid.T) {
		sizes := rapid.SliceOfN(rapid.OneOf(
			rapid.IntRange(0, 300),
			rapid.IntRange(minRead-100, minRead+100),
			rapid.IntRange(blockBytes-100, blockBytes+100),
			rapid.IntRange(0, 3*blockBytes),
		), 1, 12).Draw(t, "sizes")
		piece := rapid.SampledFrom([]int{1000, 4096, minRead, minRead + 1, 100_000, blockBytes, 1 << 20}).Draw(t, "piece")
		var stream []byte
		for i, size := range sizes {
			stream = append(stream, toHTTPD(tTuple(tSmall(byte(i+1)), tBin(strings.Repeat(string(rune('a'+i)), size))))...)
		}
		var pieces [][]byte
		for len(stream) > 0 {
			k := min(piece, len(stream))
			pieces = append(pieces, stream[:k])
			stream = stream[k:]
		}
		keep := new(keeper)
		if err := bareConn(n, keep, pieces...).read(); err.Error() != "EOF" {
			t.Fatal(err)
		}
		if len(keep.bodies) != len(sizes) {
			t.Fatalf("got %d messages, want %d", len(keep.bodies), len(sizes))
		}
		for i, size := range sizes { // all blocks are still held: nothing may have changed
			if want := strings.Repeat(string(rune('a'+i)), size); string(keep.bodies[i]) != want {
				t.Fatalf("body %d of %d bytes differs", i, size)
			}
		}
		for _, done := range keep.dones {
			done()
		}
	})
}

// keeper keeps bodies without a copy and does not give blocks back.
type keeper struct {
	recorder
	bodies [][]byte
	dones  []func()
}

func (k *keeper) Message(_ int64, _, body []byte) { k.bodies = append(k.bodies, body) }
func (k *keeper) Flush(done func())               { k.dones = append(k.dones, done) }

// A length that claims much costs nothing until that much has come.
func TestReader_LengthIsNoPromise(t *testing.T) {
	n := bareNode(t)
	head := []byte{3, 0, 0, 0, 112, 131} // 48 MiB to come
	_, c, err := readAll(t, n, head)
	if err.Error() != "EOF" || len(c.block.buf) > blockBytes {
		t.Errorf("%v, a block of %d bytes", err, len(c.block.buf))
	}
	for _, length := range [][]byte{{255, 255, 255, 255}, {4, 0, 0, 1}} {
		if _, _, err := readAll(t, n, length); err == nil || !strings.Contains(err.Error(), "--max-packet") {
			t.Errorf("length %v: %v", length, err)
		}
	}
}

// refSkip is skip, the slow and plain way: recursive, a case per tag.
func refSkip(b []byte) (rest []byte, ok bool) {
	defer func() {
		if recover() != nil {
			rest, ok = nil, false
		}
	}()
	return refTerm(b), true
}

func refTerm(b []byte) []byte {
	u16 := func(i int) int { return int(b[i])<<8 | int(b[i+1]) }
	u32 := func(i int) int { return u16(i)<<16 | u16(i+2) }
	many := func(n int, b []byte) []byte {
		for range n {
			b = refTerm(b)
		}
		return b
	}
	switch b[0] {
	case 97:
		return b[2:]
	case 98:
		return b[5:]
	case 106:
		return b[1:]
	case 107:
		return b[3+u16(1):]
	case 108:
		return many(u32(1)+1, b[5:])
	case 104:
		return many(int(b[1]), b[2:])
	case 109:
		return b[5+u32(1):]
	case 110:
		return b[3+int(b[1]):]
	case 116:
		return many(2*u32(1), b[5:])
	case 119:
		return b[2+int(b[1]):]
	case 88:
		return refTerm(b[1:])[12:]
	case 90:
		return refTerm(b[3:])[4+4*u16(1):]
	case 70:
		return b[9:]
	}
	panic("unknown")
}

// genTerm makes terms of the common tags.
func genTerm(depth int) *rapid.Generator[[]byte] {
	leaves := []*rapid.Generator[[]byte]{
		rapid.Map(rapid.Byte(), tSmall),
		rapid.Map(rapid.Int32(), tInt),
		rapid.Map(rapid.Uint64(), tU64),
		rapid.Map(rapid.StringN(0, 20, 60), tBin),
		rapid.Map(rapid.StringN(0, 20, 60), tStr),
		rapid.Map(rapid.StringMatching(`[a-z]{0,20}`), tAtom),
		rapid.Just(tNil()),
		rapid.Just(peerPid),
		rapid.Just(tRef("a@b", 1, 2, 3)),
		rapid.Just(tRef("a@b", 1, 2, 3, 4, 5)),
	}
	if depth == 0 {
		return rapid.OneOf(leaves...)
	}
	inner := rapid.SliceOfN(genTerm(depth-1), 0, 4)
	return rapid.OneOf(append(leaves,
		rapid.Map(inner, func(e [][]byte) []byte { return tTuple(e...) }),
		rapid.Map(inner, func(e [][]byte) []byte { return tList(e...) }),
		rapid.Map(inner, func(e [][]byte) []byte { return tImproper(tBin("t"), e...) }),
	)...)
}

func TestSkip_AgainstPlain(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		term := genTerm(3).Draw(t, "term")
		after := rapid.SliceOfN(rapid.Byte(), 0, 3).Draw(t, "after")
		b := append(append([]byte(nil), term...), after...)
		if n := skip(b, noTermsLimit); n != len(term) {
			t.Fatalf("skip: %d, want %d", n, len(term))
		}
		cut := rapid.IntRange(0, len(term)-1).Draw(t, "cut")
		if n := skip(term[:cut], noTermsLimit); n != -1 {
			t.Fatalf("skip of %d bytes of %d: %d", cut, len(term), n)
		}
		if rest, ok := refSkip(b); !ok || len(rest) != len(after) {
			t.Fatalf("the test's own reader leaves %d bytes, want %d", len(rest), len(after))
		}
		text, _ := appendText(nil, term, 0)
		if len(text) > 2*maxTextBytes+100 {
			t.Fatalf("text of %d bytes", len(text))
		}
	})
}

func TestSkip_TermLimit(t *testing.T) {
	term := tList(tSmall(1), tSmall(2), tSmall(3)) // 5 terms with the tail
	for most, want := range map[int]int{4: -1, 5: len(term), 6: len(term)} {
		if n := skip(term, most); n != want {
			t.Errorf("at most %d: %d, want %d", most, n, want)
		}
	}
}

// hotTable are the shapes whose decoding is measured and must not allocate.
var hotTable = []struct {
	name     string
	messages int
	packet   []byte
}{
	{"single", 1, toHTTPD(hotPair(1))},
	{"single-binary-uid", 1, toHTTPD(tTuple(tBin("joe"), tBin(strings.Repeat("x", 100))))},
	{"pid", 1, toConn(tBin(strings.Repeat("x", 100)))},
	{"pid-tagged", 1, toConn(tTuple(tAtom("router_msg"), tBin(strings.Repeat("x", 100))))},
	{"pid-send", 1, packetOf(tTuple(tSmall(2), tAtom(""), ourPid), tBin(strings.Repeat("x", 100)))},
	{"list10", 10, toHTTPD(hotList(10))},
	{"list100", 100, toHTTPD(hotList(100))},
}

func hotPair(i int) []byte { return tTuple(tInt(int32(1000+i)), tBin(strings.Repeat("x", 100))) }
func hotList(n int) []byte {
	e := make([][]byte, n)
	for i := range e {
		e[i] = hotPair(i)
	}
	return tList(e...)
}

// counter is the cheapest Feed.
type counter struct{ messages, bytes int }

func (c *counter) Message(_ int64, _, body []byte)          { c.messages++; c.bytes += len(body) }
func (c *counter) All([]byte)                               {}
func (c *counter) Send(_ uint64, body []byte)               { c.messages++; c.bytes += len(body) }
func (c *counter) Close(int64, []byte, []byte, []byte)      {}
func (c *counter) Exit(uint64, []byte, []byte)              {}
func (c *counter) Watch(uint64)                             {}
func (c *counter) Info(uint64, func(*Info))                 {}
func (c *counter) Whereis(int64, []byte, func([]uint64))    {}
func (c *counter) Deliver(int64, []byte, []byte, func(int)) {}
func (c *counter) CloseCount(int64, []byte, []byte, []byte, func(int)) {
}
func (c *counter) Bad()              {}
func (c *counter) Flush(done func()) { done() }
func (c *counter) End()              {}

func TestDecode_NoAllocations(t *testing.T) {
	n := bareNode(t)
	for _, tc := range hotTable {
		t.Run(tc.name, func(t *testing.T) {
			feed := new(counter)
			c := bareConn(n, feed)
			b := n.blocks.take(blockBytes)
			allocs := testing.AllocsPerRun(1000, func() {
				b.from, b.to = 0, copy(b.buf, tc.packet)
				if err := c.decode(b); err != nil {
					t.Fatal(err)
				}
			})
			if allocs != 0 || feed.messages != 1001*tc.messages {
				t.Errorf("%v allocations, %d messages", allocs, feed.messages)
			}
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	n := bareNode(b)
	for _, tc := range hotTable {
		b.Run("shape="+tc.name, func(b *testing.B) {
			feed := new(counter)
			c := bareConn(n, feed)
			block := n.blocks.take(blockBytes)
			for block.to+len(tc.packet) <= blockBytes {
				block.to += copy(block.buf[block.to:], tc.packet)
			}
			per := block.to / len(tc.packet) * tc.messages
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				block.from = 0
				if err := c.decode(block); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(int64(block.to))
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*per), "ns/msg")
		})
	}
}
