package test

import (
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"
)

// Clients come and go in every way, while two Erlang nodes send: each message ends in
// exactly one counter, and nothing is left of the clients.
func TestStorm(t *testing.T) {
	const (
		uids    = 50
		workers = 16
		last    = 4 * time.Second
	)
	h := startHalley(t, halleyOptions{})
	nodes := []*erlNode{sharedErl(t), startErl(t, erlOptions{})}
	for _, e := range nodes {
		e.want("pong", "net_adm:ping('%s')", h.name)
	}
	h.open("1").conn.Close()
	settled := func(m metrics) (goroutines, descriptors int) {
		return int(m["go_goroutines"]), int(m["process_open_fds"])
	}
	var goroutines, descriptors int
	eventually(t, "no client", func() bool {
		m := h.metrics()
		goroutines, descriptors = settled(m)
		return m.of(t, "open_sockets") == 0
	})
	for _, e := range nodes {
		e.want("true", "is_pid(P = load:start(%s, %d))", h.to, uids)
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	var storm sync.WaitGroup
	var opened [workers]int
	until := time.Now().Add(last)
	for w := range workers {
		storm.Go(func() {
			random := rand.New(rand.NewPCG(seed, uint64(w)))
			for time.Now().Before(until) {
				if visit(t, h, random, uids) {
					opened[w]++
				}
			}
		})
	}
	storm.Wait()
	sent := 0
	for i, e := range nodes {
		var n int
		if _, err := fmt.Sscan(e.eval("load:stop(P)"), &n); err != nil {
			t.Fatalf("node %d: %v", i, err)
		}
		sent += n
	}
	m := h.atRest(sent)
	clients := 0
	for _, n := range opened {
		clients += n
	}
	t.Logf("%d clients; received %d, copied %d, written %d, not connected %d, slow %d, closing %d", clients, sent,
		m.of(t, "messages_copied_total"), m.of(t, "messages_written_total"), m.of(t, `messages_discarded_total{reason="not_connected"}`),
		m.of(t, `messages_discarded_total{reason="slow"}`), m.of(t, `messages_discarded_total{reason="closing"}`))
	eventually(t, "no client is left", func() bool {
		m = h.metrics()
		return m.of(t, "open_sockets") == 0 && m.of(t, "connections") == 0 && m.of(t, "users") == 0 && m.of(t, "pending_bytes") == 0
	})
	if in, out := m.of(t, "connections_opened_total"), m.sum("connections_closed_total"); in != out {
		t.Errorf("%d connections were opened, %d closed", in, out)
	}
	var g, d int
	defer func() { t.Logf("goroutines %d, then %d; descriptors %d, then %d", goroutines, g, descriptors, d) }()
	eventually(t, "goroutines and descriptors are those of before", func() bool {
		g, d = settled(h.metrics())
		return g == goroutines && d == descriptors
	})
	s := h.open("1")
	nodes[0].eval("%s ! {1, <<\"calm\">>}", h.to)
	s.want("calm")
}

// visit is one client: it opens a stream, or not, and leaves in some way.
func visit(t *testing.T, h *halley, random *rand.Rand, uids int) (opened bool) {
	c, err := net.Dial("tcp", h.addr)
	if err != nil {
		t.Error(err)
		return false
	}
	defer c.Close()
	tcp := c.(*net.TCPConn)
	switch random.IntN(8) {
	case 0: // says nothing
	case 1: // half a request
		fmt.Fprint(c, "GET /test/1 HT")
	case 2: // no stream
		tryAsk(tcp, "GET", "/nothing")
	default:
		resp, r, err := tryAsk(tcp, "GET", fmt.Sprintf("/test/%d", 1+random.IntN(uids)))
		if err != nil || resp.StatusCode != 200 {
			t.Errorf("%v, %v", resp, err)
			return false
		}
		opened = true
		s := chunkReader{r: r}
		c.SetReadDeadline(time.Now().Add(patience))
		for range random.IntN(50) {
			if _, err := s.next(); err != nil {
				t.Error(err)
				return opened
			}
		}
	}
	switch random.IntN(4) {
	case 0:
		tcp.SetLinger(0) // RST
	case 1:
		tcp.CloseWrite()
	case 2:
		fmt.Fprint(c, "more than was asked for")
	}
	return opened
}
