package cnode

import "bytes"

// Why connections end, as terms. A link or monitor that has fired keeps a code instead
// of the term: of one that everybody knows, or of one that somebody has given and that
// is kept, once for all who wait for it, until the last of them is written.

const (
	maxReasonBytes  = 64 << 10 // of one that is handed on; a longer one is told by its text alone
	maxReasonsBytes = 8 << 20  // of all that one peer's signals wait with; then the known ones must do
)

// knownReasons has the terms of what the HTTP side says; what is not here is an atom of
// the same name.
var knownReasons = [...]struct {
	why  string
	term []byte
}{
	{},        // code 0: the connection lives
	whyNoproc: {"noproc", appendAtom(nil, "noproc")},
	{"normal", appendAtom(nil, "normal")},
	{"reset", appendAtom(appendAtom(appendTuple(nil, 2), "tcp"), "reset")},
	{"slow", appendAtom(nil, "slow")},
	{"total", appendAtom(nil, "slow")},
	{"idle", appendAtom(nil, "idle")},
	{"kicked", appendAtom(nil, "kicked")},
	{"drained", appendAtom(nil, "drained")},
	{"replaced", appendAtom(nil, "replaced")},
	{"flood", appendAtom(nil, "flood")},
	{"timeout", appendAtom(nil, "timeout")},
}

const whyNoproc = 1

// knownCode is the code of why, 0 if it has none.
func knownCode(why string) uint32 {
	for code := uint32(whyNoproc); code < uint32(len(knownReasons)); code++ {
		if knownReasons[code].why == why {
			return code
		}
	}
	return 0
}

// appendReason appends the term of an end as Node.Ended is told of it.
func appendReason(dst []byte, why string, reason []byte) []byte {
	if reason != nil {
		return append(dst, reason...)
	}
	if code := knownCode(why); code != 0 {
		return append(dst, knownReasons[code].term...)
	}
	return append(dst, reasonTerm(why)...)
}

// reasons are those that are not known, behind the codes from len(knownReasons) on.
// Whoever has them protects them.
type reasons struct {
	given []givenReason
	free  []uint32 // codes of given that are unused
	last  uint32   // code of the newest: often many end with the same
	bytes int
}

type givenReason struct {
	term []byte
	refs int // holds that have it
}

// code gives a code for an end; retain must follow, once for each who has it.
func (r *reasons) code(why string, reason []byte) uint32 {
	known := knownCode(why)
	if reason == nil {
		if known != 0 {
			return known
		}
		reason = reasonTerm(why)
	}
	if r.last != 0 && bytes.Equal(r.term(r.last), reason) {
		return r.last
	}
	if r.bytes+len(reason) > maxReasonsBytes {
		if known == 0 {
			known = knownCode("kicked")
		}
		return known
	}
	i := len(r.given)
	if n := len(r.free); n > 0 {
		i = int(r.free[n-1])
		r.free = r.free[:n-1]
	} else {
		r.given = append(r.given, givenReason{})
	}
	r.given[i].term = bytes.Clone(reason)
	r.bytes += len(reason)
	r.last = uint32(len(knownReasons) + i)
	return r.last
}

func (r *reasons) retain(code uint32) {
	if code >= uint32(len(knownReasons)) {
		r.given[code-uint32(len(knownReasons))].refs++
	}
}

func (r *reasons) release(code uint32) {
	if code < uint32(len(knownReasons)) {
		return
	}
	i := code - uint32(len(knownReasons))
	g := &r.given[i]
	if g.refs--; g.refs > 0 {
		return
	}
	r.bytes -= len(g.term)
	g.term = nil
	r.free = append(r.free, i)
	if r.last == code {
		r.last = 0
	}
	if len(r.free) == len(r.given) {
		*r = reasons{}
	}
}

func (r *reasons) term(code uint32) []byte {
	if code < uint32(len(knownReasons)) {
		return knownReasons[code].term
	}
	return r.given[code-uint32(len(knownReasons))].term
}
