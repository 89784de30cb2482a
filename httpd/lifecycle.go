package httpd

import (
	"bytes"
	"net/http"
	"time"
)

// This file is the way of a connection: accepted, its request head read, a
// stream or an answer, its end. A POST goes on in inbox.go.

// onAccept gives a new connection a slot. Beyond the limit of connections a
// few more are taken in, to be told so; the rest are closed at once.
func (l *loop) onAccept() (uint32, bool) {
	l.count.opened.add(1)
	slot, ok := none, false
	open := l.server.open.Add(1)
	if open <= int64(l.server.maxOpen+overflowSlots) && (!l.draining || l.now() < l.drainAt) {
		slot, ok = l.slots.take()
	}
	if !ok {
		l.server.open.Add(-1)
		l.count.closed[reasonRefused].add(1)
		return none, false
	}
	c := &l.slots.conns[slot]
	c.refused = open > int64(l.server.maxOpen)
	l.wheel.set(l.slots.conns, slot, l.now(), l.server.opts.HeadTimeout)
	l.count.open.Store(int64(l.slots.used))
	return slot, true
}

// onRead collects the request; what a client sends later is ignored, up to a
// bound.
func (l *loop) onRead(slot uint32, data []byte) {
	switch l.slots.conns[slot].state {
	case stateHead:
		l.readHead(slot, data)
	case stateBody:
		l.readBody(slot, data)
	default:
		l.ignore(slot, len(data))
	}
}

func (l *loop) ignore(slot uint32, n int) {
	c := &l.slots.conns[slot]
	limit := uint32(maxIgnoredBytes)
	if c.state == stateEnding || c.state == stateLinger {
		limit = maxLingerBytes
	}
	if c.ignored += uint32(n); c.ignored > limit && c.state != stateClosed {
		l.close(slot, reasonFlood, true)
	}
}

func (l *loop) readHead(slot uint32, data []byte) {
	partial, isPartial := l.heads[slot]
	if !isPartial {
		data = bytes.TrimLeft(data, "\r\n") // empty lines before a request: RFC 9112, section 2.2
	}
	head := data
	if isPartial {
		head = append(partial, data...)
	}
	end := headEnd(head)
	switch limit := l.server.opts.MaxHeadBytes; {
	case end > limit, end == 0 && len(head) > limit:
		delete(l.heads, slot)
		l.answer(slot, l.tooLarge(head[:limit]), false, reasonAnswered)
	case len(head) == 0:
	case end == 0:
		if !isPartial {
			head = append(make([]byte, 0, 1024), data...)
		}
		l.heads[slot] = head
	default:
		delete(l.heads, slot)
		l.request(slot, head[:end], head[end:])
	}
}

// tooLarge tells a long URL from a long head.
func (l *loop) tooLarge(head []byte) *answer {
	for _, b := range head {
		if b == '\n' {
			return l.server.headTooLarge
		}
	}
	return l.server.uriTooLong
}

// opening is a stream that is to begin, or a POST.
type opening struct {
	uid       string
	url       string // as requested
	transport transport
	extra     int   // bytes that came after the request
	post      *post // nil: a stream
}

// request answers a complete request head, behind which came extra.
func (l *loop) request(slot uint32, head, extra []byte) {
	c := &l.slots.conns[slot]
	req, uid, answer := l.server.route(l.headReader, head)
	isHead := req != nil && req.Method == http.MethodHead
	switch {
	case answer != nil:
	case c.refused:
		answer = l.server.full
	case l.draining:
		answer = l.server.shutting
	}
	if answer != nil {
		l.answer(slot, answer, isHead, reasonAnswered)
		l.ignore(slot, len(extra))
		return
	}
	if req.Method == http.MethodPost {
		l.takePost(slot, req, uid, extra)
		return
	}
	o := opening{uid: uid, url: req.RequestURI, transport: transportChunked, extra: len(extra)}
	if !req.ProtoAtLeast(1, 1) {
		o.transport = transportIdentity
	}
	switch owner := l.server.ownerOf(uid); {
	case isHead:
		c.transport = o.transport
		l.count.answered(http.StatusOK)
		l.scratch = appendStreamHead(l.scratch[:0], c.transport, l.dateLine())
		l.send(slot, l.scratch)
		l.finish(slot, reasonAnswered, nil)
		l.ignore(slot, len(extra))
	case owner != l.index:
		l.move(slot, l.server.loops[owner], o)
	default:
		l.begin(slot, o)
	}
}

// begin begins a stream: its head and the welcome.
func (l *loop) begin(slot uint32, o opening) {
	l.slots.conns[slot].transport = o.transport
	l.count.answered(http.StatusOK)
	l.scratch = appendStreamHead(l.scratch[:0], o.transport, l.dateLine())
	if text := l.server.welcome.text(o.url, o.uid); text != "" {
		l.scratch = appendFrameHead(l.scratch, o.transport, len(text))
		l.scratch = append(l.scratch, text...)
		l.scratch = append(l.scratch, frameTail(o.transport)...)
	}
	l.startStream(slot, o.uid)
	l.send(slot, l.scratch)
	l.ignore(slot, o.extra)
}

func (l *loop) startStream(slot uint32, uid string) {
	c := &l.slots.conns[slot]
	c.state = stateStream
	c.opened = l.seconds()
	l.users.add(l.slots.conns, slot, uid)
	l.count.streams.Add(1)
	l.tellNew(slot)
	if l.debug() {
		l.log.Debug("connected", "uid", uid, "slot", slot)
	}
	if l.server.opts.MaxPerUID > 0 {
		l.replaceOldest(slot)
	}
}

// replaceOldest closes the oldest connections of a uid that has too many.
func (l *loop) replaceOldest(slot uint32) {
	for i, old := range l.collect(slot) {
		if i >= l.server.opts.MaxPerUID {
			l.finish(old, reasonReplaced, nil)
		}
	}
}

