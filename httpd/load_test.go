package httpd

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// saturate keeps the mailbox from ever being empty until stop is called.
func saturate(t *testing.T, s *Server, uids, feeds int) (stop func()) {
	var done atomic.Bool
	var running sync.WaitGroup
	for range feeds {
		running.Go(func() {
			f := s.NewFeed()
			for n := 0; !done.Load(); n++ {
				for i := range 900 + n%50 {
					f.Message(int64((n*950+i)%uids+1), nil, []byte("0123456789"))
				}
				f.Flush(func() {})
			}
		})
	}
	stop = func() { done.Store(true); running.Wait() }
	t.Cleanup(stop)
	return stop
}

// TestTurn_IsBoundedByDeliveries: {all, Body} is as much work as there are
// streams; in between, new clients are served.
func TestTurn_IsBoundedByDeliveries(t *testing.T) {
	s := testServer(t, nil)
	const streams = 2000
	broadcasts := 100 * len(s.loops)
	for i := range streams {
		drainer(t, s, fmt.Sprint(i+1))
	}
	f := s.NewFeed()
	for range broadcasts {
		f.All([]byte("x"))
	}
	f.Flush(func() {})
	connect(t, s, "999999")
	if st := s.Stats(); st.Written >= uint64(streams*broadcasts*3/4) {
		t.Errorf("a new client waited for %d of %d deliveries", st.Written, streams*broadcasts)
	}
	balance(t, s)
}

// TestShutdown_WhileSaturated: the drain begins although the mailbox is never empty.
func TestShutdown_WhileSaturated(t *testing.T) {
	s := testServer(t, func(o *Options) { o.Drain, o.Slow = 2*time.Second, SlowDrop })
	const streams = 500
	var clean atomic.Int32
	var readers sync.WaitGroup
	for i := range streams {
		st := connect(t, s, fmt.Sprint(i+1))
		readers.Go(func() {
			if _, err := io.Copy(io.Discard, st.body); err == nil {
				clean.Add(1)
			}
			st.conn.Close()
		})
	}
	stop := saturate(t, s, streams, 3)
	eventually(t, "a mailbox fills", func() bool { return s.Stats().MailboxEntries > s.opts.MailboxEntries/2 })
	err := s.Shutdown(context.Background())
	stop()
	if err != nil {
		t.Error(err)
	}
	readers.Wait()
	if clean.Load() != streams {
		t.Errorf("%d of %d streams ended cleanly", clean.Load(), streams)
	}
	balance(t, s)
}

// nullEngine takes every byte: what is tested is the loop alone, turn by turn.
type nullEngine struct{}

func (nullEngine) run(engineHandler, func([]net.Addr)) error { return nil }
func (nullEngine) serving() bool                             { return true }
func (nullEngine) wake()                                     {}
func (nullEngine) notifyWritable(uint32)                     {}
func (nullEngine) detach(uint32) int                         { return 0 }
func (nullEngine) attach(uint32, int) error                  { return nil }
func (nullEngine) descriptor(uint32) int                     { return -1 }
func (nullEngine) closeWrite(uint32)                         {}
func (nullEngine) close(uint32, bool)                        {}
func (nullEngine) stop()                                     {}
func (nullEngine) write(_ uint32, bufs [][]byte) (n int, _ error) {
	for _, b := range bufs {
		n += len(b)
	}
	return n, nil
}

// TestShutdown_TakesAllThatCameBefore: however the turns and the batches fall.
func TestShutdown_TakesAllThatCameBefore(t *testing.T) {
	for _, before := range []int{0, 1, 64, maxBatchEntries, maxTurnWork / 2, maxTurnWork - 1, maxTurnWork, maxTurnWork + 64} {
		o := DefaultOptions()
		o.MaxConnections, o.MailboxEntries, o.Logger = 10, 2*maxTurnWork, slog.New(slog.DiscardHandler)
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		l, err := newLoop(s, 0, nullEngine{})
		if err != nil {
			t.Fatal(err)
		}
		s.loops = []*loop{l}
		slot, _ := l.onAccept()
		l.onRead(slot, []byte("GET /test/1 HTTP/1.1\r\nHost: x\r\n\r\n"))
		f := s.NewFeed()
		send := func(n int) {
			for range n {
				f.Message(1, nil, []byte("x"))
			}
			f.Flush(func() {})
		}
		send(before)
		l.onWake()
		send(10)
		s.closing.Store(true) // as Shutdown does
		for range 5 {
			l.onWake()
		}
		if n := l.count.discarded[discardClosing].Load(); n != 0 {
			t.Errorf("%d before: %d messages that came before Shutdown were discarded", before, n)
		}
	}
}

