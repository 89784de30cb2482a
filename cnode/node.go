package cnode

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ergo-services/ergo/etf"
	"github.com/ergo-services/ergo/gen"
	"github.com/ergo-services/ergo/lib"
	"github.com/ergo-services/ergo/node"
)

// ErrNameInUse is why Start fails when another node is registered in EPMD under our
// name.
var ErrNameInUse = errors.New("the node name is in use")

// Node is our member of the cluster. Its methods may be called from anywhere.
type Node struct {
	// set once
	o          Options
	log        *slog.Logger
	creation   uint32 // of this start: it tells our pids from those of an earlier one
	pidHead    string // what our pids begin with
	listener   net.Listener
	port       uint16 // of listener
	ergo       node.Node
	ergoRouter node.CoreRouter
	sender     gen.Process
	senderDone chan struct{}
	registry   *registry
	blocks     *blockPool
	teller     *teller
	ctx        context.Context    // ends with Stop
	cancel     context.CancelFunc // nil: Start has not succeeded

	// any goroutine
	wg          sync.WaitGroup // all of ours but readers and writers, which conn.gone tells of
	unfinished  unfinished
	peers       peers
	lastAsked   atomic.Uint64 // reference of the newest question, see asked.go
	lastSpawned atomic.Uint32 // id of the newest pid of a call from Erlang, see rpc.go
	limiter     limiter
	counters    counters
}

// New makes a node that is in no cluster yet, so that whoever tells it of connections
// can know it before a peer can ask for them.
func New(o Options) (*Node, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	n := &Node{
		o:        o,
		log:      o.Logger,
		creation: newCreation(),
		pidHead:  pidHead(o.Name),
		registry: newRegistry(o.Name),
		blocks:   newBlockPool(),
	}
	if n.log == nil {
		n.log = slog.Default()
	}
	n.teller = newTeller(n)
	return n, nil
}

// Start registers the node in EPMD, and begins to accept and to dial. ctx bounds the
// start only; Stop ends the node. Call it once.
func (n *Node) Start(ctx context.Context) error {
	if err := n.listen(ctx); err != nil {
		return err
	}
	if err := n.startErgo(); err != nil {
		n.listener.Close()
		return err
	}
	registered, err := n.register(ctx)
	if err != nil {
		n.listener.Close()
		n.stopErgo()
		return err
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.teller.start(n.ctx)
	n.wg.Go(func() { n.keepRegistered(n.ctx, registered) })
	n.wg.Go(func() { n.acceptAll(n.ctx) })
	for _, peer := range n.o.Connect {
		if longName(peer) != longName(n.o.Name) {
			n.log.Warn("peer cannot dial back: one node name is short, the other long", "node", n.o.Name, "peer", peer)
		}
		n.wg.Go(func() { n.keepConnected(n.ctx, peer) })
	}
	n.log.Info("node started", "node", n.o.Name, "addr", n.listener.Addr().String())
	return nil
}

// newCreation is random and never 0: the Unix second would be the same for two starts
// within it.
func newCreation() uint32 {
	var b [4]byte
	for {
		rand.Read(b[:]) // never fails: crypto/rand ends the process instead
		if c := binary.BigEndian.Uint32(b[:]); c != 0 {
			return c
		}
	}
}

// listen opens the distribution listener.
func (n *Node) listen(ctx context.Context) error {
	host, port := splitListen(n.o.DistListen)
	if n.o.DistListen == "" {
		var err error
		if host, err = listenHost(ctx, hostOf(n.o.Name)); err != nil {
			return fmt.Errorf("listen for %s: %w; give --dist-listen", n.o.Name, err)
		}
	}
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
	if err != nil {
		return fmt.Errorf("listen for %s: %w; see --dist-listen", n.o.Name, err)
	}
	n.listener = l
	_, port, _ = net.SplitHostPort(l.Addr().String())
	p, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		l.Close()
		return fmt.Errorf("listen for %s: port of %s: %w", n.o.Name, l.Addr(), err)
	}
	n.port = uint16(p)
	return nil
}

