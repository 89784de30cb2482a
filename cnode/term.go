package cnode

import (
	"encoding/binary"
	"math"
	"unicode/utf8"
)

// The functions here read terms that skip has accepted; on those they cannot run
// out of bytes. A term is the slice from its tag to its last byte.

// next cuts the first term off b.
func next(b []byte) (term, rest []byte) {
	n := skip(b, noTermsLimit)
	return b[:n:n], b[n:]
}

// plain is true for terms that every Erlang node decodes. skip takes some that none does:
// atoms that are no UTF-8, floats that are no numbers, maps with a key twice, funs of any
// contents. Whoever gets such a term drops the connection to him who sent it.
func plain(term []byte) bool {
	for i := 0; i < len(term); {
		n := 0
		switch b := term[i:]; b[0] {
		case tagNil:
			n = 1
		case tagSmallInt, tagSmallTuple:
			n = 2
		case tagInt, tagLargeTuple, tagList: // elements follow
			n = 5
		case tagString:
			n = 3 + int(binary.BigEndian.Uint16(b[1:]))
		case tagBinary:
			n = 5 + int(binary.BigEndian.Uint32(b[1:]))
		case tagSmallBig:
			n = 3 + int(b[1])
		case tagNewFloat:
			f := math.Float64frombits(binary.BigEndian.Uint64(b[1:]))
			if n = 9; math.IsNaN(f) || math.IsInf(f, 0) {
				return false
			}
		case tagSmallAtomU8, tagAtomUTF8:
			if n = atomBytes(b); !plainAtom(b[:n]) {
				return false
			}
		case tagNewPid:
			if n = identifierBytes(b); !plainAtom(b[1 : 1+atomBytes(b[1:])]) {
				return false
			}
		case tagNewerRef:
			if n = identifierBytes(b); !plainAtom(b[3 : 3+atomBytes(b[3:])]) {
				return false
			}
		default:
			return false
		}
		i += n
	}
	return true
}

// plainAtom is true for an atom of at most 255 characters of UTF-8.
func plainAtom(term []byte) bool {
	name, _ := atomText(term)
	return (term[0] == tagSmallAtomU8 || term[0] == tagAtomUTF8) && utf8.Valid(name) && utf8.RuneCount(name) <= maxAtomBytes
}

// atomText is the name of an atom.
func atomText(term []byte) (text []byte, ok bool) {
	switch term[0] {
	case tagSmallAtomU8, tagSmallAtom:
		return term[2:], true
	case tagAtomUTF8, tagAtom:
		return term[3:], true
	}
	return nil, false
}

// isAtom compares without a conversion that would allocate.
func isAtom(term []byte, name string) bool {
	text, ok := atomText(term)
	return ok && string(text) == name
}

// tupleOf gives the arity of a tuple, -1 for another term, and its elements.
func tupleOf(term []byte) (arity int, elements []byte) {
	switch term[0] {
	case tagSmallTuple:
		return int(term[1]), term[2:]
	case tagLargeTuple:
		return int(binary.BigEndian.Uint32(term[1:])), term[5:]
	}
	return -1, nil
}

// integer reads the integers that fit 64 bits.
func integer(term []byte) (v int64, ok bool) {
	switch term[0] {
	case tagSmallInt:
		return int64(term[1]), true
	case tagInt:
		return int64(int32(binary.BigEndian.Uint32(term[1:]))), true
	case tagSmallBig:
		u, ok := magnitude(term)
		switch {
		case !ok:
		case term[2] == 0 && u <= math.MaxInt64:
			return int64(u), true
		case term[2] != 0 && u <= math.MaxInt64:
			return -int64(u), true
		case term[2] != 0 && u == 1<<63:
			return math.MinInt64, true
		}
	}
	return 0, false
}

// magnitude is the absolute value of a SMALL_BIG_EXT, if it fits 64 bits: its digits
// are bytes, the lowest first.
func magnitude(term []byte) (u uint64, ok bool) {
	digits := term[3:]
	for len(digits) > 8 {
		if digits[len(digits)-1] != 0 {
			return 0, false
		}
		digits = digits[:len(digits)-1]
	}
	for i, d := range digits {
		u |= uint64(d) << (8 * i)
	}
	return u, true
}

const maxUIDBytes = 255

// uidOf reads a uid: an integer from 1 to 2^63-1, or a binary of 1 to 255 bytes.
func uidOf(term []byte) (id int64, name []byte, ok bool) {
	if term[0] == tagBinary {
		name = binaryOf(term)
		return 0, name, len(name) >= 1 && len(name) <= maxUIDBytes
	}
	id, ok = integer(term)
	return id, nil, ok && id > 0
}

// binaryOf is the contents of a binary. Its capacity ends with it, so that an append
// cannot write into the block.
func binaryOf(term []byte) []byte {
	return term[5:len(term):len(term)]
}

// isPid is true for the form of pid that the flags we offer allow.
func isPid(term []byte) bool {
	return term[0] == tagNewPid
}

// isRef is likewise for references.
func isRef(term []byte) bool {
	return term[0] == tagNewerRef
}

// pidParts reads NEW_PID_EXT without a copy of the node's name.
func pidParts(term []byte) (node []byte, p process, ok bool) {
	if !isPid(term) {
		return nil, p, false
	}
	n := 1 + atomBytes(term[1:])
	node, _ = atomText(term[1:n])
	b := term[n:]
	p.id, p.serial, p.creation = binary.BigEndian.Uint32(b), binary.BigEndian.Uint32(b[4:]), binary.BigEndian.Uint32(b[8:])
	return node, p, true
}

// refParts reads NEWER_REFERENCE_EXT without a copy of the node's name.
func refParts(term []byte) (node []byte, r reference, ok bool) {
	if term[0] != tagNewerRef {
		return nil, r, false
	}
	r.words = uint32(binary.BigEndian.Uint16(term[1:]))
	n := 3 + atomBytes(term[3:])
	node, _ = atomText(term[3:n])
	b := term[n:]
	r.creation = binary.BigEndian.Uint32(b)
	for i := range r.words {
		r.word[i] = binary.BigEndian.Uint32(b[4+4*i:])
	}
	return node, r, true
}

// listOf gives the elements of a proper list, each a term, if they are not more than
// most. A string list's are made.
func listOf(term []byte, most int) (elements [][]byte, ok bool) {
	switch term[0] {
	case tagNil:
		return nil, true
	case tagString:
		if len(term)-3 > most {
			return nil, false
		}
		for _, v := range term[3:] {
			elements = append(elements, appendInt(nil, int64(v)))
		}
		return elements, true
	case tagList:
		n := binary.BigEndian.Uint32(term[1:])
		if uint64(n) > uint64(most) {
			return nil, false
		}
		b := term[5:]
		for range n {
			var e []byte
			e, b = next(b)
			elements = append(elements, e)
		}
		return elements, b[0] == tagNil
	}
	return nil, false
}
