package cnode

import (
	"context"
	"sync/atomic"
	"time"
)

// tellerTick is how long the teller sleeps at most: the times it keeps are a second and
// more, so that it needs no timers.
const tellerTick = 100 * time.Millisecond

// loginGrace is how long logins wait for Options.LoginNode before another peer gets
// them: peers that connect at the same time come in any order.
const loginGrace = 5 * time.Second

// teller is what Erlang is told of connections: logins, presence, and what clients send.
// Its goroutine decides which peers are told and sends what has to wait its turn; it
// never blocks. Loops and readers leave what they know, under the mutex of a
// subscription or in an atomic, and wake it. It looks at everything each time: there
// are few peers, and nothing is forgotten that way.
type teller struct {
	// set once
	n      *Node
	woken  chan struct{} // 1: there is something to look at
	done   chan struct{} // closed when run has returned
	failed failedLogins  // to be closed

	// owned by the teller's goroutine
	list   *[]*conn  // of peers that told was made from
	told   []*told   // the oldest first
	logins *logins   // nil: no peer can take them
	missed time.Time // since when Options.LoginNode is away; zero: it is there
	epoch  int64     // the newest

	// any goroutine
	counts  toldCounters
	inbox   atomic.Pointer[conn]   // the peer that takes what clients send; nil: none
	current atomic.Pointer[logins] // as logins, for settle
}

// told is one peer.
type told struct {
	c        *conn
	presence *presence  // nil: not wanted
	inbox    *nameWatch // nil: not wanted
	rex      *nameWatch // nil: no logins
	calls    bool       // rex is there: this peer can have the logins
	nobody   time.Time  // since when it is known that nobody answers them; zero: not known
}

func newTeller(n *Node) *teller {
	return &teller{n: n, woken: make(chan struct{}, 1), done: make(chan struct{}), failed: newFailedLogins()}
}

// start begins what the options ask for.
func (t *teller) start(ctx context.Context) {
	o := &t.n.o
	if !t.logs() && o.Inbox == "" && (o.Subscribe == nil || o.Presence == "") {
		close(t.done)
		return
	}
	t.n.wg.Go(func() { t.run(ctx) })
	if t.logs() && o.LoginFailure == loginClose && o.NewFeed != nil {
		t.n.wg.Go(func() { t.closeFailed(ctx) })
	}
}

// wake may be called from any goroutine; a wake that is pending already is enough.
func (t *teller) wake() {
	select {
	case t.woken <- struct{}{}:
	default:
	}
}

// run is the teller's goroutine.
func (t *teller) run(ctx context.Context) {
	defer close(t.done)
	ticks := time.NewTicker(tellerTick)
	defer ticks.Stop()
	for {
		select {
		case <-t.woken:
		case <-ticks.C:
		case <-ctx.Done():
			t.end()
			return
		}
		t.turn(time.Now())
	}
}

func (t *teller) turn(now time.Time) {
	t.meet()
	var inbox *conn
	for _, p := range t.told {
		if p.presence != nil {
			p.presence.turn(now)
		}
		p.calls = p.rex != nil && p.rex.turn(now)
		if p.inbox != nil && p.inbox.turn(now) && (inbox == nil || p.c.peer == t.n.o.LoginNode) {
			inbox = p.c
		}
	}
	t.inbox.Store(inbox)
	t.chooseLogin(now)
	if t.logins != nil {
		t.logins.turn(now)
	}
}

// meet takes note of peers that have come and gone. A peer that came back is another conn.
func (t *teller) meet() {
	list := t.n.peers.list.Load()
	if list == t.list || list == nil {
		return
	}
	t.list = list
	before := t.told
	t.told = make([]*told, 0, len(*list))
	for _, c := range *list {
		t.told = append(t.told, t.known(&before, c))
	}
	for _, gone := range before {
		gone.end()
	}
}

// known takes c's told out of before, or makes one.
func (t *teller) known(before *[]*told, c *conn) *told {
	for i, p := range *before {
		if p.c == c {
			*before = append((*before)[:i:i], (*before)[i+1:]...)
			return p
		}
	}
	p := &told{c: c}
	if t.n.o.Presence != "" && t.n.o.Subscribe != nil {
		p.presence = newPresence(t, c)
	}
	if t.n.o.Inbox != "" {
		p.inbox = newNameWatch(c, t.n.o.Inbox, t.wake)
	}
	if t.logs() && c.info.flags&flagAlias != 0 { // a node of another kind runs no functions
		p.rex = newNameWatch(c, "rex", t.wake)
	}
	return p
}

// logs is true if connections are logged in or out.
func (t *teller) logs() bool {
	return t.n.o.Subscribe != nil && (t.n.o.Login != "" || t.n.o.Logout != "")
}

func (p *told) end() {
	if p.presence != nil {
		p.presence.end()
	}
	if p.inbox != nil {
		p.inbox.end()
	}
	if p.rex != nil {
		p.rex.end()
	}
}

func (t *teller) end() {
	t.inbox.Store(nil)
	if t.logins != nil {
		t.logins.stop()
	}
	for _, p := range t.told {
		p.end()
	}
}

// chooseLogin gives the logins to the peer that is to have them now. All that are
// connected are logged in again where that is another, or the same one come back.
func (t *teller) chooseLogin(now time.Time) {
	c := t.loginPeer(now)
	if t.logins != nil && t.logins.c != c {
		t.logins.stop()
		t.logins = nil
		t.current.Store(nil)
	}
	if t.logins == nil && c != nil {
		t.logins = newLogins(t, c)
		t.current.Store(t.logins) // first: what begin brings about may ask for it
		t.logins.begin()
		t.n.log.Info("logins go to this peer", "node", t.n.o.Name, "peer", c.peer)
	}
}

// loginPeer is Options.LoginNode, or the first connected of those that can be called:
// where nobody answers, not before the others have been tried.
func (t *teller) loginPeer(now time.Time) *conn {
	wanted := t.n.o.LoginNode
	var best *told
	for _, p := range t.told {
		if !p.calls {
			continue
		}
		if p.c.peer == wanted {
			t.missed = time.Time{}
			return p.c
		}
		if t.logins != nil && t.logins.c == p.c && t.logins.away(now) {
			p.nobody = now
		}
		if best == nil || p.nobody.Before(best.nobody) {
			best = p
		}
	}
	if wanted != "" && t.missed.IsZero() {
		t.missed = now
	}
	if best == nil || wanted != "" && now.Sub(t.missed) < loginGrace {
		return nil
	}
	return best.c
}

// nextEpoch is greater than all before it, also than those of an earlier start.
func (t *teller) nextEpoch(now time.Time) int64 {
	t.epoch = max(t.epoch+1, now.UnixMicro())
	return t.epoch
}

const settlePause = 5 * time.Millisecond

// settle waits for the calls for connections that have ended, but not for long.
func (t *teller) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, finishWait)
	defer cancel()
	for l := t.current.Load(); l != nil && !l.idle(); l = t.current.Load() {
		if !sleep(ctx, settlePause) {
			return
		}
	}
}

// ending is called when a connection that is linked to or monitored has ended, before
// the peers are told.
func (t *teller) ending(conn uint64, why string) {
	if l := t.current.Load(); l != nil {
		l.ending(conn, why)
	}
}
