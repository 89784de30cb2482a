package httpd

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// TestMain lets the tests' own goroutines run beside loops that never wait, as serve does.
func TestMain(m *testing.M) {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(5)
	}
	goleak.VerifyTestMain(m)
}

// testServer starts a server on any free port; change may adapt its options.
func testServer(t testing.TB, change func(*Options)) *Server {
	t.Helper()
	o := DefaultOptions()
	o.Listen = []string{"127.0.0.1:0"}
	o.MaxConnections = 4096
	testEngine(t, &o)
	level := slog.LevelError
	if testing.Verbose() {
		level = slog.LevelDebug
	}
	o.Logger = slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// testEngine sets what HALLEY_TEST_ENGINE says, an engine and a number of loops:
// all tests of this package pass with evio, epoll/1 and epoll/4.
func testEngine(t testing.TB, o *Options) {
	name, loops, found := strings.Cut(os.Getenv("HALLEY_TEST_ENGINE"), "/")
	if name == "" {
		return
	}
	o.Engine, o.Loops = EngineName(name), 1
	if found {
		var err error
		if o.Loops, err = strconv.Atoi(loops); err != nil {
			t.Fatalf("HALLEY_TEST_ENGINE: %v", err)
		}
	}
}

func (s *Server) testAddr() string { return s.Addrs()[0].String() }

// eventually waits until cond is true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 10 s: %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// stream is a client: net/http reads the head and undoes the chunks.
type stream struct {
	t    testing.TB
	conn net.Conn
	resp *http.Response
	body *bufio.Reader
}

// connect opens a stream and reads its welcome.
func connect(t testing.TB, s *Server, uid string) *stream {
	t.Helper()
	return connectOver(t, dial(t, s), uid)
}

func connectOver(t testing.TB, c net.Conn, uid string) *stream {
	t.Helper()
	fmt.Fprintf(c, "GET /test/%s HTTP/1.1\r\nHost: halley\r\n\r\n", uid)
	st := readHead(t, c)
	if st.resp.StatusCode != http.StatusOK {
		t.Fatalf("uid %s: status %s", uid, st.resp.Status)
	}
	st.want("Welcome, Url: '/test/" + uid + "' Id: " + uid + "\n")
	return st
}

func dial(t testing.TB, s *Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.testAddr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func readHead(t testing.TB, c net.Conn) *stream {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &stream{t: t, conn: c, resp: resp, body: bufio.NewReader(resp.Body)}
}

// want reads exactly text.
func (st *stream) want(text string) {
	st.t.Helper()
	buf := make([]byte, len(text))
	if _, err := io.ReadFull(st.body, buf); err != nil {
		st.t.Fatalf("want %.40q: %v after %.40q", text, err, strings.TrimRight(string(buf), "\x00"))
	}
	if string(buf) != text {
		st.t.Fatalf("want %.40q, got %.40q", text, buf)
	}
}

// wantEnd reads the clean end of the stream.
func (st *stream) wantEnd() {
	st.t.Helper()
	if rest, err := io.ReadAll(st.body); err != nil || len(rest) > 0 {
		st.t.Fatalf("want the end of the stream, got %q, %v", rest, err)
	}
}

// send hands messages to the server and waits until they are done with.
func send(f *Feed, id int64, bodies ...string) {
	for _, body := range bodies {
		f.Message(id, nil, []byte(body))
	}
	done := make(chan struct{})
	f.Flush(func() { close(done) })
	<-done
}

// balance waits until the ledger is even and returns it.
func balance(t testing.TB, s *Server) Stats {
	t.Helper()
	var st Stats
	eventually(t, "received + copied = written + discarded", func() bool {
		st = s.Stats()
		return st.Received+st.Copied == st.Written+st.DiscardedTotal()
	})
	return st
}

func TestStream_MessageBecomesChunk(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "123")
	send(s.NewFeed(), 123, "hello")
	st.want("hello")
	if got := balance(t, s); got.Written != 1 {
		t.Errorf("written %d, want 1", got.Written)
	}
}
