package test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counted reads a stream of load's messages to uid, which must come numbered from 1
// without a gap, and stops after the one numbered last. It may be called again.
func (s *stream) counted(uid, from, last int, progress *atomic.Int64) error {
	prefix := strconv.Itoa(uid) + ":"
	for n := from; n <= last; n++ {
		got, err := s.next()
		if err != nil {
			return fmt.Errorf("uid %d, message %d: %w", uid, n, err)
		}
		number, ok := bytes.CutPrefix(got, []byte(prefix))
		if !ok || string(number) != strconv.Itoa(n)+";" {
			return fmt.Errorf("uid %d: got %.40q, want %s%d;", uid, got, prefix, n)
		}
		progress.Add(1)
	}
	return nil
}

// countAll reads the messages numbered from to last of every stream and gives the
// time until the end.
func countAll(t *testing.T, streams []*stream, from, last int) (took func() time.Duration) {
	t.Helper()
	began := time.Now()
	var readers sync.WaitGroup
	var progress atomic.Int64
	errs := make(chan error, len(streams))
	for i, s := range streams {
		s.conn.SetReadDeadline(time.Now().Add(2 * time.Minute))
		readers.Go(func() {
			if err := s.counted(i+1, from, last, &progress); err != nil {
				errs <- err
			}
		})
	}
	return func() time.Duration {
		t.Helper()
		readers.Wait()
		close(errs)
		for err := range errs {
			t.Error(err)
		}
		if t.Failed() {
			t.Fatalf("%d messages came", progress.Load())
		}
		return time.Since(began)
	}
}

// One Erlang process sends 1,000,000 messages to 1,000 connections: singles, lists of
// 100, and both in turn. Each connection gets its own, complete and in order, and the
// ledger is exact.
func TestOrder_Million(t *testing.T) {
	const uids = 1000
	// Readers share two cores with everything else: a pause is not to make them slow.
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "8MiB"}})
	e := sharedErl(t)
	e.want("pong", "net_adm:ping('%s')", h.name)
	streams := h.openMany(uids)
	for _, part := range []struct {
		name       string
		from, last int
		expr       string
	}{
		{"singles", 1, 200, "load:singles(%s, 1000, %d, %d)"},
		{"lists of 100", 201, 900, "load:lists(%s, 1000, 100, %d, %d)"},
		{"singles and lists in turn", 901, 1000, "load:mixed(%s, 1000, %d, %d)"},
	} {
		took := countAll(t, streams, part.from, part.last)
		e.want("ok", part.expr, h.to, part.from, part.last)
		messages := (part.last - part.from + 1) * uids
		t.Logf("%s: %d messages, %.0f/s from Erlang to clients", part.name, messages, float64(messages)/took().Seconds())
	}
	m := h.atRest(1000 * uids)
	if got := m.of(t, "messages_written_total"); got != 1000*uids {
		t.Errorf("%d written", got)
	}
	e.eval("%s ! {1, <<\"last\">>}", h.to)
	streams[0].want("last")
}

// Several Erlang processes and nodes send to the same connections: the order of each
// sender holds. Uids are shared, so that senders take turns in every stream.
func TestOrder_SeveralSenders(t *testing.T) {
	const senders, rounds = 4, 2000
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "8MiB"}})
	nodes := []*erlNode{sharedErl(t), startErl(t, erlOptions{})}
	s := h.open("1")
	for i := range senders {
		nodes[i%2].want("true", "is_pid(spawn(fun() -> [%s ! {1, integer_to_list(%d * 1000000 + N)} || N <- lists:seq(1, %d)] end))",
			h.to, i, rounds)
	}
	var last [senders]int
	s.conn.SetReadDeadline(time.Now().Add(patience))
	for range senders * rounds {
		got, err := s.next()
		if err != nil {
			t.Fatal(err)
		}
		n, err := strconv.Atoi(string(got))
		if err != nil {
			t.Fatal(err)
		}
		sender, n := n/1_000_000, n%1_000_000
		if n != last[sender]+1 {
			t.Fatalf("sender %d: %d after %d", sender, n, last[sender])
		}
		last[sender] = n
	}
	h.atRest(senders * rounds)
}

// A uid's connections each get everything.
func TestOrder_ManyConnectionsOfAUid(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	tabs := []*stream{h.open("1"), h.open("1"), h.open("1")}
	e.want("ok", "load:singles(%s, 1, 1, 1000)", h.to)
	var progress atomic.Int64
	for i, s := range tabs {
		s.conn.SetReadDeadline(time.Now().Add(patience))
		if err := s.counted(1, 1, 1000, &progress); err != nil {
			t.Errorf("tab %d: %v", i, err)
		}
	}
	m := h.atRest(1000)
	if written, copied := m.of(t, "messages_written_total"), m.of(t, "messages_copied_total"); written != 3000 || copied != 2000 {
		t.Errorf("written %d, copied %d", written, copied)
	}
	eventually(t, "one user", func() bool { return h.metric("users") == 1 })
}

// A reader that pauses, while less than --max-pending comes, gets every byte, in order
// and in correct framing, however little it reads at a time.
func TestPause_GetsEveryByte(t *testing.T) {
	const size, count = 10_000, 1200 // 12 MB: more than the kernel's buffers hold
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "16MiB"}})
	e := sharedErl(t)
	c := dial(t, h.addr)
	c.SetReadBuffer(smallBuffer)
	s := h.openOn(c, "1")
	s.want("Welcome, Url: '/test/1' Id: 1\n")
	healthy := h.open("2")
	e.want("ok", "load:slow(%s, 1, 2, %d, %d)", h.to, count, size)
	var progress atomic.Int64
	healthy.conn.SetReadDeadline(time.Now().Add(patience))
	if err := healthy.counted(2, 1, count, &progress); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the paused reader's bytes wait", func() bool {
		return h.metric("messages_received_total") == 2*count && h.metric("pending_bytes") > 1<<20
	})
	e.eval("%s ! {1, <<>>}", h.to) // no chunk, also behind others
	e.eval("%s ! {close, 1, bye}", h.to)
	s.r = bufio.NewReader(&dribble{io.MultiReader(io.LimitReader(s.r, int64(s.r.Buffered())), c), 1})
	pad := bytes.Repeat([]byte("x"), size)
	s.conn.SetReadDeadline(time.Now().Add(2 * patience))
	for n := 1; n <= count; n++ {
		got, err := s.next()
		if err != nil {
			t.Fatalf("message %d: %v", n, err)
		}
		if want := append([]byte(strconv.Itoa(n)+":"), pad...); !bytes.Equal(got, want) {
			t.Fatalf("message %d is %.40q", n, got)
		}
	}
	s.wantEnd()
	if m := h.atRest(2*count + 1); m.sum("messages_discarded_total") != 0 || m.of(t, "pending_bytes") != 0 {
		t.Errorf("discarded %d, pending %d", m.sum("messages_discarded_total"), m.of(t, "pending_bytes"))
	}
}

// dribble reads in pieces of changing size.
type dribble struct {
	r io.Reader
	n int
}

func (d *dribble) Read(b []byte) (int, error) {
	d.n = d.n*7%9973 + 1
	return d.r.Read(b[:min(len(b), d.n)])
}
