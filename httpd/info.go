package httpd

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Info is what is known of a connection.
type Info struct {
	ID        int64 // the integer uid, if Name is nil
	Name      []byte
	Transport string         // "chunked" or "identity"
	Peer      netip.AddrPort // the client's address; not valid if it has gone meanwhile
	Age       time.Duration  // since the stream began, in whole seconds
	Pending   int            // bytes that wait for its socket
	// Bytes were given to its socket: bodies, framing, the response head. BytesKnown says
	// whether the system can tell; nothing is counted for it.
	Bytes      uint64
	BytesKnown bool
}

// info looks a connection up; nil: it is gone.
func (l *loop) info(conn uint64) *Info {
	slot, ok := l.find(conn)
	if ok && l.slots.conns[slot].firstFrag != 0 { // what was sent before counts
		l.flushConn(slot)
		slot, ok = l.find(conn)
	}
	if !ok {
		return nil
	}
	c := &l.slots.conns[slot]
	fd := l.engine.descriptor(slot)
	info := &Info{
		Transport: c.transport.String(),
		Peer:      peerOf(fd),
		Age:       time.Duration(l.seconds()-c.opened) * time.Second,
	}
	if c.named {
		info.Name = []byte(l.users.spell(c))
	} else {
		info.ID = int64(c.uid)
	}
	if c.pending != 0 {
		info.Pending = l.pendings.all[c.pending-1].bytes()
	}
	info.Bytes, info.BytesKnown = bytesGiven(fd)
	return info
}

// seconds is the loop's clock, as conn.opened has it.
func (l *loop) seconds() uint32 { return uint32(l.now() / time.Second) }

// peerOf is the address at the other end of a socket.
func peerOf(fd int) netip.AddrPort {
	switch a, err := unix.Getpeername(fd); a := a.(type) {
	case *unix.SockaddrInet4:
		if err == nil {
			return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
		}
	case *unix.SockaddrInet6:
		if err == nil {
			return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
		}
	}
	return netip.AddrPort{}
}
