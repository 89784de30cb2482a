package cnode

import (
	"encoding/binary"

	"github.com/ergo-services/ergo/etf"
)

// A connection's number is its pid: the low 32 bits are the pid's id, the high ones,
// the generation and never 0, its serial. The serial of ergo's own processes, and of
// what we invent for a call from Erlang, is 0. All carry the creation of this start:
// without it a message for a connection of an earlier start would reach a stranger.

// pidHead is what the pids of node begin with, up to the id.
func pidHead(node string) string {
	return string(appendAtom([]byte{tagNewPid}, node))
}

// appendConnPid appends the pid of a connection.
func (n *Node) appendConnPid(dst []byte, conn uint64) []byte {
	dst = append(dst, n.pidHead...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(conn))
	dst = binary.BigEndian.AppendUint32(dst, uint32(conn>>32))
	return binary.BigEndian.AppendUint32(dst, n.creation)
}

// appendSenderPid appends the pid in whose name the node itself sends and asks.
func (n *Node) appendSenderPid(dst []byte) []byte {
	return appendPid(dst, n.sender.Self())
}

// ours is true for a pid of this start of ours, of whatever kind.
func (n *Node) ours(pid etf.Pid) bool {
	return string(pid.Node) == n.o.Name && pid.Creation == n.creation
}

// connOf gives the number of a connection of this start, be it there or gone. There is
// none without a Feed to take what is sent to it.
func (c *conn) connOf(term []byte) (conn uint64, ok bool) {
	node, p, ok := pidParts(term)
	if !ok || p.serial == 0 || p.creation != c.n.creation || string(node) != c.n.o.Name || c.feed == nil {
		return 0, false
	}
	return uint64(p.serial)<<32 | uint64(p.id), true
}

// theirs gives the process of a pid that is the peer's.
func (c *conn) theirs(term []byte) (p process, ok bool) {
	node, p, ok := pidParts(term)
	return p, ok && string(node) == c.peer
}