// listenHost is the address to listen on for a node of host: loopback for loopback,
// else the host's own, so that a default never opens more than the name says.
func listenHost(ctx context.Context, host string) (string, error) {
	if host == "localhost" {
		return "127.0.0.1", nil
	}
	addrs, err := resolve(ctx, host)
	if err != nil {
		return "", err
	}
	return addrs[0], nil
}

const (
	finishWait = 1 * time.Second // for peers to take what is queued and to close
	stopWait   = 5 * time.Second // for everything; only a bug could take longer
)

// Stop leaves the cluster: it unregisters, closes the peers after what is queued for
// them, and waits for every goroutine. Call it once; a node that has not started has
// nothing to stop.
func (n *Node) Stop(ctx context.Context) error {
	if n.cancel == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, stopWait)
	defer cancel()
	n.teller.settle(ctx)
	n.cancel()
	<-n.teller.done
	n.listener.Close()
	n.unfinished.close()
	conns := n.registry.close()
	for _, c := range conns {
		c.finish()
	}
	late := time.NewTimer(finishWait)
	defer late.Stop()
	for _, c := range conns {
		select {
		case <-c.gone:
			continue
		case <-late.C:
			late.Reset(0) // for the others too
		case <-ctx.Done():
		}
		c.end(endStopping, nil)
	}

	ended := make(chan struct{})
	go func() {
		for _, c := range conns {
			<-c.gone
		}
		n.wg.Wait()
		n.stopErgo()
		close(ended)
	}()
	select {
	case <-ended:
		n.log.Info("node stopped", "node", n.o.Name)
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop node %s: %w: a Feed did not return, or a peer's name did not resolve", n.o.Name, ctx.Err())
	}
}

func (n *Node) stopErgo() {
	n.ergo.Stop()
	<-n.senderDone
}

// Peers are the names of the connected peers, sorted.
func (n *Node) Peers() []string { return n.registry.names() }

// Stats is a snapshot of what the node has done.
func (n *Node) Stats() Counters {
	s := n.counters.snapshot(len(n.registry.names()))
	s.Told = n.teller.counts.snapshot()
	for _, c := range n.peers.all() {
		s.Held += c.held.size()
	}
	return s
}

// Ended tells that a connection has ended that a Feed was asked to Watch: why is the HTTP
// side's word for it, or noproc, reason a term that it was ended with, nil if none. Any
// goroutine; it does not block. reason is not used after the call.
func (n *Node) Ended(conn uint64, why string, reason []byte) {
	n.teller.ending(conn, why)
	for _, c := range n.peers.all() {
		c.held.fire(conn, why, reason)
	}
}

var errNotConnected = errors.New("not connected: connect first")

const sendWait = 5 * time.Second // for the socket to take a message

// Send is {name, peer} ! term. It returns when the socket has taken it; the peer must
// be connected.
func (n *Node) Send(peer, name string, term etf.Term) error {
	c := n.registry.conn(peer)
	if c == nil {
		return fmt.Errorf("send to %s at %s: %w", name, peer, errNotConnected)
	}
	if len(name) == 0 || len(name) > maxAtomBytes {
		return fmt.Errorf("send to %q at %s: a name has 1 to %d bytes", name, peer, maxAtomBytes)
	}
	err := n.sender.Send(gen.ProcessID{Name: name, Node: peer}, term)
	if errors.Is(err, lib.ErrNoRoute) {
		err = errNotConnected // ergo has forgotten it in this instant
	}
	if err != nil {
		return fmt.Errorf("send to %s at %s: %w", name, peer, err)
	}
	late := time.NewTimer(sendWait)
	defer late.Stop()
	select {
	case <-c.w.flushed():
		return nil
	case <-c.w.done:
		return fmt.Errorf("send to %s at %s: %w", name, peer, errGone)
	case <-late.C:
		return fmt.Errorf("send to %s at %s: the peer does not read", name, peer)
	}
}
