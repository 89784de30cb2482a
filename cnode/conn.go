package cnode

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/ergo-services/ergo/node"
)

// Why a connection ended, for the log.
const (
	endByPeer   = "closed by peer"
	endSilent   = "peer silent"
	endSlow     = "peer does not read"
	endCorrupt  = "bad packet"
	endReplaced = "replaced by a new connection"
	endStopping = "stopping"
	endSocket   = "connection failed"
)

// conn is the connection to one peer. ergo takes it for one of its own; its methods
// run on the reader's goroutine unless they say otherwise.
type conn struct {
	// set once
	n       *Node
	peer    string
	info    peerInfo
	sock    net.Conn
	ack     []byte // the handshake's last message, if it is ours to send
	w       *writer
	watches *watches
	asked   *asked
	held    *held
	hotTail string        // see hotMessage
	silence time.Duration // without a byte read, after which the peer is dead: 1.25 x net_ticktime
	gone    chan struct{} // closed when ergo has forgotten the connection

	// how enter and serve meet: each closes its channels when it is so far
	serving  chan struct{} // ergo has started the reader
	entered  chan struct{} // ergo's route is free again
	standing chan struct{} // the registry has the connection, or refused says why not
	refused  error

	// owned by the reader
	feed   Feed // nil: nothing is registered
	router node.CoreRouter
	block  *block   // being decoded
	fed    bool     // the Feed was told something since its last Flush
	stack  []uint32 // flatten's scratch

	// any goroutine
	phase   atomic.Int32           // connNew, then connServing or connAbandoned
	ending  atomic.Bool            // end or finish was called
	why     atomic.Pointer[ending] // the first cause
	unlinks atomic.Uint64          // ids of our UNLINK_IDs
}

type ending struct {
	reason string
	err    error
}

const (
	connNew = iota
	connServing
	connAbandoned
)

// kernelBuffer is what the system may hold of what a peer has sent, twice as much with
// its own overhead. Left alone it grows to megabytes, and when Halley is behind they are
// latency. It allows 128 KiB a round trip: 128 MB a second at one millisecond.
const kernelBuffer = 128 << 10

func newConn(n *Node, sock net.Conn, info peerInfo, ack []byte) *conn {
	if tcp, ok := sock.(*net.TCPConn); ok {
		_ = tcp.SetReadBuffer(kernelBuffer) // a socket without it works too
	}
	c := &conn{
		n:        n,
		peer:     info.name,
		info:     info,
		sock:     sock,
		ack:      ack,
		w:        newWriter(sock, &n.counters, n.o.NetTickTime),
		watches:  newWatches(),
		asked:    newAsked(n),
		silence:  n.o.NetTickTime + n.o.NetTickTime/4,
		serving:  make(chan struct{}),
		entered:  make(chan struct{}),
		standing: make(chan struct{}),
		gone:     make(chan struct{}),
	}
	c.hotTail = regSendTail(n.o.Register)
	c.held = newHeld(n, c.peer, c.w.signal)
	c.w.more = c.held.appendFired
	return c
}

// end closes the socket; reader and writer find out. The first cause is the one that
// is logged. Any goroutine.
func (c *conn) end(reason string, err error) {
	c.why.CompareAndSwap(nil, &ending{reason, err})
	c.ending.Store(true)
	c.sock.Close()
}

// finish ends the connection after all that is queued has been written. The peer sees
// an ordinary end of stream. Any goroutine.
func (c *conn) finish() {
	c.why.CompareAndSwap(nil, &ending{endStopping, nil})
	c.ending.Store(true)
	c.w.finish()
}

// abandon is true if serve has not begun and now never will. Any goroutine.
func (c *conn) abandon() bool {
	return c.phase.CompareAndSwap(connNew, connAbandoned)
}

// serve is the reader's goroutine, which ergo started. ergo forgets the connection
// when it returns.
func (c *conn) serve(router node.CoreRouter) {
	if !c.phase.CompareAndSwap(connNew, connServing) {
		return
	}
	close(c.serving)
	// Only now may the peer know that it is connected: if it came again at once, the
	// route of this connection would still be in the way.
	<-c.entered
	c.router = router
	again, err := c.n.registry.connect(c)
	c.refused = err
	close(c.standing)
	if err == nil && c.ack != nil {
		err = writeHello(c.sock, c.ack) // within the handshake's deadline
	}
	if err != nil {
		c.end(endSocket, err)
		return
	}
	c.sock.SetDeadline(time.Time{})
	c.n.counters.handshakesOK.Add(1)
	if again {
		c.n.counters.reconnects.Add(1)
	}
	if c.n.o.NewFeed != nil {
		c.feed = c.n.o.NewFeed(c.peer)
	}
	c.n.log.Info("peer connected", "node", c.n.o.Name, "peer", c.peer)
	c.n.peerUp(c)

	written := make(chan struct{})
	go func() {
		defer close(written)
		c.write()
	}()
	c.readFailed(c.read())
	<-written
	c.n.peerDown(c)
	if c.feed != nil {
		c.feed.End()
	}
	c.logEnd()
}

// write runs on the writer's goroutine.
func (c *conn) write() {
	if err := c.w.run(); err != nil {
		c.end(endSlowOr(err), err)
		return
	}
	if half, ok := c.sock.(interface{ CloseWrite() error }); ok {
		half.CloseWrite() // the reader goes on to the peer's end of stream
	}
}

func endSlowOr(err error) string {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return endSlow
	}
	return endSocket
}

// readFailed ends the connection for what read has found.
func (c *conn) readFailed(err error) {
	reason := endSocket
	switch {
	case errors.Is(err, io.EOF), isReset(err):
		reason, err = endByPeer, nil
	case errors.Is(err, errSilent):
		reason = endSilent
	case errors.Is(err, errControl), errors.Is(err, errTooLarge):
		reason = endCorrupt
		c.n.counters.badPackets.Add(1)
	}
	c.end(reason, err)
	c.w.finish() // wakes a writer that waits for work; the socket is closed already
}

func (c *conn) logEnd() {
	why := c.why.Load()
	if why.reason == endStopping {
		c.n.log.Info("peer disconnected", "node", c.n.o.Name, "peer", c.peer, "reason", why.reason)
		return
	}
	c.n.counters.peersLost.Add(1)
	args := []any{"node", c.n.o.Name, "peer", c.peer, "reason", why.reason}
	if why.err != nil {
		args = append(args, "err", why.err)
	}
	c.n.log.Warn("peer lost", args...)
}

// forgotten is called by ergo when it has forgotten the connection.
func (c *conn) forgotten() {
	c.watches.end(c.n.ergoRouter.RouteDemonitor)
	c.n.registry.disconnect(c)
	close(c.gone)
}
