package cnode

import (
	"encoding/binary"
	"math"
)

// The hot path: {Name, Node} ! {Uid, Bin}, which is
//
//	112 131  104 4  97 6  88 <pid>  119 0  119 n <name>    {6, From, '', Name}
//	    131  104 2  <integer or binary>  109 len:4 <body>  {Uid, Body}
//
// Anything else takes the general way, control.go and message.go.

// regSendHead is the fixed start of such a packet: pass-through, version, a tuple of
// 4, REG_SEND, a pid whose node is a small atom.
const regSendHead = 112<<56 | 131<<48 | 104<<40 | 4<<32 | 97<<24 | 6<<16 | 88<<8 | 119

const pidNumberBytes = 12 // id, serial and creation after a pid's node

// regSendTail is what follows the sender's pid in a packet to name, up to and with
// the version byte of the message.
func regSendTail(name string) string {
	return string([]byte{tagSmallAtomU8, 0, tagSmallAtomU8, byte(len(name))}) + name + "\x83"
}

// hotMessage gives the message of a packet to our name, nil for other packets. tail
// is regSendTail.
func hotMessage(p []byte, tail string) []byte {
	if len(p) < 9 || binary.BigEndian.Uint64(p) != regSendHead {
		return nil
	}
	i := 9 + int(p[8]) + pidNumberBytes
	if len(p) < i+len(tail) || string(p[i:i+len(tail)]) != tail {
		return nil
	}
	return p[i+len(tail):]
}

// pair reads a {Uid, Binary} at the start of b, which need not have been checked.
// Not ok: another term, or one that only the general way can judge.
func pair(b []byte) (id int64, name, body, rest []byte, ok bool) {
	if len(b) < 4 || b[0] != tagSmallTuple || b[1] != 2 {
		return
	}
	i := 0
	switch b[2] {
	case tagSmallInt:
		id, i = int64(b[3]), 4
	case tagInt:
		if len(b) < 7 {
			return
		}
		id, i = int64(int32(binary.BigEndian.Uint32(b[3:]))), 7
	case tagSmallBig:
		// Up to 8 digits, the lowest first, after their number and the sign.
		n := int(b[3])
		if n > 8 || len(b) < 5+n || b[4] != 0 {
			return
		}
		u := uint64(0)
		for k := n - 1; k >= 0; k-- {
			u = u<<8 | uint64(b[5+k])
		}
		if u > math.MaxInt64 {
			return
		}
		id, i = int64(u), 5+n
	case tagBinary:
		if len(b) < 7 {
			return
		}
		n := binary.BigEndian.Uint32(b[3:])
		if n == 0 || n > maxUIDBytes || len(b) < 7+int(n) {
			return
		}
		i = 7 + int(n)
		name = b[7:i:i]
		id = 1 // passes the check below
	default:
		return
	}
	if id <= 0 || len(b) < i+5 || b[i] != tagBinary {
		return
	}
	n := int(binary.BigEndian.Uint32(b[i+1:]))
	i += 5
	if n > len(b)-i {
		return
	}
	if name != nil {
		id = 0
	}
	return id, name, b[i : i+n : i+n], b[i+n:], true
}

// packet uses one packet. An error means that nothing after it can be trusted.
func (c *conn) packet(p []byte) error {
	if m := hotMessage(p, c.hotTail); m != nil {
		if id, name, body, rest, ok := pair(m); ok && len(rest) == 0 {
			c.fed = true
			c.feed.Message(id, name, body)
			return nil
		}
		c.take(m)
		return nil
	}
	return c.control(p)
}
