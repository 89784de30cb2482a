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

// arrivals are those that a loop has not taken yet; as many as there are
// connections at the most. The lock is on the way of connections, not of messages.
type arrivals struct {
	mu     sync.Mutex
	list   []arrival
	closed bool
}

// push adds an arrival; false: the loop has ended.
func (a *arrivals) push(v arrival) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		return false
	}
	a.list = append(a.list, v)
	return true
}

// swap takes all arrivals and leaves room for new ones.
func (a *arrivals) swap(room []arrival) []arrival {
	a.mu.Lock()
	defer a.mu.Unlock()
	list := a.list
	a.list = room
	return list
}

// close makes further pushes fail.
func (a *arrivals) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
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
