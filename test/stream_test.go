package test

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// What a client sees.

// curl runs curl to its end and gives what it printed.
func curl(t *testing.T, args ...string) string {
	t.Helper()
	need(t, "curl")
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"--silent", "--show-error"}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("curl %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestStream_CurlPrintsMessages(t *testing.T) {
	need(t, "curl")
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	cmd := exec.Command("curl", "--silent", "--show-error", "--no-buffer", "http://"+h.addr+"/test/123")
	dieWithUs(cmd)
	out := new(logBuffer)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer kill(cmd)
	const welcome = "Welcome, Url: '/test/123' Id: 123\n"
	eventually(t, "the welcome", func() bool { return out.String() == welcome })
	e.eval("%s ! {123, <<\"hello\">>}", h.to)
	eventually(t, "hello", func() bool { return out.String() == welcome+"hello" })
	e.eval("%s ! {close, 123, bye}", h.to)
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		if err != nil || out.String() != welcome+"hello" {
			t.Errorf("curl: %v, %q", err, out)
		}
	case <-time.After(patience):
		t.Error("curl has not ended with the stream")
	}
}

// The bytes on the wire, one by one.
func TestStream_RawBytes(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	c := dial(t, h.addr)
	io.WriteString(c, "GET /test/123 HTTP/1.1\r\nHost: x\r\n\r\n")
	c.SetReadDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	var head []string
	for len(head) == 0 || head[len(head)-1] != "\r\n" {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		head = append(head, line)
	}
	if head[0] != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("status line %q", head[0])
	}
	for _, want := range []string{"Transfer-Encoding: chunked\r\n", "Content-Type: text/html; charset=utf-8\r\n",
		"Cache-Control: no-store\r\n", "X-Accel-Buffering: no\r\n"} {
		if !strings.Contains(strings.Join(head, ""), want) {
			t.Errorf("no %q in %q", want, head)
		}
	}
	e.eval("%s ! {123, <<\"hello\">>}", h.to)
	e.eval("%s ! {close, 123, bye}", h.to)
	got, err := io.ReadAll(r)
	want := "22\r\nWelcome, Url: '/test/123' Id: 123\n\r\n5\r\nhello\r\n0\r\n\r\n"
	if err != nil || string(got) != want {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
}

// HTTP/1.0 has no chunks: the bytes as they are, until the close.
func TestStream_HTTP10(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	c := dial(t, h.addr)
	io.WriteString(c, "GET /test/123 HTTP/1.0\r\n\r\n")
	eventually(t, "the stream", func() bool { return h.metric("connections") == 1 })
	e.eval("%s ! [{123, <<\"a\">>}, {123, <<>>}, {123, <<\"b\">>}, {close, x}]", h.to)
	e.eval("%s ! {close, 123, bye}", h.to)
	c.SetReadDeadline(time.Now().Add(patience))
	got, err := io.ReadAll(c)
	_, body, found := bytes.Cut(got, []byte("\r\n\r\n"))
	if err != nil || !found || string(body) != "Welcome, Url: '/test/123' Id: 123\nab" || bytes.Contains(got, []byte("chunked")) {
		t.Errorf("%q, %v", got, err)
	}
}

