package httpd

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// letter is what an inbox was given.
type letter struct {
	uid  string
	conn uint64
	body string
}

// letters is an inbox that keeps them.
type letters struct {
	mu      sync.Mutex // protects all
	all     []letter
	refuses atomic.Bool
}

func (in *letters) take(id int64, name []byte, conn uint64, body []byte) bool {
	if in.refuses.Load() {
		return false
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.all = append(in.all, letter{spelled(id, name), conn, string(body)})
	return true
}

func (in *letters) got() []letter {
	in.mu.Lock()
	defer in.mu.Unlock()
	return slices.Clone(in.all)
}

func inboxServer(t testing.TB, change func(*Options)) (*Server, *letters) {
	in := &letters{}
	return testServer(t, func(o *Options) {
		o.Inbox, o.MaxInboxBytes = in.take, 1000
		if change != nil {
			change(o)
		}
	}), in
}

// askRaw sends a request as it is and reads the answer.
func askRaw(t testing.TB, s *Server, pieces ...string) *http.Response {
	t.Helper()
	c := dial(t, s)
	defer c.Close()
	for _, piece := range pieces {
		io.WriteString(c, piece)
		if len(pieces) > 1 {
			time.Sleep(2 * time.Millisecond)
		}
	}
	c.SetReadDeadline(time.Now().Add(20 * time.Second))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp
}

func posted(uid, header, body string) string {
	return fmt.Sprintf("POST /test/%s HTTP/1.1\r\nHost: x\r\n%s\r\n%s", uid, header, body)
}

func withLength(uid, body string) string {
	return posted(uid, fmt.Sprintf("Content-Length: %d\r\n", len(body)), body)
}

// postCases are POSTs, each with an inbox, and what they get.
var postCases = []struct {
	name, request string
	status        int
	header        string
	body          string // that the inbox gets, if the status is 202
}{
	{"message", withLength("7", "hello"), 202, "Content-Length: 0", "hello"},
	{"empty", withLength("7", ""), 202, "Connection: close", ""},
	{"longest", withLength("7", strings.Repeat("x", 1000)), 202, "", strings.Repeat("x", 1000)},
	{"binary-uid", withLength("alice%20b", "hello"), 202, "", "hello"},
	{"more-than-its-length", posted("7", "Content-Length: 3\r\n", "hello"), 202, "", "hel"},
	{"http-1.0", "POST /test/7 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello", 202, "", "hello"},
	{"cross-origin", posted("7", "Origin: http://elsewhere\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n", "hi"), 202, "", "hi"},
	{"too-large", withLength("7", strings.Repeat("x", 1001)), 413, "", ""},
	{"much-too-large", posted("7", "Content-Length: 9223372036854775807\r\n", "x"), 413, "", ""},
	{"no-length", posted("7", "", ""), 411, "", ""},
	{"chunked", posted("7", "Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"), 411, "", ""},
	{"chunked-with-length", posted("7", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "5\r\nhello\r\n0\r\n\r\n"), 411, "", ""},
	{"negative-length", posted("7", "Content-Length: -1\r\n", ""), 400, "", ""},
	{"two-lengths", posted("7", "Content-Length: 1\r\nContent-Length: 2\r\n", "ab"), 400, "", ""},
	{"put", "PUT /test/7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 405, "Allow: GET, HEAD, POST", ""},
	{"preflight", "OPTIONS /test/7 HTTP/1.1\r\nHost: x\r\nOrigin: http://elsewhere\r\nAccess-Control-Request-Method: POST\r\n\r\n", 405, "", ""},
	{"unknown-path", "POST /nope HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", 404, "", ""},
	{"uid-too-high", withLength("1001", "x"), 503, "", ""},
}

func TestInbox_Answers(t *testing.T) {
	s, in := inboxServer(t, func(o *Options) { o.MaxUID = 1000 })
	for _, c := range postCases {
		t.Run(c.name, func(t *testing.T) {
			before := len(in.got())
			resp := askRaw(t, s, c.request)
			if resp.StatusCode != c.status {
				t.Fatalf("%s, want %d", resp.Status, c.status)
			}
			name, value, _ := strings.Cut(c.header, ": ")
			if c.header != "" && name != "Connection" && resp.Header.Get(name) != value || name == "Connection" && !resp.Close {
				t.Errorf("header %v, want %s", resp.Header, c.header)
			}
			if resp.Header.Get("Access-Control-Allow-Origin") != "" {
				t.Error("another page may read the answer")
			}
			switch got := in.got()[before:]; {
			case c.status != 202 && len(got) != 0:
				t.Errorf("the inbox got %v", got)
			case c.status == 202 && (len(got) != 1 || got[0].body != c.body || got[0].conn != 0):
				t.Errorf("the inbox got %v, want %q", got, c.body)
			}
		})
	}
	if got := in.got()[3].uid; got != "alice b" {
		t.Errorf("uid %q", got)
	}
	eventually(t, "none is open", func() bool { return s.Stats().Open == 0 })
	st := s.Stats()
	if st.Inbox["accepted"] != uint64(len(in.got())) || st.Inbox["too_large"] != 2 || st.Inbox["refused"] != 0 {
		t.Errorf("counted %v", st.Inbox)
	}
	for _, code := range []int{202, 411, 413} {
		if st.Requests[code] == 0 {
			t.Errorf("status %d is not counted: %v", code, st.Requests)
		}
	}
}

// TestInbox_None: without an inbox a POST is refused as it always was.
func TestInbox_None(t *testing.T) {
	s := testServer(t, nil)
	resp := askRaw(t, s, withLength("7", "hello"))
	if resp.StatusCode != 405 || resp.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("%s, %v", resp.Status, resp.Header)
	}
}

func TestInbox_NobodyTakesIt(t *testing.T) {
	s, in := inboxServer(t, nil)
	in.refuses.Store(true)
	for _, uid := range []string{"1", "2", "3", "alice"} {
		if resp := askRaw(t, s, withLength(uid, "hello")); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("%s, %v", resp.Status, resp.Header)
		}
	}
	if st := s.Stats(); st.Inbox["refused"] != 4 || st.Inbox["accepted"] != 0 {
		t.Errorf("counted %v", st.Inbox)
	}
}

