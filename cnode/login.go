package cnode

import (
	"sync"
	"time"
)

const (
	maxFlights   = 1000             // calls under way at a time: a peer is not flooded
	callPatience = 30 * time.Second // for an answer
	callsScan    = time.Second      // how often calls without one are looked for
	callsBytes   = 4 << 20          // may wait for the peer when a call is made
	callsPerLock = 32               // so that loops do not wait long
	loginsRoom   = 8192             // logins that wait, beyond which none that were there are asked for

	// A peer is connected long before what runs on it has started. So the first login
	// goes alone, and each that found nobody to do it halves the number under way; after
	// awayMisses in a row one is made in awayPause, until somebody answers.
	awayMisses = 10
	awayPause  = time.Second
	awaySwitch = 3 * time.Second // after which another peer is tried
)

// callState is that of a connection whose login waits or is under way; others have none.
type callState uint8

const (
	loginWaits callState = 1 + iota
	loginFlies
	loginFliesEnded // the connection has ended: its logout follows
	loginFliesDone  // it has ended, and no logout is due
)

// result is what became of a call.
type result int

const (
	resultOK result = iota
	resultFailed
	resultTimeout
	results
	resultNobody // failed, for want of who does it
)

func (r result) counted() result {
	if r == resultNobody {
		return resultFailed
	}
	return r
}

// logins is a Subscriber: the calls of Options.Login and Options.Logout on one peer, from
// its coming to its going. Loops leave what they know, answers come on the peer's
// reader, and the teller calls.
//
// Bounds: the logins that wait are those of connections that are there; at the end of
// a connection its login leaves the queue. A logout goes before all logins, so those
// that wait are no more than connections were logged in when the last of them waited
// for nothing.
type logins struct {
	// set once
	t             *teller
	n             *Node
	c             *conn
	login, logout *rexCall // nil: not wanted

	// owned by the teller's goroutine
	unsubscribe func()
	packet      []byte // scratch
	scanned     time.Time

	mu      sync.Mutex // protects what follows
	over    bool       // the peer is gone or another has the logins: nothing counts any more
	state   map[uint64]callState
	most    int // entries of state since it was made
	waiting loginQueue
	leaving numberQueue     // logouts
	linked  map[uint64]bool // linked to by the peer and ended, as one of Node.Ended and Closed has told
	flights [maxFlights]flight
	free    []int     // of flights
	flying  int       // logins under way
	misses  int       // logins in a row that found nobody, at most awayMisses
	again   time.Time // not before, if they are so many
	missing time.Time // of the first of them; zero: none
	caught  int       // loops that have told of all that were there
}

// flight is the place of one call that is under way.
type flight struct {
	answer func(answer []byte, down bool) // made once
	ref    uint64                         // 0: answered, or none
	began  time.Time
	conn   uint64
	uid    []byte // encoded; empty for a logout
}

func newLogins(t *teller, c *conn) *logins {
	l := &logins{
		t:      t,
		n:      t.n,
		c:      c,
		login:  newRexCall(t.n, t.n.o.Login),
		logout: newRexCall(t.n, t.n.o.Logout),
		state:  make(map[uint64]callState),
		linked: make(map[uint64]bool),
		free:   make([]int, maxFlights),
		misses: awayMisses,
	}
	for i := range l.free {
		l.free[i] = maxFlights - 1 - i
	}
	return l
}

func (l *logins) begin() { l.unsubscribe = l.n.o.Subscribe(l) }

// stop is the teller's. What is under way or waits is forgotten: the next peer's logins
// begin with every connection that is there.
func (l *logins) stop() {
	l.unsubscribe()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range l.flights {
		if f := &l.flights[i]; f.ref != 0 {
			l.c.asked.forget(f.ref)
		}
	}
	l.state, l.linked, l.waiting, l.leaving = nil, nil, loginQueue{}, numberQueue{}
	l.t.counts.loginsWaiting.Store(0)
	l.t.counts.logoutsWaiting.Store(0)
	l.t.counts.inFlight.Store(0)
	l.over = true
}

// idle is true if nothing is under way and no logout waits.
func (l *logins) idle() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.over || l.leaving.len() == 0 && len(l.free) == maxFlights
}

