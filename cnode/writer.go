package cnode

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// maxQueuedBytes bounds the packets to one peer that wait while the writer gives as
// many to the socket. A single larger packet is taken if nothing else waits.
const maxQueuedBytes = 8 << 20

var (
	errQueueFull = errors.New("the peer does not read: too much waits for it")
	errGone      = errors.New("the connection has ended")
)

// writer owns the sending side of a socket. Packets are queued whole, coalesced, and
// written by one goroutine, which writes the ticks too: neither the reader nor the
// application can keep it from that.
type writer struct {
	sock     net.Conn
	counters *counters
	tick     time.Duration // a tick is due if nothing was written for so long
	patience time.Duration // for one write
	wake     chan struct{} // 1: there is something to do
	done     chan struct{} // closed when run has returned
	// more appends what need not wait in buf, and says how many packets, and whether some
	// are left for the next write. Nil: there is never any.
	more func(dst []byte) (_ []byte, packets int, left bool)

	mu      sync.Mutex // protects what follows
	buf     []byte     // packets not yet given to the socket
	queued  uint64     // bytes ever queued
	written uint64     // bytes ever written
	last    bool       // finish was called: write what there is, then end
	dead    bool       // nothing more is taken
	waiters []waiter
}

// waiter is told when written has reached mark, or not told but closed out by done.
type waiter struct {
	mark uint64
	ch   chan struct{}
}

func newWriter(sock net.Conn, counters *counters, tickTime time.Duration) *writer {
	return &writer{
		sock:     sock,
		counters: counters,
		tick:     tickTime / 4,
		patience: tickTime,
		wake:     make(chan struct{}, 1),
		done:     make(chan struct{}),
	}
}

// put queues one whole packet; it does not block. The peer of a full queue is too
// slow to be served: the caller ends the connection.
func (w *writer) put(packet []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dead || w.last:
		return errGone
	case len(w.buf) > 0 && len(w.buf)+len(packet) > maxQueuedBytes:
		return fmt.Errorf("%w (%d bytes)", errQueueFull, len(w.buf))
	}
	w.buf = append(w.buf, packet...)
	w.queued += uint64(len(packet))
	w.counters.packetsOut.Add(1)
	w.signal()
	return nil
}

// signal needs mu or none: a wake that is pending already is enough.
func (w *writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// flushed is closed when all that is queued now has been written.
func (w *writer) flushed() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	ch := make(chan struct{})
	if w.written >= w.queued {
		close(ch)
	} else {
		w.waiters = append(w.waiters, waiter{w.queued, ch})
	}
	return ch
}

// finish makes run write what is queued and then end.
func (w *writer) finish() {
	w.mu.Lock()
	w.last = true
	w.signal()
	w.mu.Unlock()
}

// run is the writer's goroutine. It ends with finish, or when the socket fails.
func (w *writer) run() (err error) {
	ticks := time.NewTicker(w.tick)
	defer ticks.Stop()
	defer func() {
		w.mu.Lock()
		w.dead, w.buf = true, nil
		w.mu.Unlock()
		close(w.done)
	}()
	var spare []byte
	wrote := false
	for {
		due := false
		select {
		case <-w.wake:
		case <-ticks.C:
			due = !wrote
			wrote = false
		}
		w.mu.Lock()
		out, last := w.buf, w.last
		w.buf = spare[:0]
		w.mu.Unlock()
		put := uint64(len(out))
		left := false
		if w.more != nil {
			var packets int
			out, packets, left = w.more(out)
			w.counters.packetsOut.Add(int64(packets))
		}
		if left {
			w.signal()
		}
		if len(out) == 0 && due {
			out = append(out, 0, 0, 0, 0) // OTP erl_dist_protocol: a tick is a length of zero
		}
		if len(out) > 0 {
			w.sock.SetWriteDeadline(time.Now().Add(w.patience))
			n, err := w.sock.Write(out)
			w.counters.bytesOut.Add(int64(n))
			if err != nil {
				return err
			}
			wrote = true
			w.tell(put)
		}
		if spare = out; cap(spare) > maxQueuedBytes/8 {
			spare = nil // one burst does not stay in memory
		}
		if last && !left {
			return nil
		}
	}
}

// tell counts n queued bytes as written and wakes who waits for them.
func (w *writer) tell(n uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.written += n
	rest := w.waiters[:0]
	for _, s := range w.waiters {
		if w.written >= s.mark {
			close(s.ch)
		} else {
			rest = append(rest, s)
		}
	}
	clear(w.waiters[len(rest):])
	w.waiters = rest
}
