package httpd

import (
	"sync"

	"golang.org/x/sys/unix"
)

// This file is how a connection gets to the loop that owns its user: the loop that
// accepted it reads the request head, and gives the socket away.

// arrival is a connection on its way to a loop.
type arrival struct {
	fd int
	opening
}

// handover is what others have left for a loop, in their order, and the loop has not taken
// yet. The lock is on the way of connections and of watches, not of messages.
type handover[T any] struct {
	mu     sync.Mutex
	list   []T
	closed bool
}

// push adds one; false: the loop has ended.
func (h *handover[T]) push(v T) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return false
	}
	h.list = append(h.list, v)
	return true
}

// swap takes all and leaves room for new ones.
func (h *handover[T]) swap(room []T) []T {
	h.mu.Lock()
	defer h.mu.Unlock()
	list := h.list
	h.list = room
	return list
}

// close makes further pushes fail.
func (h *handover[T]) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closed = true
}

// move gives a connection to another loop.
func (l *loop) move(slot uint32, to *loop, o opening) {
	l.leave(slot, reasonNormal, nil) // it is no stream: nobody is told
	fd := l.engine.detach(slot)
	l.freeSlot(slot)
	if !to.arrivals.push(arrival{fd, o}) {
		l.lose(fd)
		return
	}
	to.engine.wake()
}

// arrive takes the connections that others have accepted for this loop.
func (l *loop) arrive() {
	list := l.arrivals.swap(l.arrived[:0])
	for i := range list {
		l.settleIn(&list[i])
	}
	clear(list) // let go of the strings and bodies
	if l.arrived = list[:0]; cap(list) > maxKeptArrivals {
		l.arrived = nil
	}
}

const maxKeptArrivals = 4096

func (l *loop) settleIn(a *arrival) {
	slot, ok := l.slots.take()
	if !ok || l.draining && l.now() >= l.drainAt {
		if ok {
			l.freeSlot(slot)
		}
		l.lose(a.fd)
		return
	}
	l.count.open.Store(int64(l.slots.used))
	err := l.engine.attach(slot, a.fd)
	switch {
	case err != nil:
		l.onAcceptFailed(err)
		l.close(slot, reasonReset, true)
	case l.draining:
		l.answer(slot, l.server.shutting, false, reasonAnswered)
	case a.post != nil:
		l.beginPost(slot, a.post, a.post.body)
		l.ignore(slot, a.extra)
	default:
		l.begin(slot, a.opening)
	}
}

// lose ends a connection that has no loop.
func (l *loop) lose(fd int) {
	unix.Close(fd)
	l.count.closed[reasonDrained].add(1)
	l.server.open.Add(-1)
}

// discardArrivals ends what came to a loop that no longer runs.
func (l *loop) discardArrivals() {
	l.arrivals.close()
	for _, a := range l.arrivals.swap(nil) {
		l.lose(a.fd)
	}
}