// TestMailbox_LargeBatchBesideOthers: a batch larger than the mailbox passes
// although other nodes keep it from being empty, and waits while it is more
// than half full.
func TestMailbox_LargeBatchBesideOthers(t *testing.T) {
	m := newMailbox(1000, 10)
	m.wake = func() {} // a loop that does nothing
	push := func(bytes, entries int64) bool {
		return m.push(&batch{first: &part{}, bytes: bytes, entries: entries}, 0)
	}
	if !push(100, 1) || !push(100, 4) || !push(5000, 1) {
		t.Error("at half a large batch found no room")
	}
	if push(5000, 1) || push(1, 1) {
		t.Error("beyond it there was room")
	}
}

// TestMailbox_PushWhileItCloses: who waits for room when the loop ends is not
// forgotten.
func TestMailbox_PushWhileItCloses(t *testing.T) {
	s := &Server{opts: DefaultOptions(), log: slog.New(slog.DiscardHandler)}
	m := newMailbox(1000, 10)
	m.wake = func() {} // a loop that does nothing
	l := &loop{mailbox: m, server: s}
	s.loops = []*loop{l}
	f := s.NewFeed()
	f.Message(1, nil, make([]byte, 5000))
	f.Flush(func() {})
	called := make(chan struct{})
	go func() {
		f.Message(1, nil, make([]byte, 5000))
		f.Flush(func() { close(called) })
	}()
	eventually(t, "the feed waits", func() bool { return m.waiters.Load() > 0 })
	s.closing.Store(true) // as Close and loop.run do
	m.close()
	l.discardBacklog()
	select {
	case <-called:
	case <-time.After(5 * time.Second):
		t.Fatal("done was not called")
	}
	if n := l.count.discarded[discardClosing].Load() + s.discarded[discardClosing].Load(); n != 2 {
		t.Errorf("%d discarded, want 2", n)
	}
}

// TestEvio_ChildInheritsNothing: a socket that a child process holds would keep
// its place in evio's poll after it was closed, and the loop would spin.
func TestEvio_ChildInheritsNothing(t *testing.T) {
	s := evioServer(t, nil)
	st := connect(t, s, "1")
	child := exec.Command("sleep", "5")
	if err := child.Start(); err != nil {
		t.Skip(err)
	}
	defer func() { child.Process.Kill(); child.Wait() }()
	st.conn.Close()
	eventually(t, "closed", func() bool { return s.Stats().Open == 0 })
	before := cpuTime(t)
	time.Sleep(500 * time.Millisecond)
	if used := cpuTime(t) - before; used > 250*time.Millisecond {
		t.Errorf("%v of CPU in half a second with no connection", used)
	}
}

// TestEvio_StoppedAtOnce: evio can miss the end of a loop that ends as soon as
// it has begun. One server after the other: evio closes its listeners' descriptors
// twice, which must not hit another's.
func TestEvio_StoppedAtOnce(t *testing.T) {
	for range 10 {
		o := DefaultOptions()
		o.Engine, o.Listen, o.MaxConnections, o.Logger = EngineEvio, []string{"127.0.0.1:0"}, 10, slog.New(slog.DiscardHandler)
		s, err := New(o)
		if err == nil {
			err = s.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	}
}

// TestEvio_FewDescriptorsAtStart: whatever number is left, the start succeeds or
// fails with an error; evio itself would wait for ever.
func TestEvio_FewDescriptorsAtStart(t *testing.T) {
	for left := 3; left <= 14; left++ {
		o := DefaultOptions()
		o.Engine, o.Listen, o.MaxConnections, o.Logger = EngineEvio, []string{"127.0.0.1:0"}, 100, slog.New(slog.DiscardHandler)
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		var old unix.Rlimit
		unix.Getrlimit(unix.RLIMIT_NOFILE, &old)
		next, err := unix.Dup(0)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(next)
		low := old
		assign(&low.Cur, next+left)
		unix.Setrlimit(unix.RLIMIT_NOFILE, &low)
		result := make(chan error, 1)
		go func() { result <- s.Start() }()
		select {
		case err = <-result:
		case <-time.After(5 * time.Second):
			err = context.DeadlineExceeded
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &old)
		if err == context.DeadlineExceeded {
			t.Fatalf("%d descriptors left: the start hangs", left)
		}
		if err == nil {
			connect(t, s, "1")
		}
		s.Close()
	}
}
