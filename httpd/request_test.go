package httpd

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

func TestParsePath(t *testing.T) {
	for in, ok := range map[string]bool{
		"/test/{uid}": true, "/{uid}": true, "/u/{uid}/events": true,
		"": false, "test/{uid}": false, "/test/": false, "/test/{uid}x": false, "/test/x{uid}": false,
		"/{uid}/{uid}": false, "/test/{uid}?a=1": false, "/te st/{uid}": false,
		"/über/{uid}": false, "/%C3%BCber/{uid}": true, "/%/{uid}": false,
	} {
		if _, err := parsePath(in); (err == nil) != ok {
			t.Errorf("%q: %v, want ok %v", in, err, ok)
		}
	}
}

func TestPathUID(t *testing.T) {
	p, _ := parsePath("/test/{uid}/x")
	for in, want := range map[string]string{
		"/test/123/x": "123", "/test/a%20b/x": "a b", "/test/a%2Fb/x": "a/b", "/test/%E2%82%AC/x": "€",
		"/test//x": "", "/test/x": "", "/test/a/b/x": "", "/other/1/x": "", "/test/1": "",
		"/test/" + strings.Repeat("a", 255) + "/x": strings.Repeat("a", 255),
		"/test/" + strings.Repeat("a", 256) + "/x": "",
	} {
		if got, ok := p.uid(in); ok != (want != "") || ok && got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, ok, want)
		}
	}
}

// headCases are request heads and how long they are; 0 is incomplete.
var headCases = []struct {
	in  string
	end int
}{
	{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 27},
	{"GET / HTTP/1.1\r\nHost: x\r\n\r\nbody", 27},
	{"GET / HTTP/1.1\nHost: x\n\nbody", 24},
	{"GET / HTTP/1.1\r\nHost: x\r\n", 0},
	{"", 0}, {"\r\n", 0}, {"\n\n", 2},
}

func TestHeadEnd_EveryCut(t *testing.T) {
	for _, c := range headCases {
		if got := headEnd([]byte(c.in)); got != c.end {
			t.Errorf("%q: %d, want %d", c.in, got, c.end)
		}
		for cut := range c.in {
			want := 0
			if c.end > 0 && cut >= c.end {
				want = c.end
			}
			if got := headEnd([]byte(c.in[:cut])); got != want {
				t.Errorf("%q: %d, want %d", c.in[:cut], got, want)
			}
		}
	}
}

// FuzzRequest feeds a head in two halves: whatever it is, the answer is HTTP.
func FuzzRequest(f *testing.F) {
	for _, c := range headCases {
		f.Add([]byte(c.in))
	}
	for _, c := range requestCases {
		f.Add([]byte(c.request))
	}
	o := DefaultOptions()
	o.MaxUID = 1000
	s := &Server{opts: o, welcome: parseWelcome(o.Welcome)}
	s.path, _ = parsePath(o.Path)
	s.makeAnswers()
	r := newHeadReader() // one for all, as in a loop
	f.Fuzz(func(t *testing.T, in []byte) {
		end := headEnd(in)
		for cut := range in {
			if got := headEnd(in[:cut]); got != 0 && got != end {
				t.Fatalf("cut %d: %d, whole %d", cut, got, end)
			}
		}
		if end == 0 || end > o.MaxHeadBytes {
			return
		}
		req, uid, answer := s.route(r, in[:end])
		var out []byte
		if answer != nil {
			out = answer.append(nil, appendDate(nil, time.Now()), false)
		} else {
			if len(uid) == 0 || len(uid) > maxNameBytes {
				t.Fatalf("uid %q", uid)
			}
			out = appendStreamHead(nil, transportIdentity, appendDate(nil, time.Now()))
			out = append(out, s.welcome.text(req.RequestURI, uid)...)
			if i := bytes.Index(out, []byte("\r\n\r\n")); bytes.ContainsAny(out[i:], "<>") {
				t.Fatalf("the welcome has the client's markup: %q", out[i:])
			}
		}
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(out)), nil)
		if err != nil {
			t.Fatalf("no response: %v: %q", err, out)
		}
		if _, err := io.ReadAll(resp.Body); err != nil {
			t.Fatal(err)
		}
	})
}

