package httpd

// pending holds the bytes that a connection's socket has not taken, with the
// size of each frame among them: so a message counts as written when its last
// byte is, and those that are lost with the connection can be counted.
type pending struct {
	buf   []byte // buf[sent:] waits
	sent  int
	sizes []uint32 // frames from first on; the first one's size is what is left of it
	first int
	slot  uint32
}

const (
	// noMessage marks a frame that is no message: a response head, the last chunk.
	noMessage = 1 << 31
	// keepFrames is what a pending keeps of its sizes when it goes back to the loop.
	keepFrames = 1024
	// keepPendings is how many unused ones a loop keeps.
	keepPendings = 256
)

func (p *pending) bytes() int { return len(p.buf) - p.sent }

// behind is how many bytes wait behind the frame that is being written.
func (p *pending) behind() int {
	if p.first == len(p.sizes) {
		return 0
	}
	return p.bytes() - int(p.sizes[p.first]&^noMessage)
}

// messages is how many messages wait, a partly written one included.
func (p *pending) messages() int {
	n := 0
	for _, size := range p.sizes[p.first:] {
		if size&noMessage == 0 {
			n++
		}
	}
	return n
}

// begin makes room for size more bytes of one frame; the caller appends them to buf.
func (ps *pendings) begin(p *pending, size int, mark uint32) {
	switch waits := p.buf[p.sent:]; {
	case len(p.buf)+size <= cap(p.buf):
	case p.sent > cap(p.buf)/2 && len(waits)+size <= cap(p.buf):
		p.buf, p.sent = p.buf[:copy(p.buf, waits)], 0
	default: // a larger one also if moving up would do: that could be for each frame
		larger := append(ps.buffers.take(max(len(waits)+size, cap(p.buf)+1)), waits...)
		ps.buffers.put(p.buf)
		p.buf, p.sent = larger, 0
	}
	if p.first > 256 && p.first > len(p.sizes)/2 {
		n := copy(p.sizes, p.sizes[p.first:])
		p.sizes, p.first = p.sizes[:n], 0
	}
	p.sizes = append(p.sizes, uint32(size)|mark)
}

// took tells that the socket took n bytes. It returns how many messages are
// written by that.
func (p *pending) took(n int) (messages int) {
	p.sent += n
	for n > 0 {
		size := p.sizes[p.first] &^ noMessage
		if uint32(n) < size {
			p.sizes[p.first] -= uint32(n)
			return messages
		}
		n -= int(size)
		if p.sizes[p.first]&noMessage == 0 {
			messages++
		}
		p.first++
	}
	return messages
}

// pendings are a loop's: all of them, those in use by index, and the sum of
// their bytes.
type pendings struct {
	all     []*pending
	free    []uint32
	bytes   int64
	buffers buffers
}

// take returns the index of an empty pending for slot.
func (ps *pendings) take(slot uint32) uint32 {
	var i uint32
	if n := len(ps.free); n > 0 {
		i, ps.free = ps.free[n-1], ps.free[:n-1]
	} else {
		i = uint32(len(ps.all))
		ps.all = append(ps.all, nil)
	}
	if ps.all[i] == nil {
		ps.all[i] = &pending{}
	}
	ps.all[i].slot = slot
	return i
}

// put gives an index back and keeps some of its memory for the next.
func (ps *pendings) put(i uint32) {
	p := ps.all[i]
	ps.bytes -= int64(p.bytes())
	ps.buffers.put(p.buf)
	if cap(p.sizes) > keepFrames || len(ps.free) >= keepPendings {
		ps.all[i] = nil
	} else {
		*p = pending{sizes: p.sizes[:0], slot: none}
	}
	if ps.free = append(ps.free, i); len(ps.free) == len(ps.all) && len(ps.all) > keepPendings {
		ps.all, ps.free = nil, nil // a wave of slow clients does not stay in memory
	}
}

// largest is the most bytes that wait for one connection.
func (ps *pendings) largest() int {
	most := 0
	for _, p := range ps.all {
		if p != nil && p.slot != none {
			most = max(most, p.bytes())
		}
	}
	return most
}