// TestInbox_NewestStream: a message says which stream of the uid is the newest, on
// whichever loop it was accepted.
func TestInbox_NewestStream(t *testing.T) {
	s, in := inboxServer(t, nil)
	for i := range 20 {
		uid := fmt.Sprint(i + 1)
		connect(t, s, uid)
		connect(t, s, uid)
		askRaw(t, s, withLength(uid, "from "+uid))
		conns := whereis(s, uid)
		if got := in.got()[i]; got != (letter{uid, conns[1], "from " + uid}) {
			t.Errorf("got %v, want the connection %x of %x", got, conns[1], conns)
		}
	}
}

// TestInbox_InPieces: the body comes when it likes, cut anywhere, before and after the move
// to the loop that owns the uid.
func TestInbox_InPieces(t *testing.T) {
	s, in := inboxServer(t, nil)
	body := "0123456789"
	for i := range 8 {
		request := withLength(fmt.Sprint(i+1), body)
		for cut := len(request) - len(body) - 1; cut < len(request); cut += 3 {
			before := len(in.got())
			if resp := askRaw(t, s, request[:cut], request[cut:cut+1], request[cut+1:]); resp.StatusCode != 202 {
				t.Fatalf("cut at %d: %s", cut, resp.Status)
			}
			if got := in.got()[before:]; len(got) != 1 || got[0].body != body {
				t.Fatalf("cut at %d: %v", cut, got)
			}
		}
	}
	var bytewise []string
	for _, b := range []byte(withLength("1", body)) {
		bytewise = append(bytewise, string(b))
	}
	if resp := askRaw(t, s, bytewise...); resp.StatusCode != 202 {
		t.Errorf("byte by byte: %s", resp.Status)
	}
}

