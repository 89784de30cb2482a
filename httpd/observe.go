package httpd

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

// watchLater is for a Watch that finds no room in the mailbox. It cannot be refused: to
// Erlang that would be the end of a connection that lives, and for all who watch it. What
// waits is no more than connections that peers have links to.
func (s *Server) watchLater(conn uint64) {
	l := s.loops[s.loopOf(conn)]
	if !l.lateWatches.push(conn) {
		s.tellEnd(conn, nobody, nil)
		return
	}
	l.engine.wake()
}

// watchLate does what watchLater has left.
func (l *loop) watchLate() {
	for _, conn := range l.lateWatches.swap(nil) {
		l.watch(conn)
	}
}

// endLate answers what is left for a loop that no longer runs.
func (l *loop) endLate() {
	l.lateWatches.close()
	for _, conn := range l.lateWatches.swap(nil) {
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
