package peers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	testCookie = "sesame-4711-cookie"
	testHost   = "localhost"
	patience   = 20 * time.Second // for anything that should come soon, on a busy machine
)

// start starts a peer, and skips the test where that cannot be.
func start(t *testing.T, name string, epmd int) *Peer {
	t.Helper()
	for _, k := range All() {
		if k.Name != name {
			continue
		}
		p, err := k.Start(t.Context(), Config{
			Dir: t.TempDir(), Addr: freeAddr(t), Host: testHost, Cookie: testCookie, Epmd: epmd,
			Connections: 100, Stderr: logWriter{t},
		})
		if missing := new(Missing); errors.As(err, &missing) && os.Getenv("CI") != "true" {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := p.Stop(); err != nil {
				t.Error(err)
			}
			if err := p.Stop(); err != nil {
				t.Errorf("second stop: %v", err)
			}
			for _, pid := range p.PIDs {
				if running(pid) {
					t.Errorf("process %d is left", pid)
				}
			}
		})
		t.Logf("%s: %s, pids %v", p.Name, p.Version, p.PIDs)
		return p
	}
	t.Fatalf("no peer %s", name)
	return nil
}

func running(pid int) bool {
	_, err := os.Stat("/proc/" + strconv.Itoa(pid))
	return err == nil
}

type logWriter struct{ t *testing.T }

func (w logWriter) Write(b []byte) (int, error) {
	w.t.Logf("%s", b)
	return len(b), nil
}

// freeAddr is an address that nobody listens at. The peer takes it later: it is none of
// those that the system gives to connections meanwhile.
func freeAddr(t *testing.T) string {
	t.Helper()
	const first, last = 20000, 32000 // connections get theirs from 32768 up, if nobody changed that
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", first+rand.IntN(last-first))
		if free(addr) == nil {
			return addr
		}
	}
	t.Fatal("no free port")
	return ""
}

// stream is an open stream; its chunks are read strictly, by hand: one message must
// be one chunk.
type stream struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func open(t *testing.T, url string, uid int) *stream {
	t.Helper()
	host, path, _ := strings.Cut(strings.TrimPrefix(strings.Replace(url, "{uid}", strconv.Itoa(uid), 1), "http://"), "/")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET /%s HTTP/1.1\r\nHost: %s\r\nUser-Agent: test\r\n\r\n", path, host)
	s := &stream{t: t, conn: conn, r: bufio.NewReader(conn)}
	status := s.line()
	chunked := false
	for h := s.line(); h != ""; h = s.line() {
		chunked = chunked || strings.EqualFold(h, "Transfer-Encoding: chunked")
	}
	if !strings.HasPrefix(status, "HTTP/1.1 200 ") || !chunked {
		t.Fatalf("uid %d: %s, chunked: %v", uid, status, chunked)
	}
	return s
}

func (s *stream) line() string {
	s.t.Helper()
	line, err := s.r.ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "\r\n") {
		s.t.Fatalf("read %q: %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// chunk is the body of the next one; "" is the end of the stream.
func (s *stream) chunk() string {
	s.t.Helper()
	size := s.line()
	n, err := strconv.ParseUint(size, 16, 31)
	if err != nil {
		s.t.Fatalf("chunk size %q", size)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(s.r, body); err != nil {
		s.t.Fatal(err)
	}
	if end := s.line(); end != "" {
		s.t.Fatalf("%q after a chunk", end)
	}
	return string(body)
}

// message is the next chunk that is one: no welcome.
func (s *stream) message() string {
	s.t.Helper()
	body := s.chunk()
	if strings.HasPrefix(body, "Welcome") {
		body = s.chunk()
	}
	return body
}

// numbered reads messages "SEQ MICROS xxx" from number first on.
func (s *stream) numbered(first, count, bytes int) {
	s.t.Helper()
	for seq := first; seq < first+count; seq++ {
		body := strings.TrimSuffix(s.message(), "\n") // which may be the peer's separator
		fields := strings.Split(body, " ")
		if len(fields) < 2 || fields[0] != strconv.Itoa(seq) || len(body) != bytes {
			s.t.Fatalf("got %.60q of %d bytes, want number %d of %d bytes", body, len(body), seq, bytes)
		}
		micros, err := strconv.ParseInt(fields[1], 10, 64)
		if age := time.Since(time.UnixMicro(micros)); err != nil || age < 0 || age > patience {
			s.t.Fatalf("%.60q is %v old, %v", body, age, err)
		}
	}
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s", patience, what)
		}
	}
}

func TestAll(t *testing.T) {
	seen := map[string]bool{}
	for _, k := range All() {
		if k.Name == "" || k.Note == "" || k.Start == nil || seen[k.Name] {
			t.Errorf("%+v", k)
		}
		seen[k.Name] = true
	}
}

func TestStart_AddressTaken(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = startCeiling(t.Context(), Config{Dir: t.TempDir(), Addr: l.Addr().String()})
	if missing := new(Missing); errors.As(err, &missing) {
		t.Skip(err)
	}
	if err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("%v", err)
	}
}

