package cnode

import (
	"net/netip"
	"time"
)

// The terms in which Erlang is told of connections and of this node.

// connsTerm is [Pid].
func (n *Node) connsTerm(conns []uint64) []byte {
	b := appendList(nil, len(conns))
	for _, conn := range conns {
		b = n.appendConnPid(b, conn)
	}
	if len(conns) > 0 {
		b = append(b, tagNil)
	}
	return b
}

// okTerm is {ok, N}.
func okTerm(n int) []byte {
	return appendInt(appendAtom(appendTuple(nil, 2), "ok"), int64(n))
}

// infoTerm is a map, or undefined for a connection that is gone. What is not known is
// not in it.
func infoTerm(info *Info) []byte {
	if info == nil {
		return appendAtom(nil, "undefined")
	}
	pairs := 4
	if info.Peer.IsValid() {
		pairs++
	}
	if info.BytesKnown {
		pairs++
	}
	b := appendMap(nil, pairs)
	if b = appendAtom(b, "uid"); info.Name != nil {
		b = appendBinary(b, info.Name)
	} else {
		b = appendInt(b, info.ID)
	}
	b = appendAtom(appendAtom(b, "transport"), info.Transport)
	b = appendInt(appendAtom(b, "age"), int64(info.Age/time.Second))
	b = appendInt(appendAtom(b, "pending"), int64(info.Pending))
	if info.Peer.IsValid() {
		b = appendAddr(appendAtom(b, "peer"), info.Peer)
	}
	if info.BytesKnown {
		b = appendUint(appendAtom(b, "bytes"), info.Bytes)
	}
	return b
}

// appendAddr is {Address, Port} as inet:peername/1 gives them: an address is a tuple of
// 4 bytes or of 8 words.
func appendAddr(dst []byte, addr netip.AddrPort) []byte {
	dst = appendTuple(dst, 2)
	if ip := addr.Addr().Unmap(); ip.Is4() {
		dst = appendTuple(dst, 4)
		for _, v := range ip.As4() {
			dst = appendInt(dst, int64(v))
		}
	} else {
		dst = appendTuple(dst, 8)
		words := ip.As16()
		for i := 0; i < len(words); i += 2 {
			dst = appendInt(dst, int64(words[i])<<8|int64(words[i+1]))
		}
	}
	return appendInt(dst, int64(addr.Port()))
}

// stats are the numbers of Options.Stats.
func (n *Node) stats() []Stat {
	if n.o.Stats == nil {
		return nil
	}
	return n.o.Stats()
}

// statsTerm is a map of atoms to integers.
func (n *Node) statsTerm() []byte {
	stats := n.stats()
	b := appendMap(nil, len(stats))
	for _, s := range stats {
		b = appendInt(appendAtom(b, s.Name), s.Value)
	}
	return b
}

// nodeTerm is the map of statsTerm with the node's name and the program's version.
func (n *Node) nodeTerm() []byte {
	stats := n.stats()
	pairs := len(stats) + 1
	if n.o.Version != "" {
		pairs++
	}
	b := appendMap(nil, pairs)
	b = appendAtom(appendAtom(b, "node"), n.o.Name)
	if n.o.Version != "" {
		b = appendBinary(appendAtom(b, "version"), []byte(n.o.Version))
	}
	for _, s := range stats {
		b = appendInt(appendAtom(b, s.Name), s.Value)
	}
	return b
}
