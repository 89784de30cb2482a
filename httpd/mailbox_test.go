package httpd

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestMailbox_FullMakesTheFeedWait(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MailboxEntries = 10 })
	st := connect(t, s, "1")
	f := s.NewFeed()
	var done atomic.Int32
	for i := range 1000 {
		for j := range 7 {
			f.Message(1, nil, []byte(numbered(7*i+j, 10)))
		}
		f.Flush(func() { done.Add(1) })
		if st := s.Stats(); st.MailboxEntries > 10 {
			t.Fatalf("%d entries wait", st.MailboxEntries)
		}
	}
	for i := range 7000 {
		st.want(numbered(i, 10))
	}
	eventually(t, "every done was called", func() bool { return done.Load() == 1000 })
	if b := balance(t, s); b.Written != 7000 {
		t.Errorf("written %d, want 7000", b.Written)
	}
}

// TestMailbox_WaitingIsIdle: a reader that finds no room must not spin.
func TestMailbox_WaitingIsIdle(t *testing.T) {
	m := newMailbox(1000, 10)
	m.wake = func() {} // a loop that does nothing
	m.push(&batch{first: &part{}, bytes: 5000, entries: 1}, 0)
	before := cpuTime(t)
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if m.push(&batch{first: &part{}, bytes: 5000, entries: 1}, 500*time.Millisecond) {
				t.Error("there was no room")
			}
		})
	}
	wg.Wait()
	if used := cpuTime(t) - before; used > 200*time.Millisecond {
		t.Errorf("%v of CPU in half a second of waiting", used)
	}
}

func TestMailbox_OverloadIsCounted(t *testing.T) {
	m := newMailbox(1000, 10)
	m.wake = func() {} // a loop that does nothing
	o := DefaultOptions()
	o.MailboxWait = 50 * time.Millisecond
	o.Logger = slog.New(slog.DiscardHandler)
	s := &Server{opts: o, log: o.Logger}
	s.loops = []*loop{{mailbox: m, server: s}}
	f := s.NewFeed()
	f.Message(1, nil, make([]byte, 5000)) // an empty mailbox takes anything
	f.Flush(func() {})
	if got := s.discarded[discardOverload].Load(); got != 0 {
		t.Fatalf("discarded %d", got)
	}
	start, replied := time.Now(), -1
	f.Deliver(1, nil, []byte("a"), func(n int) { replied = n })
	called := false
	f.Flush(func() { called = true })
	if got := s.discarded[discardOverload].Load(); got != 1 || !called || replied != 0 {
		t.Errorf("discarded %d, done called %v, replied %d", got, called, replied)
	}
	if waited := time.Since(start); waited < 50*time.Millisecond {
		t.Errorf("waited %v", waited)
	}
	start = time.Now()
	f.Message(1, nil, []byte("b"))
	f.Flush(func() {})
	if waited := time.Since(start); waited > 40*time.Millisecond {
		t.Errorf("waited %v although the last found no room", waited)
	}
	s.loops[0].discardBacklog()
	f.Message(1, nil, []byte("c"))
	f.Flush(func() {})
	if got := s.discarded[discardOverload].Load(); got != 2 || m.entries.Load() != 1 {
		t.Errorf("discarded %d, %d entries wait", got, m.entries.Load())
	}
	s.loops[0].discardBacklog()
	if m.bytes.Load() != 0 || m.entries.Load() != 0 {
		t.Errorf("left %d bytes, %d entries", m.bytes.Load(), m.entries.Load())
	}
}

// TestFeed_OverloadIsOfOneLoop: those that have room do not make the feed wait again for
// one that has none.
func TestFeed_OverloadIsOfOneLoop(t *testing.T) {
	o := DefaultOptions()
	o.MailboxWait = 50 * time.Millisecond
	o.Logger = slog.New(slog.DiscardHandler)
	s := &Server{opts: o, log: o.Logger}
	for i := range 2 {
		m := newMailbox(1<<20, 10)
		m.wake = func() {}
		s.loops = append(s.loops, &loop{mailbox: m, server: s, index: i})
	}
	var to [2]int64 // a uid of each loop
	for id := int64(1); to[0] == 0 || to[1] == 0; id++ {
		to[s.owner(id, nil)] = id
	}
	f := s.NewFeed()
	for range 12 { // too much for ten
		f.Message(to[0], nil, []byte("x"))
	}
	f.Flush(func() {})
	start := time.Now()
	for range 4 {
		f.Message(to[0], nil, []byte("x"))
		f.Message(to[1], nil, []byte("x"))
		f.Flush(func() {})
	}
	if waited := time.Since(start); waited > 90*time.Millisecond {
		t.Errorf("waited %v, once would be 50 ms", waited)
	}
	for _, l := range s.loops {
		l.discardBacklog()
	}
}
