package test

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// At the limit of open files and of connections.

const files = 256

// limited is a Halley under `ulimit -n 256`, an Erlang node, and how many connections
// Halley then takes.
func limited(t *testing.T) (h *halley, e *erlNode, capacity int) {
	t.Helper()
	h = startHalley(t, halleyOptions{files: files})
	e = sharedErl(t)
	e.want("pong", "net_adm:ping('%s')", h.name)
	capacity = h.metric("max_connections")
	if capacity < files/2 || capacity >= files {
		t.Fatalf("%d connections with %d files", capacity, files)
	}
	if h.log.count("level=WARN", "capacity is limited by open files", fmt.Sprintf("connections=%d", capacity)) != 1 {
		t.Error("no line on the capacity")
	}
	return h, e, capacity
}

// wantAll checks that every stream still receives.
func wantAll(h *halley, e *erlNode, text string, streams []*stream) {
	h.t.Helper()
	e.eval("%s ! {all, <<\"%s\">>}", h.to, text)
	for _, s := range streams {
		s.want(text)
	}
}

func TestLimits_OneAfterTheOther(t *testing.T) {
	h, e, capacity := limited(t)
	streams := h.openMany(capacity)
	for i := capacity; i < 400; i++ {
		c := dial(t, h.addr)
		resp, _ := ask(t, c, "GET", "/test/"+strconv.Itoa(i))
		if resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" {
			t.Fatalf("client %d: %s %v", i, resp.Status, resp.Header)
		}
		c.Close()
	}
	wantAll(h, e, "full", streams)
	if got := h.metric(`requests_total{code="503"}`); got != 400-capacity {
		t.Errorf("%d answers of 503", got)
	}
	for _, s := range streams[:10] {
		s.conn.Close()
	}
	eventually(t, "they have left", func() bool { return h.metric("open_sockets") == capacity-10 })
	for i := range 10 {
		streams[i] = h.open("new" + strconv.Itoa(i))
	}
	wantAll(h, e, "full again", streams)
}

// All at once: each gets a stream, or 503, or, when more than a few wait for that, a
// closed connection.
func TestLimits_AllAtOnce(t *testing.T) {
	h, e, capacity := limited(t)
	first := h.openMany(50)
	var clients sync.WaitGroup
	var served, refused, closed atomic.Int64
	streams := make([]*stream, 400)
	for i := range streams {
		c := dial(t, h.addr)
		clients.Go(func() {
			resp, r, err := tryAsk(c, "GET", fmt.Sprintf("/test/c%d", i))
			var timeout net.Error
			switch {
			case errors.As(err, &timeout) && timeout.Timeout():
				t.Errorf("client %d got nothing", i)
			case err != nil:
				closed.Add(1)
			case resp.StatusCode == http.StatusOK:
				served.Add(1)
				streams[i] = &stream{t: t, conn: c, resp: resp, chunkReader: chunkReader{r: r}}
			case resp.StatusCode == http.StatusServiceUnavailable && resp.Header.Get("Retry-After") != "":
				refused.Add(1)
				c.Close()
			default:
				t.Errorf("client %d: %s", i, resp.Status)
			}
		})
	}
	clients.Wait()
	t.Logf("%d served, %d got 503, %d closed", served.Load(), refused.Load(), closed.Load())
	if got := int(served.Load()); got != capacity-len(first) {
		t.Errorf("%d served, room was for %d", got, capacity-len(first))
	}
	if refused.Load() == 0 {
		t.Error("nobody got 503")
	}
	wantAll(h, e, "first", first)
	for i, s := range streams {
		if s == nil {
			continue
		}
		s.want(fmt.Sprintf("Welcome, Url: '/test/c%d' Id: c%d\n", i, i), "first")
		s.conn.Close()
	}
	eventually(t, "they have left", func() bool { return h.metric("open_sockets") == len(first) })
	wantAll(h, e, "second", append(first, h.open("new")))
}

// Clients that connect and never ask take all there is: those connected notice
// nothing, and when the silent ones are gone there is room again.
func TestLimits_SilentClients(t *testing.T) {
	h, e, capacity := limited(t)
	streams := h.openMany(20)
	var silent []*net.TCPConn
	for range 300 {
		silent = append(silent, dial(t, h.addr))
	}
	eventually(t, "all are accepted", func() bool { return h.metric("connections_opened_total") == 320 })
	wantAll(h, e, "besieged", streams)
	m := h.metrics()
	if open := m.of(t, "open_sockets"); open < capacity || open >= files {
		t.Errorf("%d open, capacity %d", open, capacity)
	}
	if got := m.of(t, `connections_closed_total{reason="refused"}`); got != 320-m.of(t, "open_sockets") {
		t.Errorf("%d refused of %d", got, 320)
	}
	// Another Erlang node and the admin address have their reserve.
	startErl(t, erlOptions{}).want("pong", "net_adm:ping('%s')", h.name)
	for _, c := range silent {
		c.Close()
	}
	eventually(t, "they have left", func() bool { return h.metric("open_sockets") == len(streams) })
	wantAll(h, e, "relieved", append(streams, h.open("new")))
	if h.log.count("evio ended") != 0 {
		t.Error("the engine was started again")
	}
}

// Nor do silent sockets on the other ports take the descriptors that the front's accept
// needs: at the limit evio would end, and close every stream, and epoll accept nobody.
func TestLimits_SilentOnOtherPorts(t *testing.T) {
	for _, port := range []string{"dist", "admin"} {
		t.Run(port, func(t *testing.T) {
			h, e, _ := limited(t)
			streams := h.openMany(20)
			for range 300 {
				dial(t, h.addr)
			}
			eventually(t, "all are accepted", func() bool { return h.metric("connections_opened_total") == 320 })
			for range 100 {
				dial(t, map[string]string{"dist": h.dist, "admin": h.admin}[port])
			}
			dial(t, h.addr)
			wantAll(h, e, "besieged", streams)
			if h.log.count("evio ended") != 0 {
				t.Error("the engine was started again")
			}
		})
	}
}

// A client that does not finish its request in time is told so and closed.
func TestLimits_SlowRequest(t *testing.T) {
	t.Parallel() // 10 s of waiting
	h := startHalley(t, halleyOptions{})
	c := dial(t, h.addr)
	fmt.Fprint(c, "GET /test/1 HTTP/1.1\r\nHost: x\r\n") // no end
	c.SetReadDeadline(time.Now().Add(patience))
	b := make([]byte, 1024)
	n, err := c.Read(b)
	if err != nil || string(b[:min(n, 13)]) != "HTTP/1.1 408 " {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// --max-connections below the limit of files, and --max-per-uid.
func TestLimits_Connections(t *testing.T) {
	h, e := pair(t, "--max-connections", "4", "--max-per-uid", "2")
	streams := h.openMany(4)
	resp, _ := ask(t, dial(t, h.addr), "GET", "/test/5")
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the fifth: %s", resp.Status)
	}
	for _, s := range streams[1:] {
		s.conn.Close()
	}
	eventually(t, "room", func() bool { return h.metric("open_sockets") <= 2 })
	second := h.open("1")
	third := h.open("1") // one more than --max-per-uid: the oldest is closed
	streams[0].wantEnd()
	e.want("{ok,2}", "gen_server:call(%s, {deliver, 1, <<\"hello\">>})", h.to)
	second.want("hello")
	third.want("hello")
	if got := h.metric(`connections_closed_total{reason="replaced"}`); got > 1 {
		t.Errorf("%d replaced", got)
	}
}
