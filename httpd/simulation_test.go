package httpd

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// simClient is a client of the simulation: it reads in a goroutine of its own, unless
// it is stalled.
type simClient struct {
	*stream
	uid     int
	number  uint64
	want    bytes.Buffer // what was sent to it: the model
	mu      sync.Mutex   // protects got; held while stalled
	got     []byte
	stalled bool
	end     error // why reading ended, after done
	done    chan struct{}
}

func (c *simClient) read() {
	defer close(c.done)
	buf := make([]byte, 4096)
	for {
		n, err := c.body.Read(buf)
		c.mu.Lock()
		c.got = append(c.got, buf[:n]...)
		c.mu.Unlock()
		if err != nil {
			c.end = err
			return
		}
	}
}

func (c *simClient) received() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.got)
}

// simulation drives a server at random, and a plain model with it.
type simulation struct {
	t       *testing.T
	s       *Server
	random  *rand.Rand
	feeds   []*Feed
	clients []*simClient
	sent    int
}

const (
	simUIDs    = 25
	simClients = 60
	simSteps   = 3000
)

// TestSimulation opens, closes, stalls and resumes clients, sends to them, by uid and by
// number, and ends some from Erlang's side, in random order. Whoever stays connected, or is
// ended so, gets everything, in order; whoever is closed for being slow has a beginning of
// it. HALLEY_SEED repeats a run.
func TestSimulation(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("HALLEY_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("HALLEY_SEED=%d", seed)
	sim := &simulation{
		t:      t,
		s:      testServer(t, func(o *Options) { o.MaxPendingBytes = 16 << 10 }),
		random: rand.New(rand.NewPCG(seed, 0)),
	}
	for range 3 {
		sim.feeds = append(sim.feeds, sim.s.NewFeed())
	}
	for range simSteps {
		sim.step()
		if t.Failed() {
			return
		}
	}
	sim.finish()
}

func (sim *simulation) step() {
	switch p := sim.random.IntN(100); {
	case p < 12:
		if len(sim.clients) < simClients {
			sim.open()
		}
	case p < 18:
		sim.close()
	case p < 22:
		sim.stallOne()
	case p < 27:
		sim.resumeOne()
	case p < 29:
		sim.broadcast()
	case p < 32:
		sim.exit()
	default:
		sim.send()
	}
}

func (sim *simulation) open() {
	uid := 1 + sim.random.IntN(simUIDs)
	conn, err := networked.Dial("tcp", sim.s.testAddr())
	if err != nil {
		sim.t.Fatal(err)
	}
	st := connectOver(sim.t, conn, strconv.Itoa(uid))
	conn.SetReadDeadline(time.Time{})
	conns := whereis(sim.s, strconv.Itoa(uid))
	c := &simClient{stream: st, uid: uid, number: conns[len(conns)-1], done: make(chan struct{})}
	sim.clients = append(sim.clients, c)
	go c.read()
}

// networked makes connections whose kernel buffers are as small as over a network: a
// client that stalls is noticed.
var networked = net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 16<<10)
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, 1400)
	})
}}

func (sim *simulation) pick() (int, *simClient) {
	if len(sim.clients) == 0 {
		return -1, nil
	}
	i := sim.random.IntN(len(sim.clients))
	return i, sim.clients[i]
}

// close ends a client, which has got no more than was sent to it.
func (sim *simulation) close() {
	i, c := sim.pick()
	if c == nil {
		return
	}
	sim.clients = append(sim.clients[:i], sim.clients[i+1:]...)
	sim.resume(c)
	c.conn.Close()
	<-c.done
	sim.beginning(c)
}

// exit ends a client, behind what was sent to it, by its number. To those that have gone
// already, for being slow, nothing happens.
func (sim *simulation) exit() {
	i, c := sim.pick()
	if c == nil {
		return
	}
	sim.clients = append(sim.clients[:i], sim.clients[i+1:]...)
	sim.resume(c)
	f := sim.feeds[sim.random.IntN(len(sim.feeds))]
	body := sim.body(c.uid)
	sim.sent += 2
	f.Send(c.number, body)
	f.Exit(c.number, []byte("simulation"), nil)
	f.Send(c.number, []byte("too late"))
	c.want.Write(body)
	sim.flush(f)
	<-c.done
	if sim.beginning(c); c.end == io.EOF && len(c.got) != c.want.Len() {
		sim.t.Errorf("uid %d: a clean end after %d of %d bytes", c.uid, len(c.got), c.want.Len())
	}
	c.conn.Close()
}

