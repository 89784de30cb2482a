package httpd

import (
	"context"
	"net"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// endings is an Observer that keeps what it is told.
type endings struct {
	mu  sync.Mutex // protects all
	all map[uint64][]string
}

func newEndings() *endings { return &endings{all: map[uint64][]string{}} }

func (e *endings) Ended(conn uint64, why string, reason []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if reason != nil {
		why += " " + string(reason)
	}
	e.all[conn] = append(e.all[conn], why)
}

// of is what was told of a connection.
func (e *endings) of(conn uint64) []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.all[conn])
}

func (e *endings) count(why string) (n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, told := range e.all {
		for _, one := range told {
			if one == why {
				n++
			}
		}
	}
	return n
}

// TestWatch_EveryEnd: each way in which a stream can end is told once, with its reason, to
// who watches; nobody is told of others.
func TestWatch_EveryEnd(t *testing.T) {
	type client struct {
		*stream
		s    *Server
		conn uint64
		f    *Feed
	}
	for _, c := range []struct {
		name   string
		change func(*Options)
		end    func(c client)
		want   string
	}{
		{"client-closes", nil, func(c client) { c.stream.conn.Close() }, "normal"},
		{"client-resets", nil, func(c client) {
			c.stream.conn.(*net.TCPConn).SetLinger(0)
			c.stream.conn.Close()
		}, "reset"},
		{"exit", nil, func(c client) { c.f.Exit(c.conn, []byte("text"), []byte("term")); flush(c.f) }, "kicked term"},
		{"exit-without-a-reason", nil, func(c client) { c.f.Exit(c.conn, []byte("text"), nil); flush(c.f) }, "kicked"},
		{"exit-with-an-empty-reason", nil, func(c client) { c.f.Exit(c.conn, nil, []byte{}); flush(c.f) }, "kicked "},
		{"close", nil, func(c client) { c.f.Close(1, nil, []byte("text"), []byte("term")); flush(c.f) }, "kicked term"},
		{"two-exits", nil, func(c client) {
			c.f.Exit(c.conn, nil, []byte("first"))
			c.f.Exit(c.conn, nil, []byte("second"))
			flush(c.f)
		}, "kicked first"},
		{"exit-of-one-who-does-not-read", nil, func(c client) {
			fill(c.t, c.s, c.f, 1, 1000)
			c.f.Exit(c.conn, nil, []byte("term"))
			flush(c.f)
			if n := c.s.Stats().PendingBytes; n == 0 {
				c.t.Error("nothing waits: it should be told before the last bytes are out")
			}
		}, "kicked term"},
		{"replaced", func(o *Options) { o.MaxPerUID = 1 }, func(c client) { connect(c.t, c.s, "1") }, "replaced"},
		{"flood", nil, func(c client) { c.stream.conn.Write(make([]byte, maxIgnoredBytes+1)) }, "flood"},
		{"slow", nil, func(c client) {
			for n := 0; c.s.Stats().Closed["slow"] == 0 && n < 100000; n++ {
				send(c.f, 1, numbered(n, 1000))
			}
		}, "slow"},
		{"total", func(o *Options) { o.MaxPendingTotalBytes, o.MaxPendingBytes, o.Loops = 100000, 1<<20, 1 }, func(c client) {
			for n := 0; c.s.Stats().Closed["total"] == 0 && n < 100000; n++ {
				send(c.f, 1, numbered(n, 1000))
			}
		}, "total"},
		{"drained", func(o *Options) { o.Drain = 200 * time.Millisecond }, func(c client) { c.s.Shutdown(context.Background()) }, "drained"},
		{"server-ends", nil, func(c client) { c.s.Close() }, "drained"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := testServer(t, c.change)
			watching := newEndings()
			s.Observe(watching)
			st := stall(t, s, "1")
			one := client{st, s, numberOf(t, s, "1"), s.NewFeed()}
			one.f.Watch(one.conn)
			one.f.Watch(one.conn) // is no more than one
			flush(one.f)
			c.end(one)
			eventually(t, "the end is told", func() bool { return len(watching.of(one.conn)) > 0 })
			st.conn.Close()
			eventually(t, "none is left", func() bool { return s.Stats().Open <= int64(len(whereis(s, "1"))) })
			if got := watching.of(one.conn); len(got) != 1 || got[0] != c.want {
				t.Errorf("told %q, want %q once", got, c.want)
			}
			if len(watching.all) != 1 {
				t.Errorf("told of others: %v", watching.all)
			}
		})
	}
}

