package httpd

import (
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
)

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
