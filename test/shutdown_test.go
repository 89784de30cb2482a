package test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// The end that was asked for.

// Under load every stream ends with its last chunk, whole and without a gap; new
// clients are turned away; the cluster sees it leave; the status is 0.
func TestShutdown_UnderLoad(t *testing.T) {
	const uids = 200
	h, e := pair(t, "--drain", "3s", "--max-pending", "8MiB")
	streams := h.openMany(uids)
	var progress, clean, broken atomic.Int64
	var readers, connectors sync.WaitGroup
	for i, s := range streams {
		s.conn.SetReadDeadline(time.Now().Add(2 * patience))
		readers.Go(func() {
			defer s.conn.Close()
			switch err := s.counted(i+1, 1, 1<<30, &progress); {
			case errors.Is(err, io.EOF):
				clean.Add(1)
			case broken.Add(1) <= 3:
				t.Error(err)
			}
		})
	}
	stop := make(chan struct{})
	var refused, turnedAway, ended atomic.Int64
	for w := range 2 {
		connectors.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				case <-time.After(time.Millisecond):
				}
				c, err := net.Dial("tcp", h.addr)
				if err != nil {
					refused.Add(1)
					continue
				}
				resp, r, err := tryAsk(c.(*net.TCPConn), "GET", fmt.Sprintf("/test/n%d-%d", w, n))
				switch {
				case err != nil: // accepted by the kernel only
					refused.Add(1)
				case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
					turnedAway.Add(1)
				case resp.StatusCode != http.StatusOK:
					t.Errorf("a new client got %s", resp.Status)
				case n%50 == 0: // this one stays
					connectors.Go(func() {
						defer c.Close()
						c.SetReadDeadline(time.Now().Add(2 * patience))
						s := chunkReader{r: r}
						for {
							if _, err := s.next(); err == io.EOF {
								ended.Add(1)
								return
							} else if err != nil {
								t.Errorf("a new client's stream: %v", err)
								return
							}
						}
					})
					continue
				}
				c.Close()
			}
		})
	}
	e.want("true", "is_pid(P = load:start(%s, %d))", h.to, uids)
	eventually(t, "load", func() bool { return progress.Load() > 100_000 })
	h.signal(syscall.SIGTERM)
	h.wantExit(0, 3*time.Second+patience)
	readers.Wait()
	close(stop)
	connectors.Wait()
	e.want("true", "exit(P, kill)")
	e.want("true", "load:down('%s')", h.name)
	t.Logf("%d messages read; new clients: %d got 503, %d were refused, %d streams ended", progress.Load(), turnedAway.Load(), refused.Load(), ended.Load())
	if clean.Load() != uids {
		t.Errorf("%d of %d streams got the last chunk", clean.Load(), uids)
	}
	if refused.Load() == 0 || ended.Load() == 0 {
		t.Error("no new client came to see it")
	}
	if h.log.count("shutting down") != 1 || h.log.count("msg=stopped") != 1 {
		t.Error("no lines on it")
	}
}

// More comes than the loop can take, so that its mailbox is never empty: the streams
// end cleanly all the same.
func TestShutdown_Overloaded(t *testing.T) {
	h, e := pair(t, "--drain", "3s", "--slow", "drop")
	streams := h.openMany(200)
	var readers sync.WaitGroup
	var progress, clean atomic.Int64
	for _, s := range streams {
		s.conn.SetReadDeadline(time.Now().Add(2 * patience))
		readers.Go(func() {
			defer s.conn.Close()
			for {
				got, err := s.next()
				switch {
				case err == io.EOF:
					clean.Add(1)
					return
				case err != nil:
					return
				case string(got) != "to all":
					t.Errorf("got %.40q", got)
					return
				}
				progress.Add(1)
			}
		})
	}
	e.want("true", "is_pid(P = load:flood(%s, {all, <<\"to all\">>}))", h.to)
	eventually(t, "load", func() bool { return progress.Load() > 1_000_000 })
	h.signal(syscall.SIGTERM)
	h.wantExit(0, 3*time.Second+patience)
	readers.Wait()
	e.want("true", "exit(P, kill)")
	if clean.Load() != int64(len(streams)) {
		t.Errorf("%d of %d streams got the last chunk", clean.Load(), len(streams))
	}
}

// What was sent before the signal arrives: the last chunk comes behind it.
func TestShutdown_FlushesPending(t *testing.T) {
	const count, size = 1200, 10_000
	h, e := pair(t, "--drain", "20s", "--max-pending", "64MiB")
	c := dial(t, h.addr)
	c.SetReadBuffer(smallBuffer)
	s := h.openOn(c, "1")
	s.want("Welcome, Url: '/test/1' Id: 1\n")
	e.want("ok", "load:slow(%s, 1, 2, %d, %d)", h.to, count, size)
	eventually(t, "bytes wait", func() bool {
		return h.metric("messages_received_total") == 2*count && h.metric("pending_bytes") > 1<<20
	})
	h.signal(syscall.SIGINT)
	eventually(t, "it begins", func() bool { return h.log.count("shutting down") == 1 })
	if code, _ := h.get("/readyz"); code != 503 {
		t.Errorf("/readyz: %d", code)
	}
	s.conn.SetReadDeadline(time.Now().Add(patience))
	for n := 1; n <= count; n++ {
		if got, err := s.next(); err != nil || len(got) != size+len(strconv.Itoa(n))+1 {
			t.Fatalf("message %d: %d bytes, %v", n, len(got), err)
		}
	}
	s.wantEnd()
	s.conn.Close()
	h.wantExit(0, patience)
}

// A client that reads nothing holds it no longer than --drain and what closing takes.
func TestShutdown_StalledClient(t *testing.T) {
	h, e := pair(t, "--drain", "1s", "--max-pending", "64MiB")
	c := dial(t, h.addr)
	c.SetReadBuffer(smallBuffer)
	h.openOn(c, "1")
	healthy := h.open("2")
	e.want("ok", "load:slow(%s, 1, 3, 1200, 10000)", h.to)
	eventually(t, "bytes wait", func() bool { return h.metric("pending_bytes") > 1<<20 })
	h.signal(syscall.SIGTERM)
	healthy.wantEnd()
	healthy.conn.Close()
	h.wantExit(0, 1*time.Second+10*time.Second)
}

// A second signal does not wait for anything.
func TestShutdown_SecondSignal(t *testing.T) {
	h, e := pair(t, "--drain", "10m", "--max-pending", "64MiB")
	c := dial(t, h.addr)
	c.SetReadBuffer(smallBuffer)
	h.openOn(c, "1")
	e.want("ok", "load:slow(%s, 1, 3, 1200, 10000)", h.to)
	eventually(t, "bytes wait", func() bool { return h.metric("pending_bytes") > 1<<20 })
	h.signal(syscall.SIGTERM)
	eventually(t, "it begins", func() bool { return h.log.count("shutting down") == 1 })
	h.signal(syscall.SIGTERM)
	h.wantExit(1, patience)
	e.want("true", "load:down('%s')", h.name)
	if h.log.count("second signal") != 1 {
		t.Error("no line on it")
	}
}

// It leaves epmd at once, so that the next one can have its name.
func TestShutdown_NameIsFree(t *testing.T) {
	name := uniqueName("halley") + "@localhost"
	for range 3 {
		h := startHalley(t, halleyOptions{name: name, args: []string{"--drain", "1s"}})
		h.signal(syscall.SIGTERM)
		h.wantExit(0, patience)
	}
}