// TestWatch_WriteFailsInATurn: the end that a write finds is told once, whatever else the
// turn, or the engine, says of the connection.
func TestWatch_WriteFailsInATurn(t *testing.T) {
	for want, failure := range map[string]error{
		"reset": unix.EPIPE,
		"idle":  os.NewSyscallError("sendmsg", unix.ETIMEDOUT),
	} {
		var fault fault
		l := testLoop(t, faultyEngine{fault: &fault}, nil)
		watching, sub := newEndings(), newPresence()
		l.server.Observe(watching)
		defer l.server.Subscribe(sub)()
		slot := accepted(t, l, "1")
		conn := l.number(slot)
		l.onTick()
		f := l.server.NewFeed()
		f.Watch(conn)
		f.Flush(func() {})
		l.onWake()
		fault.err = failure
		f.Send(conn, []byte("a"))
		f.Message(1, nil, []byte("b"))
		f.Exit(conn, nil, []byte("term")) // flushes, and finds the end
		f.Send(conn, []byte("c"))
		f.Close(1, nil, nil, nil)
		f.Watch(conn)
		f.Flush(func() {})
		l.onWake()
		l.onClosed(slot, unix.ECONNRESET)
		if got := watching.of(conn); !slices.Equal(got, []string{want, "noproc"}) {
			t.Errorf("%v: told %v, want %s, and noproc for the last watch", failure, got, want)
		}
		if got := sub.closed[conn]; !slices.Equal(got, []string{want}) {
			t.Errorf("%v: subscriber told %v", failure, got)
		}
		if st := l.server.Stats(); st.Discarded["closing"] != 2 || st.Discarded["not_connected"] != 1 || st.Closed[want] != 1 {
			t.Errorf("%+v", st)
		}
	}
}

// TestWatch_DoesNotOutliveItsConnection: the next one in the slot is not watched.
func TestWatch_DoesNotOutliveItsConnection(t *testing.T) {
	l := testLoop(t, nullEngine{}, nil)
	watching := newEndings()
	l.server.Observe(watching)
	slot := accepted(t, l, "1")
	f := l.server.NewFeed()
	f.Watch(l.number(slot))
	f.Flush(func() {})
	l.onWake()
	l.onClosed(slot, nil)
	if next := accepted(t, l, "1"); next != slot {
		t.Fatalf("slot %d, want the one before, %d", next, slot)
	}
	l.onClosed(slot, nil)
	if len(watching.all) != 1 {
		t.Errorf("told of %v", watching.all)
	}
}

// TestExit_ReasonOutlivesTheClient: what Erlang ended a stream with is its reason, also if
// the last chunk finds that the client has gone.
func TestExit_ReasonOutlivesTheClient(t *testing.T) {
	var fault fault
	l := testLoop(t, faultyEngine{fault: &fault}, nil)
	watching, sub := newEndings(), newPresence()
	l.server.Observe(watching)
	defer l.server.Subscribe(sub)()
	slot := accepted(t, l, "1")
	conn := l.number(slot)
	l.onTick()
	fault.err = unix.EPIPE
	f := l.server.NewFeed()
	f.Watch(conn)
	f.Exit(conn, nil, []byte("term"))
	f.Flush(func() {})
	l.onWake()
	l.onClosed(slot, unix.ECONNRESET)
	if got := watching.of(conn); !slices.Equal(got, []string{"kicked term"}) {
		t.Errorf("told %v", got)
	}
	if got := sub.closed[conn]; !slices.Equal(got, []string{"kickedterm"}) {
		t.Errorf("subscriber told %v", got)
	}
}