// Without an epmd an Erlang node cannot be one; its words must come back.
func TestStart_Fails(t *testing.T) {
	for _, k := range All() {
		if !strings.HasPrefix(k.Name, "cnode") && !strings.HasPrefix(k.Name, "mochiweb") {
			continue
		}
		_, port, _ := net.SplitHostPort(freeAddr(t))
		epmd, _ := strconv.Atoi(port)
		p, err := k.Start(t.Context(), Config{Dir: t.TempDir(), Addr: freeAddr(t), Host: testHost, Cookie: testCookie, Epmd: epmd})
		if missing := new(Missing); errors.As(err, &missing) {
			continue
		}
		if err == nil {
			p.Stop()
		}
		if err == nil || !strings.Contains(err.Error(), "ended: ") || strings.HasSuffix(err.Error(), "ended: ") {
			t.Errorf("%s: %v", k.Name, err)
		} else {
			t.Log(err)
		}
	}
}

func TestCeiling(t *testing.T) {
	p := start(t, "ceiling", 0)
	const uids, count, bytes = 3, 40, 120
	var streams [uids]*stream
	for i := range streams {
		streams[i] = open(t, p.URL, i+1)
	}
	control := p.Dest.Control
	for uid := int64(1); uid <= uids; uid++ {
		for range 2 { // numbers go on from one command to the next
			sent, err := control.Send(Load{Count: count, Rate: 2000 * int(uid-1), Bytes: bytes, FirstUID: uid, LastUID: uid})
			if err != nil || sent.Messages != count || sent.Bytes != count*bytes || sent.Lost+sent.Absent != 0 {
				t.Fatalf("%+v, %v", sent, err)
			}
		}
		streams[uid-1].numbered(1, 2*count, bytes)
	}
	if sent, err := control.All(5000); err != nil || sent.Messages != uids {
		t.Fatalf("%+v, %v", sent, err)
	}
	for _, s := range streams {
		s.numbered(0, 1, 5000) // in no order
	}
	again := open(t, p.URL, 1) // the newer one of a uid ends the older
	if body := streams[0].chunk(); body != "" {
		t.Errorf("got %q, want the end", body)
	}
	if sent, err := control.Send(Load{Count: 1, Bytes: 40, FirstUID: 1, LastUID: 1}); err != nil || sent.Messages != 1 {
		t.Fatalf("%+v, %v", sent, err)
	}
	again.numbered(2*count+1, 1, 40)
	streams[1].conn.Close()
	eventually(t, "the loop sees that a client has left", func() bool {
		s, err := control.Stats()
		return err == nil && s.Connections == uids-1
	})
	if sent, err := control.Send(Load{Count: 5, Bytes: 40, FirstUID: 2, LastUID: 2}); err != nil || sent.Absent != 5 {
		t.Fatalf("%+v, %v", sent, err)
	}
	if _, err := control.Send(Load{Count: -1}); err == nil {
		t.Error("no error")
	}
	response, err := http.Get("http://" + again.conn.RemoteAddr().String() + "/other")
	if err != nil || response.StatusCode != http.StatusNotFound {
		t.Errorf("%v, %v", response, err)
	}
}

// A client that does not read gets what its socket takes; the others wait a second,
// once.
func TestCeiling_StalledClient(t *testing.T) {
	p := start(t, "ceiling", 0)
	open(t, p.URL, 1)
	sent, err := p.Dest.Control.Send(Load{Count: 500, Bytes: 100_000, FirstUID: 1, LastUID: 1})
	if err != nil || sent.Lost+sent.Absent == 0 || sent.Messages == 0 || sent.Took > 5*time.Second {
		t.Errorf("%+v, %v", sent, err)
	}
}

func TestNchan(t *testing.T) {
	p := start(t, "nchan", 0)
	if len(p.PIDs) != 2 {
		t.Errorf("pids %v, want a master and a worker", p.PIDs)
	}
	const uids, count = 3, 200
	var streams [uids]*stream
	for i := range streams {
		streams[i] = open(t, p.URL, i+1)
	}
	for seq := 1; seq <= count; seq++ { // as fast as one publisher goes
		for uid := 1; uid <= uids; uid++ {
			publish(t, p, uid, seq, 100)
		}
	}
	for _, s := range streams {
		s.numbered(1, count, 100)
	}
	publish(t, p, 1, count+1, 200_000)
	streams[0].numbered(count+1, 1, 200_000)
	publish(t, p, 77, 1, 100) // nobody's
	again := open(t, p.URL, 77)
	publish(t, p, 77, 2, 100)
	again.numbered(2, 1, 100) // what was before it is not kept
}

func publish(t *testing.T, p *Peer, uid, seq, bytes int) {
	t.Helper()
	body := fmt.Sprintf("%d %d ", seq, time.Now().UnixMicro())
	body += strings.Repeat("x", bytes-len(body))
	url := strings.Replace(p.Dest.Publish, "{uid}", strconv.Itoa(uid), 1)
	response, err := http.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, response.Body)
	response.Body.Close()
	if response.StatusCode/100 != 2 {
		t.Fatalf("publish: %s", response.Status)
	}
}
