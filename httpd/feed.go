package httpd

import (
	"sync/atomic"
	"time"
)

// kind is what an entry of a part asks of the loop.
type kind uint8

const (
	kindMessage kind = iota
	kindAll
	kindClose
)

// entry is one message or command. Its slices belong to the feed's caller
// until done is called.
type entry struct {
	kind  kind
	id    int64
	name  []byte
	body  []byte // for kindClose the reason
	reply func(n int)
}

// part is what one Flush has for one loop.
type part struct {
	of      *delivery
	next    *part
	bytes   int64
	entries []entry
}

// delivery is all that one Flush hands over; the last loop to finish calls done.
type delivery struct {
	refs  atomic.Int32
	done  func()
	parts []part // one a loop
}

// Feed takes messages from one goroutine, the reader of one Erlang node, and
// hands them to the loops at Flush: in the order in which they came.
type Feed struct {
	server *Server
	cur    *delivery
	count  uint64 // messages in cur
	// overloaded says that the last Flush found no room in time: the next ones
	// do not wait until there is some.
	overloaded bool
}

// NewFeed returns a Feed for one goroutine.
func (s *Server) NewFeed() *Feed { return &Feed{server: s} }

// Message hands over body for every connection of a uid: the integer id if
// name is nil. Both slices are used until the done of the next Flush.
func (f *Feed) Message(id int64, name, body []byte) {
	f.add(f.server.owner(id, name), entry{kind: kindMessage, id: id, name: name, body: body})
	f.count++
}

// Deliver is Message with a reply: how many connections it was handed to. It
// is called once, on a goroutine that must not be blocked.
func (f *Feed) Deliver(id int64, name, body []byte, reply func(n int)) {
	f.add(f.server.owner(id, name), entry{kind: kindMessage, id: id, name: name, body: body, reply: reply})
	f.count++
}

// All hands over body for every connection.
func (f *Feed) All(body []byte) {
	for i := range f.server.loops {
		f.add(i, entry{kind: kindAll, body: body})
	}
	f.count++
	f.server.copied.Add(uint64(len(f.server.loops) - 1))
}

// Close ends every connection of a uid; reason is for the log.
func (f *Feed) Close(id int64, name, reason []byte) {
	f.add(f.server.owner(id, name), entry{kind: kindClose, id: id, name: name, body: reason})
}

// Bad counts a message that was not understood.
func (f *Feed) Bad() {
	f.server.received.Add(1)
	f.server.discarded[discardBad].Add(1)
}

// End says that nothing follows. There is nothing to give back: what is on its
// way belongs to the loops.
func (f *Feed) End() {}

// entryBytes is what an entry counts in the mailbox beside its body.
const entryBytes = 64

func (f *Feed) add(loop int, e entry) {
	if f.cur == nil {
		f.cur = f.server.newDelivery()
	}
	p := &f.cur.parts[loop]
	p.entries = append(p.entries, e)
	p.bytes += int64(len(e.body)) + entryBytes
}

// Flush hands over what came since the last Flush. It waits while a mailbox is
// full, at most Options.MailboxWait; then what is too much is discarded and
// counted. done is called exactly once, from any goroutine, when no slice is
// used any more.
func (f *Feed) Flush(done func()) {
	d := f.cur
	if d == nil {
		done()
		return
	}
	f.server.received.Add(f.count)
	f.cur, f.count = nil, 0
	d.done = done
	d.refs.Store(1) // ours, so that no loop finishes it before all have it
	for i := range d.parts {
		p := &d.parts[i]
		if len(p.entries) == 0 {
			continue
		}
		d.refs.Add(1)
		if !f.push(f.server.loops[i].mailbox, p) {
			f.reject(p)
		}
	}
	f.server.finish(d)
}

func (f *Feed) push(m *mailbox, p *part) bool {
	wait := f.server.opts.MailboxWait
	if f.overloaded {
		wait = 0
	}
	start := time.Time{}
	if m.entries.Load() > m.maxEntries/2 || m.bytes.Load() > m.maxBytes/2 {
		start = time.Now()
	}
	ok := m.push(p, wait)
	if !start.IsZero() {
		f.server.mailboxWaited.Add(int64(time.Since(start)))
	}
	switch {
	case ok:
		f.overloaded = false
	case !m.closed.Load() && !f.overloaded:
		f.overloaded = true
		f.server.log.Warn("mailbox full, messages are discarded until there is room", "dur_ms", wait.Milliseconds())
	}
	return ok
}

// reject counts a part that found no room.
func (f *Feed) reject(p *part) {
	why := discardOverload
	if f.server.closing.Load() {
		why = discardClosing
	}
	f.server.discarded[why].Add(p.messages())
	for i := range p.entries {
		if reply := p.entries[i].reply; reply != nil {
			reply(0)
		}
	}
	f.server.finish(p.of)
}

// messages counts the entries that are messages, not commands.
func (p *part) messages() uint64 {
	n := uint64(0)
	for i := range p.entries {
		if p.entries[i].kind != kindClose {
			n++
		}
	}
	return n
}

func (s *Server) newDelivery() *delivery {
	if d, ok := s.deliveries.Get().(*delivery); ok {
		return d
	}
	d := &delivery{parts: make([]part, len(s.loops))}
	for i := range d.parts {
		d.parts[i].of = d
	}
	return d
}

// maxKeptEntries keeps a delivery that was once large from staying so.
const maxKeptEntries = 16 << 10

// finish drops one reference to a delivery; the last one ends it.
func (s *Server) finish(d *delivery) {
	if d.refs.Add(-1) > 0 {
		return
	}
	done := d.done
	d.done = nil
	for i := range d.parts {
		p := &d.parts[i]
		clear(p.entries) // let go of the bodies
		if cap(p.entries) > maxKeptEntries {
			p.entries = nil
		}
		p.entries, p.bytes, p.next = p.entries[:0], 0, nil
	}
	s.deliveries.Put(d)
	done()
}
