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
// and Pid ! Bin and Pid ! {Tag, Bin} to a connection's pid, which are
//
//	112 131  104 3  97 22  88 <pid>  88 <pid>              {22, From, To}, or
//	112 131  104 3  97 2  119 0  88 <pid>                  {2, '', To}
//	    131  109 len:4 <body>                              Body, or
//	    131  104 2  119 n <tag>  109 len:4 <body>          {Tag, Body}
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

// The fixed starts of a packet to a pid: a tuple of 3, SEND_SENDER, a pid whose node is
// a small atom; and a tuple of 3, SEND, an unused atom.
const (
	sendSenderHead = 112<<56 | 131<<48 | 104<<40 | 3<<32 | 97<<24 | 22<<16 | 88<<8 | 119
	sendHead       = 112<<56 | 131<<48 | 104<<40 | 3<<32 | 97<<24 | 2<<16 | 119<<8
)

// hotSend gives the message of a packet to a connection of this start and its number,
// nil for other packets. head is pidHead.
func hotSend(p []byte, head string, creation uint32) (conn uint64, m []byte) {
	if len(p) < 9 {
		return 0, nil
	}
	i := 8
	switch binary.BigEndian.Uint64(p) {
	case sendSenderHead:
		i = 9 + int(p[8]) + pidNumberBytes
	case sendHead:
	default:
		return 0, nil
	}
	if len(p) < i+len(head)+pidNumberBytes+1 || string(p[i:i+len(head)]) != head {
		return 0, nil
	}
	p = p[i+len(head):]
	id, serial := binary.BigEndian.Uint32(p), binary.BigEndian.Uint32(p[4:])
	if serial == 0 || binary.BigEndian.Uint32(p[8:]) != creation || p[pidNumberBytes] != tagVersion {
		return 0, nil
	}
	return uint64(serial)<<32 | uint64(id), p[pidNumberBytes+1:]
}

// sentBody reads Binary or {Tag, Binary}, which need not have been checked and must be
// all of m. Not ok: another term, or one that only the general way can judge.
func sentBody(m []byte) (body []byte, ok bool) {
	if len(m) > 4 && m[0] == tagSmallTuple && m[1] == 2 && m[2] == tagSmallAtomU8 {
		i := 4 + int(m[3])
		if len(m) < i || string(m[4:i]) == "close" {
			return nil, false
		}
		m = m[i:]
	}
	if len(m) < 5 || m[0] != tagBinary || int(binary.BigEndian.Uint32(m[1:])) != len(m)-5 {
		return nil, false
	}
	return m[5:len(m):len(m)], true
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
	if c.feed == nil {
		return c.control(p)
	}
	if m := hotMessage(p, c.hotTail); m != nil {
		if id, name, body, rest, ok := pair(m); ok && len(rest) == 0 {
			c.fed = true
			c.feed.Message(id, name, body)
			return nil
		}
		c.take(m)
		return nil
	}
	if conn, m := hotSend(p, c.n.pidHead, c.n.creation); m != nil {
		if body, ok := sentBody(m); ok {
			c.fed = true
			c.feed.Send(conn, body)
			return nil
		}
		c.takeSent(conn, m)
		return nil
	}
	return c.control(p)
}
