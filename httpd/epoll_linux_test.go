package httpd

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// epollServer is a testServer on epoll, whatever the others run on.
func epollServer(t *testing.T, loops int, change func(*Options)) *Server {
	return testServer(t, func(o *Options) {
		if change != nil {
			change(o)
		}
		o.Engine, o.Loops = EngineEpoll, loops
	})
}

// oneDescriptor leaves this process one more descriptor, until it is given back.
func oneDescriptor(t *testing.T) (giveBack func()) {
	t.Helper()
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	lowest, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(lowest)
	low := old
	low.Cur = uint64(lowest + 1)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	giveBack = func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) }
	t.Cleanup(giveBack)
	return giveBack
}

// Without descriptors a client is told so, those who are connected notice nothing, and
// when there are some again clients are served again.
func TestEpoll_AcceptFails(t *testing.T) {
	var log logText
	s := epollServer(t, 2, func(o *Options) { o.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	before := connect(t, s, "1")
	giveBack := oneDescriptor(t)
	refused := dial(t, s) // takes the last one
	if resp := readHead(t, refused).resp; resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("got %s", resp.Status)
	}
	send(s.NewFeed(), 1, "still here")
	before.want("still here")
	giveBack()
	start := time.Now()
	eventually(t, "clients are served again", func() bool { // one may still meet the refusals
		next := dial(t, s)
		io.WriteString(next, "GET /test/2 HTTP/1.1\r\nHost: x\r\n\r\n")
		if readHead(t, next).resp.StatusCode == 200 {
			return true
		}
		next.Close()
		return false
	})
	if took := time.Since(start); took > maxPause+time.Second {
		t.Errorf("the next client waited %v", took)
	}
	if st := s.Stats(); st.AcceptErrors == 0 || st.Open != 2 {
		t.Errorf("%+v", st)
	}
	if n := strings.Count(log.String(), "clients cannot be accepted"); n != 1 {
		t.Errorf("%d log lines, want 1\n%s", n, log.String())
	}
}

// A client is served by the loop of its user, whoever accepted it: the messages of a
// uid reach all its connections.
func TestEpoll_ConnectionsMoveToTheirLoop(t *testing.T) {
	s := epollServer(t, 4, nil)
	uids := []string{"1", "2", "3", "4", "5", "alice", "bob", "01", "9223372036854775807"}
	var streams []*stream
	for _, uid := range uids {
		for range 5 {
			streams = append(streams, connect(t, s, uid))
		}
	}
	f := s.NewFeed()
	for _, uid := range uids {
		f.Message(0, []byte(uid), []byte("for "+uid))
	}
	f.Message(3, nil, []byte(" and again"))
	f.Flush(func() {})
	for i, st := range streams {
		uid := uids[i/5]
		st.want("for " + uid)
		if uid == "3" {
			st.want(" and again")
		}
	}
	owners := map[int]bool{}
	for _, l := range s.loops {
		if n := l.count.streams.Load(); n > 0 {
			owners[l.index] = true
			if n%5 != 0 {
				t.Errorf("loop %d has %d streams: those of a uid are apart", l.index, n)
			}
		}
	}
	if len(owners) < 2 {
		t.Errorf("%d of 4 loops have all the users", len(owners))
	}
	if st := balance(t, s); st.Open != int64(len(streams)) || st.Opened != uint64(len(streams)) {
		t.Errorf("%+v", st)
	}
}

// What a client sends behind its request counts on the loop that it moved to, too.
func TestEpoll_FloodAfterAMove(t *testing.T) {
	s := epollServer(t, 4, nil)
	for _, uid := range []string{"1", "2", "3", "4"} {
		c := dial(t, s)
		c.Write(append([]byte("GET /test/"+uid+" HTTP/1.1\r\nHost: x\r\n\r\n"), bytes.Repeat([]byte{'x'}, 2*maxIgnoredBytes)...))
	}
	eventually(t, "all are closed", func() bool { return s.Stats().Closed["flood"] == 4 })
}

// A client that has left, of which the loop has not heard yet, may be written to, and be
// replaced, by what comes with the same look at the sockets: it is buried once.
func TestEpoll_LeavesWhileItIsReplaced(t *testing.T) {
	s := epollServer(t, 1, func(o *Options) { o.MaxPerUID = 1 })
	f := s.NewFeed()
	for i := range 300 {
		old := connect(t, s, "7")
		next := dial(t, s)
		eventually(t, "both are accepted", func() bool { return s.Stats().Open == 2 })
		old.conn.(*net.TCPConn).SetLinger(0)
		go old.conn.Close()
		f.Message(7, nil, []byte("x"))
		f.Flush(func() {})
		next.Write([]byte("GET /test/7 HTTP/1.1\r\nHost: x\r\n\r\n"))
		if resp := readHead(t, next).resp; resp.StatusCode != 200 {
			t.Fatal(resp.Status)
		}
		next.Close()
		eventually(t, "none is open", func() bool { return s.Stats().Open == 0 })
		if st := s.Stats(); st.Opened != uint64(2*(i+1)) || st.Closed["normal"]+st.Closed["reset"]+st.Closed["replaced"] != st.Opened {
			t.Fatalf("%+v", st)
		}
	}
	balance(t, s)
}

// TestEpoll_ListensAgain: a pause that ended for some listeners only ends for the others.
func TestEpoll_ListensAgain(t *testing.T) {
	s := epollServer(t, 1, func(o *Options) { o.Listen = []string{"127.0.0.1:0", "127.0.0.1:0"} })
	e := s.loops[0].engine.(*epollEngine)
	if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_DEL, s.front.fds[1], nil); err != nil {
		t.Fatal(err)
	}
	if err := e.listen(); err != nil { // the first is listened to already
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", s.Addrs()[1].String())
	if err != nil {
		t.Fatal(err)
	}
	connectOver(t, c, "1")
}

// A body that is too large for one unseen write comes whole, and others meanwhile.
func TestEpoll_LargeBody(t *testing.T) {
	s := epollServer(t, 2, func(o *Options) { o.MaxPendingBytes = 64 << 20 })
	st := connect(t, s, "1")
	body := bytes.Repeat([]byte("0123456789abcdef"), 3*maxUnseen/16)
	send(s.NewFeed(), 1, string(body))
	st.want(string(body))
}
