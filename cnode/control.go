package cnode

import (
	"errors"
	"fmt"

	"github.com/ergo-services/ergo/etf"
	"github.com/ergo-services/ergo/gen"
	"github.com/ergo-services/ergo/lib"
)

// Control messages: OTP erl_dist_protocol, Protocol between Connected Nodes.
const (
	opLink            = 1
	opSend            = 2
	opExit            = 3
	opUnlink          = 4 // obsolete
	opNodeLink        = 5
	opRegSend         = 6
	opGroupLeader     = 7
	opExit2           = 8
	opSendTT          = 12 // TT: with a trace token
	opExitTT          = 13
	opRegSendTT       = 16
	opExit2TT         = 18
	opMonitor         = 19
	opDemonitor       = 20
	opMonitorExit     = 21
	opSendSender      = 22
	opSendSenderTT    = 23
	opPayloadExit     = 24
	opPayloadExitTT   = 25
	opPayloadExit2    = 26
	opPayloadExit2TT  = 27
	opPayloadMonExit  = 28
	opSpawnRequest    = 29
	opSpawnRequestTT  = 30
	opSpawnReply      = 31
	opSpawnReplyTT    = 32
	opAliasSend       = 33
	opAliasSendTT     = 34
	opUnlinkID        = 35
	opUnlinkIDAck     = 36
	passThrough       = 112 // the type of every packet, without an atom cache
	maxControlElement = 8
)

// controls has, for each operation we take, the number of its tuple's elements and
// whether a message follows.
var controls = [...]struct {
	arity   int
	message bool
}{
	opLink:           {3, false},
	opSend:           {3, true},
	opExit:           {4, false},
	opUnlink:         {3, false},
	opNodeLink:       {1, false},
	opRegSend:        {4, true},
	opGroupLeader:    {3, false},
	opExit2:          {4, false},
	opSendTT:         {4, true},
	opExitTT:         {5, false},
	opRegSendTT:      {5, true},
	opExit2TT:        {5, false},
	opMonitor:        {4, false},
	opDemonitor:      {4, false},
	opMonitorExit:    {5, false},
	opSendSender:     {3, true},
	opSendSenderTT:   {4, true},
	opPayloadExit:    {3, true},
	opPayloadExitTT:  {4, true},
	opPayloadExit2:   {3, true},
	opPayloadExit2TT: {4, true},
	opPayloadMonExit: {4, true},
	opSpawnRequest:   {6, true},
	opSpawnRequestTT: {7, true},
	opSpawnReply:     {5, false},
	opSpawnReplyTT:   {6, false},
	opAliasSend:      {3, true},
	opAliasSendTT:    {4, true},
	opUnlinkID:       {4, false},
	opUnlinkIDAck:    {4, false},
}

var errControl = errors.New("the peer sent a control message that does not exist: it is no Erlang node, or the connection is corrupt")

// control uses a packet of the general kind. A bad control tuple is an error; a bad
// message after a good one is lost alone.
func (c *conn) control(p []byte) error {
	if len(p) < 3 || p[0] != passThrough || p[1] != tagVersion {
		return fmt.Errorf("%w (no pass-through packet)", errControl)
	}
	n := skip(p[2:], maxControlTerms)
	if n < 0 {
		return fmt.Errorf("%w (not a term)", errControl)
	}
	arity, rest := tupleOf(p[2 : 2+n])
	if arity < 1 || arity > maxControlElement {
		return fmt.Errorf("%w (not a tuple)", errControl)
	}
	first, rest := next(rest)
	op, ok := integer(first)
	if !ok || op < 0 || op >= int64(len(controls)) || controls[op].arity != arity {
		return fmt.Errorf("%w (operation %d of %d elements)", errControl, op, arity)
	}
	var a [maxControlElement][]byte // the elements after the operation
	for i := range arity - 1 {
		a[i], rest = next(rest)
	}
	message := p[2+n:]
	if controls[op].message {
		if len(message) < 2 || message[0] != tagVersion {
			c.lost(badPayload, nil)
			return nil
		}
		message = message[1:]
	}
	if !c.operate(int(op), &a, message) {
		return fmt.Errorf("%w (elements of operation %d)", errControl, op)
	}
	return nil
}

