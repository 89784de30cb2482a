package httpd

import "slices"

// Subscriber is told of connections by each loop: first of those that are there, in pages,
// as far as it has room, then of each that comes and goes. It is called on the loops'
// goroutines, several at once, and must not block. What one loop tells comes in its order; a
// uid's connections are all of one loop. name is nil for the integer uid id; slices
// are valid during the call.
type Subscriber interface {
	// Opened tells of a stream. present: it was there before.
	Opened(conn uint64, id int64, name []byte, transport string, present bool)
	// Closed tells, once, of the end of one that Opened told of; why and reason are
	// those of Observer.Ended.
	Closed(conn uint64, id int64, name []byte, why string, reason []byte)
	// Room is how many that were there it can take now. A loop asks at each tick until
	// it has told of all.
	Room() int
	// Caught says that this loop, of so many, has told of all that were there.
	Caught(loop, loops int)
}

const (
	// maxPage is how many connections a loop tells of in a tick.
	maxPage = 8192
	// maxWalk is how many slots it looks at for that, most of which may be empty.
	maxWalk = 16 * maxPage
)

// subscription is a Subscriber with an identity: the same one may subscribe again.
type subscription struct{ to Subscriber }

// telling is what a loop knows of a subscription. The slots below the cursor are those that
// it has walked through: of a connection there the subscriber knows, or it opens later and
// is told at once. One at or beyond it will be found by the walk; what becomes of it
// before that is not told. So nothing is kept for a connection.
type telling struct {
	*subscription
	cursor uint32
	caught bool // the walk is over
}

// knows says whether the subscriber has been told of a stream in this slot.
func (t *telling) knows(slot uint32) bool { return t.caught || slot < t.cursor }

// Subscribe has sub told of connections, by each loop from its next tick on. After end has
// returned calls may still be under way, for a tick at the most.
func (s *Server) Subscribe(sub Subscriber) (end func()) {
	mine := &subscription{sub}
	s.changeSubscriptions(func(old []*subscription) []*subscription {
		return append(slices.Clone(old), mine)
	})
	return func() {
		s.changeSubscriptions(func(old []*subscription) []*subscription {
			return slices.DeleteFunc(slices.Clone(old), func(one *subscription) bool { return one == mine })
		})
	}
}

// changeSubscriptions replaces the list: a loop that reads it sees the old one or the new one.
func (s *Server) changeSubscriptions(change func(old []*subscription) []*subscription) {
	for {
		old := s.subscriptions.Load()
		var list []*subscription
		if old != nil {
			list = *old
		}
		list = change(list)
		if s.subscriptions.CompareAndSwap(old, &list) {
			return
		}
	}
}

// tellPresent looks at the subscriptions and goes on with those that have not been told of
// all that are there. It is called at ticks.
func (l *loop) tellPresent() {
	if list := l.server.subscriptions.Load(); list != l.subscribed {
		l.subscribed = list
		l.retell(*list)
	}
	for i := range l.tellings {
		if t := &l.tellings[i]; !t.caught {
			l.tellPage(t)
		}
	}
}

// retell takes up what has begun, and lets go of what has ended.
func (l *loop) retell(list []*subscription) {
	tellings := make([]telling, 0, len(list))
	for _, s := range list {
		i := slices.IndexFunc(l.tellings, func(t telling) bool { return t.subscription == s })
		if i >= 0 {
			tellings = append(tellings, l.tellings[i])
		} else {
			tellings = append(tellings, telling{subscription: s})
		}
	}
	l.tellings = tellings
}

// tellPage tells a subscriber of some that are there.
func (l *loop) tellPage(t *telling) {
	room := min(t.to.Room(), maxPage)
	for end := min(l.slots.fresh, t.cursor+maxWalk); t.cursor < end; t.cursor++ {
		if l.slots.conns[t.cursor].state != stateStream {
			continue
		}
		if room <= 0 {
			return
		}
		room--
		l.tellOpened(t, t.cursor, true)
	}
	if t.cursor == l.slots.fresh {
		t.caught = true
		t.to.Caught(l.index, len(l.server.loops))
	}
}

func (l *loop) tellOpened(t *telling, slot uint32, present bool) {
	c := &l.slots.conns[slot]
	id, name := l.uidOf(c)
	t.to.Opened(l.number(slot), id, name, c.transport.String(), present)
}

// tellNew tells the subscribers of a stream that begins.
func (l *loop) tellNew(slot uint32) {
	for i := range l.tellings {
		if t := &l.tellings[i]; t.knows(slot) {
			l.tellOpened(t, slot, false)
		}
	}
}

func (l *loop) tellClosed(slot uint32, why reason, given []byte) {
	id, name := l.uidOf(&l.slots.conns[slot])
	for i := range l.tellings {
		if t := &l.tellings[i]; t.knows(slot) {
			t.to.Closed(l.number(slot), id, name, why.String(), given)
		}
	}
}

// uidOf is the uid of a connection that is among the users; name is valid until the next call.
func (l *loop) uidOf(c *conn) (id int64, name []byte) {
	if !c.named {
		return int64(c.uid), nil
	}
	l.name = append(l.name[:0], l.users.spell(c)...)
	return 0, l.name
}
