package cnode

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// Our name in EPMD: made at Start, kept, and made again when EPMD was restarted.

const (
	takenWait   = 5 * time.Second        // for epmd to notice that our predecessor has ended
	takenGrace  = 1 * time.Second        // for a predecessor that is still ending
	takenPause  = 50 * time.Millisecond  // between attempts
	daemonWait  = 3 * time.Second        // for an epmd that we started
	registerMin = 100 * time.Millisecond // backoff of keeping the name registered
	registerMax = 5 * time.Second
)

// register makes the first attempt. No connection and no error: there is no epmd,
// and keepRegistered goes on trying.
func (n *Node) register(ctx context.Context) (net.Conn, error) {
	c, err := n.registerOnce(ctx)
	if errors.Is(err, errNoEPMD) && n.startEPMD(ctx) {
		c, err = n.registerOnce(ctx)
		for until := time.Now().Add(daemonWait); errors.Is(err, errNoEPMD) && time.Now().Before(until); {
			if !sleep(ctx, takenPause) {
				return nil, ctx.Err()
			}
			c, err = n.registerOnce(ctx)
		}
	}
	// Just after a restart, epmd may not have noticed the end of our predecessor.
	for began := time.Now(); errors.Is(err, errTaken); {
		wait := takenWait
		if n.nameAlive(ctx) {
			wait = takenGrace
		}
		if time.Since(began) > wait {
			return nil, fmt.Errorf("register %s in epmd %s: %w: stop the other node, or choose another --name",
				n.o.Name, n.o.EPMD, ErrNameInUse)
		}
		if !sleep(ctx, takenPause) {
			return nil, ctx.Err()
		}
		c, err = n.registerOnce(ctx)
	}
	switch {
	case err == nil:
		return c, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	n.log.Warn("node not registered: nodes that dial will not find it; trying again", "node", n.o.Name, "err", err)
	return nil, nil
}

func (n *Node) registerOnce(ctx context.Context) (c net.Conn, err error) {
	for _, addr := range n.ownEPMD() {
		if c, err = registerName(ctx, addr, aliveOf(n.o.Name), n.port); err == nil || errors.Is(err, errTaken) {
			return c, err
		}
	}
	return nil, err
}

// nameAlive is true if something listens where epmd says that our name is.
func (n *Node) nameAlive(ctx context.Context) bool {
	for _, addr := range n.ownEPMD() {
		port, err := lookupPort(ctx, addr, aliveOf(n.o.Name))
		if err != nil {
			continue
		}
		// One of these is this host, whatever address the other node listens on.
		hosts := []string{"127.0.0.1", "::1"}
		if more, err := resolve(ctx, hostOf(n.o.Name)); err == nil {
			hosts = append(hosts, more...)
		}
		for _, host := range hosts {
			d := net.Dialer{Timeout: epmdTimeout}
			if c, err := d.DialContext(ctx, "tcp", net.JoinHostPort(host, strconv.Itoa(int(port)))); err == nil {
				c.Close()
				return true
			}
		}
	}
	return false
}

// startEPMD runs the installed epmd, as erl does, if this host's should be on
// loopback. The daemon outlives us; our environment, which may hold the cookie, is
// not passed on.
func (n *Node) startEPMD(ctx context.Context) bool {
	host, port, _ := net.SplitHostPort(n.o.EPMD)
	if host != "" && !loopback(host) {
		return false
	}
	path, err := exec.LookPath("epmd")
	if err != nil {
		n.log.Warn("epmd is not running and not installed: install Erlang or give --epmd", "node", n.o.Name, "err", err)
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, daemonWait)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, "-port", port, "-daemon")
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
	if addr := os.Getenv("ERL_EPMD_ADDRESS"); addr != "" {
		cmd.Env = append(cmd.Env, "ERL_EPMD_ADDRESS="+addr)
	}
	if err := cmd.Run(); err != nil {
		n.log.Warn("epmd could not be started: start it by hand (epmd -daemon)", "node", n.o.Name, "err", err)
		return false
	}
	n.log.Info("epmd started", "node", n.o.Name)
	return true
}

// keepRegistered owns the registration until ctx ends. Each change is logged once.
func (n *Node) keepRegistered(ctx context.Context, c net.Conn) {
	said := ""
	for {
		if c != nil {
			said = ""
			n.holdName(ctx, c)
			if ctx.Err() != nil {
				return
			}
			n.log.Warn("epmd lost: registering again", "node", n.o.Name)
		}
		for wait := registerMin; ; wait = min(2*wait, registerMax) {
			if !sleep(ctx, jitter(wait)) {
				return
			}
			var err error
			if c, err = n.registerOnce(ctx); err == nil {
				n.log.Info("node registered", "node", n.o.Name)
				break
			}
			if reason := causeOf(err); reason != said && ctx.Err() == nil {
				said = reason
				n.log.Warn("node not registered: trying again", "node", n.o.Name, "reason", reason, "err", err)
			}
		}
	}
}

// holdName returns when epmd closes the connection or ctx ends; then it is closed.
func (n *Node) holdName(ctx context.Context, c net.Conn) {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	var b [64]byte
	for {
		if _, err := c.Read(b[:]); err != nil { // epmd says nothing on this connection
			break
		}
	}
	stop()
	c.Close()
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
