package cnode

import "encoding/binary"

// loginQueue has connections in the order in which they came, number and encoded uid
// one behind the other: no object for each. Those that have ended stay in it until their
// turn or until they are the greater part.
type loginQueue struct {
	n     int // that wait
	held  int // that are in it
	bytes []byte
	head  int // of the first
}

const queueKept = 64 << 10 // bytes that an empty queue keeps

func (q *loginQueue) push(conn uint64, id int64, name []byte) {
	q.begin(conn)
	q.bytes = appendUID(q.bytes, id, name)
}

func (q *loginQueue) pushEncoded(conn uint64, uid []byte) {
	q.begin(conn)
	q.bytes = append(q.bytes, uid...)
}

// begin is followed by the uid.
func (q *loginQueue) begin(conn uint64) {
	if q.head > len(q.bytes)/2 {
		q.bytes = q.bytes[:copy(q.bytes, q.bytes[q.head:])]
		q.head = 0
	}
	q.bytes = binary.BigEndian.AppendUint64(q.bytes, conn)
	q.n++
	q.held++
}

// pop gives the first that waits; uid is valid until the next push or pop.
func (q *loginQueue) pop(waits func(conn uint64) bool) (conn uint64, uid []byte, ok bool) {
	for q.held > 0 {
		entry := q.bytes[q.head:]
		conn = binary.BigEndian.Uint64(entry)
		uid, _ = next(entry[8:])
		q.head += 8 + len(uid)
		q.held--
		if waits(conn) {
			q.n--
			q.reset()
			return conn, uid, true
		}
	}
	return 0, nil, false
}

// reset forgets those that have ended when nobody waits. It writes over nothing.
func (q *loginQueue) reset() {
	switch {
	case q.n > 0:
	case cap(q.bytes) > queueKept:
		*q = loginQueue{}
	default:
		*q = loginQueue{bytes: q.bytes[:0]}
	}
}

const prunedFrom = 1024 // entries: fewer are not worth it

// remove takes note that one waits no more. Those that do not wait are dropped when they
// are the greater part.
func (q *loginQueue) remove(waits func(conn uint64) bool) {
	q.n--
	q.reset()
	if q.held < prunedFrom || q.held < 2*q.n {
		return
	}
	kept := q.bytes[:0]
	for rest := q.bytes[q.head:]; len(rest) > 0; {
		conn := binary.BigEndian.Uint64(rest)
		uid, _ := next(rest[8:])
		entry := rest[:8+len(uid)]
		rest = rest[len(entry):]
		if waits(conn) {
			kept = append(kept, entry...)
		}
	}
	q.bytes, q.head, q.held = kept, 0, q.n
}

// numberQueue has connections in the order in which they came.
type numberQueue struct {
	conns []uint64
	head  int
}

func (q *numberQueue) len() int { return len(q.conns) - q.head }

func (q *numberQueue) push(conn uint64) {
	if q.head > len(q.conns)/2 {
		q.conns = q.conns[:copy(q.conns, q.conns[q.head:])]
		q.head = 0
	}
	q.conns = append(q.conns, conn)
}

func (q *numberQueue) pop() (conn uint64, ok bool) {
	if q.len() == 0 {
		return 0, false
	}
	conn = q.conns[q.head]
	if q.head++; q.len() == 0 {
		if 8*cap(q.conns) > queueKept {
			q.conns = nil
		}
		q.conns, q.head = q.conns[:0], 0
	}
	return conn, true
}
