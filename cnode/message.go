package cnode

import "encoding/binary"

// Messages to the registered name and to connections that are not of the hot shapes.

// take uses a message sent with ! to the registered name. m is the rest of its
// packet, unchecked.
func (c *conn) take(m []byte) {
	if skip(m, noTermsLimit) != len(m) {
		c.bad(badPayload, nil)
		return
	}
	if m[0] == tagList {
		c.takeList(m)
		return
	}
	arity, elements := tupleOf(m)
	if arity < 2 {
		if m[0] != tagNil { // an empty list is no message at all
			c.bad(badShape, m)
		}
		return
	}
	first, rest := next(elements)
	switch {
	case arity == 2 && isAtom(first, "$gen_cast"):
		c.takeCast(rest)
	case arity == 3 && isAtom(first, "$gen_call"):
		from, request := next(rest)
		c.call(from, request, m)
	default:
		c.takeTuple(m, arity, first, rest)
	}
}

// takeCast uses what gen_server:cast has wrapped: the same as with !, but it cannot
// wrap again.
func (c *conn) takeCast(m []byte) {
	if m[0] == tagList {
		c.takeList(m)
		return
	}
	arity, elements := tupleOf(m)
	if arity < 2 {
		if m[0] != tagNil {
			c.bad(badShape, m)
		}
		return
	}
	first, rest := next(elements)
	c.takeTuple(m, arity, first, rest)
}

// takeTuple uses {Uid, Body}, {all, Body} and {close, Uid, Reason}.
func (c *conn) takeTuple(m []byte, arity int, first, rest []byte) {
	if _, atom := atomText(first); !atom && arity == 2 {
		c.takePair(m, first, rest)
		return
	}
	switch {
	case arity == 2 && isAtom(first, "all"):
		body, ok := c.body(rest)
		if !ok {
			c.bad(badBody, m)
			return
		}
		c.fed = true
		c.feed.All(body)
	case arity == 3 && isAtom(first, "close"):
		uid, reason := next(rest)
		id, name, ok := uidOf(uid)
		if !ok {
			c.bad(badUID, m)
			return
		}
		c.fed = true
		c.feed.Close(id, name, textOf(reason), handed(reason))
	default:
		c.bad(badShape, m)
	}
}

// handed is a reason as it is handed on, to other peers too: one that is too long is not,
// and of one that is not plain the text is.
func handed(reason []byte) []byte {
	switch {
	case len(reason) > maxReasonBytes:
		return nil
	case !plain(reason):
		return appendBinary(nil, textOf(reason))
	}
	return reason
}

// takeSent uses a message to a connection: Body, {Tag, Body} or {close, Reason}. m is
// the rest of its packet, unchecked.
func (c *conn) takeSent(conn uint64, m []byte) {
	if skip(m, noTermsLimit) != len(m) {
		c.bad(badPayload, nil)
		return
	}
	whole := m
	arity, elements := tupleOf(m)
	if arity == 2 {
		if first, rest := next(elements); isAtom(first, "$gen_cast") {
			m = rest
			arity, elements = tupleOf(m)
		}
	}
	if arity >= 2 {
		first, rest := next(elements)
		_, tagged := atomText(first)
		switch {
		case arity == 3 && isAtom(first, "$gen_call"):
			from, request := next(rest)
			if who, ok := callerOf(from); ok {
				c.refuse(who, request)
				return
			}
			fallthrough
		case arity != 2 || !tagged:
			c.bad(badShape, whole)
			return
		case isAtom(first, "close"):
			c.exit(conn, rest)
			return
		}
		m = rest
	}
	body, ok := c.body(m)
	if !ok {
		c.bad(badBody, whole)
		return
	}
	c.fed = true
	c.feed.Send(conn, body)
}

// exit ends a connection with a reason that Erlang gives.
func (c *conn) exit(conn uint64, reason []byte) {
	c.fed = true
	c.feed.Exit(conn, textOf(reason), handed(reason))
}

func (c *conn) takePair(m, uid, rest []byte) {
	id, name, ok := uidOf(uid)
	if !ok {
		c.bad(badUID, m)
		return
	}
	body, ok := c.body(rest)
	if !ok {
		c.bad(badBody, m)
		return
	}
	c.fed = true
	c.feed.Message(id, name, body)
}

// takeList uses [{Uid, Body}, ...], a checked term. A bad element is lost alone.
func (c *conn) takeList(m []byte) {
	n := int(binary.BigEndian.Uint32(m[1:]))
	b := m[5:]
	for range n {
		id, name, body, rest, ok := pair(b)
		if ok {
			c.fed = true
			c.feed.Message(id, name, body)
			b = rest
			continue
		}
		b = c.takeElement(b)
	}
	if b[0] != tagNil {
		c.bad(badShape, b) // the tail of an improper list
	}
}

// takeElement uses one element that has not the hot shape.
func (c *conn) takeElement(b []byte) (rest []byte) {
	e, rest := next(b)
	if arity, elements := tupleOf(e); arity == 2 {
		uid, body := next(elements)
		if _, atom := atomText(uid); !atom {
			c.takePair(e, uid, body)
			return rest
		}
	}
	c.bad(badShape, e)
	return rest
}

const maxScratch = 1 << 10 // entries of flatten's stack kept for reuse

func (c *conn) body(term []byte) (body []byte, ok bool) {
	body, c.stack, ok = bodyOf(term, c.stack)
	if cap(c.stack) > maxScratch {
		c.stack = nil
	}
	return body, ok
}

// bad counts a message to the registered name that is lost, and logs it: once per
// kind and second, with the start of the term.
func (c *conn) bad(kind badKind, term []byte) {
	c.fed = true
	c.feed.Bad()
	c.lost(kind, term)
}

// lost is bad for messages that were for others than the registered name.
func (c *conn) lost(kind badKind, term []byte) {
	c.n.counters.badMessages[kind].Add(1)
	if !c.n.limiter.allow(kind.String()) {
		return
	}
	shown := []byte("not a term")
	if term != nil {
		if shown, _ = appendText(nil, term, 0); len(shown) > maxShown {
			shown = append(shown[:maxShown], "..."...)
		}
	}
	c.n.say("message not usable", kind.String(), "peer", c.peer, "reason", kind.String(), "err", string(shown))
}

const maxShown = 80 // bytes of a bad message that go to the log

// unknown counts a message for a name or pid that does not exist here. Erlang drops
// such messages without a word, and so do we.
func (c *conn) unknown() { c.n.counters.badMessages[badTarget].Add(1) }
