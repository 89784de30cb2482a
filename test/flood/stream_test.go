package flood

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

const okHead = "HTTP/1.1 200 OK\r\nServer: x\r\nTransfer-Encoding: chunked\r\n\r\n"

func chunk(body string) string { return fmt.Sprintf("%x\r\n%s\r\n", len(body), body) }

// streamCases are whole responses and what is found in them.
var streamCases = []struct {
	name, in string
	state    state
	want     Stats
}{
	{"welcome-and-two", okHead + chunk("Welcome") + chunk("1 100 x") + chunk("2 100"), stateSize,
		Stats{Streams: 1, Chunks: 3, Messages: 2, Unnumbered: 1}},
	{"begins-late", okHead + chunk("70 100 x") + chunk("71 100 y"), stateSize, Stats{Streams: 1, Chunks: 2, Messages: 2}},
	{"missing", okHead + chunk("1 100 x") + chunk("5 100 y"), stateSize, Stats{Streams: 1, Chunks: 2, Messages: 2, Missing: 3}},
	{"doubled", okHead + chunk("1 100 x") + chunk("1 100 x") + chunk("2 100 x"), stateSize,
		Stats{Streams: 1, Chunks: 3, Messages: 3, Doubled: 1}},
	{"out-of-order", okHead + chunk("3 100 x") + chunk("2 100 x") + chunk("4 100 x"), stateSize,
		Stats{Streams: 1, Chunks: 3, Messages: 3, OutOfOrder: 1}},
	{"zero-is-in-no-order", okHead + chunk("1 100 x") + chunk("0 100 x") + chunk("2 100 x"), stateSize,
		Stats{Streams: 1, Chunks: 3, Messages: 3}},
	{"no-numbers", okHead + chunk("x") + chunk("1") + chunk("1 x") + chunk(" ") + chunk("1 2x"), stateSize,
		Stats{Streams: 1, Chunks: 5, Unnumbered: 5}},
	{"numbers-too-long", okHead + chunk("1234567890123456789 1 x"), stateSize, Stats{Streams: 1, Chunks: 1, Unnumbered: 1}},
	{"ended", okHead + chunk("1 100 x") + "0\r\n\r\n", stateEnd, Stats{Streams: 1, Chunks: 1, Messages: 1}},
	{"behind-the-end", okHead + "0\r\n\r\nx", stateBroken, Stats{Streams: 1}},
	{"not-found", "HTTP/1.1 404 Not Found\r\nContent-Length: 3\r\n\r\nno\n", stateAnswer, Stats{}},
	{"not-http", "SSH-2.0-x\r\n", stateBroken, Stats{}},
	{"no-chunks", okHead + "Welcome", stateBroken, Stats{Streams: 1}},
	{"bad-tail", okHead + "1\r\nxy\r\n", stateBroken, Stats{Streams: 1, Unnumbered: 1}},
	{"size-too-long", okHead + "123456789\r\n", stateBroken, Stats{Streams: 1}},
	{"upper-case-size", okHead + "A\r\n1 100 abcd\r\n", stateSize, Stats{Streams: 1, Chunks: 1, Messages: 1}},
}

func read(pieces ...string) (stream, *Stats) {
	var s stream
	st := NewStats()
	for _, piece := range pieces {
		s.feed([]byte(piece), 150, st)
	}
	return s, st
}

func TestStream(t *testing.T) {
	ignore := cmpopts.IgnoreFields(Stats{}, "Latency", "Answers")
	for _, c := range streamCases {
		s, st := read(c.in)
		if diff := cmp.Diff(&c.want, st, ignore); diff != "" || s.state != c.state {
			t.Errorf("%s: state %d, want %d; (-want +got)\n%s", c.name, s.state, c.state, diff)
		}
		if got := uint64(st.Latency.TotalCount()); got != st.Messages {
			t.Errorf("%s: %d latencies for %d messages", c.name, got, st.Messages)
		}
		if st.Messages > 0 && st.Latency.Max() != 50 {
			t.Errorf("%s: latency %d, want 50", c.name, st.Latency.Max())
		}
		for cut := range c.in { // in two pieces, at every place
			if s2, st2 := read(c.in[:cut], c.in[cut:]); s2 != s || cmp.Diff(st, st2, ignore) != "" {
				t.Errorf("%s, cut at %d: %+v, whole %+v", c.name, cut, s2, s)
			}
		}
		if s3, st3 := read(strings.Split(c.in, "")...); s3 != s || cmp.Diff(st, st3, ignore) != "" {
			t.Errorf("%s, byte by byte: %+v, whole %+v", c.name, s3, s)
		}
	}
}

// FuzzStream: two pieces are as good as one, whatever they are.
func FuzzStream(f *testing.F) {
	for _, c := range streamCases {
		f.Add(c.in, len(c.in)/2)
	}
	f.Fuzz(func(t *testing.T, in string, cut int) {
		if cut < 0 || cut > len(in) {
			return
		}
		whole, st := read(in)
		parts, st2 := read(in[:cut], in[cut:])
		if whole != parts || st.Messages != st2.Messages || st.Chunks != st2.Chunks || st.Unnumbered != st2.Unnumbered {
			t.Errorf("%+v, whole %+v", parts, whole)
		}
	})
}

func TestStats_AddIsASum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b := NewStats(), NewStats()
		for _, st := range []*Stats{a, b} {
			st.Messages = uint64(rapid.IntRange(0, 100).Draw(t, "messages"))
			for range st.Messages {
				st.Latency.RecordValue(10)
			}
			st.Answers[200] = st.Messages
		}
		want := a.Messages + b.Messages
		a.Add(b)
		if a.Messages != want || uint64(a.Latency.TotalCount()) != want || a.Answers[200] != want {
			t.Fatalf("%+v", a)
		}
	})
}
