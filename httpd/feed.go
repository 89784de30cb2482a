package httpd

import (
	"sync/atomic"
	"time"
	"unsafe"
)

// kind is what an entry of a part asks of the loop.
type kind uint8

const (
	kindNone    kind = iota // settled
	kindMessage             // to a uid
	kindSend                // to a connection
	kindAll
	// Commands, which are no messages (command.go):
	kindClose
	kindExit
	kindWatch
	kindWhereis
	kindInfo
)

// entry is one message or command. Its slices belong to the feed's caller
// until done is called.
type entry struct {
	kind kind
	id   int64  // an integer uid, or the number of a connection
	name []byte // a binary uid
	body []byte // of kindClose and kindExit the reason
	rare *rare
}

// rare is what most entries do not have.
type rare struct {
	text    []byte      // of kindClose and kindExit: for the log
	reply   func(n int) // of kindMessage and kindClose
	whereis func(conns []uint64)
	info    func(info *Info)
	all     *broadcast
}

// broadcast counts to how many connections the loops have handed one message to all:
// the last loop enters it in the ledger.
type broadcast struct {
	loops atomic.Int32 // that have not
	n     atomic.Int64
}

const (
	// maxPartEntries is the size of a part, small enough to be kept for reuse
	// as it is.
	maxPartEntries = 64
	// maxBatchEntries is how much a feed collects before it hands it over
	// without waiting for Flush.
	maxBatchEntries = 1024
)

// part is some of what one delivery has for one loop.
type part struct {
	of      *delivery
	next    *part
	bytes   int64 // bodies and the part itself: what it counts in the mailbox
	entries []entry
	// In the first part of a batch that is in a mailbox:
	last  *part // of the batch
	older *part // the first part of the batch pushed before it
	// beyond says that it came when the mailbox was full (mailbox.pushBeyond).
	beyond bool
}

// batch is what a feed hands to a loop in one step: parts in their order.
type batch struct {
	first, last    *part
	bytes, entries int64
}

const partBytes = int64(unsafe.Sizeof(part{}) + maxPartEntries*unsafe.Sizeof(entry{}))

// delivery is all that one Flush hands over; whoever drops the last reference
// calls done.
type delivery struct {
	refs atomic.Int32 // parts, and the feed until Flush
	done func()
}

// Feed takes messages from one goroutine, the reader of one Erlang node, and
// hands them to the loops, in the order in which they came.
type Feed struct {
	server *Server
	cur    *delivery
	open   []batch // by loop: what is being filled
	count  uint64  // messages since the last Flush
	// overloaded says, by loop, that the last part found no room in time: the next ones
	// do not wait until there is some.
	overloaded []bool
}

// NewFeed returns a Feed for one goroutine.
func (s *Server) NewFeed() *Feed {
	return &Feed{server: s, open: make([]batch, len(s.loops)), overloaded: make([]bool, len(s.loops))}
}

// Message hands over body for every connection of a uid: the integer id if
// name is nil. Both slices are used until the done of the next Flush.
func (f *Feed) Message(id int64, name, body []byte) {
	f.add(f.server.owner(id, name), &entry{kind: kindMessage, id: id, name: name, body: body})
	f.count++
}

// Send hands over body for the connection of that number. If it is gone, that
// is a message that found nobody. body is used until the done of the next Flush.
func (f *Feed) Send(conn uint64, body []byte) {
	f.add(f.server.loopOf(conn), &entry{kind: kindSend, id: int64(conn), body: body})
	f.count++
}

// Deliver is Message with a reply: how many connections it was handed to. It
// is called once, on a goroutine that must not be blocked.
func (f *Feed) Deliver(id int64, name, body []byte, reply func(n int)) {
	f.add(f.server.owner(id, name), &entry{kind: kindMessage, id: id, name: name, body: body, rare: &rare{reply: reply}})
	f.count++
}

// All hands over body for every connection.
func (f *Feed) All(body []byte) {
	r := &rare{all: &broadcast{}}
	r.all.loops.Store(int32(len(f.server.loops)))
	for i := range f.server.loops {
		f.add(i, &entry{kind: kindAll, body: body, rare: r})
	}
	f.count++
}

// Bad counts a message that was not understood.
func (f *Feed) Bad() {
	f.server.received.Add(1)
	f.server.discarded[discardBad].Add(1)
}

// End says that nothing follows. There is nothing to give back: what is on its
// way belongs to the loops.
func (f *Feed) End() {}

func (f *Feed) add(loop int, e *entry) {
	if f.cur == nil {
		f.cur = f.server.newDelivery()
	}
	b := &f.open[loop]
	if b.add(f.server, f.cur, e); b.entries == maxBatchEntries {
		f.hand(loop)
	}
}

func (b *batch) add(s *Server, d *delivery, e *entry) {
	if b.last == nil || len(b.last.entries) == maxPartEntries {
		b.grow(s.newPart(d))
	}
	b.last.entries = append(b.last.entries, *e)
	b.charge(len(e.body))
	b.entries++
}

// charge counts bytes that came with the last entry.
func (b *batch) charge(n int) {
	b.last.bytes += int64(n)
	b.bytes += int64(n)
}

