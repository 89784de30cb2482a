package cnode

import (
	"encoding/binary"
	"math"

	"github.com/ergo-services/ergo/etf"
)

// Terms are appended to a slice. A packet is complete before it is queued: one bad
// byte on the wire would cost every user of that peer.

func appendAtom(dst []byte, name string) []byte {
	if len(name) > 255 {
		dst = append(dst, tagAtomUTF8, byte(len(name)>>8), byte(len(name)))
	} else {
		dst = append(dst, tagSmallAtomU8, byte(len(name)))
	}
	return append(dst, name...)
}

func appendInt(dst []byte, v int64) []byte {
	switch {
	case v >= 0 && v <= 255:
		return append(dst, tagSmallInt, byte(v))
	case v >= math.MinInt32 && v <= math.MaxInt32:
		return binary.BigEndian.AppendUint32(append(dst, tagInt), uint32(v))
	}
	u, sign := uint64(v), byte(0)
	if v < 0 {
		u, sign = -u, 1
	}
	return appendBig(dst, u, sign)
}

// appendUint is for ids of 64 bits, which may be beyond an int64.
func appendUint(dst []byte, u uint64) []byte {
	if u <= math.MaxInt64 {
		return appendInt(dst, int64(u))
	}
	return appendBig(dst, u, 0)
}

// appendBig writes the fewest digits: some of Erlang's comparisons see the bytes.
func appendBig(dst []byte, u uint64, sign byte) []byte {
	dst = append(dst, tagSmallBig, 0, sign)
	at := len(dst)
	for ; u > 0; u >>= 8 {
		dst = append(dst, byte(u))
	}
	dst[at-2] = byte(len(dst) - at)
	return dst
}

func appendBinary(dst, b []byte) []byte {
	dst = binary.BigEndian.AppendUint32(append(dst, tagBinary), uint32(len(b)))
	return append(dst, b...)
}

func appendTuple(dst []byte, arity byte) []byte {
	return append(dst, tagSmallTuple, arity)
}

// appendPid writes NEW_PID_EXT. In ergo's ID the serial is the high half.
func appendPid(dst []byte, p etf.Pid) []byte {
	dst = appendAtom(append(dst, tagNewPid), string(p.Node))
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.ID))
	dst = binary.BigEndian.AppendUint32(dst, uint32(p.ID>>32))
	return binary.BigEndian.AppendUint32(dst, p.Creation)
}

// appendRef writes NEWER_REFERENCE_EXT with as many words as the reference has.
func appendRef(dst []byte, r etf.Ref, words int) []byte {
	dst = append(dst, tagNewerRef, 0, byte(words))
	dst = appendAtom(dst, string(r.Node))
	dst = binary.BigEndian.AppendUint32(dst, r.Creation)
	for _, w := range r.ID[:words] {
		dst = binary.BigEndian.AppendUint32(dst, w)
	}
	return dst
}

// pidOf reads NEW_PID_EXT.
func pidOf(term []byte) (p etf.Pid, ok bool) {
	node, parts, ok := pidParts(term)
	return etf.Pid{Node: etf.Atom(node), ID: uint64(parts.serial)<<32 | uint64(parts.id), Creation: parts.creation}, ok
}

// refOf reads NEWER_REFERENCE_EXT with all its words, of which ergo's own decoder
// would cut the first.
func refOf(term []byte) (r etf.Ref, words int, ok bool) {
	node, parts, ok := refParts(term)
	return etf.Ref{Node: etf.Atom(node), Creation: parts.creation, ID: parts.word}, int(parts.words), ok
}

// A packet begins with room for its length, which seal fills in.
func beginPacket(dst []byte) []byte {
	return append(dst, 0, 0, 0, 0, passThrough, tagVersion)
}

func seal(packet []byte) []byte {
	binary.BigEndian.PutUint32(packet, uint32(len(packet)-lengthBytes))
	return packet
}

// appendList begins a proper list of n elements, which is nil if n is 0: then there is
// no tail to come either.
func appendList(dst []byte, n int) []byte {
	if n == 0 {
		return append(dst, tagNil)
	}
	return binary.BigEndian.AppendUint32(append(dst, tagList), uint32(n))
}

// appendMap begins a map of n pairs.
func appendMap(dst []byte, n int) []byte {
	return binary.BigEndian.AppendUint32(append(dst, tagMap), uint32(n))
}
