package cnode

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// What the process registered as Options.Presence is told, on every peer that has it:
//
//	{all_present, Epoch, [{Uid, Pid}]}             connections that were there
//	{all_present, Epoch, Node}                     that was all of Node's, our own name
//	{connected, Uid, Pid, #{epoch, version, transport}}
//	{disconnected, Uid, Pid, Reason}
//
// An epoch is one subscription. Its version counts what was connected and disconnected
// in it, so that a gap shows what was lost on the way. The mark at the end of those that
// were there names the node: where there was no connection nothing else tells whose it is.

const (
	presencePairs = 1000 // of one all_present

	// What waits for a peer. Beyond presenceBytes the epoch is cut: nothing more is sent
	// until less than presenceAgain waits, then a new one begins. Those that were there
	// are asked for only up to presenceRoom.
	presenceBytes = 2 << 20
	presenceRoom  = 512 << 10
	presenceAgain = 128 << 10
	presencePause = time.Second // after a cut, at least

	presencePage   = 8192                   // connections that one loop may tell of at a time
	presenceWindow = 100 * time.Millisecond // in which every loop asks once
	pairBytes      = 48                     // of {Uid, Pid}, the node's name apart, for most uids
	maxPairBytes   = 32 + maxUIDBytes       // for every uid
)

// presence is one peer's. Its methods are the teller's.
type presence struct {
	t     *teller
	c     *conn
	watch *nameWatch
	epoch *epoch    // nil: none
	again time.Time // after a cut: not before
	wide  bool      // after a cut: those that were there may have large uids
}

func newPresence(t *teller, c *conn) *presence {
	return &presence{t: t, c: c, watch: newNameWatch(c, t.n.o.Presence, t.wake)}
}

func (p *presence) turn(now time.Time) {
	there := p.watch.turn(now)
	if p.epoch != nil && p.epoch.cut.Load() {
		p.again, p.wide = now.Add(presencePause), true
		p.stop()
	}
	switch {
	case p.epoch != nil && !there:
		p.stop()
	case p.epoch == nil && there && !now.Before(p.again) && p.c.w.waiting() < presenceAgain:
		p.epoch = newEpoch(p.t, p.c, p.t.nextEpoch(now), p.wide)
		p.t.counts.presenceEpochs.Add(1)
		p.epoch.unsubscribe = p.t.n.o.Subscribe(p.epoch)
	}
}

func (p *presence) stop() {
	p.epoch.end()
	p.epoch = nil
}

func (p *presence) end() {
	if p.epoch != nil {
		p.stop()
	}
	p.watch.end()
}

// epoch is a Subscriber: what one peer is told from one all_present to the next.
type epoch struct {
	// set once
	c      *conn
	counts *toldCounters
	number int64
	head   []byte // of a packet to the name
	pair   int    // bytes of one {Uid, Pid}, for Room
	wake   func() // the teller
	cut    atomic.Bool

	// owned by the teller's goroutine
	unsubscribe func()

	mu      sync.Mutex // protects what follows, and the order in which packets are queued
	over    bool       // nothing is sent any more
	version int64
	packet  []byte // scratch
	batch   []byte // an all_present that is being filled
	pairs   int    // in it
	countAt int    // where in it their number goes
	caught  int    // loops that have told of all
	window  time.Time
	granted int // by Room since window began, and not yet used
}

func newEpoch(t *teller, c *conn, number int64, wide bool) *epoch {
	e := &epoch{c: c, counts: &t.counts, number: number, wake: t.wake, pair: pairBytes}
	if wide {
		e.pair = maxPairBytes
	}
	e.pair += len(c.n.o.Name)
	e.head = c.n.appendNamedHead(nil, c.n.o.Presence)
	return e
}

// end may come while loops are still telling; then nothing comes of it.
func (e *epoch) end() {
	e.unsubscribe()
	e.mu.Lock()
	e.over = true
	e.batch, e.packet = nil, nil
	e.mu.Unlock()
}

// Opened is called by loops.
func (e *epoch) Opened(conn uint64, id int64, name []byte, transport string, present bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	if present {
		e.granted = max(e.granted-1, 0)
		e.add(conn, id, name)
		return
	}
	e.version++
	b := appendAtom(appendTuple(append(e.packet[:0], e.head...), 4), "connected")
	b = e.c.n.appendConnPid(appendUID(b, id, name), conn)
	b = binary.BigEndian.AppendUint32(append(b, tagMap), 3)
	b = appendInt(appendAtom(b, "epoch"), e.number)
	b = appendInt(appendAtom(b, "version"), e.version)
	b = appendAtom(appendAtom(b, "transport"), transport)
	e.packet = b
	e.send(b, 1)
}

// Closed is called by loops. The all_present that is being filled may have the pid: it
// goes first.
func (e *epoch) Closed(conn uint64, id int64, name []byte, why string, reason []byte) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return
	}
	e.flush()
	e.version++
	b := appendAtom(appendTuple(append(e.packet[:0], e.head...), 4), "disconnected")
	b = e.c.n.appendConnPid(appendUID(b, id, name), conn)
	b = appendReason(b, why, reason)
	e.packet = b
	e.send(b, 1)
}

// Room is called by loops, each once in a window: what it has given to one in this
// window the others do not get.
func (e *epoch) Room() int {
	waiting := e.c.w.waiting()
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.over {
		return 0
	}
	if now := time.Now(); now.Sub(e.window) >= presenceWindow {
		e.window, e.granted = now, 0
	}
	room := (presenceRoom-waiting-len(e.batch))/e.pair - e.granted
	room = max(0, min(room, presencePage))
	e.granted += room
	return room
}

// Caught is called by loops, once by each.
func (e *epoch) Caught(_, loops int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.caught++; e.over || e.caught != loops {
		return
	}
	e.flush()
	e.batch = nil
	b := appendInt(appendAtom(appendTuple(append(e.packet[:0], e.head...), 3), "all_present"), e.number)
	e.packet = appendAtom(b, e.c.n.o.Name)
	e.send(e.packet, 0)
}

// add needs mu.
func (e *epoch) add(conn uint64, id int64, name []byte) {
	if e.pairs == 0 {
		b := appendAtom(appendTuple(append(e.batch[:0], e.head...), 3), "all_present")
		b = append(appendInt(b, e.number), tagList, 0, 0, 0, 0)
		e.batch, e.countAt = b, len(b)-4
	}
	e.batch = e.c.n.appendConnPid(appendUID(appendTuple(e.batch, 2), id, name), conn)
	if e.pairs++; e.pairs == presencePairs {
		e.flush()
	}
}

// flush needs mu.
func (e *epoch) flush() {
	if e.pairs == 0 {
		return
	}
	binary.BigEndian.PutUint32(e.batch[e.countAt:], uint32(e.pairs))
	pairs := e.pairs
	e.pairs = 0
	e.send(append(e.batch, tagNil), pairs)
}

// send needs mu. What does not fit cuts the epoch: whoever misses one must be told all.
func (e *epoch) send(packet []byte, connections int) {
	if e.over {
		return
	}
	if e.c.w.offer(seal(packet), presenceBytes) {
		e.counts.presenceTold.Add(int64(connections))
		return
	}
	e.over = true
	select {
	case <-e.c.w.done:
		return // the peer is gone
	default:
	}
	e.counts.presenceCuts.Add(1)
	e.c.n.complain("presence cut: the peer does not read fast enough, it will be told all again",
		"presence cut", "node", e.c.n.o.Name, "peer", e.c.peer)
	e.cut.Store(true)
	e.wake()
}
