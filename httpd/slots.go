package httpd

import "math"

const (
	// maxSlots keeps slot numbers, and the slots beyond MaxConnections that
	// only answer 503, below 2^27.
	maxSlots = 1 << 26
	// none is "no slot" in the lists that go through the array.
	none = ^uint32(0)
)

// state is where a connection is in its life.
type state uint8

const (
	stateFree   state = iota
	stateHead         // waits for its request head
	stateBody         // waits for the body of its POST
	stateStream       // receives messages
	stateEnding       // has its last bytes pending; then the write side is shut
	stateLinger       // the write side is shut; waits for the client to close
	stateClosed       // the engine was told to close it; waits for its word
)

// conn is a connection in its slot: at most 64 bytes, a cache line, no pointer:
// at a million connections 8 bytes more are 8 MB, and a pointer would make the
// collector read the whole array. All fields are owned by the loop.
type conn struct {
	gen       uint32 // from 1, raised when the slot is freed: its old numbers miss
	state     state
	transport transport
	named     bool   // uid is an index into users.named
	refused   bool   // beyond the limit of connections: is only answered
	uid       uint64 // the integer uid, or the index of a binary one
	next      uint32 // the uid's connections, newest first; in a free slot the free list
	prev      uint32
	ignored   uint32 // bytes read after the request
	pending   uint32 // 1 + index into the loop's pendings; 0: nothing waits
	firstFrag uint32 // 1 + index into the turn's frags; 0: none
	lastFrag  uint32
	due       uint32 // the tick of the wheel at which its time is over; 0: it waits for none
	later     uint32 // the wheel's connections of one bucket
	earlier   uint32
	opened    uint32 // when the stream began, in seconds of the loop's clock
	reason    reason // why it ends; set once, with state
	watched   bool   // the Observer is told of its end
}

// slots is the preallocated array. Slots are given out from the lowest unused
// one, and freed ones first, so that only pages in use become resident.
type slots struct {
	room  mapped[conn]
	conns []conn // all of it
	free  uint32 // first of the freed slots
	fresh uint32 // slots from here on were never used
	used  int
	// retired slots have no generation left.
	retired int
}

func newSlots(n int) (slots, error) {
	room, err := newMapped[conn](n)
	return slots{room: room, conns: room.all, free: none}, err
}

// take returns a slot in stateHead, or false if all are in use.
func (s *slots) take() (uint32, bool) {
	slot := s.free
	switch {
	case slot != none:
		s.free = s.conns[slot].next
	case int(s.fresh) < len(s.conns):
		slot = s.fresh
		s.fresh++
	default:
		return none, false
	}
	c := &s.conns[slot]
	*c = conn{gen: max(c.gen, 1), state: stateHead, next: none, prev: none}
	s.used++
	return slot, true
}

// put frees a slot and raises its generation. After the last one the slot is not
// given out again: its numbers would name other connections than before. At a
// thousand connections a second through one slot that is after 50 days.
func (s *slots) put(slot uint32) {
	c := &s.conns[slot]
	s.used--
	if c.gen == math.MaxUint32 {
		*c = conn{gen: c.gen}
		s.retired++
		return
	}
	*c = conn{gen: c.gen + 1, next: s.free}
	s.free = slot
}