func (b *batch) grow(p *part) {
	if b.first == nil {
		b.first = p
	} else {
		b.last.next = p
	}
	b.last = p
	b.bytes += p.bytes
}

// hand gives a loop what was collected for it. It waits while the mailbox is
// full, at most Options.MailboxWait; then the batch is refused.
func (f *Feed) hand(loop int) {
	b := f.open[loop]
	f.open[loop] = batch{}
	if !f.push(loop, &b) {
		f.reject(f.server.loops[loop].mailbox, &b)
	}
}

// Flush hands over what came since the last Flush. It can wait while a mailbox
// is full, and so can the methods that add after a thousand. done is called
// exactly once, from any goroutine, when no slice is used any more.
func (f *Feed) Flush(done func()) {
	d := f.cur
	if d == nil {
		done()
		return
	}
	f.server.received.Add(f.count)
	for i := range f.open {
		if f.open[i].first != nil {
			f.hand(i)
		}
	}
	f.cur, f.count = nil, 0
	d.done = done
	f.server.drop(d)
}

func (f *Feed) push(loop int, b *batch) bool {
	m, wait := f.server.loops[loop].mailbox, f.server.opts.MailboxWait
	if f.overloaded[loop] {
		wait = 0
	}
	start := time.Time{}
	if m.entries.Load() > m.maxEntries/2 || m.bytes.Load() > m.maxBytes/2 {
		start = time.Now()
	}
	ok := m.push(b, wait)
	if !start.IsZero() {
		f.server.mailboxWaited.Add(int64(time.Since(start)))
	}
	switch {
	case ok && m.closed.Load():
		f.server.discardLate(m)
	case ok:
		f.overloaded[loop] = false
	case !m.closed.Load() && !f.overloaded[loop]:
		f.overloaded[loop] = true
		f.server.log.Warn("mailbox full, messages are discarded until there is room", "loop", loop, "dur_ms", wait.Milliseconds())
	}
	return ok
}

// discardLate ends what was pushed while the loop ended.
func (s *Server) discardLate(m *mailbox) {
	for p := m.take(); p != nil; {
		next := p.next
		s.discarded[discardClosing].Add(p.messages())
		m.release(p)
		s.finishUnread(p)
		p = next
	}
}

// reject ends a batch that found no room: its messages are counted, its questions
// answered (refuse), and what ends or watches connections gets the mailbox's last room.
func (f *Feed) reject(m *mailbox, b *batch) {
	why := discardOverload
	if f.server.closing.Load() {
		why = discardClosing
	}
	f.server.rescue(m, b)
	for p := b.first; p != nil; {
		next := p.next
		f.server.discarded[why].Add(p.messages())
		f.server.finishUnread(p)
		p = next
	}
}

// messages counts the entries that are messages, not commands.
func (p *part) messages() uint64 {
	n := uint64(0)
	for i := range p.entries {
		switch p.entries[i].kind {
		case kindMessage, kindSend, kindAll:
			n++
		}
	}
	return n
}

// enterAll enters what one loop did with a message to all: it has reached, or failed
// to reach, n connections.
func (s *Server) enterAll(b *broadcast, n int) {
	b.n.Add(int64(n))
	if b.loops.Add(-1) > 0 {
		return
	}
	switch total := b.n.Load(); {
	case total > 0:
		s.copied.Add(uint64(total - 1))
	case s.closing.Load():
		s.discarded[discardClosing].Add(1)
	default:
		s.discarded[discardNotConnected].Add(1)
	}
}

func (s *Server) newDelivery() *delivery {
	d, ok := s.deliveries.Get().(*delivery)
	if !ok {
		d = &delivery{}
	}
	d.refs.Store(1)
	return d
}

func (s *Server) newPart(d *delivery) *part {
	p, ok := s.parts.Get().(*part)
	if !ok {
		p = &part{entries: make([]entry, 0, maxPartEntries)}
	}
	d.refs.Add(1)
	p.of, p.bytes = d, partBytes
	return p
}

// finish ends a part that was worked on.
func (s *Server) finish(p *part) {
	d := p.of
	clear(p.entries) // let go of the bodies
	*p = part{entries: p.entries[:0]}
	s.parts.Put(p)
	s.drop(d)
}

// finishUnread ends a part that no loop has worked on.
func (s *Server) finishUnread(p *part) {
	for i := range p.entries {
		s.refuse(&p.entries[i])
	}
	s.finish(p)
}

// refuse answers an entry that no loop has worked on, as if there were no connections: who
// asks waits for an answer.
func (s *Server) refuse(e *entry) {
	r := e.rare
	switch {
	case e.kind == kindWatch:
		s.watchLater(uint64(e.id))
	case r == nil:
	case r.reply != nil:
		r.reply(0)
	case r.whereis != nil:
		r.whereis(nil)
	case r.info != nil:
		r.info(nil)
	case r.all != nil:
		s.enterAll(r.all, 1) // as a message that was discarded
	}
}

// drop gives up one reference to a delivery; the last one ends it.
func (s *Server) drop(d *delivery) {
	if d.refs.Add(-1) == 0 {
		done := d.done
		d.done = nil
		s.deliveries.Put(d)
		done()
	}
}
