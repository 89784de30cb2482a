package httpd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestStream_EmptyBodyIsNoChunk(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	send(s.NewFeed(), 1, "", "a", "", "b")
	st.want("ab")
	if got := balance(t, s); got.Written != 4 {
		t.Errorf("written %d, want 4", got.Written)
	}
}

func TestStream_EveryConnectionOfAUID(t *testing.T) {
	s := testServer(t, nil)
	streams := []*stream{connect(t, s, "5"), connect(t, s, "5"), connect(t, s, "5")}
	other := connect(t, s, "6")
	f := s.NewFeed()
	got := make(chan int, 2)
	f.Deliver(5, nil, []byte("to all of 5"), func(n int) { got <- n })
	f.Deliver(77, nil, []byte("to nobody"), func(n int) { got <- n })
	f.All([]byte("to everybody"))
	done := make(chan struct{})
	f.Flush(func() { close(done) })
	<-done
	if n := <-got; n != 3 {
		t.Errorf("delivered to %d, want 3", n)
	}
	if n := <-got; n != 0 {
		t.Errorf("delivered to %d, want 0", n)
	}
	for _, st := range streams {
		st.want("to all of 5to everybody")
	}
	other.want("to everybody")
	b := balance(t, s)
	if b.Received != 3 || b.Copied != 2+3 || b.Written != 7 || b.Discarded["not_connected"] != 1 {
		t.Errorf("ledger %+v", b)
	}
}

func TestStream_BinaryUID(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "alice")
	number := connect(t, s, "42")
	f := s.NewFeed()
	f.Message(0, []byte("alice"), []byte("hi"))
	f.Message(0, []byte("42"), []byte("number"))
	f.Message(0, []byte("bob"), []byte("nobody"))
	f.Flush(func() {})
	st.want("hi")
	number.want("number")
}

func TestStream_SeveralMessagesOneWrite(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	eventually(t, "the welcome is counted", func() bool { return s.Stats().Writes == 1 })
	before := s.Stats().Writes
	f := s.NewFeed()
	want := ""
	for i := range 100 {
		body := fmt.Sprintf("message %d;", i)
		if i == 50 {
			body = strings.Repeat("x", 5000)
		}
		f.Message(1, nil, []byte(body))
		want += body
	}
	f.Flush(func() {})
	st.want(want)
	balance(t, s)
	if n := s.Stats().Writes - before; n != 1 {
		t.Errorf("%d writes, want 1", n)
	}
}

func TestStream_CloseAfterWhatWasSentBefore(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	f := s.NewFeed()
	f.Message(1, nil, []byte("last words"))
	f.Close(1, nil, []byte("bye"))
	f.Message(1, nil, []byte("too late"))
	f.Flush(func() {})
	st.want("last words")
	st.wantEnd()
	b := balance(t, s)
	if b.Discarded["not_connected"] != 1 {
		t.Errorf("discarded %v", b.Discarded)
	}
	st.conn.Close()
	eventually(t, "closed as kicked", func() bool { return s.Stats().Closed["kicked"] == 1 })
}

func TestStream_HTTP10HasNoChunks(t *testing.T) {
	s := testServer(t, nil)
	c := dial(t, s)
	io.WriteString(c, "GET /test/9 HTTP/1.0\r\n\r\n")
	eventually(t, "connected", func() bool { return s.Stats().Connections == 1 })
	f := s.NewFeed()
	send(f, 9, "one", "two")
	f.Close(9, nil, nil)
	f.Flush(func() {})
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	if _, body, _ := strings.Cut(string(all), "\r\n\r\n"); body != "Welcome, Url: '/test/9' Id: 9\nonetwo" {
		t.Errorf("body %q", body)
	}
}

func TestStream_MaxPerUID(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxPerUID = 2 })
	first, second := connect(t, s, "1"), connect(t, s, "1")
	third := connect(t, s, "1")
	first.wantEnd()
	send(s.NewFeed(), 1, "x")
	second.want("x")
	third.want("x")
	first.conn.Close()
	eventually(t, "the oldest was replaced", func() bool { return s.Stats().Closed["replaced"] == 1 })
}

func TestStream_ClientBytesAfterRequest(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	st.conn.Write(bytes.Repeat([]byte{'x'}, maxIgnoredBytes-10))
	send(s.NewFeed(), 1, "still here")
	st.want("still here")
	st.conn.Write(bytes.Repeat([]byte{'x'}, 100))
	eventually(t, "closed as flood", func() bool { return s.Stats().Closed["flood"] == 1 })
}

func TestStream_LargeBody(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	body := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // 16 MiB
	go send(s.NewFeed(), 1, string(body), "after")
	st.want(string(body))
	st.want("after")
	if b := balance(t, s); b.Written != 2 {
		t.Errorf("written %d, want 2; discarded %v", b.Written, b.Discarded)
	}
}

