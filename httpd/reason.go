package httpd

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
	reasonKicked                 // {close, Uid, Reason}
	reasonDrained                // Halley shuts down
	reasonRefused                // no slot and no descriptor left, not even for an answer
	numReasons
)

var reasonNames = [numReasons]string{
	"normal", "reset", "answered", "timeout", "flood", "slow", "total", "replaced", "kicked", "drained", "refused",
}

func (r reason) String() string { return reasonNames[r] }

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
