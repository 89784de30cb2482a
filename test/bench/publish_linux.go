package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// load is a number of messages to uids drawn at random.
type load struct {
	count int
	rate  float64 // a second; 0: as fast as it goes
	bytes int     // of a body
	first int     // uids
	last  int
	// due: messages carry the time they should have been sent at, so that a sender
	// that is held up counts as latency. Else the time at which they were.
	due bool
}

// lasts is how long a load at a rate takes.
func (l *load) lasts() time.Duration { return time.Duration(float64(l.count) / l.rate * 1e9) }

// sent is what a publisher says of a load.
type sent struct{ micros int }

// source sends messages to one server, in the way of that server.
type source interface {
	// send returns when all is sent.
	send(ctx context.Context, l load) (sent, error)
	// fanOut sends one message that all n connections of a crowd get: those of the
	// uid 1, or where it says oneUID false of the uids 1 to n.
	fanOut(ctx context.Context, n, bytes int) error
	oneUID() bool
}

// erlSource sends from the Erlang node.
type erlSource struct {
	rig  *rig
	dest string // an Erlang term, such as {httpd, 'halley@localhost'}
	// single: a uid can have one connection only. all: it takes {all, Body}.
	single, all bool
}

func (e *erlSource) send(ctx context.Context, l load) (sent, error) {
	rate, stamp := "infinity", "now"
	if l.rate > 0 {
		rate = strconv.FormatFloat(l.rate, 'f', 1, 64)
	}
	if l.due {
		stamp = "due"
	}
	return e.rig.erlang(ctx, "{run, #{dest => %s, count => %d, rate => %s, size => %d, uids => {%d, %d}, stamp => %s}}",
		e.dest, l.count, rate, l.bytes, l.first, l.last, stamp)
}

func (e *erlSource) fanOut(ctx context.Context, n, bytes int) error {
	if e.all {
		_, err := e.rig.erlang(ctx, "{all, %s, %d}", e.dest, bytes)
		return err
	}
	last := 1
	if e.single {
		last = n
	}
	_, err := e.rig.erlang(ctx, "{each, %s, 1, %d, %d}", e.dest, last, bytes)
	return err
}

func (e *erlSource) oneUID() bool { return !e.single && !e.all }

// httpSource publishes by POST over kept-alive connections, one request at a time
// on each, as an HTTP library's pool does.
type httpSource struct {
	addr string // host:port
	path string // with {uid}
}

const httpConnections = 16

func (s *httpSource) send(ctx context.Context, l load) (sent, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	start := time.Now()
	errs := make([]error, httpConnections)
	var workers sync.WaitGroup
	for k := range httpConnections {
		workers.Go(func() {
			if errs[k] = s.worker(ctx, l, k, start); errs[k] != nil {
				cancel()
			}
		})
	}
	workers.Wait()
	return sent{int(time.Since(start).Microseconds())}, errors.Join(errs...)
}

// worker sends every httpConnections-th message, to uids that are its own, so that
// each uid's messages have an order.
func (s *httpSource) worker(ctx context.Context, l load, k int, start time.Time) error {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	uids := (l.last - l.first - k + httpConnections) / httpConnections
	if uids < 1 {
		return nil // another worker has all of few uids
	}
	seqs := make([]int, uids)
	random := rand.New(rand.NewPCG(uint64(k), 1))
	r := bufio.NewReader(c)
	workers := min(httpConnections, l.last-l.first+1)
	for i := k; i < l.count; i += workers {
		var at time.Time
		if l.rate > 0 {
			at = start.Add(time.Duration(float64(i) / l.rate * 1e9))
			time.Sleep(time.Until(at))
		}
		n := random.IntN(uids)
		seqs[n]++
		if !l.due {
			at = time.Now()
		}
		if err := s.post(c, r, s.pathOf(l.first+k+n*httpConnections), body(seqs[n], at, l.bytes)); err != nil {
			return err
		}
	}
	return nil
}

func (s *httpSource) oneUID() bool { return true }

func (s *httpSource) fanOut(_ context.Context, _, bytes int) error {
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		return err
	}
	defer c.Close()
	return s.post(c, bufio.NewReader(c), s.pathOf(1), body(0, time.Now(), bytes))
}

func (s *httpSource) pathOf(uid int) string {
	return strings.Replace(s.path, "{uid}", strconv.Itoa(uid), 1)
}

func (s *httpSource) post(c net.Conn, r *bufio.Reader, path string, body []byte) error {
	request := make([]byte, 0, 256+len(body))
	request = fmt.Appendf(request, "POST %s HTTP/1.1\r\nHost: %s\r\nContent-Length: %d\r\n\r\n", path, s.addr, len(body))
	if _, err := c.Write(append(request, body...)); err != nil {
		return err
	}
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil {
		return err
	}
	if answer.StatusCode/100 != 2 {
		return fmt.Errorf("POST %s: %s", path, answer.Status)
	}
	return nil
}

// body is "SEQ MICROS xxx", as halley flood reads it.
func body(seq int, at time.Time, bytes int) []byte {
	b := fmt.Appendf(nil, "%d %d ", seq, at.UnixMicro())
	for len(b) < bytes {
		b = append(b, 'x')
	}
	return b
}
