package httpd

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	// maxTurnWork is how many messages, and connections that they go to, a turn
	// takes before the sockets are looked after again. Only a single message to
	// all can be more.
	maxTurnWork = 8192
	// maxFrags is how many frames a turn collects before it writes them.
	maxFrags = 8192
	// maxIgnoredBytes is what a client may send after its request.
	maxIgnoredBytes = 64 << 10
	// maxLingerBytes is what it may while it is being told no: a reset would
	// overtake the answer, which a client reads when it has sent all it has.
	maxLingerBytes = 16 << 20
	// lingerTimeout is how long a client may take to close after the last byte.
	lingerTimeout = 2 * time.Second
	// endTimeout is how long the last bytes may wait for a client to read them.
	endTimeout = 10 * time.Second
	// overTotalLogEvery is how often --max-pending-total may log.
	overTotalLogEvery = time.Second
	// acceptLogEvery is how often a failing accept may log.
	acceptLogEvery = time.Second
	// overflowSlots are the slots beyond the limit of connections, in which a
	// client is told that there is no room.
	overflowSlots = 16
)

// loop is one goroutine and what it owns.
type loop struct {
	// Set once.
	server  *Server
	index   int // of Server.loops
	engine  engine
	mailbox *mailbox
	log     *slog.Logger
	// Owned by the loop.
	slots        slots
	users        users
	pendings     pendings
	arrived      []arrival         // room for the next arrivals
	heads        map[uint32][]byte // incomplete request heads by slot
	posts        posts             // incomplete bodies
	headReader   *headReader
	wheel        *wheel // one time for each connection: its state says which
	out          output
	backlog      *part // taken from the mailbox, not yet worked on
	backlogAt    int   // entries of the first of them that are
	done         []*part
	targets      []uint32 // the connections that a message or command is for
	scratch      []byte
	name         []byte // room for a binary uid
	date         []byte // the Date header line of this second
	dateAt       int64
	start        time.Time
	closing      bool          // Shutdown was seen
	beforeDrain  int           // entries that came before it
	drainAt      time.Duration // on the loop's clock; when the drain must be over
	draining     bool
	drainCursor  uint32
	drainQuota   int // streams ended in a tick
	drained      sync.Once
	isDrained    chan struct{}
	tellings     []telling        // whom it tells of connections
	subscribed   *[]*subscription // what they were made of
	overTotalLog time.Duration
	// Written by other loops.
	arrivals    handover[arrival] // as many as there are connections at the most
	lateWatches handover[uint64]
	pulse       pulse
	// Written by the loop, read by anyone.
	count counters
}

func newLoop(s *Server, index int, e engine) (*loop, error) {
	slots, err := newSlots(s.maxOpen + overflowSlots)
	if err != nil {
		return nil, fmt.Errorf("slots of --max-connections %d: %w", s.opts.MaxConnections, err)
	}
	l := &loop{
		server:     s,
		index:      index,
		engine:     e,
		log:        s.log,
		slots:      slots,
		users:      newUsers(),
		heads:      map[uint32][]byte{},
		posts:      newPosts(s.opts.MaxInboxBytes),
		headReader: newHeadReader(),
		wheel:      newWheel(),
		out:        newOutput(),
		start:      time.Now(),
		isDrained:  make(chan struct{}),
	}
	l.mailbox = newMailbox(s.opts.MailboxBytes, s.opts.MailboxEntries)
	l.mailbox.wake = e.wake
	return l, nil
}

func (l *loop) run(up func([]net.Addr)) error {
	err := l.engine.run(l, up)
	l.mailbox.close()
	l.discardBacklog()
	l.discardArrivals()
	l.endLate()
	return err
}

// now is the loop's clock.
func (l *loop) now() time.Duration { return time.Since(l.start) }

// onWake works on what the mailbox has: the messages of a turn are collected
// by connection, written, and only then given back to their feed.
func (l *loop) onWake() {
	if l.server.closing.Load() && !l.closing {
		l.takeLast()
	}
	l.pulse.at(doingArrivals)
	l.arrive()
	l.watchLate()
	l.pulse.at(doingMessages)
	entries := 0
	for work := 0; work < maxTurnWork; {
		if l.backlog == nil {
			if l.backlog = l.mailbox.take(); l.backlog == nil {
				break
			}
		}
		p := l.backlog
		for ; l.backlogAt < len(p.entries) && work < maxTurnWork; l.backlogAt++ {
			work += 1 + l.perform(&p.entries[l.backlogAt])
			entries++
		}
		if l.backlogAt == len(p.entries) {
			l.backlog, l.backlogAt = p.next, 0
			l.done = append(l.done, p)
		}
	}
	l.pulse.at(doingWrites)
	l.flushTurn()
	for i, p := range l.done {
		l.mailbox.release(p)
		l.server.finish(p)
		l.done[i] = nil
	}
	l.done = l.done[:0]
	l.count.pendingBytes.Store(l.pendings.bytes)
	if l.beforeDrain -= entries; l.closing && !l.draining && (l.beforeDrain <= 0 || l.now() > l.drainAt-l.server.opts.Drain/2) {
		l.startDrain()
	}
	if l.backlog != nil {
		l.engine.wake()
	}
	l.pulse.at(doingSockets)
}

// takeLast takes what the drain waits for: all that came before Shutdown, but
// for no more than half of the time.
func (l *loop) takeLast() {
	l.closing = true
	l.drainAt = l.now() + l.server.opts.Drain
	end := &l.backlog
	for *end != nil {
		end = &(*end).next
	}
	*end = l.mailbox.take()
	l.beforeDrain = -l.backlogAt
	for p := l.backlog; p != nil; p = p.next {
		l.beforeDrain += len(p.entries)
	}
}

