package test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"
)

// chunkReader reads chunks as Halley writes them, and nothing else: no leading
// zeros, no extensions, no trailer (RFC 9112, section 7.1).
type chunkReader struct {
	r    *bufio.Reader
	body []byte // of the last chunk, reused
}

var errFraming = errors.New("bad chunk framing")

// next gives one chunk, valid until the following call. io.EOF is the last chunk;
// a stream that ends without one is io.ErrUnexpectedEOF.
func (c *chunkReader) next() ([]byte, error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		return nil, unexpected(err)
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return nil, fmt.Errorf("%w: chunk head %q", errFraming, line)
	}
	digits := string(line[:len(line)-2])
	size, err := strconv.ParseUint(digits, 16, 31)
	if err != nil || strconv.FormatUint(size, 16) != digits {
		return nil, fmt.Errorf("%w: chunk head %q", errFraming, line)
	}
	n := int(size) + 2
	if cap(c.body) < n {
		c.body = make([]byte, n)
	}
	c.body = c.body[:n]
	if _, err := io.ReadFull(c.r, c.body); err != nil {
		return nil, unexpected(err)
	}
	if string(c.body[size:]) != "\r\n" {
		return nil, fmt.Errorf("%w: %q after a chunk", errFraming, c.body[size:])
	}
	if size > 0 {
		return c.body[:size], nil
	}
	if b, err := c.r.ReadByte(); err != io.EOF {
		return nil, fmt.Errorf("%w: after the last chunk %q, %v", errFraming, b, err)
	}
	return nil, io.EOF
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// stream is an open stream, read from a raw socket.
type stream struct {
	t    *testing.T
	conn *net.TCPConn
	resp *http.Response // its head; the body is read by chunks
	chunkReader
}

func dial(t *testing.T, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// ask sends a request and reads the head of its answer.
func ask(t *testing.T, c *net.TCPConn, method, path string) (*http.Response, *bufio.Reader) {
	t.Helper()
	resp, r, err := tryAsk(c, method, path)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp, r
}

func tryAsk(c *net.TCPConn, method, path string) (*http.Response, *bufio.Reader, error) {
	c.SetDeadline(time.Now().Add(patience))
	defer c.SetDeadline(time.Time{})
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: halley\r\n\r\n", method, path); err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(c, 16<<10)
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	return resp, r, err
}

// open opens the stream of a uid and reads its welcome.
func (h *halley) open(uid string) *stream {
	h.t.Helper()
	s := h.openOn(dial(h.t, h.addr), uid)
	s.want("Welcome, Url: '/test/" + uid + "' Id: " + uid + "\n")
	return s
}

// openOn opens a stream on a socket; its first chunk is not yet read.
func (h *halley) openOn(c *net.TCPConn, uid string) *stream {
	h.t.Helper()
	resp, r := ask(h.t, c, "GET", "/test/"+uid)
	if resp.StatusCode != http.StatusOK || len(resp.TransferEncoding) != 1 || resp.TransferEncoding[0] != "chunked" {
		h.t.Fatalf("uid %s: %s, transfer encoding %v", uid, resp.Status, resp.TransferEncoding)
	}
	return &stream{t: h.t, conn: c, resp: resp, chunkReader: chunkReader{r: r}}
}

// openMany opens a stream for each uid from 1 to n.
func (h *halley) openMany(n int) []*stream {
	h.t.Helper()
	streams := make([]*stream, n)
	for i := range streams {
		streams[i] = h.open(strconv.Itoa(i + 1))
	}
	return streams
}

// want reads chunks that must be exactly texts.
func (s *stream) want(texts ...string) {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(patience))
	defer s.conn.SetReadDeadline(time.Time{})
	for _, text := range texts {
		if got, err := s.next(); err != nil || string(got) != text {
			s.t.Fatalf("%s: got %.80q, %v; want %.80q", s.conn.LocalAddr(), got, err, text)
		}
	}
}

// wantEnd reads the last chunk and the end of the stream.
func (s *stream) wantEnd() {
	s.t.Helper()
	s.conn.SetReadDeadline(time.Now().Add(patience))
	if got, err := s.next(); err != io.EOF {
		s.t.Fatalf("got %.80q, %v; want the last chunk", got, err)
	}
}
