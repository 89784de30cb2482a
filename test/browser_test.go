package test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// browser reads a stream by lines: a proxy joins and cuts chunks as it likes. The lines
// are numbers that count up by one; whatever else comes is an error.
type browser struct {
	t    *testing.T
	conn *net.TCPConn
	resp *http.Response

	mu      sync.Mutex
	welcome bool // Halley's, so it is Halley who serves it
	first   int  // number; 0: none has come
	last    int
	blank   int   // mochiweb's newlines
	bad     error // what came and should not have
	end     error // io.EOF: the last chunk; nil: it has not ended
}

// browse opens the stream of a uid.
func browse(t *testing.T, addr string, uid int) *browser {
	t.Helper()
	c := dial(t, addr)
	resp, _ := ask(t, c, "GET", fmt.Sprintf("/test/%d", uid))
	if resp.StatusCode != http.StatusOK || len(resp.TransferEncoding) != 1 || resp.TransferEncoding[0] != "chunked" {
		t.Fatalf("uid %d: %s, transfer encoding %v", uid, resp.Status, resp.TransferEncoding)
	}
	b := &browser{t: t, conn: c, resp: resp}
	go b.read()
	return b
}

func (b *browser) read() {
	r := bufio.NewReader(b.resp.Body)
	for {
		line, err := r.ReadString('\n')
		b.mu.Lock()
		if err != nil {
			b.end = err
			b.mu.Unlock()
			return
		}
		b.take(strings.TrimSuffix(line, "\n"))
		b.mu.Unlock()
	}
}

func (b *browser) take(line string) {
	n, err := strconv.Atoi(line)
	switch {
	case line == "":
		b.blank++
	case strings.HasPrefix(line, "Welcome, ") && b.first == 0 && !b.welcome:
		b.welcome = true
	case b.bad != nil:
	case err != nil:
		b.bad = fmt.Errorf("%.80q came after %d", line, b.last)
	case b.first == 0:
		b.first, b.last = n, n
	case n != b.last+1:
		b.bad = fmt.Errorf("%d came after %d", n, b.last)
	default:
		b.last = n
	}
}

func (b *browser) state() (first, last int, ended error) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.bad != nil {
		b.t.Fatalf("%s: %v", b.conn.LocalAddr(), b.bad)
	}
	return b.first, b.last, b.end
}

// from is the number of its first message.
func (b *browser) from() int {
	first, _, _ := b.state()
	return first
}

// blanks is how many empty lines have come.
func (b *browser) blanks() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.blank
}

// servedBy checks who serves it; Halley says so in its first line.
func (b *browser) servedBy(halley bool) {
	b.t.Helper()
	eventually(b.t, "a line", func() bool { first, _, _ := b.state(); return first > 0 })
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.welcome != halley {
		b.t.Fatalf("%s: served by Halley: %t, want %t", b.conn.LocalAddr(), b.welcome, halley)
	}
}

// reaches waits for the message numbered n.
func (b *browser) reaches(n int) {
	b.t.Helper()
	eventually(b.t, fmt.Sprintf("message %d", n), func() bool {
		_, last, ended := b.state()
		if last < n && ended != nil {
			b.t.Fatalf("%s: ended after %d, want %d: %v", b.conn.LocalAddr(), last, n, ended)
		}
		return last >= n
	})
}

// has checks that it has every message that was sent after it was logged in, when
// before was the last, up to the one numbered last, and is still open.
func (b *browser) has(before, last int) {
	b.t.Helper()
	b.reaches(last)
	if first, got, ended := b.state(); first > before+1 || got != last || ended != nil {
		b.t.Fatalf("%s: %d to %d, ended %v; want all from %d to %d", b.conn.LocalAddr(), first, got, ended, before+1, last)
	}
}

// endsWith waits for the end: io.EOF is a stream with its last chunk,
// io.ErrUnexpectedEOF one that breaks off. It gives the number of its last message.
func (b *browser) endsWith(want ...error) (last int) {
	b.t.Helper()
	var ended error
	eventually(b.t, "the end of the stream", func() bool {
		_, last, ended = b.state()
		return ended != nil
	})
	for _, w := range want {
		if ended == w {
			return last
		}
	}
	b.t.Fatalf("%s: ended with %v, want %v", b.conn.LocalAddr(), ended, want)
	return 0
}

var anyEnd = []error{io.EOF, io.ErrUnexpectedEOF}
