package flood

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// This file is how connections are opened, and given up.

// openDue opens as many connections as --rate has due.
func (c *Client) openDue(now time.Time) error {
	due := len(c.conns)
	if c.o.Rate > 0 {
		due = min(due, int(c.o.Rate*now.Sub(c.start).Seconds())+1)
	}
	for n := 0; n < maxOpensATurn && c.connecting < maxConnecting; n++ {
		switch {
		case c.o.Rate == 0 && c.connecting+c.asking >= maxAsking:
			return nil
		case len(c.again) > 0:
			i := c.again[0]
			c.again = c.again[1:]
			if err := c.open(i); err != nil {
				return err
			}
		case c.next < due:
			if err := c.open(int32(c.next)); err != nil {
				return err
			}
			c.next++
		default:
			return nil
		}
	}
	return nil
}

// open begins a connection. What is wrong with this machine is an error; what is
// wrong with the target is counted.
func (c *Client) open(i int32) error {
	c.conns[i].phase = phaseIdle
	fd, err := c.connect(int(i))
	switch {
	case errors.Is(err, errNoPort):
		return fmt.Errorf("connection %d: %w: give addresses with --from, such as 127.0.0.1-127.0.0.17", i+1, err)
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE), errors.Is(err, unix.ENOBUFS), errors.Is(err, unix.ENOMEM):
		return fmt.Errorf("connection %d: %w", i+1, err)
	case err != nil:
		return c.failed(err)
	}
	// The index rides in the event, not the descriptor.
	if err := unix.EpollCtl(c.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLOUT, Fd: i}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	c.conns[i] = conn{fd: int32(fd), phase: phaseConnecting, life: c.conns[i].life + 1}
	c.connecting++
	c.st.Opened++
	c.st.Open++
	c.connects = append(c.connects, wait{i, c.conns[i].life, time.Now()})
	return nil
}

// hopeless is how many connections may fail before the first one is made.
const hopeless = 20

// failed counts a connection that could not be made. When none ever was, the
// target is not there.
func (c *Client) failed(err error) error {
	if c.st.Failed++; c.st.Failed >= uint64(min(hopeless, len(c.conns))) && c.st.Streams == 0 && c.refused() == 0 {
		return fmt.Errorf("connect to %s: %w: is the server there? see --url", c.addr, err)
	}
	return nil
}

var errNoPort = errors.New("no free source port is left")

// connect returns a socket that is being connected from the next free port of
// the connection's source address, if there are any to choose: the kernel's own
// range of ports, one for all addresses, is no limit then.
func (c *Client) connect(i int) (int, error) {
	family := unix.AF_INET
	if c.addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	ports := 1
	if len(c.o.From) > 0 {
		ports = c.o.LastPort - c.o.FirstPort + 1
	}
	for range ports {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return -1, fmt.Errorf("socket: %w", err)
		}
		if c.stalls(i) {
			err = errors.Join(unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, stalledBytes),
				unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_MAXSEG, stalledSegment))
		}
		if err == nil {
			err = c.bind(fd, i)
		}
		if err == nil {
			err = unix.Connect(fd, c.target)
		}
		if err == nil || err == unix.EINPROGRESS {
			return fd, nil
		}
		unix.Close(fd)
		if err != unix.EADDRINUSE && err != unix.EADDRNOTAVAIL { // taken, or in TIME_WAIT: the next port
			return -1, err
		}
	}
	return -1, errNoPort
}

func (c *Client) bind(fd, i int) error {
	if len(c.o.From) == 0 {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	from := (c.o.First + i) % len(c.o.From)
	port := c.ports[from]
	if c.ports[from]++; c.ports[from] > c.o.LastPort {
		c.ports[from] = c.o.FirstPort
	}
	return unix.Bind(fd, sockaddr(netip.AddrPortFrom(c.o.From[from], uint16(port))))
}

// giveUp ends connects that take too long, and requests without an answer.
func (c *Client) giveUp(now time.Time) error {
	return errors.Join(c.giveUpOn(&c.connects, now.Add(-connectTimeout), phaseConnecting, unix.ETIMEDOUT),
		c.giveUpOn(&c.asks, now.Add(-c.patience), phaseAsking, errSilent))
}

var errSilent = errors.New("no answer")

// giveUpOn ends the connections that wait since before a time, and are still in the
// same phase.
func (c *Client) giveUpOn(waits *[]wait, since time.Time, in phase, why error) error {
	for len(*waits) > 0 && (*waits)[0].at.Before(since) {
		w := (*waits)[0]
		*waits = (*waits)[1:]
		if k := &c.conns[w.i]; k.phase == in && k.life == w.life {
			c.drop(w.i)
			if err := c.failed(why); err != nil {
				return err
			}
		}
	}
	return nil
}
