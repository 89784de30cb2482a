package cnode

import (
	"encoding/binary"
	"sync"
)

// The links and monitors that one peer's processes have of connections. A connection
// that nobody links to or monitors costs nothing here. One hold is 64 bytes, and its
// connection's entry in a map some 30 more; neither has a pointer, so that a million of
// them cost the garbage collector nothing.

const (
	maxHeld       = 1 << 24   // holds of one peer; beyond it every connection is noproc
	holdsPerChunk = 1 << 8    // the slab grows by so many
	signalsPerGo  = 64        // encoded at a time, so that those who fire do not wait long
	bytesPerGo    = 32 << 10  // likewise, for long reasons
	firedBytes    = 256 << 10 // of signals for one write
)

// A hold is one link or monitor. The holds of a connection are a list, the newest
// first while it lives; when it ends they get its reason, and their order is turned.
type hold struct {
	conn  uint64
	by    process
	ref   reference // of a monitor
	next  uint32    // hold of the same connection, or the next free one; 0: none
	after uint32    // of the first hold of a fired connection: the first of the next one
	why   uint32    // 0: the connection lives; else see reasons
	kind  holdKind
}

type holdKind uint8

const (
	holdNone holdKind = iota // free; in a fired list, taken back before it was written
	holdLink
	holdMonitor
	holdBroken // a link whose process has ended, and with it the connection: nobody to tell
)

// process is one of the peer's, so that the node's name need not be kept.
type process struct{ id, serial, creation uint32 }

// reference is one that the peer has made, with as many words as it came with.
type reference struct {
	creation uint32
	word     [maxRefWords]uint32
	words    uint32
}

// held are the holds of one peer. Its reader adds and takes back, whoever learns of the
// end of a connection fires, and its writer encodes what has fired.
type held struct {
	// set once
	ours   string // what a connection's pid begins with
	theirs string // what a process's pid begins with
	refs   string // the node of a reference
	own    uint32 // our creation
	wake   func() // tells the writer that there is something to encode

	mu        sync.Mutex             // protects what follows; held for some microseconds at most
	first     map[uint64]uint32      // of each connection, its first hold
	chunks    []*[holdsPerChunk]hold // hold i is the i-1st of all
	used      uint32                 // holds that have been given out, freed ones included
	free      uint32                 // first of those that were freed
	count     int                    // holds in use
	fired     uint32                 // the first hold of the first connection that has ended and is not written
	lastFired uint32                 // the first hold of the last one
	reasons   reasons
}

func newHeld(n *Node, peer string, wake func()) *held {
	return &held{
		ours:   n.pidHead,
		theirs: pidHead(peer),
		refs:   string(appendAtom(nil, peer)),
		own:    n.creation,
		wake:   wake,
		first:  make(map[uint64]uint32),
	}
}

func (h *held) at(i uint32) *hold {
	return &h.chunks[(i-1)/holdsPerChunk][(i-1)%holdsPerChunk]
}

// add puts a link or monitor in. watch: the loop of the connection must be asked for
// its end. Not ok: there is no room.
//
// The same link twice is one. A connection that is known to have ended gets noproc
// behind its other signals.
func (h *held) add(conn uint64, by process, kind holdKind, ref reference) (watch, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.first[conn]
	if h.find(first, by, kind, ref) != 0 {
		return false, true
	}
	if h.count >= maxHeld {
		return false, false
	}
	i := h.take()
	*h.at(i) = hold{conn: conn, by: by, kind: kind, ref: ref}
	if first != 0 && h.at(first).why != 0 {
		h.at(i).why = whyNoproc
		last := first
		for h.at(last).next != 0 {
			last = h.at(last).next
		}
		h.at(last).next = i
		return false, true
	}
	h.at(i).next = first
	h.first[conn] = i
	return first == 0, true
}

// remove takes a link or monitor back, also one that has fired and is not written.
func (h *held) remove(conn uint64, by process, kind holdKind, ref reference) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	first := h.first[conn]
	i := h.find(first, by, kind, ref)
	if i == 0 {
		return false
	}
	e := h.at(i)
	switch {
	case e.why != 0:
		e.kind = holdNone // the writer frees it
		return true
	case i != first:
		before := first
		for h.at(before).next != i {
			before = h.at(before).next
		}
		h.at(before).next = e.next
	case e.next != 0:
		h.first[conn] = e.next
	default:
		delete(h.first, conn)
	}
	h.release(i)
	return true
}

// breakLink is for the exit of a linked process that ends the connection, too. The link
// stays for linked to see until the connection has ended. False: there was none.
func (h *held) breakLink(conn uint64, by process) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.find(h.first[conn], by, holdLink, reference{})
	if i == 0 {
		return false
	}
	h.at(i).kind = holdBroken
	return true
}

// find needs mu. A connection has few holds; those of many cost the peer whose they are.
func (h *held) find(i uint32, by process, kind holdKind, ref reference) uint32 {
	for i != 0 {
		e := h.at(i)
		if e.kind == kind && e.by == by && e.ref == ref {
			return i
		}
		i = e.next
	}
	return 0
}