// net/http, an HTTP implementation that is not ours, undoes the chunks.
func TestStream_NetHTTP(t *testing.T) {
	h := startHalley(t, halleyOptions{args: []string{"--path", "/user/{uid}/events", "--welcome", ""}})
	e := sharedErl(t)
	client := http.Client{Timeout: patience}
	resp, err := client.Get("http://" + h.addr + "/user/j%C3%B6e/events?x=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Cache-Control") != "no-store" {
		t.Errorf("%s %v", resp.Status, resp.Header)
	}
	e.eval("%s ! {<<\"j\", 195, 182, \"e\">>, <<\"hello\">>}", h.to)
	e.eval("%s ! {close, <<\"j\", 195, 182, \"e\">>, bye}", h.to)
	if got, err := io.ReadAll(resp.Body); string(got) != "hello" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

func TestStream_Answers(t *testing.T) {
	need(t, "curl")
	h := startHalley(t, halleyOptions{args: []string{"--max-uid", "1000"}})
	url := "http://" + h.addr
	for _, c := range []struct {
		name string
		args []string
		want []string // parts of head and body
		not  string
	}{
		{"head", []string{"--head", url + "/test/123"}, []string{"HTTP/1.1 200 OK\r\n", "Transfer-Encoding: chunked"}, "Welcome"},
		{"head-404", []string{"--head", url + "/"}, []string{"HTTP/1.1 404 Not Found\r\n"}, "User id"},
		{"no-uid", []string{"-i", url + "/test/"}, []string{"HTTP/1.1 404 Not Found\r\n", "User id not found, try /test/123 instead"}, ""},
		{"other-path", []string{"-i", url + "/else/1"}, []string{"HTTP/1.1 404 Not Found\r\n", "User id not found, try /test/123 instead"}, ""},
		{"max-uid", []string{"-i", url + "/test/1001"}, []string{"HTTP/1.1 503 We ran out of numbers\r\n", "Max uid allowed is 1000"}, ""},
		{"post", []string{"-i", "-d", "x=1", url + "/test/1"}, []string{"HTTP/1.1 405 Method Not Allowed\r\n", "Allow: GET, HEAD\r\n"}, ""},
		{"delete", []string{"-i", "-X", "DELETE", url + "/test/1"}, []string{"HTTP/1.1 405 Method Not Allowed\r\n", "Allow: GET, HEAD\r\n"}, ""},
		{"long-head", []string{"-i", "-H", "X: " + strings.Repeat("x", 9000), url + "/test/1"}, []string{"HTTP/1.1 431 "}, ""},
		{"long-url", []string{"-i", url + "/test/1?" + strings.Repeat("x", 9000)}, []string{"HTTP/1.1 414 "}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := curl(t, c.args...)
			for _, want := range c.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %q in\n%s", want, got)
				}
			}
			if c.not != "" && strings.Contains(got, c.not) {
				t.Errorf("%q in\n%s", c.not, got)
			}
		})
	}
	h.open("1000")
	t.Run("no-http", func(t *testing.T) {
		conn := dial(t, h.addr)
		io.WriteString(conn, "what\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(patience))
		if got, err := io.ReadAll(conn); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("uids-integer", func(t *testing.T) {
		h := startHalley(t, halleyOptions{args: []string{"--uids", "integer"}})
		if got := curl(t, "-i", "http://"+h.addr+"/test/joe"); !strings.Contains(got, "404 Not Found") {
			t.Error(got)
		}
		h.open("7")
	})
}

// A request may come in any pieces.
func TestStream_RequestByteByByte(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	c := dial(t, h.addr)
	c.SetNoDelay(true)
	for _, b := range []byte("GET /test/5 HTTP/1.1\r\nHost: x\r\n\r\n") {
		c.Write([]byte{b})
		time.Sleep(100 * time.Microsecond) // pieces, not a synchronisation
	}
	r := bufio.NewReader(c)
	c.SetReadDeadline(time.Now().Add(patience))
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	s := &stream{t: t, conn: c, resp: resp, chunkReader: chunkReader{r: r}}
	s.want("Welcome, Url: '/test/5' Id: 5\n")
}

func TestAdmin(t *testing.T) {
	name := uniqueName("e") + "@localhost"
	h := startHalley(t, halleyOptions{args: []string{"--connect", name}})
	if code, body := h.get("/healthz"); code != 200 || body != "ok\n" {
		t.Errorf("/healthz: %d %q", code, body)
	}
	if code, body := h.get("/readyz"); code != 503 || !strings.Contains(body, "no Erlang node is connected") {
		t.Errorf("/readyz: %d %q", code, body)
	}
	e := startErl(t, erlOptions{name: name})
	eventually(t, "ready", func() bool { code, _ := h.get("/readyz"); return code == 200 })
	s := h.open("1")
	e.eval("%s ! {1, <<\"hello\">>}", h.to)
	s.want("hello")
	m := h.atRest(1)
	for name, want := range map[string]int{"connections": 1, "users": 1, "messages_received_total": 1, "messages_written_total": 1,
		"messages_copied_total": 0, "peers": 1, `requests_total{code="200"}`: 1, "pending_bytes": 0, "connections_opened_total": 1} {
		within(t, patience, name, func() bool { m = h.metrics(); return m.of(t, name) == want })
	}
	e.kill()
	eventually(t, "not ready", func() bool { code, _ := h.get("/readyz"); return code == 503 })
	if code, _ := h.get("/nothing"); code != 404 {
		t.Errorf("/nothing: %d", code)
	}
}

// Without --connect nobody is waited for.
func TestAdmin_ReadyWithoutConnect(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	if code, _ := h.get("/readyz"); code != 200 {
		t.Errorf("/readyz: %d", code)
	}
}