// Opened is called by loops.
func (l *logins) Opened(conn uint64, id int64, name []byte, _ string, _ bool) {
	if l.login == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	l.state[conn] = loginWaits
	l.most = max(l.most, len(l.state))
	l.waiting.push(conn, id, name)
	l.t.wake()
}

// Closed is called by loops, before or after Node.Ended for the same connection.
func (l *logins) Closed(conn uint64, _ int64, _ []byte, _ string, _ []byte) {
	linked := l.logout != nil && l.c.held.linked(conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	if l.linked[conn] {
		linked = true
		delete(l.linked, conn)
	} else if linked {
		l.linked[conn] = true // until ending
	}
	logout := l.logout != nil && !linked
	switch state := l.state[conn]; {
	case state == loginWaits:
		l.forget(conn)
		l.waiting.remove(l.waits)
	case state == loginFlies && logout:
		l.state[conn] = loginFliesEnded
	case state == loginFlies:
		l.state[conn] = loginFliesDone
	case logout:
		l.leaving.push(conn)
		l.t.wake()
	}
}

// ending is called before the links to conn fire, on the goroutine that calls Closed:
// when that comes after it, the link may be gone from held. A link that came after the
// end is answered noproc, and does for a logout too.
func (l *logins) ending(conn uint64, why string) {
	if l.logout == nil {
		return
	}
	linked := l.c.held.linked(conn)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.over:
	case why == "noproc" && linked:
		delete(l.linked, conn)
		if l.state[conn] == loginFliesEnded {
			l.state[conn] = loginFliesDone
		}
	case why == "noproc" && l.linked[conn]: // the link that Closed saw was taken back
		delete(l.linked, conn)
		if l.state[conn] == loginFliesDone {
			l.state[conn] = loginFliesEnded
		} else {
			l.leaving.push(conn)
			l.t.wake()
		}
	case !linked:
	case l.linked[conn]:
		delete(l.linked, conn)
	default:
		l.linked[conn] = true // until Closed
	}
}

// Room is called by loops.
func (l *logins) Room() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, loginsRoom-l.waiting.n)
}

// Caught is called by loops. Connections that had not been told of yet may have ended;
// from now on each end is told of twice.
func (l *logins) Caught(_, loops int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.caught++; l.caught == loops {
		clear(l.linked)
	}
}

// waits needs mu.
func (l *logins) waits(conn uint64) bool { return l.state[conn] == loginWaits }

// forget needs mu. Memory of a great many logins at once is given back after them.
func (l *logins) forget(conn uint64) {
	delete(l.state, conn)
	if len(l.state) == 0 && l.most > loginsRoom {
		l.state, l.most = make(map[uint64]callState), 0
	}
}

// turn calls what may be called now, and gives up what takes too long.
func (l *logins) turn(now time.Time) {
	for l.some(now) {
	}
	if now.Sub(l.scanned) >= callsScan {
		l.scanned = now
		l.expire(now)
	}
}

