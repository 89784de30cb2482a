package cnode

import (
	"encoding/binary"
	"math"
)

// Tags of the external term format, OTP erl_ext_dist.
const (
	tagVersion      = 131
	tagNewFloat     = 70
	tagBitBinary    = 77
	tagNewPid       = 88
	tagNewPort      = 89
	tagNewerRef     = 90
	tagSmallInt     = 97
	tagInt          = 98
	tagFloat        = 99
	tagAtom         = 100
	tagPort         = 102
	tagPid          = 103
	tagSmallTuple   = 104
	tagLargeTuple   = 105
	tagNil          = 106
	tagString       = 107
	tagList         = 108
	tagBinary       = 109
	tagSmallBig     = 110
	tagLargeBig     = 111
	tagFun          = 112
	tagExport       = 113
	tagNewRef       = 114
	tagSmallAtom    = 115
	tagMap          = 116
	tagAtomUTF8     = 118
	tagSmallAtomU8  = 119
	tagV4Port       = 120
	maxAtomEncoded  = 4 * 255 // bytes: 255 characters of UTF-8
	maxRefWords     = 5       // OTP erl_ext_dist, NEWER_REFERENCE_EXT
	funHeaderBytes  = 29      // of NEW_FUN_EXT, after the tag: size, arity, uniq, index, number of free variables
	noTermsLimit    = math.MaxInt
	maxRoutedTerms  = 1 << 20 // terms of a message that ergo's codec decodes: up to 75 bytes of heap for each wire byte
	maxControlTerms = 1 << 10 // the largest control tuple has some 20 terms
)

// skip returns the length of the term at the start of b, or -1 if there is no
// complete, well-formed one or it has more than most terms. It neither recurses nor
// allocates: it counts the terms still owed, of which each costs at least one byte,
// so an absurd count is refused at once.
func skip(b []byte, most int) int {
	i, owed := 0, 1
	for owed > 0 {
		left := len(b) - i
		if owed > left || most == 0 {
			return -1
		}
		most--
		owed--
		n := 0 // bytes of this term without its tag and its elements
		switch i++; b[i-1] {
		case tagSmallInt:
			n = 1
		case tagInt:
			n = 4
		case tagNil:
		case tagBinary:
			n = sized32(b[i:], 4)
		case tagSmallAtomU8, tagSmallAtom, tagAtomUTF8, tagAtom:
			n = atomBytes(b[i-1:]) - 1
		case tagSmallTuple:
			if left > 1 {
				owed += int(b[i])
			}
			n = 1
		case tagLargeTuple:
			if left > 4 {
				owed += int(binary.BigEndian.Uint32(b[i:]))
			}
			n = 4
		case tagList:
			if left > 4 {
				owed += int(binary.BigEndian.Uint32(b[i:])) + 1 // and the tail
			}
			n = 4
		case tagMap:
			if left > 4 {
				owed += 2 * int(binary.BigEndian.Uint32(b[i:]))
			}
			n = 4
		case tagString:
			if left > 2 {
				n = int(binary.BigEndian.Uint16(b[i:]))
			}
			n += 2
		case tagSmallBig:
			if left > 1 {
				n = int(b[i])
			}
			n += 2 // length, sign
		case tagLargeBig:
			n = sized32(b[i:], 5)
		case tagNewFloat:
			n = 8
		case tagFloat:
			n = 31
		case tagBitBinary:
			if n = sized32(b[i:], 5); n > 5 && n <= left-1 && (b[i+4] == 0 || b[i+4] > 8) {
				return -1 // bits used of the last byte
			}
		case tagExport:
			owed += 3
		case tagFun:
			if left > funHeaderBytes {
				owed += 4 + int(binary.BigEndian.Uint32(b[i+25:])) // module, index, uniq, pid; free variables
			}
			n = funHeaderBytes
		default:
			n = identifierBytes(b[i-1:]) - 1
		}
		if n < 0 || n > left-1 {
			return -1
		}
		i += n
	}
	return i
}

// sized32 is head bytes, which begin with a 32-bit length, and that many bytes.
func sized32(b []byte, head int) int {
	if len(b) < 4 {
		return -1
	}
	return head + int(binary.BigEndian.Uint32(b))
}

// atomBytes is the length of the atom at the start of b with its tag, or 0.
func atomBytes(b []byte) int {
	n := 0
	switch {
	case len(b) < 2:
		return 0
	case b[0] == tagSmallAtomU8 || b[0] == tagSmallAtom:
		n = 2 + int(b[1])
	case len(b) >= 3 && (b[0] == tagAtomUTF8 || b[0] == tagAtom):
		n = 3 + int(binary.BigEndian.Uint16(b[1:]))
	default:
		return 0
	}
	if n > len(b) || n > 3+maxAtomEncoded {
		return 0
	}
	return n
}

// identifierBytes is the length of the pid, port or reference at the start of b with
// its tag, or 0. The number of a reference's words is kept as it comes: OTP 27 sends
// five where OTP 25 sends three.
func identifierBytes(b []byte) int {
	head, tail := 1, 0
	switch b[0] {
	case tagNewPid, tagV4Port:
		tail = 12
	case tagNewPort:
		tail = 8
	case tagPid:
		tail = 9
	case tagPort:
		tail = 5
	case tagNewerRef, tagNewRef:
		if len(b) < 3 {
			return 0
		}
		words := int(binary.BigEndian.Uint16(b[1:]))
		if words == 0 || words > maxRefWords {
			return 0
		}
		head, tail = 3, 4+4*words
		if b[0] == tagNewRef {
			tail = 1 + 4*words
		}
	default:
		return 0
	}
	if len(b) < head {
		return 0
	}
	n := atomBytes(b[head:])
	if n == 0 || head+n+tail > len(b) {
		return 0
	}
	return head + n + tail
}