// take needs mu.
func (h *held) take() (i uint32) {
	h.count++
	if i = h.free; i != 0 {
		h.free = h.at(i).next
		return i
	}
	h.used++
	if int(h.used) > len(h.chunks)*holdsPerChunk {
		h.chunks = append(h.chunks, new([holdsPerChunk]hold))
	}
	return h.used
}

// release needs mu. When nothing is held the memory goes, but for one chunk.
func (h *held) release(i uint32) {
	e := h.at(i)
	h.reasons.release(e.why)
	*e = hold{next: h.free}
	h.free = i
	if h.count--; h.count == 0 {
		h.free, h.used = 0, 0
		if len(h.chunks) > 1 {
			h.chunks = []*[holdsPerChunk]hold{h.chunks[0]}
			h.first = make(map[uint64]uint32)
		}
	}
}

// fire hands what is held of conn to the writer.
func (h *held) fire(conn uint64, why string, reason []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	i := h.first[conn]
	if i == 0 || h.at(i).why != 0 {
		return
	}
	code := h.reasons.code(why, reason)
	before := uint32(0)
	for i != 0 {
		e := h.at(i)
		e.why = code
		h.reasons.retain(code)
		i, e.next, before = e.next, before, i
	}
	h.first[conn] = before
	if h.fired == 0 {
		h.fired = before
	} else {
		h.at(h.lastFired).after = before
	}
	h.lastFired = before
	h.wake()
}

// appendFired is the writer's: it appends firedBytes of signals, whatever dst has already,
// and says how many, and whether some are left.
func (h *held) appendFired(dst []byte) (_ []byte, packets int, left bool) {
	for most := len(dst) + firedBytes; len(dst) < most; {
		var n int
		dst, n, left = h.appendSome(dst)
		packets += n
		if !left {
			return dst, packets, false
		}
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return dst, packets, h.fired != 0
}

func (h *held) appendSome(dst []byte) (_ []byte, packets int, left bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	most := len(dst) + bytesPerGo
	for range signalsPerGo {
		if h.fired == 0 {
			return dst, packets, false
		}
		if len(dst) >= most {
			break
		}
		if e := h.at(h.fired); e.kind == holdLink || e.kind == holdMonitor {
			dst = h.appendSignal(dst, e)
			packets++
		}
		h.popFired()
	}
	return dst, packets, h.fired != 0
}

// popFired needs mu.
func (h *held) popFired() {
	i := h.fired
	e := h.at(i)
	if next := e.next; next != 0 {
		h.at(next).after = e.after
		h.first[e.conn] = next
		h.fired = next
		if h.lastFired == i {
			h.lastFired = next
		}
	} else {
		delete(h.first, e.conn)
		if h.fired = e.after; h.fired == 0 {
			h.lastFired = 0
		}
	}
	h.release(i)
}

// appendSignal needs mu. It writes {24, Conn, By} or {28, Conn, By, Ref}, and the reason.
func (h *held) appendSignal(dst []byte, e *hold) []byte {
	at := len(dst)
	dst = beginPacket(dst)
	if e.kind == holdLink {
		dst = appendInt(appendTuple(dst, 3), opPayloadExit)
	} else {
		dst = appendInt(appendTuple(dst, 4), opPayloadMonExit)
	}
	dst = append(dst, h.ours...)
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.conn))
	dst = binary.BigEndian.AppendUint32(dst, uint32(e.conn>>32))
	dst = binary.BigEndian.AppendUint32(dst, h.own)
	dst = append(dst, h.theirs...)
	dst = binary.BigEndian.AppendUint32(dst, e.by.id)
	dst = binary.BigEndian.AppendUint32(dst, e.by.serial)
	dst = binary.BigEndian.AppendUint32(dst, e.by.creation)
	if e.kind == holdMonitor {
		dst = append(dst, tagNewerRef, 0, byte(e.ref.words))
		dst = append(dst, h.refs...)
		dst = binary.BigEndian.AppendUint32(dst, e.ref.creation)
		for _, w := range e.ref.word[:e.ref.words] {
			dst = binary.BigEndian.AppendUint32(dst, w)
		}
	}
	dst = append(append(dst, tagVersion), h.reasons.term(e.why)...)
	seal(dst[at:])
	return dst
}

// linked is true if the peer links to conn, also if that has fired and is not written,
// or if the link has ended the connection.
func (h *held) linked(conn uint64) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i := h.first[conn]; i != 0; i = h.at(i).next {
		if kind := h.at(i).kind; kind == holdLink || kind == holdBroken {
			return true
		}
	}
	return false
}

// size is the number of links and monitors.
func (h *held) size() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

// end forgets everything, after the peer has gone: Erlang fires noconnection itself, and
// the connections stay.
func (h *held) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.first, h.chunks, h.reasons = nil, nil, reasons{}
	h.used, h.free, h.fired, h.lastFired, h.count = 0, 0, 0, 0, 0
}
