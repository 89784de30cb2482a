package cnode

import (
	"encoding/binary"
	"slices"
)

// gen_server:call, as OTP's gen module does it: the request is
// {'$gen_call', {Pid, Tag}, Request}, the reply {Tag, Reply} to Pid. Pid and Tag go
// back byte for byte: the tag is an improper list with a reference of 3 words from
// OTP 25 and of 5 from OTP 27.

// caller is where a reply goes; its slices belong to the block.
type caller struct{ pid, tag []byte }

func callerOf(from []byte) (who caller, ok bool) {
	arity, elements := tupleOf(from)
	if arity != 2 {
		return who, false
	}
	who.pid, elements = next(elements)
	who.tag, _ = next(elements)
	return who, isPid(who.pid)
}

// replyHead is a packet up to and with the tag; the reply is appended to it.
func (who caller) replyHead() []byte {
	b := beginPacket(make([]byte, 0, 64+len(who.pid)+len(who.tag)))
	b = appendInt(appendTuple(b, 3), opSend)
	b = appendAtom(b, "")
	b = append(b, who.pid...)
	b = append(b, tagVersion)
	b = appendTuple(b, 2)
	return append(b, who.tag...)
}

func (c *conn) reply(who caller, term []byte) {
	c.send(seal(append(who.replyHead(), term...)))
}

// call answers a call to the registered name; m is the whole message.
func (c *conn) call(from, request, m []byte) {
	who, ok := callerOf(from)
	if !ok {
		c.bad(badShape, m)
		return
	}
	if isAtom(request, "stats") {
		c.flush() // what was sent before is on its way before it is counted
		c.reply(who, c.n.statsTerm())
		return
	}
	if arity, elements := tupleOf(request); arity == 3 {
		verb, rest := next(elements)
		if isAtom(verb, "deliver") {
			uid, rest := next(rest)
			id, name, ok1 := uidOf(uid)
			if body, ok2 := c.body(rest); ok1 && ok2 {
				head := who.replyHead() // a copy: the block may be gone when the reply comes
				c.fed = true
				c.feed.Deliver(id, name, body, func(n int) { c.delivered(head, n) })
				return
			}
		}
	}
	c.bad(badCall, request)
	b := appendAtom(appendTuple(nil, 2), "error")
	b = appendAtom(appendTuple(b, 2), "bad_request")
	c.reply(who, append(b, request...))
}

// delivered sends {ok, N}. It runs on any goroutine and does not block.
func (c *conn) delivered(head []byte, n int) {
	b := appendAtom(appendTuple(slices.Clip(head), 2), "ok")
	c.send(seal(appendInt(b, int64(n))))
}

// statsTerm is a map of atoms to integers.
func (n *Node) statsTerm() []byte {
	var stats []Stat
	if n.o.Stats != nil {
		stats = n.o.Stats()
	}
	b := binary.BigEndian.AppendUint32([]byte{tagMap}, uint32(len(stats)))
	for _, s := range stats {
		b = appendInt(appendAtom(b, s.Name), s.Value)
	}
	return b
}

// system answers for the names that every Erlang node has: net_kernel, which
// net_adm:ping calls, and rex, for callers that do not spawn as rpc:call does.
func (c *conn) system(name string, m []byte) {
	if skip(m, noTermsLimit) != len(m) {
		c.lost(badPayload, nil)
		return
	}
	arity, elements := tupleOf(m)
	if arity < 2 {
		return
	}
	first, rest := next(elements)
	switch {
	case arity == 3 && isAtom(first, "$gen_call"):
		from, request := next(rest)
		if who, ok := callerOf(from); ok {
			c.reply(who, systemReply(name, request))
		}
	case arity == 2 && name == "rex" && isPid(first):
		// The form of the C library ei: {Pid, {call, M, F, A, user}}, answered {rex, Reply}.
		b := appendInt(appendTuple(beginPacket(nil), 3), opSend)
		b = append(appendAtom(b, ""), first...)
		b = appendAtom(appendTuple(append(b, tagVersion), 2), "rex")
		c.send(seal(append(b, badRPC()...)))
	}
}

func systemReply(name string, request []byte) []byte {
	if name == "rex" {
		return badRPC()
	}
	if arity, elements := tupleOf(request); arity == 2 {
		if verb, _ := next(elements); isAtom(verb, "is_auth") {
			return appendAtom(nil, "yes")
		}
	}
	b := appendAtom(appendTuple(nil, 2), "error")
	return appendAtom(b, "notsup")
}

// badRPC is {badrpc, notsup}.
func badRPC() []byte {
	return appendAtom(appendAtom(appendTuple(nil, 2), "badrpc"), "notsup")
}
