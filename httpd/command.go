package httpd

import "slices"

// This file is what a Feed can ask for beside messages: commands, which keep the order
// of its calls with them and are in no ledger.

// Close ends every connection of a uid in an orderly way: what was sent before goes out
// first. text is for the log; reason is handed to Ended and Closed as it is, nil: none
// was given. All slices are used until the done of the next Flush.
func (f *Feed) Close(id int64, name []byte, text, reason []byte) {
	f.CloseCount(id, name, text, reason, nil)
}

// CloseCount is Close with a reply: how many connections there were. It is called
// once, on a goroutine that must not be blocked.
func (f *Feed) CloseCount(id int64, name []byte, text, reason []byte, reply func(n int)) {
	f.add(f.server.owner(id, name), &entry{kind: kindClose, id: id, name: name, body: reason, rare: &rare{text: text, reply: reply}})
}

// Exit is Close for the connection of that number.
func (f *Feed) Exit(conn uint64, text, reason []byte) {
	f.add(f.server.loopOf(conn), &entry{kind: kindExit, id: int64(conn), body: reason, rare: &rare{text: text}})
}

// Watch has the Observer told of the end of the connection of that number: at once,
// with "noproc", if it is gone. It needs no room in the mailbox (watchLater).
func (f *Feed) Watch(conn uint64) {
	f.add(f.server.loopOf(conn), &entry{kind: kindWatch, id: int64(conn)})
}

// Whereis asks for the numbers of a uid's connections, the newest last; nil if there are
// none. reply is called once, on a goroutine that must not be blocked; the slice is
// valid during the call.
func (f *Feed) Whereis(id int64, name []byte, reply func(conns []uint64)) {
	f.add(f.server.owner(id, name), &entry{kind: kindWhereis, id: id, name: name, rare: &rare{whereis: reply}})
}

// Info asks for what is known of a connection, nil if it is gone. reply is called once,
// on a goroutine that must not be blocked, and may keep info.
func (f *Feed) Info(conn uint64, reply func(info *Info)) {
	f.add(f.server.loopOf(conn), &entry{kind: kindInfo, id: int64(conn), rare: &rare{info: reply}})
}

// command does what an entry that is no message asks, and returns with how many
// connections it had to do.
func (l *loop) command(e *entry) (connections int) {
	switch e.kind {
	case kindClose:
		targets := l.collect(l.users.find(l.slots.conns, e.id, e.name))
		for _, slot := range targets {
			l.kick(slot, e)
		}
		if connections = len(targets); e.rare.reply != nil {
			e.rare.reply(connections)
		}
	case kindExit:
		if slot, ok := l.find(uint64(e.id)); ok {
			l.kick(slot, e)
		}
	case kindWatch:
		l.watch(uint64(e.id))
	case kindWhereis:
		connections = l.whereis(e)
	case kindInfo:
		e.rare.info(l.info(uint64(e.id)))
	}
	return connections
}

// kick ends a connection on request.
func (l *loop) kick(slot uint32, e *entry) {
	if l.debug() && l.slots.conns[slot].state == stateStream {
		l.log.Debug("connection is closed on request", "uid", l.users.spell(&l.slots.conns[slot]), "reason", string(e.rare.text))
	}
	l.finish(slot, reasonKicked, e.body)
}

func (l *loop) whereis(e *entry) int {
	slots := l.collect(l.users.find(l.slots.conns, e.id, e.name))
	if len(slots) == 0 {
		e.rare.whereis(nil)
		return 0
	}
	conns := make([]uint64, 0, len(slots))
	for _, slot := range slices.Backward(slots) {
		conns = append(conns, l.number(slot))
	}
	e.rare.whereis(conns)
	return len(conns)
}

// rescue takes what ends connections out of a batch that found no room, and gives it the
// mailbox's last room. A message lost is a message less; an exit lost is a browser
// that stays although the process that it was linked to is dead, and nobody would ever
// end it. What does not fit there either is counted.
//
// It goes as a copy: the feed's block would otherwise wait with it, which is larger.
func (s *Server) rescue(m *mailbox, b *batch) {
	d := s.newDelivery()
	d.done = func() {}
	var kept batch
	for p := b.first; p != nil; p = p.next {
		for i := range p.entries {
			e := &p.entries[i]
			if e.kind != kindClose && e.kind != kindExit {
				continue
			}
			e.name, e.body = slices.Clone(e.name), slices.Clone(e.body)
			e.rare.text = slices.Clone(e.rare.text)
			texts := len(e.name) + len(e.rare.text)
			kept.add(s, d, e)
			kept.charge(texts)
			*e = entry{}
		}
	}
	switch {
	case kept.first == nil:
	case !m.pushBeyond(&kept):
		if !m.closed.Load() { // else all connections end
			s.commandsLost.Add(uint64(kept.entries))
		}
		for p := kept.first; p != nil; {
			next := p.next
			s.finishUnread(p)
			p = next
		}
	case m.closed.Load():
		s.discardLate(m)
	}
	s.drop(d)
}
