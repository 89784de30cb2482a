package httpd

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
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
	all, nobody := make(chan int, 1), make(chan int, 1) // two loops may answer in either order
	f.Deliver(5, nil, []byte("to all of 5"), func(n int) { all <- n })
	f.Deliver(77, nil, []byte("to nobody"), func(n int) { nobody <- n })
	f.All([]byte("to everybody"))
	done := make(chan struct{})
	f.Flush(func() { close(done) })
	<-done
	if n := <-all; n != 3 {
		t.Errorf("delivered to %d, want 3", n)
	}
	if n := <-nobody; n != 0 {
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
	f.Close(1, nil, []byte("bye"), nil)
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
	f.Close(9, nil, nil, nil)
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
		var dialed atomic.Uint64
		for i := range 8 {
			wg.Go(func() { // a client that comes and goes in every way
				r := rand.New(rand.NewPCG(1, uint64(i)))
				for !stop.Load() {
					c, err := net.Dial("tcp", s.testAddr())
					if err != nil {
						t.Error(err)
						return
					}
					dialed.Add(1)
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
							f.Close(int64(1+r.IntN(12)), nil, nil, nil)
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
		eventually(t, "all came and are gone", func() bool { st := s.Stats(); return st.Opened == dialed.Load() && st.Open == 0 })
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
		if l := s.loops[0]; l.slots.used != 0 || l.users.count() != 0 || len(l.heads)+len(l.posts.all)+l.posts.bytes != 0 {
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
