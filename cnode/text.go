package cnode

import (
	"strconv"
	"unicode"
	"unicode/utf8"
)

const (
	maxTextBytes = 256 // of a reason made printable
	maxTextDepth = 8   // nesting shown; recursion ends here
)

// textOf makes printable text of a term, for logs and close reasons: atoms and
// strings as they are, other terms about as Erlang writes them, all of it cut to
// maxTextBytes.
func textOf(term []byte) []byte {
	switch term[0] {
	case tagBinary:
		return cleanText(nil, binaryOf(term))
	case tagString:
		return cleanText(nil, term[3:])
	}
	if text, ok := atomText(term); ok {
		return cleanText(nil, text)
	}
	text, _ := appendText(nil, term, 0)
	return text
}

// cleanText appends s with everything unprintable replaced.
func cleanText(dst, s []byte) []byte {
	for len(s) > 0 && len(dst) < maxTextBytes {
		r, n := utf8.DecodeRune(s)
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			r = '.'
		}
		dst = utf8.AppendRune(dst, r)
		s = s[n:]
	}
	return dst
}

// appendText appends one term and gives the rest of b after it; the rest is of use
// only while the text is not full.
func appendText(dst, b []byte, depth int) (text, rest []byte) {
	term, rest := next(b)
	if len(dst) >= maxTextBytes {
		return dst, rest
	}
	if depth >= maxTextDepth {
		return append(dst, "..."...), rest
	}
	if text, ok := atomText(term); ok {
		return cleanText(dst, text), rest
	}
	switch term[0] {
	case tagSmallInt, tagInt, tagSmallBig:
		if v, ok := integer(term); ok {
			return strconv.AppendInt(dst, v, 10), rest
		}
		return append(dst, "#Integer"...), rest
	case tagBinary:
		dst = cleanText(append(dst, `<<"`...), binaryOf(term))
		return append(dst, `">>`...), rest
	case tagString:
		dst = cleanText(append(dst, '"'), term[3:])
		return append(dst, '"'), rest
	case tagNil:
		return append(dst, "[]"...), rest
	case tagSmallTuple, tagLargeTuple:
		n, elements := tupleOf(term)
		return appendElements(dst, '{', '}', n, elements, depth), rest
	case tagList:
		// The tail is shown only by what it adds: nothing, if it is [].
		n := int(uint32(term[1])<<24 | uint32(term[2])<<16 | uint32(term[3])<<8 | uint32(term[4]))
		return appendElements(dst, '[', ']', n, term[5:], depth), rest
	case tagNewPid, tagPid:
		return append(dst, "#Pid"...), rest
	case tagNewerRef, tagNewRef:
		return append(dst, "#Ref"...), rest
	case tagMap:
		return append(dst, "#Map"...), rest
	}
	return append(dst, "#Term"...), rest
}

func appendElements(dst []byte, open, shut byte, n int, b []byte, depth int) []byte {
	dst = append(dst, open)
	for i := range n {
		if len(dst) >= maxTextBytes {
			return append(dst, "..."...)
		}
		if i > 0 {
			dst = append(dst, ',')
		}
		dst, b = appendText(dst, b, depth+1)
	}
	return append(dst, shut)
}