func TestStream_TooBigForTheBudget(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxPendingTotalBytes = 1000 })
	st := connect(t, s, "1")
	send(s.NewFeed(), 1, strings.Repeat("x", 1001), "small")
	st.want("small")
	if b := balance(t, s); b.Discarded["too_big"] != 1 {
		t.Errorf("discarded %v", b.Discarded)
	}
}

// stall connects a client that stops reading after its welcome. Its receive
// buffer is small, so that the server's socket fills soon, but larger than
// loopback's segments: below that TCP goes at the pace of its timers.
func stall(t testing.TB, s *Server, uid string) *stream {
	t.Helper()
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 128<<10) })
	}}
	c, err := d.Dial("tcp", s.testAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	fmt.Fprintf(c, "GET /test/%s HTTP/1.1\r\nHost: x\r\n\r\n", uid)
	st := readHead(t, c)
	st.want("Welcome, Url: '/test/" + uid + "' Id: " + uid + "\n")
	return st
}

// fill sends numbered messages to uid until some bytes wait for it.
func fill(t testing.TB, s *Server, f *Feed, id int64, size int) (n int) {
	t.Helper()
	for ; s.Stats().PendingBytes == 0; n++ {
		if n > 100000 {
			t.Fatal("the socket never filled")
		}
		send(f, id, numbered(n, size))
	}
	return n
}

func numbered(n, size int) string {
	text := fmt.Sprintf("%09d;", n)
	return text + strings.Repeat("x", size-len(text))
}

// TestEvio_PendingIsNeverReplaced: evio's wake replaces the bytes it still owes
// a socket. Here more is sent while bytes wait, and all of it arrives.
func TestEvio_PendingIsNeverReplaced(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxPendingBytes = 4 << 20 })
	st := stall(t, s, "1")
	f := s.NewFeed()
	n := fill(t, s, f, 1, 1000)
	for s.Stats().PendingBytes < 1000*1000 {
		send(f, 1, numbered(n, 1000))
		n++
	}
	for i := range n {
		st.want(numbered(i, 1000))
	}
	if b := balance(t, s); b.Written != uint64(n) {
		t.Errorf("written %d, want %d", b.Written, n)
	}
}

// TestEvio_RestGoesOutUnasked: evio does not tell when a socket has drained. The
// rest of a partial write arrives although nothing more is sent.
func TestEvio_RestGoesOutUnasked(t *testing.T) {
	s := testServer(t, nil)
	st := stall(t, s, "1")
	n := fill(t, s, s.NewFeed(), 1, 1000)
	time.Sleep(300 * time.Millisecond) // beyond the longest pause between two tries
	for i := range n {
		st.want(numbered(i, 1000))
	}
	eventually(t, "nothing waits", func() bool { return s.Stats().PendingBytes == 0 })
}

// TestEvio_StalledClientThatSends: evio does not read a socket that it owes
// bytes, and its level-triggered poll then spins. Here the bytes are read.
func TestEvio_StalledClientThatSends(t *testing.T) {
	s := testServer(t, nil)
	st := stall(t, s, "1")
	fill(t, s, s.NewFeed(), 1, 1000)
	st.conn.Write([]byte("some bytes after the request"))
	before := cpuTime(t)
	time.Sleep(500 * time.Millisecond)
	if used := cpuTime(t) - before; used > 250*time.Millisecond {
		t.Errorf("%v of CPU in half a second with nothing to do", used)
	}
	// Not a FIN: a client whose window has shrunk to nothing rejects the
	// acknowledgement of what it has sent, and then holds its FIN back.
	st.conn.(*net.TCPConn).SetLinger(0)
	st.conn.Close()
	eventually(t, "the client's end is found", func() bool { return s.Stats().Open == 0 })
	balance(t, s)
}

func TestEvio_StalledClientThatEnds(t *testing.T) {
	s := testServer(t, nil)
	st := stall(t, s, "1")
	fill(t, s, s.NewFeed(), 1, 1000)
	st.conn.(*net.TCPConn).CloseWrite()
	eventually(t, "the client's end is found", func() bool { return s.Stats().Open == 0 })
	balance(t, s)
}

// TestEvio_CloseOfAStalledClient: evio closes a connection that it was told to
// close only when its socket is writable.
func TestEvio_CloseOfAStalledClient(t *testing.T) {
	s := testServer(t, nil)
	st := stall(t, s, "1")
	f := s.NewFeed()
	n := fill(t, s, f, 1, 1000)
	for s.Stats().Closed["slow"] == 0 {
		send(f, 1, numbered(n, 1000))
		if n++; n > 100000 {
			t.Fatal("never closed as slow")
		}
	}
	b := balance(t, s)
	if b.Discarded["slow"] < 64 {
		t.Errorf("what waited was not counted as slow: %v", b.Discarded)
	}
	if _, err := io.Copy(io.Discard, st.conn); err == nil {
		t.Error("the client saw a clean end")
	}
}

