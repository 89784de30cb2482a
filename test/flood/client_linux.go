package flood

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// conn is one connection. It has no pointer: the collector does not read the array.
type conn struct {
	stream
	fd    int32
	phase phase
	life  uint16 // raised when it is opened anew
}

type phase uint8

const (
	phaseIdle       phase = iota // not opened yet, or gone
	phaseConnecting              // connect is on its way
	phaseAsking                  // the request is sent, the stream has not begun
	phaseReading
	phaseStalled // has its stream, and reads no more
	phaseAgain   // waits to be opened again
)

const (
	readBytes      = 64 << 10
	maxEvents      = 1024
	maxConnecting  = 4096 // at once
	maxAsking      = 512  // at once, without --rate: else requests wait in the kernel until TCP sends them again
	maxOpensATurn  = 256
	connectTimeout = 10 * time.Second
	answerTimeout  = time.Minute
	// A client that does not read has a small receive buffer, of which the kernel's
	// least is a little more, and segments as in a network: over loopback's of 64 KB
	// the server's kernel buffers more than a megabyte for it.
	stalledBytes   = 2048
	stalledSegment = 1400
)

// Client is the loop and all it owns.
type Client struct {
	o          *Options
	addr       netip.AddrPort
	target     unix.Sockaddr
	before     string // the request up to the uid, and behind it
	after      string
	epoll      int
	conns      []conn
	ports      []int // by source address: the next one to try
	st         *Stats
	next       int // of conns: all below were opened once
	again      []int32
	connecting int
	asking     int
	connects   []wait // by their beginning
	asks       []wait // requests, by when they were sent
	start      time.Time
	churned    float64
	request    []byte
	buf        []byte
	random     *rand.Rand
	questions  chan question
	done       chan struct{} // closed when Run has ended
	patience   time.Duration // for an answer
}

// question is what another goroutine asks the loop.
type question struct {
	restart bool
	reply   chan<- *Stats
}

// wait is a connection that shall soon get on: stale when it has another life.
type wait struct {
	i    int32
	life uint16
	at   time.Time
}

// Events are what a run tells while it goes on; each may be nil. The Stats belong to the run:
// they are valid during the call.
type Events struct {
	Connected func()       // once, when all streams are open
	Report    func(*Stats) // every Options.Report
	Progress  func(*Stats) // several times a second
}

// Run opens the connections and reads until Options.Hold is over, ctx is, or the
// server has closed them all. ctx is how to end early; that is no error.
func Run(ctx context.Context, o Options, ev Events) (*Stats, error) {
	c, err := NewClient(o)
	if err != nil {
		return nil, err
	}
	return c.Run(ctx, ev)
}

// NewClient returns a client to be run once.
func NewClient(options Options) (*Client, error) {
	o := &options
	if err := o.Validate(); err != nil {
		return nil, err
	}
	addr, request, err := o.target()
	if err != nil {
		return nil, fmt.Errorf("--url: %w", err)
	}
	if err := enoughFiles(o.Connections); err != nil {
		return nil, err
	}
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	c := &Client{
		o: o, addr: addr, target: sockaddr(addr), epoll: epoll,
		conns:     make([]conn, o.Connections),
		ports:     make([]int, len(o.From)),
		st:        NewStats(),
		buf:       make([]byte, readBytes),
		random:    rand.New(rand.NewPCG(uint64(o.First), 1)),
		questions: make(chan question),
		done:      make(chan struct{}),
		patience:  answerTimeout,
	}
	c.before, c.after, _ = strings.Cut(request, "{uid}")
	for i := range c.ports {
		c.ports[i] = o.FirstPort
	}
	return c, nil
}

func enoughFiles(connections int) error {
	room, err := FileRoom()
	if err == nil && connections > room {
		err = fmt.Errorf("%d connections need more descriptors than this process may have (room for %d): raise ulimit -n, or split the work with --processes %d",
			connections, room, (connections+room-1)/room)
	}
	return err
}

// FileRoom is how many connections the limit of open files allows a process.
func FileRoom() (int, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	return int(min(limit.Max, 1<<30)) - fileReserve, nil
}

func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

// Run opens the connections and reads, as the function Run does, and closes them.
func (c *Client) Run(ctx context.Context, ev Events) (*Stats, error) {
	defer close(c.done)
	defer c.close()
	return c.st, c.run(ctx, ev)
}

// Snapshot returns a copy of what a running client has counted so far, nil when
// it has ended.
func (c *Client) Snapshot(ctx context.Context) *Stats { return c.query(ctx, false) }

// Restart is Snapshot, after which the client begins anew with the messages:
// it forgets their numbers and counts, not the connections.
func (c *Client) Restart(ctx context.Context) *Stats { return c.query(ctx, true) }

func (c *Client) query(ctx context.Context, restart bool) *Stats {
	reply := make(chan *Stats, 1)
	select {
	case c.questions <- question{restart, reply}:
		return <-reply
	case <-c.done:
	case <-ctx.Done():
	}
	return nil
}

// answer answers one question, if there is one.
func (c *Client) answer() {
	select {
	case q := <-c.questions:
		q.reply <- c.st.clone()
		if q.restart {
			c.st.restart()
			for i := range c.conns {
				c.conns[i].last = 0
			}
		}
	default:
	}
}

func (c *Client) close() {
	for i := range c.conns {
		if p := c.conns[i].phase; p != phaseIdle && p != phaseAgain {
			unix.Close(int(c.conns[i].fd))
		}
	}
	unix.Close(c.epoll)
}

