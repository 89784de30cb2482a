package cnode

import "encoding/binary"

// bodyOf gives the bytes of a body: a binary or a string list in place, another
// iolist flattened into a slice of its own. stack is scratch memory, handed back for
// reuse.
func bodyOf(term []byte, stack []uint32) (body []byte, _ []uint32, ok bool) {
	switch term[0] {
	case tagBinary:
		return binaryOf(term), stack, true
	case tagString:
		return term[3:len(term):len(term)], stack, true
	case tagNil:
		return nil, stack, true
	case tagList:
		return flatten(term, stack)
	}
	return nil, stack, false
}

// flatten writes out an iolist. Each byte of the result is at least one of the term,
// so one slice of the term's length holds it. stack has, for each list that is open,
// the number of its elements still to come, the tail included; nesting costs heap,
// never Go stack.
func flatten(term []byte, stack []uint32) (body []byte, _ []uint32, ok bool) {
	body = make([]byte, 0, len(term))
	stack = append(stack[:0], 1)
	for i := 0; len(stack) > 0; {
		top := len(stack) - 1
		stack[top]--
		tail := stack[top] == 0
		if tail {
			stack = stack[:top] // first, so that a list as a tail does not nest deeper
		}
		switch term[i] {
		case tagSmallInt, tagInt:
			v, _ := integer(term[i:])
			if tail || v < 0 || v > 255 {
				return nil, stack, false
			}
			body = append(body, byte(v))
			if i += 2; term[i-2] == tagInt {
				i += 3
			}
		case tagBinary:
			n := int(binary.BigEndian.Uint32(term[i+1:]))
			body = append(body, term[i+5:i+5+n]...)
			i += 5 + n
		case tagString:
			n := int(binary.BigEndian.Uint16(term[i+1:]))
			body = append(body, term[i+3:i+3+n]...)
			i += 3 + n
		case tagNil:
			i++
		case tagList:
			stack = append(stack, binary.BigEndian.Uint32(term[i+1:])+1)
			i += 5
		default:
			return nil, stack, false
		}
	}
	return body[:len(body):len(body)], stack, true
}