// TestEvio_AcceptFails: evio ends when accept fails, and closes all it has. Here
// it is started again on the same port.
func TestEvio_AcceptFails(t *testing.T) {
	s := testServer(t, func(o *Options) { o.Logger = slog.New(slog.DiscardHandler) })
	st := connect(t, s, "1")
	client := unconnected(t)
	restore := noMoreFiles(t)
	connectTo(t, client, s.Addrs()[0])
	if _, err := io.Copy(io.Discard, st.body); err == nil {
		t.Error("the stream ended cleanly")
	}
	restore()
	eventually(t, "it serves again", func() bool { // the old listener's last clients are reset
		resp, err := http.Head("http://" + s.testAddr() + "/test/1")
		return err == nil && resp.StatusCode == http.StatusOK
	})
	again := connect(t, s, "2")
	send(s.NewFeed(), 2, "back")
	again.want("back")
}

func TestEvio_NoDelay(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	if !noDelay(t, serverSocket(t, st.conn.LocalAddr())) {
		t.Error("TCP_NODELAY is off")
	}
}

func TestSlow_DropKeepsWholeMessages(t *testing.T) {
	s := testServer(t, func(o *Options) { o.Slow, o.MaxPendingBytes = SlowDrop, 10000 })
	st := stall(t, s, "1")
	f := s.NewFeed()
	n := fill(t, s, f, 1, 1000)
	for range 100 {
		send(f, 1, numbered(n, 1000))
		n++
	}
	dropped := s.Stats().Discarded["slow"]
	if dropped < 90 || s.Stats().PendingBytes > 12000 {
		t.Fatalf("dropped %d, %d bytes wait", dropped, s.Stats().PendingBytes)
	}
	last, buf := -1, make([]byte, 1000)
	for range n - int(dropped) {
		io.ReadFull(st.body, buf)
		var i int
		if fmt.Sscanf(string(buf), "%09d;", &i); string(buf) != numbered(i, 1000) || i <= last {
			t.Fatalf("after %d: %.20q", last, buf)
		}
		last = i
	}
	send(f, 1, "caught up")
	st.want("caught up")
	if b := balance(t, s); b.Written != uint64(n)-dropped+1 {
		t.Errorf("written %d of %d, dropped %d", b.Written, n, dropped)
	}
}

func TestSlow_TotalClosesTheOneWithMost(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxPendingBytes, o.MaxPendingTotalBytes = 4<<20, 1<<20 })
	most, less := stall(t, s, "1"), stall(t, s, "2")
	healthy := connect(t, s, "3")
	f := s.NewFeed()
	fill(t, s, f, 1, 1000)
	for i := range 300 {
		send(f, 1, numbered(i, 1000))
	}
	for n := 0; s.Stats().Closed["total"] == 0; n++ {
		if n > 100000 {
			t.Fatal("never over the total")
		}
		send(f, 2, numbered(n, 1000))
		send(f, 1, numbered(n, 1000))
	}
	send(f, 3, "unharmed")
	healthy.want("unharmed")
	if p := s.Stats().PendingBytes; p > 1<<20 {
		t.Errorf("%d bytes wait", p)
	}
	if got := s.Stats().Connections; got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
	balanceWithPending(t, s)
	_, _ = most, less
}

// balanceWithPending is the ledger while something still waits.
func balanceWithPending(t *testing.T, s *Server) {
	t.Helper()
	eventually(t, "the ledger is even", func() bool {
		st := s.Stats()
		waiting := st.Received + st.Copied - st.Written - st.DiscardedTotal()
		return (waiting > 0) == (st.PendingBytes > 0)
	})
}

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

func TestShutdown_EndsStreamsCleanly(t *testing.T) {
	s := testServer(t, func(o *Options) { o.Drain = 2 * time.Second })
	var streams []*stream
	for i := range 300 {
		streams = append(streams, connect(t, s, fmt.Sprint(i+1)))
	}
	late := dial(t, s)
	eventually(t, "all are there", func() bool { return s.Stats().Open == 301 })
	f := s.NewFeed()
	for i := range 300 {
		f.Message(int64(i+1), nil, []byte("before the end"))
	}
	f.Flush(func() {})
	result := make(chan error, 1)
	go func() { result <- s.Shutdown(context.Background()) }()
	eventually(t, "the drain has begun", func() bool { return s.Stats().Connections < 300 })
	conn := dial(t, s)
	io.WriteString(conn, "GET /test/1 HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp := readHead(t, conn).resp; resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("a new client got %s", resp.Status)
	}
	conn.Close()
	for _, st := range streams {
		st.want("before the end")
		st.wantEnd()
		st.conn.Close()
	}
	late.Close()
	if err := <-result; err != nil {
		t.Error(err)
	}
	f.Message(1, nil, []byte("after the end"))
	f.Flush(func() {})
	if b := balance(t, s); b.Discarded["closing"] != 1 || b.Written != 300 {
		t.Errorf("written %d, discarded %v", b.Written, b.Discarded)
	}
}

