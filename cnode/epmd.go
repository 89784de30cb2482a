package cnode

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// EPMD's protocol, OTP erl_dist_protocol, EPMD Protocol. Requests have a length of
// two bytes before them, answers have none.
const (
	epmdAlive2Req  = 120
	epmdAlive2Resp = 121 // creation of 2 bytes
	epmdAlive2X    = 118 // creation of 4 bytes
	epmdPort2Req   = 122
	epmdPort2Resp  = 119

	epmdHidden   = 72 // node type
	epmdTCP      = 0  // protocol, for IPv6 too
	epmdDistHigh = 6  // the handshake of hello.go and no other
	epmdDistLow  = 6
	epmdTimeout  = 2 * time.Second // for one question, from dialling to the answer
)

var (
	errNoEPMD     = errors.New("epmd does not answer: start it there (epmd -daemon), open its port in the firewall, or see --epmd")
	errNoSuchNode = errors.New("no node of that name is registered there: start it, or correct the name (sname and name differ in the host)")
	errNoHost     = errors.New("the node name's host has no address: correct the name or the resolver (/etc/hosts)")
	errTaken      = errors.New("the name is registered already")
)

// askEPMD sends one request; the answer is read from the connection, whose deadline
// is set, and which the caller closes.
func askEPMD(ctx context.Context, addr string, request []byte) (net.Conn, error) {
	d := net.Dialer{Timeout: epmdTimeout}
	c, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoEPMD, err)
	}
	c.SetDeadline(time.Now().Add(epmdTimeout))
	out := binary.BigEndian.AppendUint16(make([]byte, 0, 2+len(request)), uint16(len(request)))
	if _, err := c.Write(append(out, request...)); err != nil {
		c.Close()
		return nil, fmt.Errorf("%w: %w", errNoEPMD, err)
	}
	return c, nil
}

// lookupPort asks the epmd at addr for a node's distribution port.
func lookupPort(ctx context.Context, addr, alive string) (port uint16, err error) {
	c, err := askEPMD(ctx, addr, append([]byte{epmdPort2Req}, alive...))
	if err != nil {
		return 0, err
	}
	defer c.Close()
	var b [4]byte // tag, result, and with result 0 the port
	if _, err := io.ReadFull(c, b[:2]); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoEPMD, err)
	}
	if b[0] != epmdPort2Resp {
		return 0, fmt.Errorf("%w: answer %d is not epmd's", errNoEPMD, b[0])
	}
	if b[1] != 0 {
		return 0, errNoSuchNode
	}
	if _, err := io.ReadFull(c, b[2:]); err != nil {
		return 0, fmt.Errorf("%w: %w", errNoEPMD, err)
	}
	return binary.BigEndian.Uint16(b[2:]), nil
}

// registerName tells the epmd at addr of our name and port. The name lives as long as
// the connection that is returned.
func registerName(ctx context.Context, addr, alive string, port uint16) (net.Conn, error) {
	q := binary.BigEndian.AppendUint16([]byte{epmdAlive2Req}, port)
	q = append(q, epmdHidden, epmdTCP, 0, epmdDistHigh, 0, epmdDistLow)
	q = binary.BigEndian.AppendUint16(q, uint16(len(alive)))
	q = append(q, alive...)
	q = append(q, 0, 0) // no extra
	c, err := askEPMD(ctx, addr, q)
	if err != nil {
		return nil, err
	}
	if err := readAlive(c); err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return c, nil
}

func readAlive(c net.Conn) error {
	var b [6]byte // tag, result, creation of 2 or 4 bytes
	if _, err := io.ReadFull(c, b[:4]); err != nil {
		return fmt.Errorf("%w: %w", errNoEPMD, err)
	}
	switch b[0] {
	case epmdAlive2X:
		if _, err := io.ReadFull(c, b[4:]); err != nil {
			return fmt.Errorf("%w: %w", errNoEPMD, err)
		}
	case epmdAlive2Resp:
	default:
		return fmt.Errorf("%w: answer %d is not epmd's", errNoEPMD, b[0])
	}
	if b[1] != 0 {
		return fmt.Errorf("%w (epmd's result %d)", errTaken, b[1])
	}
	return nil
}

// ownEPMD are the addresses at which this host's epmd may be.
func (n *Node) ownEPMD() []string {
	host, port, _ := net.SplitHostPort(n.o.EPMD) // Validate has seen it
	if host == "" {
		return []string{net.JoinHostPort("127.0.0.1", port), net.JoinHostPort("::1", port)}
	}
	return []string{n.o.EPMD}
}

// resolve gives a host's addresses, those of IPv4 first, as Erlang prefers them.
func resolve(ctx context.Context, host string) ([]string, error) {
	if host == "localhost" {
		return []string{"127.0.0.1", "::1"}, nil // RFC 6761, whatever /etc/hosts has of it
	}
	ctx, cancel := context.WithTimeout(ctx, epmdTimeout)
	defer cancel()
	ips, err := net.DefaultResolver.LookupIPAddr(ctx, host)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoHost, err)
	}
	var v4, v6 []string
	for _, ip := range ips {
		if ip.IP.To4() != nil {
			v4 = append(v4, ip.String())
		} else {
			v6 = append(v6, ip.String())
		}
	}
	return append(v4, v6...), nil
}