// TestInbox_NetHTTP: with a real client, large bodies, and many at once.
func TestInbox_NetHTTP(t *testing.T) {
	s, in := inboxServer(t, func(o *Options) { o.MaxInboxBytes = 4 << 20 })
	var wg sync.WaitGroup
	client := &http.Client{Timeout: 20 * time.Second}
	for i := range 20 {
		wg.Go(func() {
			body := strings.Repeat(fmt.Sprint(i%10), 1+i*70_000)
			resp, err := client.Post(fmt.Sprintf("http://%s/test/%d", s.testAddr(), i+1), "text/plain", strings.NewReader(body))
			if err != nil || resp.StatusCode != 202 {
				t.Errorf("%d bytes: %v, %v", len(body), resp, err)
				return
			}
			resp.Body.Close()
		})
	}
	wg.Wait()
	lengths := map[int]bool{}
	for _, l := range in.got() {
		lengths[len(l.body)] = true
		if strings.Trim(l.body, l.body[:1]) != "" {
			t.Errorf("the body of %s is mixed", l.uid)
		}
	}
	if len(lengths) != 20 {
		t.Errorf("%d bodies came, want 20", len(lengths))
	}
	client.CloseIdleConnections()
}

// TestInbox_TooLargeIsTold: a client that sends all before it reads gets the answer, no reset.
func TestInbox_TooLargeIsTold(t *testing.T) {
	s, _ := inboxServer(t, nil)
	for range 5 {
		if resp := askRaw(t, s, withLength("1", strings.Repeat("x", 8<<20))); resp.StatusCode != 413 {
			t.Errorf("%s", resp.Status)
		}
	}
	eventually(t, "none is open", func() bool { return s.Stats().Open == 0 })
	if st := s.Stats(); st.Closed["answered"] != 5 {
		t.Errorf("closed %v", st.Closed)
	}
}

func TestInbox_LingeringFloodEnds(t *testing.T) {
	s, _ := inboxServer(t, nil)
	c := dial(t, s)
	io.WriteString(c, posted("1", "Content-Length: 9223372036854775807\r\n", ""))
	piece := make([]byte, 1<<20)
	for range 10 * maxLingerBytes / len(piece) {
		if _, err := c.Write(piece); err != nil {
			break
		}
	}
	eventually(t, "closed as flood", func() bool { return s.Stats().Closed["flood"] == 1 })
}

// TestInbox_Continue: a client that waits to be told to send its body is told, if it may.
func TestInbox_Continue(t *testing.T) {
	s, in := inboxServer(t, nil)
	for i := range 8 {
		c := dial(t, s)
		io.WriteString(c, posted(fmt.Sprint(i+1), "Content-Length: 5\r\nExpect: 100-continue\r\n", ""))
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		told := make([]byte, len(continueAnswer))
		if _, err := io.ReadFull(c, told); err != nil || !bytes.Equal(told, continueAnswer) {
			t.Fatalf("told %q, %v", told, err)
		}
		io.WriteString(c, "hello")
		if resp := readHead(t, c).resp; resp.StatusCode != 202 || in.got()[i].body != "hello" {
			t.Errorf("%s, got %v", resp.Status, in.got())
		}
		c.Close()
	}
	for header, want := range map[string]int{
		"Content-Length: 1001\r\nExpect: 100-continue\r\n":         413,
		"Expect: 100-Continue\r\nTransfer-Encoding: chunked\r\n":   411,
		"Content-Length: 0\r\nExpect: 100-continue\r\n":            202,
		"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhello\r": 202, // it does not wait
	} {
		c := dial(t, s)
		io.WriteString(c, posted("1", header, ""))
		c.SetReadDeadline(time.Now().Add(10 * time.Second))
		first, err := bufio.NewReader(c).ReadString('\n')
		if !strings.HasPrefix(first, fmt.Sprintf("HTTP/1.1 %d ", want)) {
			t.Errorf("%q got %q, %v, want %d", header, first, err, want)
		}
		c.Close()
	}
	c := dial(t, s) // HTTP/1.0 has no 100: RFC 9110, section 10.1.1
	io.WriteString(c, "POST /test/1 HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n")
	eventually(t, "it is awaited", func() bool { return s.Stats().Open == 1 })
	time.Sleep(20 * time.Millisecond)
	io.WriteString(c, "x")
	if resp := readHead(t, c).resp; resp.StatusCode != 202 {
		t.Errorf("HTTP/1.0 got %s", resp.Status)
	}
}

