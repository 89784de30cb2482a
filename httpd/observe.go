package httpd

import (
	"sync"
	"sync/atomic"
)

// Observer is told of the end of connections that were watched (Feed.Watch). It is called on
// the loops' goroutines, and on a feed's when its Watch is refused; it must not block.
type Observer interface {
	// Ended is called when a watched stream ends, once, although its last bytes may
	// still be on their way. why is the name of a reason, or "noproc": it was gone
	// before. reason is what Feed.Exit or Feed.Close was given, nil if nothing; valid
	// during the call.
	Ended(conn uint64, why string, reason []byte)
}

// nobody is why a connection that is gone cannot be watched, in Erlang's word.
const nobody = "noproc"

// Observe names the Observer. It is called before the first Feed is made, and once.
func (s *Server) Observe(o Observer) { s.observer = o }

func (s *Server) tellEnd(conn uint64, why string, reason []byte) {
	if s.observer != nil {
		s.observer.Ended(conn, why, reason)
	}
}

// watch marks a connection, or tells that it is gone.
func (l *loop) watch(conn uint64) {
	if slot, ok := l.find(conn); ok {
		l.slots.conns[slot].watched = true
		return
	}
	l.server.tellEnd(conn, nobody, nil)
}

// lateWatches are those that found no room in a loop's mailbox. A watch cannot be refused: to
// Erlang that would be the end of a connection that lives, and for all who watch it. They are
// no more than connections that peers have links to.
type lateWatches struct {
	some   atomic.Bool
	mu     sync.Mutex
	conns  []uint64
	closed bool
}

// push is false if the loop has ended.
func (w *lateWatches) push(conn uint64) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.conns = append(w.conns, conn)
	w.some.Store(true)
	return true
}

// take empties it; closed: for ever.
func (w *lateWatches) take(closed bool) []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	conns := w.conns
	w.conns, w.closed = nil, closed
	w.some.Store(false)
	return conns
}

// watchLater is called where a Watch finds no room.
func (s *Server) watchLater(conn uint64) {
	l := s.loops[s.loopOf(conn)]
	if !l.late.push(conn) {
		s.tellEnd(conn, nobody, nil)
		return
	}
	l.engine.wake()
}

// watchLate does what watchLater has left.
func (l *loop) watchLate() {
	if l.late.some.Load() {
		for _, conn := range l.late.take(false) {
			l.watch(conn)
		}
	}
}

// endLate answers what is left for a loop that no longer runs.
func (l *loop) endLate() {
	for _, conn := range l.late.take(true) {
		l.server.tellEnd(conn, nobody, nil)
	}
}

// tellLeft tells the subscribers and the Observer of a stream that ends: in this order, so
// that a subscriber can still ask who watches.
func (l *loop) tellLeft(slot uint32, why reason, given []byte) {
	if len(l.tellings) > 0 {
		l.tellClosed(slot, why, given)
	}
	if l.slots.conns[slot].watched {
		l.server.tellEnd(l.number(slot), why.String(), given)
	}
}
