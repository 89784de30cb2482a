package cnode

import (
	"encoding/binary"
)

// gen_server:call, as OTP's gen module does it: the request is
// {'$gen_call', {Pid, Tag}, Request}, the reply {Tag, Reply} to Pid. Pid and Tag go
// back byte for byte: the tag is an improper list with a reference of 3 words from
// OTP 25 and of 5 from OTP 27. That reference is an alias of the caller's, which it
// gives up when it has waited long enough: a reply sent to the alias instead of the pid
// is then dropped, and does not turn up in the caller's mailbox.

// caller is where a reply goes; its slices belong to the block.
type caller struct{ pid, tag []byte }

// alias is the reference in [alias|Ref] and [[alias|Ref]|Any], the tags to whose alias
// gen:reply/2 sends; nil for another tag.
func (who caller) alias() []byte {
	tag := who.tag
	for range 2 {
		if tag[0] != tagList {
			return nil
		}
		n := binary.BigEndian.Uint32(tag[1:])
		if n == 0 { // well-formed, too: its tail is all there is
			return nil
		}
		first, rest := next(tag[5:])
		if isAtom(first, "alias") {
			if n == 1 && isRef(rest) {
				return rest
			}
			return nil
		}
		tag = first
	}
	return nil
}

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
func (c *conn) replyHead(who caller) []byte {
	b := beginPacket(make([]byte, 0, 128+len(who.pid)+len(who.tag)))
	if alias := who.alias(); alias != nil && c.info.flags&flagAlias != 0 {
		b = c.n.appendSenderPid(appendInt(appendTuple(b, 3), opAliasSend))
		b = append(b, alias...)
	} else {
		b = appendAtom(appendInt(appendTuple(b, 3), opSend), "")
		b = append(b, who.pid...)
	}
	b = append(b, tagVersion)
	b = appendTuple(b, 2)
	return append(b, who.tag...)
}

func (c *conn) reply(who caller, term []byte) {
	c.send(seal(append(c.replyHead(who), term...)))
}

// later gives what sends a reply when it has come. The head is a copy, for the block may
// be gone by then; what is returned may be called from any goroutine and does not block.
func (c *conn) later(who caller) func(term []byte) {
	head := c.replyHead(who)
	c.fed = true
	return func(term []byte) { c.send(seal(append(head, term...))) }
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
	arity, elements := tupleOf(request)
	if arity == 2 || arity == 3 {
		verb, rest := next(elements)
		first, rest := next(rest)
		switch {
		case arity == 2 && isAtom(verb, "whereis"):
			if id, name, ok := uidOf(first); ok {
				reply := c.later(who)
				c.feed.Whereis(id, name, func(conns []uint64) { reply(c.n.connsTerm(conns)) })
				return
			}
		case arity == 2 && isAtom(verb, "info") && isPid(first):
			c.describe(first, c.later(who))
			return
		case arity == 3 && isAtom(verb, "deliver"):
			id, name, ok1 := uidOf(first)
			if body, ok2 := c.body(rest); ok1 && ok2 {
				reply := c.later(who)
				c.feed.Deliver(id, name, body, func(n int) { reply(okTerm(n)) })
				return
			}
		}
	}
	c.refuse(who, request)
}

// maxEcho is how much of a call that is not taken goes back in its answer.
const maxEcho = 4 << 10

// refuse answers a call that is not taken.
func (c *conn) refuse(who caller, request []byte) {
	c.bad(badCall, request)
	if len(request) > maxEcho {
		request = appendAtom(nil, "too_large")
	}
	b := appendAtom(appendTuple(nil, 2), "error")
	b = appendAtom(appendTuple(b, 2), "bad_request")
	c.reply(who, append(b, request...))
}

// describe gives what is known of a pid: a map, or undefined if it is no connection.
func (c *conn) describe(pid []byte, reply func(term []byte)) {
	conn, ok := c.connOf(pid)
	if !ok {
		reply(infoTerm(nil))
		return
	}
	c.fed = true
	c.feed.Info(conn, func(info *Info) { reply(infoTerm(info)) })
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