// some makes a few calls and is true if there may be more to make.
func (l *logins) some(now time.Time) bool {
	if l.c.w.waiting() > callsBytes {
		return false // at the next tick
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	defer l.gauge()
	for range callsPerLock {
		if len(l.free) == 0 || l.over {
			return false
		}
		if conn, ok := l.leaving.pop(); ok {
			if !l.call(l.logout, nil, conn, now) {
				return false
			}
			continue
		}
		if l.waiting.n == 0 || !l.mayLogin(now) {
			return false
		}
		conn, uid, _ := l.waiting.pop(l.waits)
		l.state[conn] = loginFlies
		if !l.call(l.login, uid, conn, now) {
			return false
		}
	}
	return true
}

// away is true if there has been nobody to log in with for long.
func (l *logins) away(now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.misses == awayMisses && !l.missing.IsZero() && now.Sub(l.missing) > awaySwitch
}

// mayLogin needs mu; if true a login follows.
func (l *logins) mayLogin(now time.Time) bool {
	if l.misses < awayMisses {
		return l.flying < maxFlights>>l.misses
	}
	if now.Before(l.again) {
		return false
	}
	l.again = now.Add(awayPause)
	return true
}

// call needs mu and a free flight. False: the peer is gone, and the teller will know.
func (l *logins) call(what *rexCall, uid []byte, conn uint64, now time.Time) bool {
	slot := l.free[len(l.free)-1]
	f := &l.flights[slot]
	if f.answer == nil {
		f.answer = func(answer []byte, down bool) { l.answered(slot, answer, down) }
	}
	f.ref = l.c.asked.ask(f.answer)
	if f.ref == 0 {
		return false
	}
	l.free = l.free[:len(l.free)-1]
	f.conn, f.began, f.uid = conn, now, append(f.uid[:0], uid...)
	if uid != nil {
		l.flying++
	}
	l.packet = what.appendTo(l.packet[:0], f.ref, uid, conn)
	l.c.send(l.packet)
	return true
}

// answered is called on the peer's reader, once for each call that expire has not
// given up. down: the peer is gone.
func (l *logins) answered(slot int, answer []byte, down bool) {
	if down && l.c.ending.Load() { // with the peer go the logins
		return
	}
	r := resultTimeout // of a peer that ends what is no monitor
	if !down {
		r = callResult(answer)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over {
		return
	}
	if r != resultOK && !down {
		l.complain(&l.flights[slot], answer)
	}
	l.landed(slot, r)
	l.t.wake()
}

// expire gives up calls that have no answer.
func (l *logins) expire(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for slot := range l.flights {
		f := &l.flights[slot]
		// Not forgotten: the reader is about to land it.
		if f.ref != 0 && now.Sub(f.began) > callPatience && l.c.asked.forget(f.ref) {
			l.complain(f, nil)
			l.landed(slot, resultTimeout)
		}
	}
	l.gauge()
}

// landed needs mu.
func (l *logins) landed(slot int, r result) {
	f := &l.flights[slot]
	f.ref = 0
	if len(f.uid) == 0 {
		l.t.counts.logouts[r.counted()].Add(1)
		l.release(slot)
		return
	}
	l.t.counts.logins[r.counted()].Add(1)
	l.flying--
	switch r {
	case resultNobody:
		l.misses = min(l.misses+1, awayMisses)
		if l.missing.IsZero() {
			l.missing = time.Now()
		}
	case resultOK, resultFailed:
		l.misses, l.missing = 0, time.Time{}
	}
	l.loggedIn(slot, r)
}

// loggedIn needs mu. What found nobody is tried again, unless the connection is to be
// closed: then it keeps its place until the HTTP side has been told, so that those are
// bounded too.
func (l *logins) loggedIn(slot int, r result) {
	f := &l.flights[slot]
	closes := l.n.o.LoginFailure == loginClose && l.n.o.NewFeed != nil
	state := l.state[f.conn]
	switch {
	case state == loginFlies && r == resultNobody && !closes:
		l.state[f.conn] = loginWaits
		l.waiting.pushEncoded(f.conn, f.uid)
		l.release(slot)
		return
	case state == loginFliesEnded && r != resultNobody && !l.c.held.linked(f.conn):
		l.leaving.push(f.conn)
	case state == loginFlies && r != resultOK && closes:
		l.forget(f.conn)
		l.t.failed.add(failedLogin{l, slot, f.conn})
		return
	}
	l.forget(f.conn)
	l.release(slot)
}

// release needs mu.
func (l *logins) release(slot int) { l.free = append(l.free, slot) }

// complain logs a failure, once a second. No answer: it was given up.
func (l *logins) complain(f *flight, answer []byte) {
	message, kind := "login failed", "login"
	if len(f.uid) == 0 {
		message, kind = "logout failed", "logout"
	}
	if !l.n.limiter.allow(kind) {
		return
	}
	text := "no answer in " + callPatience.String()
	if answer != nil {
		text = string(textOf(answer))
	}
	l.n.say(message, kind, "node", l.n.o.Name, "peer", l.c.peer, "err", text)
}

// gauge needs mu. One that is over has nothing to say: its successor does.
func (l *logins) gauge() {
	if l.over {
		return
	}
	l.t.counts.loginsWaiting.Store(int64(l.waiting.n))
	l.t.counts.logoutsWaiting.Store(int64(l.leaving.len()))
	l.t.counts.inFlight.Store(int64(maxFlights - len(l.free)))
}
