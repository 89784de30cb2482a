package httpd

import (
	"errors"

	"golang.org/x/sys/unix"
)

// reason says why a connection ended. The names are those of the logs and of
// the label `reason` of halley_connections_closed_total.
type reason uint8

const (
	reasonNormal   reason = iota // the client closed
	reasonReset                  // the client's end was reset, or the network failed
	reasonAnswered               // an answer that is no stream was sent: an error, or to HEAD
	reasonTimeout                // no complete request head in time
	reasonFlood                  // the client sent more than it may after its request
	reasonSlow                   // more than --max-pending waited for it
	reasonTotal                  // --max-pending-total was reached and it had the most waiting
	reasonReplaced               // --max-per-uid: a newer connection of the uid came
	reasonKicked                 // Erlang has ended it: Feed.Close, Feed.Exit
	reasonDrained                // Halley shuts down
	reasonIdle                   // TCP has asked in vain whether the client is there
	reasonRefused                // no slot and no descriptor left, not even for an answer
	numReasons
)

var reasonNames = [numReasons]string{
	"normal", "reset", "answered", "timeout", "flood", "slow", "total", "replaced", "kicked", "drained", "idle", "refused",
}

func (r reason) String() string { return reasonNames[r] }

// reasonOf is why a connection ended that Halley did not end. That a host cannot be reached
// is no more than a hint while TCP goes on trying; when it gives up it says so in
// place of ETIMEDOUT.
func reasonOf(err error) reason {
	switch {
	case err == nil:
		return reasonNormal
	case errors.Is(err, unix.ETIMEDOUT), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH), errors.Is(err, unix.EHOSTDOWN):
		return reasonIdle
	}
	return reasonReset
}

// discard says why a message was not written. The names are those of the label
// `reason` of halley_messages_discarded_total.
type discard uint8

const (
	discardNotConnected discard = iota // nobody is there under that uid
	discardSlow                        // the client did not read (--max-pending, --max-pending-total)
	discardClosing                     // the connection, or Halley, ended before it was written
	discardTooBig                      // larger than --max-pending-total
	discardOverload                    // the mailbox stayed full for Options.MailboxWait
	discardBad                         // not a message that Halley understands
	numDiscards
)

var discardNames = [numDiscards]string{"not_connected", "slow", "closing", "too_big", "overload", "bad"}

func (d discard) String() string { return discardNames[d] }
