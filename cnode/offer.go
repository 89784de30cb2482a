package cnode

// What may wait or be left out is offered to the writer: it declines where put would
// give the peer up. So answers, signals and ticks keep most of the queue.

// offer queues one whole packet, if not more than most bytes wait with it, or nothing
// waits. Any goroutine; it does not block.
func (w *writer) offer(packet []byte, most int) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.last || len(w.buf) > 0 && len(w.buf)+len(packet) > most {
		return false
	}
	w.buf = append(w.buf, packet...)
	w.queued += uint64(len(packet))
	w.counters.packetsOut.Add(1)
	w.signal()
	return true
}

// waiting is how many bytes wait for the socket to take what was queued before them.
func (w *writer) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.buf)
}
