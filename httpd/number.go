package httpd

import (
	"fmt"
	"math/bits"
)

// This file is the names of connections. A connection's number is the generation of its
// slot in the high 32 bits, never 0, and loop and slot in the low 32. It names a
// stream from its beginning to its end, and nobody before and after: with the next
// connection the slot has another generation, and none comes twice (slots.put).

// numbering says where in a number the loop begins.
type numbering struct {
	shift uint // bits for the slots of one loop
}

// newNumbering fails when loops and slots do not fit 32 bits together: a pid has no more.
func newNumbering(maxConnections, loops int) (numbering, error) {
	shift := bits.Len(uint(maxConnections + overflowSlots - 1))
	if shift+bits.Len(uint(loops-1)) > 32 {
		return numbering{}, fmt.Errorf("--max-connections %d with --loops %d: the numbers of all slots do not fit 32 bits, lower one of them",
			maxConnections, loops)
	}
	return numbering{uint(shift)}, nil
}

func (n numbering) number(gen uint32, loop int, slot uint32) uint64 {
	return uint64(gen)<<32 | uint64(uint32(loop)<<n.shift|slot)
}

func (n numbering) split(conn uint64) (gen uint32, loop int, slot uint32) {
	low := uint32(conn)
	return uint32(conn >> 32), int(low >> n.shift), low & (1<<n.shift - 1)
}

// loopOf is the loop that a number names, or one that will miss it.
func (s *Server) loopOf(conn uint64) int {
	if _, loop, _ := s.numbers.split(conn); loop < len(s.loops) {
		return loop
	}
	return 0
}

// number is the number of a connection.
func (l *loop) number(slot uint32) uint64 {
	return l.server.numbers.number(l.slots.conns[slot].gen, l.index, slot)
}

// find returns the slot of the stream that conn names, if it is there.
func (l *loop) find(conn uint64) (slot uint32, ok bool) {
	gen, loop, slot := l.server.numbers.split(conn)
	if loop != l.index || slot >= l.slots.fresh {
		return none, false
	}
	c := &l.slots.conns[slot]
	return slot, c.gen == gen && c.state == stateStream
}
