package httpd

import "time"

// wheel has the connections of a loop that wait for a time: a bucket for each tick of
// tickEvery, in which they are linked through their slots. So a time costs no memory of
// its own, and is set and given up in a few steps, however many there are.
type wheel struct {
	buckets [wheelTicks]uint32 // a slot of each; none: empty
	tick    uint32             // the last one that was looked at
}

const (
	wheelTicks = 1024
	// wheelSpan is the longest time, some 100 seconds: longer ones are cut to it.
	wheelSpan = (wheelTicks - 2) * tickEvery
)

func newWheel() *wheel {
	w := &wheel{}
	for i := range w.buckets {
		w.buckets[i] = none
	}
	return w
}

// set gives a connection a time, in place of the one that it had: it is over when after
// has passed, and less than two ticks.
func (w *wheel) set(conns []conn, slot uint32, now, after time.Duration) {
	w.unset(conns, slot)
	due := max(w.tick, uint32((now+min(after, wheelSpan))/tickEvery)) + 1
	first := &w.buckets[due%wheelTicks]
	c := &conns[slot]
	c.due, c.later, c.earlier = due, *first, none
	if *first != none {
		conns[*first].earlier = slot
	}
	*first = slot
}

// unset forgets a connection's time, if it has one.
func (w *wheel) unset(conns []conn, slot uint32) {
	c := &conns[slot]
	if c.due == 0 {
		return
	}
	if c.later != none {
		conns[c.later].earlier = c.earlier
	}
	if c.earlier != none {
		conns[c.earlier].later = c.later
	} else {
		w.buckets[c.due%wheelTicks] = c.later
	}
	c.due = 0
}

// expired returns a connection whose time is over, and forgets that time.
func (w *wheel) expired(conns []conn, now time.Duration) (slot uint32, ok bool) {
	for last := uint32(now / tickEvery); ; w.tick++ {
		slot = w.buckets[w.tick%wheelTicks]
		for slot != none && conns[slot].due > last { // of another turn of the wheel
			slot = conns[slot].later
		}
		if slot != none {
			w.unset(conns, slot)
			return slot, true
		}
		if w.tick >= last {
			return none, false
		}
	}
}