// operate is false if the elements are of the wrong kind.
func (c *conn) operate(op int, a *[maxControlElement][]byte, message []byte) bool {
	switch op {
	case opRegSend, opRegSendTT:
		name, ok := atomText(a[2])
		if ok {
			c.named(a[0], string(name), message)
		}
		return ok && isPid(a[0])
	case opSend, opSendTT:
		return c.toPid(nil, a[1], message)
	case opSendSender, opSendSenderTT:
		return isPid(a[0]) && c.toPid(a[0], a[1], message)
	case opAliasSend, opAliasSendTT:
		c.unknown() // we hand out no aliases
	case opLink:
		return c.linked(a[0], a[1])
	case opUnlink:
		return c.unlinked(nil, a[0], a[1])
	case opUnlinkID:
		return c.unlinked(a[0], a[1], a[2])
	case opMonitor:
		return c.monitored(a[0], a[1], a[2])
	case opDemonitor:
		return c.demonitored(a[0], a[1], a[2])
	case opExit:
		return c.exited(a[0], a[1], a[2])
	case opExitTT:
		return c.exited(a[0], a[1], a[3])
	case opPayloadExit, opPayloadExitTT:
		return c.exited(a[0], a[1], c.reason(message))
	case opExit2:
		return c.exitAsked(a[0], a[1], a[2])
	case opExit2TT:
		return c.exitAsked(a[0], a[1], a[3])
	case opPayloadExit2, opPayloadExit2TT:
		return c.exitAsked(a[0], a[1], c.reason(message))
	case opMonitorExit:
		return c.monitorFired(a[0], a[1], a[2], a[3])
	case opPayloadMonExit:
		return c.monitorFired(a[0], a[1], a[2], c.reason(message))
	case opSpawnRequest, opSpawnRequestTT:
		return c.spawn(a[0], a[1], a[3], a[4], message)
	}
	// Ignored: group leaders; acknowledgements; answers to what we never ask.
	return true
}

// reason is the message of an exit or down signal, checked; an atom if it is beyond use.
func (c *conn) reason(message []byte) []byte {
	if skip(message, noTermsLimit) != len(message) {
		c.lost(badPayload, nil)
		return appendAtom(nil, "unknown")
	}
	return message
}

// serves is true for the names that answer although no process has them.
func (c *conn) serves(name string) bool {
	return name == "net_kernel" || name == "rex" || name == c.n.o.Register && c.feed != nil
}

// named delivers to a registered name: ours, those that every Erlang node has, and
// those of ergo's processes.
func (c *conn) named(from []byte, name string, message []byte) {
	switch {
	case name == c.n.o.Register && c.feed != nil:
		c.take(message)
	case name == "net_kernel" || name == "rex":
		c.system(name, message)
	default:
		if c.n.ergo.ProcessByName(name) == nil {
			c.unknown()
			return
		}
		if term, ok := c.term(message); ok {
			sender, _ := pidOf(from)
			c.router.RouteSendReg(sender, gen.ProcessID{Name: name, Node: c.n.o.Name}, term)
		}
	}
}

// toPid delivers to a pid. One of an earlier start of ours carries that start's
// creation: it is gone, whatever number it had.
func (c *conn) toPid(from, to, message []byte) bool {
	if conn, ok := c.connOf(to); ok {
		c.takeSent(conn, message)
		return true
	}
	target, ok := pidOf(to)
	if !ok {
		return false
	}
	if c.n.isSender(target) {
		c.answered(message)
		return true
	}
	if !c.n.knows(target) {
		c.unknown()
		return true
	}
	if term, ok := c.term(message); ok {
		var sender etf.Pid
		if from != nil {
			sender, _ = pidOf(from)
		}
		c.router.RouteSend(sender, target, term)
	}
	return true
}

// term decodes a message for ergo, whose codec takes memory for whatever a count
// says and panics on some terms: only what skip has seen gets there.
func (c *conn) term(message []byte) (etf.Term, bool) {
	if skip(message, maxRoutedTerms) != len(message) {
		c.lost(badPayload, nil)
		return nil, false
	}
	term, _, err := etf.Decode(message, nil, etf.DecodeOptions{FlagBigPidRef: true})
	if err != nil {
		c.lost(badPayload, nil)
		return nil, false
	}
	return term, true
}

// encodeTerm appends a term of ergo's.
func encodeTerm(dst []byte, term etf.Term) ([]byte, error) {
	b := lib.TakeBuffer()
	defer lib.ReleaseBuffer(b)
	if err := etf.Encode(term, b, etf.EncodeOptions{FlagBigPidRef: true, FlagBigCreation: true}); err != nil {
		return dst, fmt.Errorf("encode %T: %w", term, err)
	}
	return append(dst, b.B...), nil
}