// answer sends a whole response and ends the connection.
func (l *loop) answer(slot uint32, a *answer, isHead bool, why reason) {
	l.count.answered(a.code)
	l.scratch = a.append(l.scratch[:0], l.dateLine(), isHead)
	if l.send(slot, l.scratch) {
		l.end(slot, why, nil)
	}
}

// finish ends a connection in an orderly way: what is queued goes out, a
// stream gets its last chunk, then the write side is shut. given is the reason as
// Erlang has put it, nil if it has not.
func (l *loop) finish(slot uint32, why reason, given []byte) {
	c := &l.slots.conns[slot]
	if c.firstFrag != 0 {
		l.flushConn(slot)
	}
	if c.state == stateStream {
		l.leave(slot, why, given) // first: if the client is gone it has ended for this reason all the same
		c.reason, c.state = why, stateEnding
		if last := streamEnd(c.transport); last != nil && !l.send(slot, last) {
			return
		}
	}
	l.end(slot, why, given)
}

// end waits until the last bytes are out.
func (l *loop) end(slot uint32, why reason, given []byte) {
	c := &l.slots.conns[slot]
	if c.state == stateClosed {
		return
	}
	l.leave(slot, why, given)
	c.reason = why
	c.state = stateEnding
	if c.pending == 0 {
		l.linger(slot)
	} else {
		l.wheel.set(l.slots.conns, slot, l.now(), endTimeout)
	}
}

// linger shuts the write side and waits for the client to close, so that a
// reset does not overtake the last bytes (RFC 9112, section 9.6).
func (l *loop) linger(slot uint32) {
	c := &l.slots.conns[slot]
	c.state = stateLinger
	l.engine.closeWrite(slot)
	l.wheel.set(l.slots.conns, slot, l.now(), lingerTimeout)
}

// leave takes a connection from the streams that messages reach: for Erlang it ends
// here, whatever its last bytes still need.
func (l *loop) leave(slot uint32, why reason, given []byte) {
	c := &l.slots.conns[slot]
	switch c.state {
	case stateStream:
		if l.debug() {
			l.log.Debug("disconnected", "uid", l.users.spell(c), "slot", slot)
		}
		l.tellLeft(slot, why, given)
		l.users.remove(l.slots.conns, slot)
		l.count.streams.Add(-1)
	case stateHead:
		delete(l.heads, slot)
	case stateBody:
		l.posts.remove(slot)
	}
	l.wheel.unset(l.slots.conns, slot)
}

// close ends a connection at once. What still waits for it is discarded.
func (l *loop) close(slot uint32, why reason, reset bool) {
	if l.slots.conns[slot].state == stateClosed {
		return
	}
	l.settle(slot, why)
	l.engine.close(slot, reset)
}

// settle ends all that a connection has, but for its socket and its slot.
func (l *loop) settle(slot uint32, why reason) {
	c := &l.slots.conns[slot]
	l.leave(slot, why, nil)
	lost := discardClosing
	if why == reasonSlow || why == reasonTotal {
		lost = discardSlow
	}
	if c.firstFrag != 0 {
		l.discardFrags(c.firstFrag, 0, lost)
		c.firstFrag, c.lastFrag = 0, 0
	}
	if c.pending != 0 {
		l.count.discarded[lost].add(uint64(l.pendings.all[c.pending-1].messages()))
		l.pendings.put(c.pending - 1)
		c.pending = 0
	}
	c.reason = why
	c.state = stateClosed
}

// onClosed frees the slot of a connection whose socket is gone.
func (l *loop) onClosed(slot uint32, err error) {
	c := &l.slots.conns[slot]
	why := c.reason // set where Halley ended it
	switch c.state {
	case stateHead, stateBody, stateStream:
		if why = reasonOf(err); l.server.stopped.Load() {
			why = reasonDrained // Close has ended it
		}
		l.settle(slot, why)
	case stateEnding, stateLinger:
		l.settle(slot, why)
	}
	l.count.closed[why].add(1)
	l.freeSlot(slot)
	l.server.open.Add(-1)
}

func (l *loop) freeSlot(slot uint32) {
	l.slots.put(slot)
	l.count.open.Store(int64(l.slots.used))
	l.count.retired.Store(int64(l.slots.retired))
}

// drainTicks is over how many ticks of the drain its streams are ended: the
// last fifth is left for their last bytes.
func (l *loop) drainTicks() int {
	return max(1, int(l.server.opts.Drain*4/5/tickEvery))
}

// drainAtLeast streams are ended in one tick whatever the pace.
const drainAtLeast = 256

func (l *loop) startDrain() {
	l.draining = true
	l.drainQuota = max(drainAtLeast, int(l.slots.fresh)/l.drainTicks()+1)
	l.drain(l.now())
}

// drain ends some streams, spread over the time allowed so that the clients do
// not all come back at once. The loop is drained when nothing is open.
func (l *loop) drain(now time.Duration) {
	for n := 0; n < l.drainQuota && l.drainCursor < l.slots.fresh; l.drainCursor++ {
		switch l.slots.conns[l.drainCursor].state {
		case stateStream:
			l.finish(l.drainCursor, reasonDrained, nil)
			n++
		case stateHead, stateBody: // its request may be on its way
			l.answer(l.drainCursor, l.server.shutting, false, reasonDrained)
			n++
		}
	}
	if now >= l.drainAt {
		for slot := range l.slots.fresh {
			if s := l.slots.conns[slot].state; s != stateFree {
				l.close(slot, reasonDrained, false)
			}
		}
	}
	if l.slots.used == 0 {
		l.drained.Do(func() { close(l.isDrained) }) // told once, ticks go on
	}
}