// requestCases are whole requests and what they get.
var requestCases = []struct {
	name, request string
	status        string
	header, body  string
}{
	{"stream", "GET /test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "Cache-Control: no-store", ""},
	{"stream-buffering", "GET /test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "X-Accel-Buffering: no", ""},
	{"stream-type", "GET /test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "Content-Type: text/html; charset=utf-8", ""},
	{"head", "HEAD /test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "Content-Type: text/html; charset=utf-8", ""},
	{"http-1.0", "GET /test/7 HTTP/1.0\r\n\r\n", "200 OK", "Connection: close", ""},
	{"absolute-form", "GET http://x/test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "", ""},
	{"bare-lf", "GET /test/7 HTTP/1.1\nHost: x\n\n", "200 OK", "", ""},
	{"stream-ends-connection", "GET /test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "Connection: close", ""},
	{"empty-line-first", "\r\n\r\nGET /test/7 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "", ""},
	{"unknown-path", "GET /nope HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", "", "User id not found, try /test/123 instead\n"},
	{"no-uid", "GET /test/ HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", "", "User id not found, try /test/123 instead\n"},
	{"long-uid", "GET /test/" + strings.Repeat("a", 256) + " HTTP/1.1\r\nHost: x\r\n\r\n", "404 Not Found", "", ""},
	{"uid-too-high", "GET /test/1001 HTTP/1.1\r\nHost: x\r\n\r\n", "503 We ran out of numbers", "", "Max uid allowed is 1000\n"},
	{"post", "POST /test/7 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", "405 Method Not Allowed", "Allow: GET, HEAD", ""},
	{"no-host", "GET /test/7 HTTP/1.1\r\n\r\n", "400 Bad Request", "", "bad request: no Host header (RFC 9112, section 3.2)\n"},
	{"garbage", "\x16\x03\x01\x02\x00\r\n\r\n", "400 Bad Request", "Connection: close", ""},
	{"script-in-garbage", "<script>alert(1)</script>\r\n\r\n", "400 Bad Request", "", "bad request: malformed HTTP request\n"},
	{"http-2-preface", "PRI * HTTP/2.0\r\n\r\n", "505 HTTP Version Not Supported", "", ""},
	{"head-too-large", "GET /test/7 HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 8192) + "\r\n\r\n",
		"431 Request Header Fields Too Large", "", "the request head may have 8192 bytes\n"},
	{"uri-too-long", "GET /test/" + strings.Repeat("y", 9000) + " HTTP/1.1\r\n\r\n", "414 Request URI Too Long", "", ""},
	{"negative", "GET /test/-1 HTTP/1.1\r\nHost: x\r\n\r\n", "200 OK", "", ""},
}

func TestRequest_Answers(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxUID = 1000 })
	for _, c := range requestCases {
		t.Run(c.name, func(t *testing.T) {
			conn := dial(t, s)
			io.WriteString(conn, c.request)
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			r := bufio.NewReader(conn)
			status, _ := r.ReadString('\n')
			if want := "HTTP/1.1 " + c.status + "\r\n"; status != want {
				t.Fatalf("status line %q, want %q", status, want)
			}
			head := ""
			for line := ""; line != "\r\n"; head += line {
				var err error
				if line, err = r.ReadString('\n'); err != nil {
					t.Fatal(err)
				}
			}
			if !strings.Contains(head, c.header) || !strings.Contains(head, "\r\nDate: ") {
				t.Errorf("head %q, want %q and a Date", head, c.header)
			}
			if c.body != "" {
				if body, err := io.ReadAll(r); err != nil || string(body) != c.body {
					t.Errorf("body %q, %v, want %q", body, err, c.body)
				}
			}
			if strings.HasPrefix(c.request, "HEAD") {
				if rest, err := io.ReadAll(r); err != nil || len(rest) > 0 {
					t.Errorf("after the head of HEAD: %q, %v", rest, err)
				}
			}
		})
	}
}

func TestRequest_InPieces(t *testing.T) {
	s := testServer(t, nil)
	conn := dial(t, s)
	for _, b := range []byte("GET /test/77 HTTP/1.1\r\nHost: x\r\n\r\n") {
		conn.Write([]byte{b})
		time.Sleep(time.Millisecond)
	}
	readHead(t, conn).want("Welcome, Url: '/test/77' Id: 77\n")
}

func TestRequest_UIDPolicyInteger(t *testing.T) {
	s := testServer(t, func(o *Options) { o.UIDs = UIDsInteger })
	for uid, want := range map[string]int{"7": 200, "alice": 404, "007": 404, "0": 404} {
		conn := dial(t, s)
		fmt.Fprintf(conn, "GET /test/%s HTTP/1.1\r\nHost: x\r\n\r\n", uid)
		if got := readHead(t, conn).resp.StatusCode; got != want {
			t.Errorf("%s: %d, want %d", uid, got, want)
		}
	}
}

func TestRequest_HeadTimeout(t *testing.T) {
	s := testServer(t, func(o *Options) { o.HeadTimeout = 200 * time.Millisecond })
	conn := dial(t, s)
	io.WriteString(conn, "GET /test/7 HTTP/1.1\r\n")
	if got := readHead(t, conn).resp.StatusCode; got != http.StatusRequestTimeout {
		t.Errorf("status %d, want 408", got)
	}
}

func TestWelcome(t *testing.T) {
	for _, c := range []struct{ template, want string }{
		{"Welcome, Url: '{url}' Id: {uid}\n", "Welcome, Url: '/t/&lt;b&gt;' Id: &lt;b&gt;\n"},
		{"", ""}, {"{", "{"}, {"{uid}{url}{x}{uid", "&lt;b&gt;/t/&lt;b&gt;{x}{uid"}, {"plain", "plain"},
	} {
		if got := parseWelcome(c.template).text("/t/<b>", "<b>"); got != c.want {
			t.Errorf("%q: %q, want %q", c.template, got, c.want)
		}
	}
}