// perform does what one entry asks, and returns to how many connections. Its
// slices stay valid until the end of the turn.
func (l *loop) perform(e *entry) (connections int) {
	switch e.kind {
	case kindMessage:
		connections = l.deliver(e.id, e.name, e.body)
		if e.rare != nil {
			e.rare.reply(connections)
		}
	case kindSend:
		connections = l.deliverTo(uint64(e.id), e.body)
	case kindAll:
		connections = l.deliverAll(e.rare.all, e.body)
	default:
		connections = l.command(e)
	}
	return connections
}

// deliverTo hands body to one connection.
func (l *loop) deliverTo(conn uint64, body []byte) int {
	slot, ok := l.find(conn)
	if !ok {
		l.discardUnknown(1)
		return 0
	}
	if !l.fits(body) {
		return 0
	}
	l.queue(slot, body)
	return 1
}

// deliver hands body to every connection of a uid and returns their number.
func (l *loop) deliver(id int64, name, body []byte) int {
	slot := l.users.find(l.slots.conns, id, name)
	if slot == none {
		l.discardUnknown(1)
		return 0
	}
	if !l.fits(body) {
		return 0
	}
	if l.slots.conns[slot].next == none {
		l.queue(slot, body)
		return 1
	}
	targets := l.collect(slot)
	for _, slot := range targets {
		l.queue(slot, body)
	}
	l.count.copied.add(uint64(len(targets) - 1))
	return len(targets)
}

// collect returns the connections of a uid, of which slot is the newest. What is done
// with one may close others, and so change their list. Valid until the next call.
func (l *loop) collect(slot uint32) []uint32 {
	l.targets = l.targets[:0]
	for ; slot != none; slot = l.slots.conns[slot].next {
		l.targets = append(l.targets, slot)
	}
	return l.targets
}

func (l *loop) deliverAll(b *broadcast, body []byte) int {
	n := 0
	switch {
	case l.count.streams.Load() == 0:
		l.server.enterAll(b, 0)
		return 0
	case !l.fits(body):
		l.server.enterAll(b, 1)
		return 0
	}
	for slot := range l.slots.fresh {
		if l.slots.conns[slot].state == stateStream {
			l.queue(slot, body)
			n++
		}
	}
	l.server.enterAll(b, n)
	return n
}

// discardUnknown counts messages that found no connection of their uid.
func (l *loop) discardUnknown(n uint64) {
	if l.draining {
		l.count.discarded[discardClosing].add(n)
	} else {
		l.count.discarded[discardNotConnected].add(n)
	}
}

// fits refuses a message that no budget could hold.
func (l *loop) fits(body []byte) bool {
	if int64(len(body)) <= l.server.maxPendingTotal {
		return true
	}
	l.count.discarded[discardTooBig].add(1)
	return false
}

// discardBacklog ends what reached a loop that no longer runs.
func (l *loop) discardBacklog() {
	for p := l.backlog; p != nil; {
		next := p.next
		l.discardPart(p)
		p = next
	}
	l.backlog = nil
	for p := l.mailbox.take(); p != nil; {
		next := p.next
		l.discardPart(p)
		p = next
	}
}

func (l *loop) discardPart(p *part) {
	clear(p.entries[:l.backlogAt]) // these are settled
	l.count.discarded[discardClosing].add(p.messages())
	l.backlogAt = 0
	l.mailbox.release(p)
	l.server.finishUnread(p)
}

// onAcceptFailed counts, and tells the operator, at most once a second.
func (l *loop) onAcceptFailed(err error) []byte {
	l.count.acceptErrors.add(1)
	now, last := int64(time.Since(l.server.start)), l.server.acceptLog.Load()
	if (last == 0 || now-last > int64(acceptLogEvery)) && l.server.acceptLog.CompareAndSwap(last, now) { // one line for all loops
		l.log.Warn("clients cannot be accepted, they are told 503 or wait", "err", err, "connections", l.server.open.Load())
	}
	return l.server.full.append(l.scratch[:0], l.dateLine(), false)
}

// onTick looks after what waits for time.
func (l *loop) onTick() {
	l.pulse.tick.Store(int64(time.Since(l.server.start)))
	l.pulse.at(doingTicks)
	defer l.pulse.at(doingSockets)
	now := l.now()
	l.expire(now)
	if l.draining {
		l.drain(now)
	}
	l.tellPresent()
	l.count.pendingBytes.Store(l.pendings.bytes)
	l.count.users.Store(int64(l.users.count()))
}

// debug guards what is logged of single connections.
func (l *loop) debug() bool { return l.log.Enabled(context.Background(), slog.LevelDebug) }

// expire ends the connections whose time is over.
func (l *loop) expire(now time.Duration) {
	for {
		slot, ok := l.wheel.expired(l.slots.conns, now)
		if !ok {
			return
		}
		switch c := &l.slots.conns[slot]; c.state {
		case stateHead, stateBody:
			l.answer(slot, l.server.tooLate, false, reasonTimeout)
		case stateEnding:
			l.close(slot, reasonSlow, true)
		case stateLinger:
			l.close(slot, c.reason, false)
		}
	}
}

// dateLine is the Date header of now.
func (l *loop) dateLine() []byte {
	if now := time.Now(); now.Unix() != l.dateAt {
		l.dateAt = now.Unix()
		l.date = appendDate(l.date[:0], now)
	}
	return l.date
}
