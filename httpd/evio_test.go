package httpd

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestEvio_PendingIsNeverReplaced: evio's wake replaces the bytes it still owes
// a socket. Here more is sent while bytes wait, and all of it arrives.
func TestEvio_PendingIsNeverReplaced(t *testing.T) {
	s := evioServer(t, func(o *Options) { o.MaxPendingBytes = 4 << 20 })
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
	s := evioServer(t, nil)
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
	s := evioServer(t, nil)
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
	s := evioServer(t, nil)
	st := stall(t, s, "1")
	fill(t, s, s.NewFeed(), 1, 1000)
	st.conn.(*net.TCPConn).CloseWrite()
	eventually(t, "the client's end is found", func() bool { return s.Stats().Open == 0 })
	balance(t, s)
}

// TestEvio_CloseOfAStalledClient: evio closes a connection that it was told to
// close only when its socket is writable.
func TestEvio_CloseOfAStalledClient(t *testing.T) {
	s := evioServer(t, nil)
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
	s := evioServer(t, func(o *Options) { o.Logger = slog.New(slog.DiscardHandler) })
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
	s := evioServer(t, nil)
	st := connect(t, s, "1")
	if !noDelay(t, serverSocket(t, st.conn.LocalAddr())) {
		t.Error("TCP_NODELAY is off")
	}
}

// evioServer is a testServer on evio, whatever the others run on.
func evioServer(t *testing.T, change func(*Options)) *Server {
	return testServer(t, func(o *Options) {
		if change != nil {
			change(o)
		}
		o.Engine, o.Loops = EngineEvio, 0
	})
}