// beginning checks that a client has got a beginning of what it was sent.
func (sim *simulation) beginning(c *simClient) {
	if !bytes.HasPrefix(c.want.Bytes(), c.got) {
		sim.t.Errorf("uid %d: got %d bytes that are no beginning of the %d sent", c.uid, len(c.got), c.want.Len())
	}
}

func (sim *simulation) stallOne() {
	if _, c := sim.pick(); c != nil && !c.stalled {
		c.stalled = true
		c.mu.Lock()
	}
}

func (sim *simulation) resumeOne() {
	if _, c := sim.pick(); c != nil {
		sim.resume(c)
	}
}

func (sim *simulation) resume(c *simClient) {
	if c.stalled {
		c.stalled = false
		c.mu.Unlock()
	}
}

// send sends a few messages, to uids and to numbers, through one feed and waits until they
// are done with: the model has no order between feeds.
func (sim *simulation) send() {
	f := sim.feeds[sim.random.IntN(len(sim.feeds))]
	for range 1 + sim.random.IntN(40) {
		sim.sent++
		if _, c := sim.pick(); c != nil && sim.random.IntN(3) == 0 {
			body := sim.body(c.uid)
			f.Send(c.number, body)
			c.want.Write(body)
			continue
		}
		uid := 1 + sim.random.IntN(simUIDs)
		body := sim.body(uid)
		f.Message(int64(uid), nil, body)
		for _, c := range sim.clients {
			if c.uid == uid {
				c.want.Write(body)
			}
		}
	}
	sim.flush(f)
}

func (sim *simulation) broadcast() {
	f := sim.feeds[sim.random.IntN(len(sim.feeds))]
	sim.sent++
	body := sim.body(0)
	f.All(body)
	for _, c := range sim.clients {
		c.want.Write(body)
	}
	sim.flush(f)
}

// body is mostly short, sometimes longer than is copied, now and then long.
func (sim *simulation) body(uid int) []byte {
	text := fmt.Sprintf("<%d to %d>", sim.sent, uid)
	switch sim.random.IntN(30) {
	case 0:
		text += strings.Repeat("l", 20000)
	case 1, 2:
		text += strings.Repeat("m", 1500)
	}
	return []byte(text)
}

func (sim *simulation) flush(f *Feed) {
	done := make(chan struct{})
	f.Flush(func() { close(done) })
	<-done
}

// finish resumes all and looks at who has what.
func (sim *simulation) finish() {
	slow := 0
	for _, c := range sim.clients {
		sim.resume(c)
	}
	for _, c := range sim.clients {
		eventually(sim.t, fmt.Sprintf("uid %d, which has %d of %d bytes, has all, or its end", c.uid, c.received(), c.want.Len()), func() bool {
			select {
			case <-c.done:
				return true
			default:
				return c.received() == c.want.Len()
			}
		})
		select {
		case <-c.done:
			if slow++; c.end == io.EOF {
				sim.t.Errorf("uid %d: a clean end that nobody asked for", c.uid)
			}
			sim.beginning(c)
		default:
			c.mu.Lock()
			if !bytes.Equal(c.got, c.want.Bytes()) {
				sim.t.Errorf("uid %d: %d bytes differ from those sent", c.uid, len(c.got))
			}
			c.mu.Unlock()
		}
		c.conn.Close()
		<-c.done
	}
	st := balance(sim.t, sim.s)
	if int(st.Received) != sim.sent {
		sim.t.Errorf("received %d, sent %d", st.Received, sim.sent)
	}
	eventually(sim.t, "all are gone", func() bool { return sim.s.Stats().Open == 0 })
	sim.t.Logf("%d messages, %d opened, closed %v, %d of the last were slow", st.Received, st.Opened, sim.s.Stats().Closed, slow)
}
