package httpd

// This file is the way of a message from a turn to a socket: the frames of a
// turn are collected by connection, each connection's go out in one write, and
// what its socket does not take is copied to its pending bytes.

const (
	// copyBelow is the body size up to which a frame is copied together with
	// its head and tail: cheaper than two more pieces for the kernel to walk
	// (BenchmarkWrite in bench_test.go).
	copyBelow = 1024
	// maxBufs is how many pieces one write has at the most (IOV_MAX is 1024).
	maxBufs = 256
	// maxPendingWrite is what one connection may send in one go of what waits for it: the
	// others have their turn in between.
	maxPendingWrite = 1 << 20
	// outputBytes is the room for what is copied into one write.
	outputBytes = 64 << 10
)

// frag is one message for one connection in this turn.
type frag struct {
	body []byte
	next uint32 // 1 + index of the connection's next; 0: none
}

// output is what a turn has collected, and the buffers to write it from.
type output struct {
	frags []frag
	dirty []uint32 // slots that have frags
	// The write being put together.
	bufs  [][]byte
	text  []byte // heads, tails and small bodies
	begun int    // where the piece of text not yet in bufs begins
	sizes []int  // of the frames in this write
}

func newOutput() output {
	return output{
		frags: make([]frag, 0, maxFrags),
		bufs:  make([][]byte, 0, maxBufs),
		text:  make([]byte, 0, outputBytes),
		sizes: make([]int, 0, maxFrags),
	}
}

// queue gives a connection one message: to the turn's frags, or behind the
// bytes that its socket has not taken yet.
func (l *loop) queue(slot uint32, body []byte) {
	c := &l.slots.conns[slot]
	if c.state != stateStream { // another message of this turn has ended it
		l.count.discarded[discardClosing].add(1)
		return
	}
	if len(body) == 0 { // an empty chunk would end the stream
		l.count.written.add(1)
		return
	}
	if c.pending != 0 {
		l.appendPending(slot, body, nil)
		return
	}
	if len(l.out.frags) == maxFrags {
		l.flushTurn()
		if c.state != stateStream || c.pending != 0 {
			l.queue(slot, body) // the flush has changed the connection
			return
		}
	}
	l.out.frags = append(l.out.frags, frag{body: body})
	i := uint32(len(l.out.frags))
	if c.firstFrag == 0 {
		c.firstFrag = i
		l.out.dirty = append(l.out.dirty, slot)
	} else {
		l.out.frags[c.lastFrag-1].next = i
	}
	c.lastFrag = i
}

// flushTurn writes what the turn has collected.
func (l *loop) flushTurn() {
	for _, slot := range l.out.dirty {
		if l.slots.conns[slot].firstFrag != 0 {
			l.flushConn(slot)
		}
	}
	clear(l.out.frags)
	l.out.frags, l.out.dirty = l.out.frags[:0], l.out.dirty[:0]
}

// flushConn writes a connection's frags, several to a write.
func (l *loop) flushConn(slot uint32) {
	c := &l.slots.conns[slot]
	next := c.firstFrag
	c.firstFrag, c.lastFrag = 0, 0
	for next != 0 {
		first := next
		l.beginWrite()
		for next != 0 && l.room(&l.out.frags[next-1]) {
			f := &l.out.frags[next-1]
			l.addFrame(c.transport, f.body)
			next = f.next
		}
		if !l.endWrite(slot, first, next) {
			return
		}
	}
}

func (l *loop) beginWrite() {
	l.out.bufs, l.out.text, l.out.sizes, l.out.begun = l.out.bufs[:0], l.out.text[:0], l.out.sizes[:0], 0
}

// room says whether one more frame fits the write. The first always does.
func (l *loop) room(f *frag) bool {
	return len(l.out.bufs)+3 <= maxBufs && len(l.out.text)+copyBelow+maxChunkHead+len(crlf) <= outputBytes
}

func (l *loop) addFrame(t transport, body []byte) {
	o := &l.out
	o.sizes = append(o.sizes, frameSize(t, len(body)))
	o.text = appendFrameHead(o.text, t, len(body))
	if len(body) <= copyBelow {
		o.text = append(o.text, body...)
	} else {
		if len(o.text) > o.begun {
			o.bufs = append(o.bufs, o.text[o.begun:])
			o.begun = len(o.text)
		}
		o.bufs = append(o.bufs, body)
	}
	o.text = append(o.text, frameTail(t)...)
}

// endWrite writes the frames put together. It returns false when the rest of
// the connection's frags, from next on, is settled too: pending or discarded.
func (l *loop) endWrite(slot, first, next uint32) bool {
	o := &l.out
	if len(o.text) > o.begun {
		o.bufs = append(o.bufs, o.text[o.begun:])
	}
	total := 0
	for _, size := range o.sizes {
		total += size
	}
	n, err := l.engine.write(slot, o.bufs)
	l.wrote(n)
	if err != nil {
		messages := l.countFrames(n)
		l.count.written.add(uint64(messages))
		l.discardFrags(first, messages, discardClosing)
		l.close(slot, reasonOf(err), false)
		return false
	}
	if n == total {
		l.count.written.add(uint64(len(o.sizes)))
		return true
	}
	l.keepRest(slot, first, n)
	return false
}

// countFrames is how many frames of the write are whole within n bytes.
func (l *loop) countFrames(n int) int {
	for i, size := range l.out.sizes {
		if n < size {
			return i
		}
		n -= size
	}
	return len(l.out.sizes)
}

