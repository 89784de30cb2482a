package cnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// Our own listener. ergo runs handshakes one after the other inside its accept loop,
// so that one silent client would keep all others out; here each has a goroutine.

const (
	maxHandshakes = 64 // unauthenticated sockets at a time; the oldest gives way
	acceptPause   = 100 * time.Millisecond
)

// unfinished are the sockets whose handshake is not over, the oldest first.
type unfinished struct {
	mu    sync.Mutex // protects all fields
	conns []net.Conn
	shut  bool
}

// add is false when the node stops. shed is true if the oldest had to go.
func (u *unfinished) add(c net.Conn) (ok, shed bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.shut {
		return false, false
	}
	if len(u.conns) >= maxHandshakes {
		u.conns[0].Close() // its goroutine finds out and ends
		u.conns = slices.Delete(u.conns, 0, 1)
		shed = true
	}
	u.conns = append(u.conns, c)
	return true, shed
}

func (u *unfinished) remove(c net.Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.conns, c); i >= 0 {
		u.conns = slices.Delete(u.conns, i, i+1)
	}
}

func (u *unfinished) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.shut = true
	for _, c := range u.conns {
		c.Close()
	}
}

// acceptAll runs until the listener is closed. A failed accept, for want of
// descriptors say, is logged and waited out.
func (n *Node) acceptAll(ctx context.Context) {
	for {
		c, err := n.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			n.complain("accept failed", "accept", "node", n.o.Name, "err", err)
			if !sleep(ctx, acceptPause) {
				return
			}
			continue
		}
		ok, shed := n.unfinished.add(c)
		if !ok {
			c.Close()
			return
		}
		if shed {
			n.counters.handshakesShed.Add(1)
			n.complain("too many unfinished handshakes: the oldest was closed", "handshakes shed", "node", n.o.Name)
		}
		n.wg.Go(func() { n.welcome(c) })
	}
}

// welcome takes one accepted socket to a connection or to its end.
func (n *Node) welcome(c net.Conn) {
	c.SetDeadline(time.Now().Add(acceptTimeout))
	info, ack, err := n.accept(c)
	if err == nil {
		err = n.adopt(c, info, ack)
	}
	n.unfinished.remove(c)
	if err == nil {
		return
	}
	c.Close()
	n.counters.handshakesFailed.Add(1)
	if errors.Is(err, errBothDial) || errors.Is(err, errHaveOne) || errors.Is(err, errStopping) {
		return // the ordinary end of the second of two attempts
	}
	from := info.name
	if from == "" {
		from = c.RemoteAddr().String()
	}
	reason := causeOf(err)
	n.complain("handshake failed", "handshake "+reason, "peer", from, "reason", reason, "err", err)
}

// adopt makes an authenticated socket the connection to its peer. ack is the
// acceptor's last message, after which the peer may begin: the new connection sends
// it when the peer's old one, if any, is forgotten and it stands in its place itself.
func (n *Node) adopt(sock net.Conn, info peerInfo, ack []byte) error {
	old, err := n.registry.take(info.name, info.replaces)
	if err != nil {
		return err
	}
	if old != nil {
		old.end(endReplaced, nil)
		late := time.NewTimer(acceptTimeout)
		defer late.Stop()
		select {
		case <-old.gone:
		case <-late.C:
			n.registry.drop(info.name)
			return errors.New("the peer's old connection does not end; it will try again")
		}
	}
	if err := n.enter(newConn(n, sock, info, ack)); err != nil {
		n.registry.drop(info.name)
		return fmt.Errorf("take over the connection: %w", err)
	}
	return nil
}
