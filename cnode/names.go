package cnode

import (
	"sync/atomic"
	"time"
)

// nameRetry is how long a name that is not there is left alone.
const nameRetry = time.Second

// nobody is a name that no process has. Erlang answers a monitor of a name that is not
// there at once and one of a name that is there not at all; so each monitor is followed
// by one of nobody. Signals keep their order: when nobody's noproc has come and the
// name's has not, the name is there.
const nobody = "$halley_nobody"

// nameWatch follows one registered name on one peer. Its methods are the teller's; the
// peer's reader only sets what is atomic.
type nameWatch struct {
	// set once
	c       *conn
	name    string // "": none, never up
	changed func() // wakes the teller

	// owned by the teller's goroutine
	ref    uint64    // of our monitor; 0: none
	retry  time.Time // not before, if there is none
	echoed atomic.Bool
	fired  atomic.Bool
}

func newNameWatch(c *conn, name string, changed func()) *nameWatch {
	return &nameWatch{c: c, name: name, changed: changed}
}

// turn asks where it is time to ask, and is true if the name is there.
func (w *nameWatch) turn(now time.Time) bool {
	// echoed first: what fires before it is set before it.
	echoed := w.echoed.Load()
	fired := w.fired.Load()
	switch {
	case w.name == "":
		return false
	case w.ref == 0 && now.Before(w.retry):
		return false
	case w.ref == 0:
		w.ask()
		return false
	case echoed && fired:
		w.ref, w.retry = 0, now.Add(nameRetry)
		return false
	}
	return echoed && !fired
}

func (w *nameWatch) ask() {
	w.fired.Store(false)
	w.echoed.Store(false)
	w.ref = w.c.asked.ask(func([]byte, bool) {
		w.fired.Store(true)
		w.changed()
	})
	echo := w.c.asked.ask(func([]byte, bool) {
		w.echoed.Store(true)
		w.changed()
	})
	if w.ref == 0 || echo == 0 {
		return // the peer is gone
	}
	w.c.send(w.monitor(opMonitor, w.name, w.ref))
	w.c.send(w.monitor(opMonitor, nobody, echo))
}

// monitor is {19, From, Name, Ref} or {20, From, Name, Ref}.
func (w *nameWatch) monitor(op int64, name string, ref uint64) []byte {
	n := w.c.n
	b := appendInt(appendTuple(beginPacket(make([]byte, 0, 128)), 4), op)
	b = appendAtom(n.appendSenderPid(b), name)
	return seal(n.appendAskedRef(b, ref))
}

// end takes the monitor back.
func (w *nameWatch) end() {
	if w.ref != 0 && w.c.asked.forget(w.ref) {
		w.c.send(w.monitor(opDemonitor, w.name, w.ref))
	}
	w.ref = 0
}
