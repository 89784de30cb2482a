package httpd

import (
	"net/http"
	"sync/atomic"
)

// counter is written by one goroutine and read by any: a plain add, no locked
// instruction.
type counter struct{ v atomic.Uint64 }

func (c *counter) add(n uint64) { c.v.Store(c.v.Load() + n) }

// Load may be called from any goroutine.
func (c *counter) Load() uint64 { return c.v.Load() }

// answerCodes are the statuses that Halley answers with.
var answerCodes = [...]int{
	http.StatusOK, http.StatusAccepted, http.StatusBadRequest, http.StatusNotFound, http.StatusMethodNotAllowed,
	http.StatusRequestTimeout, http.StatusLengthRequired, http.StatusRequestEntityTooLarge, http.StatusRequestURITooLong,
	http.StatusRequestHeaderFieldsTooLarge, http.StatusServiceUnavailable, http.StatusHTTPVersionNotSupported,
}

// counters are a loop's.
type counters struct {
	written      counter // messages
	copied       counter // deliveries beyond the first of a message
	discarded    [numDiscards]counter
	opened       counter // connections
	acceptErrors counter
	closed       [numReasons]counter
	answers      [len(answerCodes)]counter
	inbox        [numInboxResults]counter
	bytesWritten counter
	writes       counter
	streams      atomic.Int64
	open         atomic.Int64
	retired      atomic.Int64 // slots
	users        atomic.Int64
	pendingBytes atomic.Int64
}

func (c *counters) answered(code int) {
	for i, known := range answerCodes {
		if known == code {
			c.answers[i].add(1)
			return
		}
	}
}

// Stats is the state of a Server at one moment, all loops together. The
// names of the fields are those of the metrics.
type Stats struct {
	Connections  int64 // streams
	Open         int64 // sockets, those without a stream included
	Users        int64 // uids with a stream; up to date within a tenth of a second
	PendingBytes int64
	Received     uint64
	Copied       uint64
	Written      uint64
	Discarded    map[string]uint64 // by reason
	Opened       uint64
	Closed       map[string]uint64 // by reason
	Requests     map[int]uint64    // by status
	// Inbox counts what clients sent with POST, by result.
	Inbox        map[string]uint64
	AcceptErrors uint64
	BytesWritten uint64
	Writes       uint64
	// CommandsDiscarded were to end or watch connections, and found no room at all.
	CommandsDiscarded uint64
	// SlotsRetired have had as many connections as have numbers.
	SlotsRetired int64
	// MailboxBytes and MailboxEntries wait for the loops.
	MailboxBytes   int64
	MailboxEntries int64
	// MailboxWaitSeconds is how long feeds have waited for room.
	MailboxWaitSeconds float64
	// MaxConnections is what slots and descriptors allow.
	MaxConnections int
}

// DiscardedTotal is the sum over all reasons.
func (s *Stats) DiscardedTotal() uint64 {
	n := uint64(0)
	for _, v := range s.Discarded {
		n += v
	}
	return n
}

// Stats sums the counters of all loops.
func (s *Server) Stats() Stats {
	st := Stats{
		Received:           s.received.Load(),
		Copied:             s.copied.Load(),
		Discarded:          make(map[string]uint64, numDiscards),
		Closed:             make(map[string]uint64, numReasons),
		Requests:           make(map[int]uint64, len(answerCodes)),
		Inbox:              make(map[string]uint64, numInboxResults),
		CommandsDiscarded:  s.commandsLost.Load(),
		MailboxWaitSeconds: float64(s.mailboxWaited.Load()) / 1e9,
		MaxConnections:     s.maxOpen,
	}
	for i := range s.discarded {
		st.Discarded[discard(i).String()] = s.discarded[i].Load()
	}
	for _, l := range s.loops {
		c := &l.count
		st.Connections += c.streams.Load()
		st.Open += c.open.Load()
		st.Users += c.users.Load()
		st.SlotsRetired += c.retired.Load()
		st.PendingBytes += c.pendingBytes.Load()
		st.Copied += c.copied.Load()
		st.Written += c.written.Load()
		st.Opened += c.opened.Load()
		st.AcceptErrors += c.acceptErrors.Load()
		st.BytesWritten += c.bytesWritten.Load()
		st.Writes += c.writes.Load()
		st.MailboxBytes += l.mailbox.bytes.Load()
		st.MailboxEntries += l.mailbox.entries.Load()
		for i := range c.discarded {
			st.Discarded[discard(i).String()] += c.discarded[i].Load()
		}
		for i := range c.closed {
			st.Closed[reason(i).String()] += c.closed[i].Load()
		}
		for i := range c.inbox {
			st.Inbox[inboxResult(i).String()] += c.inbox[i].Load()
		}
		for i := range c.answers {
			st.Requests[answerCodes[i]] += c.answers[i].Load()
		}
	}
	return st
}