// run is the loop: open what is due, read what is there, tell.
func (c *Client) run(ctx context.Context, ev Events) error {
	c.start = time.Now()
	events := make([]unix.EpollEvent, maxEvents)
	report, progress := c.start.Add(c.o.Report), c.start
	var end time.Time // of the hold; zero: not all are open yet
	for {
		now := time.Now()
		if err := c.openDue(now); err != nil {
			return err
		}
		if err := c.giveUp(now); err != nil {
			return err
		}
		timeout := 20
		if c.next < len(c.conns) || len(c.again) > 0 || c.o.Churn > 0 {
			timeout = 1
		}
		n, err := unix.EpollWait(c.epoll, events, timeout)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(0, n)] {
			if err := c.event(e.Fd); err != nil {
				return err
			}
		}
		c.answer()
		if now = time.Now(); ev.Report != nil && now.After(report) {
			ev.Report(c.st)
			report = report.Add(c.o.Report)
		}
		if ev.Progress != nil && now.After(progress) {
			ev.Progress(c.st)
			progress = now.Add(200 * time.Millisecond)
		}
		settled := c.next == len(c.conns) && c.connecting == 0 && len(c.again) == 0
		if end.IsZero() && settled && c.st.Streams+c.st.Failed+c.refused() >= uint64(len(c.conns)) {
			end = now.Add(c.o.Hold)
			if ev.Connected != nil {
				ev.Connected()
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil
		case !end.IsZero() && c.o.Hold > 0 && now.After(end):
			return nil
		case !end.IsZero() && settled && c.st.Open == 0:
			return nil // nothing is left to hold
		}
		if end.IsZero() {
			continue
		}
		c.churn(now)
	}
}

func (c *Client) refused() uint64 {
	n := uint64(0)
	for code, k := range c.st.Answers {
		if code != 200 {
			n += k
		}
	}
	return n
}

func (c *Client) drop(i int32) {
	k := &c.conns[i]
	switch k.phase {
	case phaseConnecting:
		c.connecting--
	case phaseAsking:
		c.asking--
	}
	unix.Close(int(k.fd))
	k.phase = phaseIdle
	c.st.Open--
}

func (c *Client) event(i int32) error {
	switch c.conns[i].phase {
	case phaseConnecting:
		if err := c.ask(i); err != nil {
			c.drop(i)
			return c.failed(err)
		}
	case phaseAsking, phaseReading:
		c.read(i)
	}
	return nil
}

// ask sends the request on a connection that is made.
func (c *Client) ask(i int32) error {
	k := &c.conns[i]
	fd := int(k.fd)
	if errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); err != nil || errno != 0 {
		return errors.Join(err, unix.Errno(errno))
	}
	c.request = append(c.request[:0], c.before...)
	c.request = strconv.AppendInt(c.request, c.uid(int(i)), 10)
	c.request = append(c.request, c.after...)
	if n, err := unix.Write(fd, c.request); err != nil || n < len(c.request) { // a fresh socket takes a request whole
		return errors.Join(err, fmt.Errorf("wrote %d bytes of the request", n))
	}
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_MOD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: i}); err != nil {
		return err
	}
	c.connecting--
	c.asking++
	k.phase = phaseAsking
	c.asks = append(c.asks, wait{i, k.life, time.Now()})
	return nil
}

// uid is whose stream connection i opens.
func (c *Client) uid(i int) int64 {
	return c.o.FirstUID + int64(c.o.First+i)%(c.o.LastUID-c.o.FirstUID+1)
}

// stalls says whether connection i is one of those that do not read.
func (c *Client) stalls(i int) bool {
	return float64((c.o.First+i)%1000) < c.o.Stall*1000
}

func (c *Client) read(i int32) {
	k := &c.conns[i]
	n, err := unix.Read(int(k.fd), c.buf)
	if err == unix.EAGAIN || err == unix.EINTR {
		return
	}
	if n > 0 {
		c.st.Bytes += uint64(n)
		k.feed(c.buf[:n], time.Now().UnixMicro(), c.st)
	}
	if k.phase == phaseAsking && k.state >= stateSize {
		c.asking--
		k.phase = phaseReading
	}
	switch {
	case k.state == stateBroken:
		c.st.Broken++
		c.drop(i)
	case n > 0 && k.state == stateEnd:
		c.st.Closed++
		c.drop(i)
	case n > 0 && k.state == stateAnswer:
		c.drop(i)
	case n > 0:
		if k.state >= stateSize && c.stalls(int(i)) {
			k.phase = phaseStalled
			unix.EpollCtl(c.epoll, unix.EPOLL_CTL_DEL, int(k.fd), nil)
		}
	case k.state < stateSize: // the end, or an error, before a stream began
		c.drop(i)
		c.st.Failed++
	default:
		c.st.Broken++
		c.drop(i)
	}
}

// churn closes connections and has them opened again.
func (c *Client) churn(now time.Time) {
	if c.o.Churn == 0 {
		return
	}
	due := c.o.Churn * now.Sub(c.start).Seconds()
	if c.churned == 0 {
		c.churned = due
	}
	for ; c.churned+1 <= due; c.churned++ {
		i := int32(c.random.IntN(len(c.conns)))
		switch c.conns[i].phase {
		case phaseAsking, phaseReading, phaseStalled:
			c.drop(i)
		case phaseIdle: // the server has closed it
		default:
			continue
		}
		c.conns[i].phase = phaseAgain
		c.again = append(c.again, i)
	}
}