// keepRest puts what the socket did not take of the frags from first on behind
// n written bytes into the connection's pending bytes.
func (l *loop) keepRest(slot, first uint32, n int) {
	i := first
	for _, size := range l.out.sizes {
		if n < size {
			break
		}
		n -= size
		l.count.written.add(1)
		i = l.out.frags[i-1].next
	}
	c := &l.slots.conns[slot]
	c.pending = 1 + l.pendings.take(slot)
	l.engine.notifyWritable(slot)
	if n > 0 { // a frame was cut: its rest is part of the stream whatever the policy
		l.appendPendingFrom(slot, l.out.frags[i-1].body, n)
		i = l.out.frags[i-1].next
	}
	for i != 0 {
		if c.state != stateStream {
			l.discardFrags(i, 0, discardSlow)
			return
		}
		l.appendPending(slot, l.out.frags[i-1].body, nil)
		i = l.out.frags[i-1].next
	}
}

// discardFrags counts a chain of frags as discarded, but for the first skip.
func (l *loop) discardFrags(i uint32, skip int, why discard) {
	for ; i != 0; i = l.out.frags[i-1].next {
		if skip > 0 {
			skip--
			continue
		}
		l.count.discarded[why].add(1)
	}
}

// appendPending puts a message, or control bytes that are none, behind what
// waits for a connection. The policy for slow clients is met when more than
// the limit would wait behind the message that is being written: a client is
// not slow because one message is large.
func (l *loop) appendPending(slot uint32, body, control []byte) {
	c := &l.slots.conns[slot]
	p := l.pendings.all[c.pending-1]
	if control != nil {
		l.pendings.begin(p, len(control), noMessage)
		p.buf = append(p.buf, control...)
		l.pendings.bytes += int64(len(control))
		return
	}
	size := frameSize(c.transport, len(body))
	if p.bytes() > 0 && p.behind()+size > l.server.opts.MaxPendingBytes {
		l.count.discarded[discardSlow].add(1)
		if l.server.opts.Slow == SlowClose {
			l.close(slot, reasonSlow, true)
		}
		return
	}
	l.appendPendingFrom(slot, body, 0)
}

// appendPendingFrom appends a message's frame without its first skip bytes.
func (l *loop) appendPendingFrom(slot uint32, body []byte, skip int) {
	c := &l.slots.conns[slot]
	p := l.pendings.all[c.pending-1]
	size := frameSize(c.transport, len(body)) - skip
	l.pendings.begin(p, size, 0)
	var room [maxChunkHead]byte
	for _, piece := range [...][]byte{appendFrameHead(room[:0], c.transport, len(body)), body, frameTail(c.transport)} {
		if skip >= len(piece) {
			skip -= len(piece)
			continue
		}
		p.buf = append(p.buf, piece[skip:]...)
		skip = 0
	}
	l.pendings.bytes += int64(size)
	for l.pendings.bytes > l.server.maxPendingTotal {
		if !l.closeLargest() {
			return
		}
	}
}

// closeLargest keeps --max-pending-total by closing the connections that have
// most of it waiting: several at a time, for each look goes through all.
func (l *loop) closeLargest() bool {
	most := l.pendings.largest()
	if most == 0 {
		return false
	}
	if now := l.now(); now > l.overTotalLog {
		l.overTotalLog = now + overTotalLogEvery
		l.log.Warn("pending bytes reached --max-pending-total, the connections with the most are closed",
			"bytes", l.pendings.bytes, "limit", l.server.maxPendingTotal)
	}
	enough := l.server.maxPendingTotal / 20 * 19
	for _, p := range l.pendings.all {
		if p != nil && p.slot != none && p.bytes() > most/2 {
			l.close(p.slot, reasonTotal, true)
			if l.pendings.bytes <= enough {
				break
			}
		}
	}
	return true
}

// onWritable sends pending bytes on.
func (l *loop) onWritable(slot uint32) {
	c := &l.slots.conns[slot]
	if c.pending == 0 || c.state == stateClosed {
		return
	}
	p := l.pendings.all[c.pending-1]
	l.out.bufs = append(l.out.bufs[:0], p.buf[p.sent:min(len(p.buf), p.sent+maxPendingWrite)])
	n, err := l.engine.write(slot, l.out.bufs)
	l.wrote(n)
	l.pendings.bytes -= int64(n)
	l.count.written.add(uint64(p.took(n)))
	switch {
	case err != nil:
		l.close(slot, reasonOf(err), false)
	case p.bytes() > 0:
		l.engine.notifyWritable(slot)
	default:
		l.pendings.put(c.pending - 1)
		c.pending = 0
		if c.state == stateEnding {
			l.linger(slot)
		}
	}
}

func (l *loop) wrote(n int) {
	l.count.bytesWritten.add(uint64(n))
	l.count.writes.add(1)
}

// send writes bytes that are no message: a response head, the last chunk.
func (l *loop) send(slot uint32, b []byte) bool {
	c := &l.slots.conns[slot]
	if c.pending != 0 {
		l.appendPending(slot, nil, b)
		return true
	}
	l.out.bufs = append(l.out.bufs[:0], b)
	n, err := l.engine.write(slot, l.out.bufs)
	l.wrote(n)
	if err != nil {
		l.close(slot, reasonOf(err), false)
		return false
	}
	if n < len(b) {
		c.pending = 1 + l.pendings.take(slot)
		l.engine.notifyWritable(slot)
		l.appendPending(slot, nil, b[n:])
	}
	return true
}
