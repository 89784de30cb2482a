package cnode

import "sync/atomic"

// Told is a snapshot of what a Node has told Erlang of connections since Start.
type Told struct {
	Logins, Logouts                         Calls
	LoginsWaiting, LogoutsWaiting, InFlight int // now

	PresenceTold   int64 // connections: those that were there, that came, and that went
	PresenceEpochs int64 // times that a peer began to be told of all
	PresenceCuts   int64 // epochs that ended because a peer did not read

	InboxAccepted, InboxRefused int64 // messages of clients
}

// Calls are calls of functions on a peer, by result. Those under way when the peer went
// have none.
type Calls struct {
	OK      int64
	Failed  int64 // answered {badrpc, _} or {error, _}
	Timeout int64 // not answered
}

// toldCounters are what Told copies; any goroutine adds.
type toldCounters struct {
	logins, logouts                            [results]atomic.Int64
	loginsWaiting, logoutsWaiting, inFlight    atomic.Int64
	presenceTold, presenceEpochs, presenceCuts atomic.Int64
	inboxAccepted, inboxRefused                atomic.Int64
}

func (c *toldCounters) snapshot() Told {
	calls := func(by *[results]atomic.Int64) Calls {
		return Calls{by[resultOK].Load(), by[resultFailed].Load(), by[resultTimeout].Load()}
	}
	return Told{
		Logins:         calls(&c.logins),
		Logouts:        calls(&c.logouts),
		LoginsWaiting:  int(c.loginsWaiting.Load()),
		LogoutsWaiting: int(c.logoutsWaiting.Load()),
		InFlight:       int(c.inFlight.Load()),
		PresenceTold:   c.presenceTold.Load(),
		PresenceEpochs: c.presenceEpochs.Load(),
		PresenceCuts:   c.presenceCuts.Load(),
		InboxAccepted:  c.inboxAccepted.Load(),
		InboxRefused:   c.inboxRefused.Load(),
	}
}
