package cnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	dialTimeout = 3 * time.Second // TCP only
	bothWait    = 3 * time.Second // for the peer's own dialling, when it won
	backoffMin  = 100 * time.Millisecond
	backoffMax  = 10 * time.Second
)

var errRefused = errors.New("its distribution port does not answer: the node has just ended, or a firewall is between (see inet_dist_listen_min)")

// Connect dials peer once, now. A connection that exists, or that the peer makes
// meanwhile, is as good.
func (n *Node) Connect(ctx context.Context, peer string) error {
	if err := checkNodeName(peer); err != nil {
		return fmt.Errorf("connect %.64q: %w", peer, err)
	}
	if peer == n.o.Name {
		return fmt.Errorf("connect %s: that is this node itself", peer)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(n.ctx, cancel)()
	for {
		claimed, c, changed, err := n.registry.dial(peer)
		switch {
		case err != nil:
			return fmt.Errorf("connect %s: %w", peer, err)
		case c != nil:
			return nil
		case claimed:
			err := n.dial(ctx, peer)
			n.registry.dialled(peer)
			if errors.Is(err, errBothDial) || errors.Is(err, errHaveOne) {
				err = n.awaitPeer(ctx, peer, err)
			}
			if err != nil {
				return fmt.Errorf("connect %s: %w", peer, err)
			}
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("connect %s: %w", peer, ctx.Err())
		}
	}
}

// awaitPeer waits for the connection that the peer is making.
func (n *Node) awaitPeer(ctx context.Context, peer string, why error) error {
	late := time.NewTimer(bothWait)
	defer late.Stop()
	for {
		c, changed := n.registry.watch(peer)
		if c != nil {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			return why
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// dial makes one attempt, from the name to the connection.
func (n *Node) dial(ctx context.Context, peer string) error {
	c, err := n.dialPort(ctx, peer)
	if err != nil {
		return err
	}
	c.SetDeadline(time.Now().Add(initiateTimeout))
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	info, err := n.initiate(c, peer)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = n.adopt(c, info, nil)
	}
	if err != nil {
		c.Close()
		n.counters.handshakesFailed.Add(1)
	}
	return err
}

// dialPort finds the peer's port in its host's epmd and opens the socket. Each of
// the host's addresses is tried, for both steps.
func (n *Node) dialPort(ctx context.Context, peer string) (net.Conn, error) {
	host := hostOf(peer)
	hosts, err := resolve(ctx, host)
	if err != nil {
		return nil, err
	}
	epmds := n.ownEPMD()
	if host != hostOf(n.o.Name) {
		_, port, _ := net.SplitHostPort(n.o.EPMD)
		epmds = nil
		for _, h := range hosts {
			epmds = append(epmds, net.JoinHostPort(h, port))
		}
	}
	var port uint16
	for _, addr := range epmds {
		if port, err = lookupPort(ctx, addr, aliveOf(peer)); err == nil || errors.Is(err, errNoSuchNode) {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	for _, h := range hosts {
		d := net.Dialer{Timeout: dialTimeout}
		var c net.Conn
		if c, err = d.DialContext(ctx, "tcp", net.JoinHostPort(h, strconv.Itoa(int(port)))); err == nil {
			return c, nil
		}
	}
	return nil, fmt.Errorf("%w: %w", errRefused, err)
}

// keepConnected stays connected to one peer of --connect until ctx ends. Each change
// of what is wrong is logged once; the connection itself logs that it is there.
func (n *Node) keepConnected(ctx context.Context, peer string) {
	wait, said := backoffMin, ""
	for {
		err := n.Connect(ctx, peer)
		if c := n.registry.conn(peer); c != nil {
			said = ""
			began := time.Now()
			select {
			case <-c.gone:
			case <-ctx.Done():
			}
			// A connection that held is dialled again soon; one that keeps ending is not.
			if time.Since(began) > backoffMax {
				wait = backoffMin
			}
		}
		if ctx.Err() != nil {
			return
		}
		if reason := causeOf(err); err != nil && reason != said {
			said = reason
			n.log.Warn("cannot connect: trying again", "peer", peer, "reason", reason, "err", err)
		}
		if !sleep(ctx, jitter(wait)) {
			return
		}
		wait = min(2*wait, backoffMax)
	}
}

// causeOf names what an attempt ended with, in one word or two that stay the same
// while the cause does.
func causeOf(err error) string {
	for _, known := range []struct {
		err  error
		name string
	}{
		{errCookie, "wrong cookie"},
		{errNoSuchNode, "no such node"},
		{errNoHost, "unknown host"},
		{errNoEPMD, "epmd unreachable"},
		{errRefused, "port unreachable"},
		{errTaken, "name in use"},
		{errNotAllowed, "not allowed"},
		{errDynamic, "dynamic name"},
		{errSelf, "own name"},
		{errOtherName, "other name"},
		{errTooOld, "too old"},
		{errNotErlang, "not erlang"},
		{errBothDial, "both dial"},
		{errHaveOne, "connected already"},
		{errStopping, "stopping"},
		{os.ErrDeadlineExceeded, "timeout"},
		{context.DeadlineExceeded, "timeout"},
		{net.ErrClosed, "closed"},
		{io.EOF, "closed by peer"},
		{io.ErrUnexpectedEOF, "closed by peer"},
		{syscall.ECONNRESET, "closed by peer"},
	} {
		if errors.Is(err, known.err) {
			return known.name
		}
	}
	return "other"
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// jitter keeps nodes that lost the same peer from dialling it at the same instant.
func jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}