func TestInbox_TooLate(t *testing.T) {
	s, in := inboxServer(t, func(o *Options) { o.HeadTimeout = 300 * time.Millisecond })
	for _, uid := range []string{"1", "2", "3"} {
		if resp := askRaw(t, s, posted(uid, "Content-Length: 5\r\n", "hell")); resp.StatusCode != 408 {
			t.Errorf("%s", resp.Status)
		}
	}
	eventually(t, "none is open", func() bool { return s.Stats().Open == 0 })
	if got := in.got(); len(got) != 0 || s.Stats().Closed["timeout"] != 3 {
		t.Errorf("got %v, closed %v", got, s.Stats().Closed)
	}
	wantNoPosts(t, s)
}

// wantNoPosts looks into the loops, which nothing may make do anything meanwhile.
func wantNoPosts(t *testing.T, s *Server) {
	t.Helper()
	s.Close()
	for _, l := range s.loops {
		if len(l.posts.all) != 0 || l.posts.bytes != 0 {
			t.Errorf("loop %d has %d bodies of %d bytes", l.index, len(l.posts.all), l.posts.bytes)
		}
	}
}

// TestInbox_ClientLeaves: in the middle of its body, in every way.
func TestInbox_ClientLeaves(t *testing.T) {
	s, in := inboxServer(t, nil)
	for i := range 60 {
		c := dial(t, s)
		io.WriteString(c, posted(fmt.Sprint(i+1), "Content-Length: 500\r\n", strings.Repeat("x", i)))
		if i%2 == 0 {
			c.(*net.TCPConn).SetLinger(0)
		}
		if i%3 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
		c.Close()
	}
	eventually(t, "none is open", func() bool { st := s.Stats(); return st.Opened == 60 && st.Open == 0 })
	if got := in.got(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	wantNoPosts(t, s)
}

// TestInbox_Draining: a POST that comes while Halley shuts down, and one that is under way.
func TestInbox_Draining(t *testing.T) {
	s, in := inboxServer(t, func(o *Options) { o.Drain = 2 * time.Second })
	stays := connect(t, s, "9") // so that the drain takes its time
	under := dial(t, s)
	io.WriteString(under, posted("1", "Content-Length: 5\r\nExpect: 100-continue\r\n", ""))
	if _, err := io.ReadFull(under, make([]byte, len(continueAnswer))); err != nil {
		t.Fatal(err)
	}
	result := make(chan error, 1)
	go func() { result <- s.Shutdown(context.Background()) }()
	if resp := readHead(t, under).resp; resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("under way: %s", resp.Status)
	}
	under.Close()
	stays.wantEnd()
	for _, uid := range []string{"1", "2", "3", "4"} {
		if resp := askRaw(t, s, withLength(uid, "hello")); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
			t.Errorf("while draining: %s", resp.Status)
		}
	}
	stays.conn.Close()
	if err := <-result; err != nil {
		t.Error(err)
	}
	if got := in.got(); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestInbox_FullIsTold: the incomplete bodies of a loop are bounded together.
