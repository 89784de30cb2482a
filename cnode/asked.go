package cnode

import (
	"encoding/binary"
	"sync"

	"github.com/ergo-services/ergo/etf"
)

// maxAsked bounds the questions to one peer that are not answered. Whoever asks has a
// smaller bound of its own.
const maxAsked = 100_000

// asked are what the node itself has asked of one peer, by the reference that the
// answer carries: calls, answered by {Ref, Answer} to the node's sender, and monitors,
// answered by a DOWN signal. All methods may be called from any goroutine.
type asked struct {
	n    *Node
	mu   sync.Mutex                                // protects what follows; not held while an answer is used
	open map[uint64]func(answer []byte, down bool) // nil: the peer is gone
}

func newAsked(n *Node) *asked {
	return &asked{n: n, open: make(map[uint64]func([]byte, bool))}
}

// ask gives the reference for a question that is about to be sent, 0 if the peer is
// gone or has too many. fn is called once, unless forget comes first, on the reader's
// goroutine: with the answer, or with down and the reason of the DOWN signal, which is
// noconnection if the peer goes. The slice belongs to the block.
func (a *asked) ask(fn func(answer []byte, down bool)) (ref uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open == nil || len(a.open) >= maxAsked {
		return 0
	}
	ref = a.n.lastAsked.Add(1)
	a.open[ref] = fn
	return ref
}

// forget is true if fn has not been called and now never will.
func (a *asked) forget(ref uint64) bool {
	return a.take(ref) != nil
}

func (a *asked) take(ref uint64) func([]byte, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	fn := a.open[ref]
	delete(a.open, ref)
	return fn
}

// end answers all that is open, after the peer has gone.
func (a *asked) end() {
	a.mu.Lock()
	open := a.open
	a.open = nil
	a.mu.Unlock()
	noconnection := appendAtom(nil, "noconnection")
	for _, fn := range open {
		fn(noconnection, true)
	}
}

// appendAskedRef appends the reference of three words that stands for ref. Its first
// word has 18 bits, as Erlang's own; the last tells it from those of ergo, where it
// is 0.
func (n *Node) appendAskedRef(dst []byte, ref uint64) []byte {
	dst = appendAtom(append(dst, tagNewerRef, 0, 3), n.o.Name)
	dst = binary.BigEndian.AppendUint32(dst, n.creation)
	dst = binary.BigEndian.AppendUint32(dst, uint32(ref&askedLow))
	dst = binary.BigEndian.AppendUint32(dst, uint32(ref>>askedLowBits))
	return binary.BigEndian.AppendUint32(dst, askedMark|uint32(ref>>(askedLowBits+32)))
}

const (
	askedLowBits = 18
	askedLow     = 1<<askedLowBits - 1
	askedMark    = 1 << 31
)

// askedRef reads what appendAskedRef has written.
func (n *Node) askedRef(term []byte) (ref uint64, ok bool) {
	r, words, ok := refOf(term)
	if !ok || words != 3 || r.ID[2]&askedMark == 0 || string(r.Node) != n.o.Name || r.Creation != n.creation {
		return 0, false
	}
	high := uint64(r.ID[2] &^ askedMark)
	return high<<(askedLowBits+32) | uint64(r.ID[1])<<askedLowBits | uint64(r.ID[0]&askedLow), true
}

// isSender is true for the pid in whose name the node asks.
func (n *Node) isSender(pid etf.Pid) bool {
	return pid == n.sender.Self()
}

// answered uses a message to the node's sender. One that answers nothing, or what has
// been forgotten, is lost.
func (c *conn) answered(message []byte) {
	if skip(message, noTermsLimit) != len(message) {
		c.lost(badPayload, nil)
		return
	}
	if arity, elements := tupleOf(message); arity == 2 {
		first, answer := next(elements)
		if ref, ok := c.n.askedRef(first); ok {
			if fn := c.asked.take(ref); fn != nil {
				fn(answer, false)
				return
			}
		}
	}
	c.unknown()
}

// askedDown uses a DOWN signal to the node's sender.
func (c *conn) askedDown(ref, reason []byte) {
	if r, ok := c.n.askedRef(ref); ok {
		if fn := c.asked.take(r); fn != nil {
			fn(reason, true)
		}
	}
}