func TestShutdown_StalledClientDoesNotHoldIt(t *testing.T) {
	s := testServer(t, func(o *Options) { o.Drain = 300 * time.Millisecond })
	stall(t, s, "1")
	fill(t, s, s.NewFeed(), 1, 1000)
	start := time.Now()
	if err := s.Shutdown(context.Background()); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %v", took)
	}
	balance(t, s)
}

func TestLimit_MoreThanMaxConnections(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxConnections = 10 })
	var streams []*stream
	for i := range 10 {
		streams = append(streams, connect(t, s, fmt.Sprint(i+1)))
	}
	for range 100 {
		conn := dial(t, s)
		io.WriteString(conn, "GET /test/1 HTTP/1.1\r\nHost: x\r\n\r\n")
		resp := readHead(t, conn).resp
		if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("status %s, header %v", resp.Status, resp.Header)
		}
		conn.Close()
	}
	f := s.NewFeed()
	for i, st := range streams {
		send(f, int64(i+1), "unharmed")
		st.want("unharmed")
	}
	streams[0].conn.Close()
	eventually(t, "there is room again", func() bool { return s.Stats().Open == 9 })
	connect(t, s, "11")
}

// TestStorm sends while clients come and go, and checks the ledger.
func TestStorm(t *testing.T) {
	files := openFiles(t)
	t.Run("storm", func(t *testing.T) {
		s := testServer(t, func(o *Options) { o.MaxPendingBytes = 2000 })
		var wg sync.WaitGroup
		var stop atomic.Bool
		for i := range 8 {
			wg.Go(func() { // a client that comes and goes in every way
				r := rand.New(rand.NewPCG(1, uint64(i)))
				for !stop.Load() {
					c, err := net.Dial("tcp", s.testAddr())
					if err != nil {
						t.Error(err)
						return
					}
					fmt.Fprintf(c, "GET /test/%d HTTP/1.1\r\nHost: x\r\n\r\n", 1+r.IntN(10))
					switch r.IntN(3) {
					case 0:
						c.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(20)) * time.Millisecond))
						io.Copy(io.Discard, c)
					case 1:
						time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
						c.(*net.TCPConn).SetLinger(0)
					}
					c.Close()
				}
			})
		}
		var sent atomic.Uint64
		for i := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(2, uint64(i)))
				f := s.NewFeed()
				for !stop.Load() {
					for range r.IntN(50) {
						body := make([]byte, r.IntN(3000))
						switch r.IntN(20) {
						case 0:
							f.All(body)
						case 1:
							f.Deliver(int64(1+r.IntN(12)), nil, body, func(int) {})
						case 2:
							f.Close(int64(1+r.IntN(12)), nil, nil)
							continue
						default:
							f.Message(int64(1+r.IntN(12)), nil, body)
						}
						sent.Add(1)
					}
					f.Flush(func() {})
				}
			})
		}
		time.Sleep(3 * time.Second)
		stop.Store(true)
		wg.Wait()
		eventually(t, "all are gone", func() bool { return s.Stats().Open == 0 })
		b := balance(t, s)
		if b.Received != sent.Load() {
			t.Errorf("received %d, sent %d", b.Received, sent.Load())
		}
		closed := uint64(0)
		for _, n := range b.Closed {
			closed += n
		}
		if closed != b.Opened || b.Connections != 0 || b.PendingBytes != 0 {
			t.Errorf("opened %d, closed %d, %d streams, %d bytes wait", b.Opened, closed, b.Connections, b.PendingBytes)
		}
		if l := s.loops[0]; l.slots.used != 0 || l.users.count() != 0 || len(l.heads) != 0 {
			t.Errorf("left %d slots, %d users, %d heads", l.slots.used, l.users.count(), len(l.heads))
		}
		t.Logf("%d messages, %d connections, written %d, discarded %v", b.Received, b.Opened, b.Written, b.Discarded)
	})
	if now := openFiles(t); now != files {
		t.Errorf("%d descriptors are open, %d before", now, files)
	}
}

// openFiles counts this process's descriptors.
func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("no /proc here: ", err)
	}
	return len(entries)
}