func TestInbox_FullIsTold(t *testing.T) {
	in := &letters{}
	var out recorder
	l := testLoop(t, &out, func(o *Options) { o.Inbox, o.MaxInboxBytes = in.take, 1<<20 })
	l.posts.maxBytes = 3000
	var slots []uint32
	for range 3 {
		slot, _ := l.onAccept()
		l.onRead(slot, []byte(posted("1", "Content-Length: 2000\r\n", strings.Repeat("x", 900))))
		slots = append(slots, slot)
	}
	l.onRead(slots[0], make([]byte, 300))
	if out.Len() != 0 || l.posts.bytes != 3000 {
		t.Fatalf("%d bytes are there, answered %q", l.posts.bytes, out.String())
	}
	l.onRead(slots[1], make([]byte, 1))
	if !strings.HasPrefix(out.String(), "HTTP/1.1 503 ") || l.posts.bytes != 2100 || l.count.inbox[inboxRefused].Load() != 1 {
		t.Fatalf("%d bytes are there, answered %q", l.posts.bytes, out.String())
	}
	l.onRead(slots[0], make([]byte, 800))
	if got := in.got(); len(got) != 1 || len(got[0].body) != 2000 || l.posts.bytes != 900 {
		t.Errorf("%d bytes are there, got %d letters", l.posts.bytes, len(got))
	}
	if longest := newPosts(maxMessage); longest.maxBytes < maxMessage {
		t.Error("the longest body has no room")
	}
}

// recorder is a nullEngine that keeps what is written.
type recorder struct {
	nullEngine
	bytes.Buffer
}

func (r *recorder) write(_ uint32, bufs [][]byte) (n int, _ error) {
	for _, b := range bufs {
		r.Write(b)
		n += len(b)
	}
	return n, nil
}

func (r *recorder) stop() {}

var dateLine = regexp.MustCompile(`Date: [^\r]*\r\n`)

// FuzzPost feeds what a client sends whole and in two halves: what the inbox gets is the
// same, and what the client gets.
func FuzzPost(f *testing.F) {
	for _, c := range postCases {
		f.Add([]byte(c.request), uint(len(c.request)-2))
	}
	f.Add([]byte(posted("1", "Content-Length: 5\r\nExpect: 100-continue\r\n", "hello")), uint(80))
	in := &letters{}
	var out recorder
	l := testLoop(f, &out, func(o *Options) { o.Inbox, o.MaxInboxBytes, o.MaxUID = in.take, 1000, 1000 })
	feed := func(pieces ...[]byte) ([]letter, string) {
		in.all = nil
		out.Reset()
		slot, _ := l.onAccept()
		for _, piece := range pieces {
			l.onRead(slot, bytes.Clone(piece))
			clear(piece) // it was valid during the call
		}
		l.onClosed(slot, errors.New("gone"))
		if len(l.posts.all)+l.posts.bytes+len(l.heads) != 0 {
			f.Fatalf("%d bodies, %d heads are left", len(l.posts.all), len(l.heads))
		}
		text := strings.Replace(out.String(), string(continueAnswer), "", 1) // if the body is not there yet
		return in.got(), dateLine.ReplaceAllString(text, "")
	}
	f.Fuzz(func(t *testing.T, request []byte, cut uint) {
		if cut > uint(len(request)) || len(request) > 4096 {
			return
		}
		whole, answer := feed(bytes.Clone(request))
		halves, sameAnswer := feed(bytes.Clone(request[:cut]), bytes.Clone(request[cut:]))
		if !slices.Equal(whole, halves) || answer != sameAnswer {
			t.Fatalf("whole: %v, %q; in halves: %v, %q", whole, answer, halves, sameAnswer)
		}
		if len(whole) > 0 && (len(whole) > 1 || len(whole[0].body) > 1000 || !strings.HasPrefix(answer, "HTTP/1.1 202 ")) {
			t.Fatalf("%d letters, answered %q", len(whole), answer)
		}
	})
}
