package cnode

import (
	"bytes"
	"encoding/binary"
)

// rpc and erpc from Erlang. Since OTP 23 a call is the request to spawn a process of
// erpc:execute_call/4, which ends with the result as its reason; the caller monitors
// it. There are no processes here: a request is answered with a pid that nobody has
// but the caller, and what is asked for, one of the functions below, answers as the
// process would by ending.
//
//	in   {29, ReqRef, From, GroupLeader, {erpc, execute_call, 4}, [monitor]}    [ResRef, M, F, Args]
//	out  {31, ReqRef, From, 2, Pid}
//	out  {28, Pid, From, ReqRef}      {ResRef, return, Value} or {ResRef, error, Reason, Stack}
//
// Nothing is kept of a call but its answer to come: when the caller has gone or waits no
// longer, Erlang drops the answer as it drops any signal to the dead.

// A function is one that Erlang may call. call gives its value to reply, now or later,
// from any goroutine; it is false if the arguments are none that it takes.
type function struct {
	module, name string
	arity        int
	call         func(c *conn, args [][]byte, reply func(value []byte)) bool
}

// functions is all that can be called.
var functions = [...]function{
	{"halley", "info", 0, (*conn).callNode},
	{"halley", "info", 1, (*conn).callInfo},
	{"halley", "connections", 1, (*conn).callConnections},
	{"halley", "close", 1, (*conn).callClose},
	{"erlang", "node", 0, (*conn).callName},
}

func (c *conn) callNode(_ [][]byte, reply func([]byte)) bool {
	c.flush() // as for the call `stats`
	reply(c.n.nodeTerm())
	return true
}

func (c *conn) callName(_ [][]byte, reply func([]byte)) bool {
	reply(appendAtom(nil, c.n.o.Name))
	return true
}

func (c *conn) callInfo(args [][]byte, reply func([]byte)) bool {
	if !isPid(args[0]) {
		return false
	}
	c.describe(args[0], reply)
	return true
}

func (c *conn) callConnections(args [][]byte, reply func([]byte)) bool {
	id, name, ok := uidOf(args[0])
	if !ok || c.feed == nil {
		return false
	}
	c.fed = true
	c.feed.Whereis(id, name, func(conns []uint64) { reply(c.n.connsTerm(conns)) })
	return true
}

func (c *conn) callClose(args [][]byte, reply func([]byte)) bool {
	id, name, ok := uidOf(args[0])
	if !ok || c.feed == nil {
		return false
	}
	c.fed = true
	c.feed.CloseCount(id, name, []byte("halley:close/1"), nil, func(n int) { reply(okTerm(n)) })
	return true
}

// spawned is a process as far as its caller can tell.
type spawned struct {
	c         *conn
	pid       []byte // its own
	to        []byte // who has asked for it
	request   []byte // reference of the request, and of the monitor
	result    []byte // reference of the result
	linked    bool
	monitored bool
}

const spawnedIDs = 1 << 31 // the ids from here on, with serial 0; ergo counts from 1000

// spawn answers {29, ReqRef, From, GroupLeader, MFA, Options}.
func (c *conn) spawn(request, from, mfa, options, message []byte) bool {
	if !isRef(request) || !isPid(from) {
		return false
	}
	name, ok := erpcFunction(mfa)
	if skip(message, noTermsLimit) != len(message) {
		c.lost(badPayload, nil)
		ok = false
	}
	if !ok {
		c.spawnRefused(request, from)
		return true
	}
	args, _ := listOf(message, maxCallArgs)
	switch {
	case name == "execute_call" && len(args) == 4:
		s := c.newSpawned(request, from, options)
		s.result = bytes.Clone(args[0])
		s.call(args[1], args[2], args[3])
	case name == "execute_cast" && len(args) == 3:
		s := c.newSpawned(request, from, options)
		if !c.apply(args[0], args[1], args[2], func([]byte) {}) {
			c.lost(badCall, message)
		}
		s.end(appendAtom(nil, "normal"))
	default:
		c.spawnRefused(request, from)
	}
	return true
}

// erpcFunction gives the function of erpc's that is to run.
func erpcFunction(mfa []byte) (name string, ok bool) {
	arity, elements := tupleOf(mfa)
	if arity != 3 {
		return "", false
	}
	module, rest := next(elements)
	function, _ := next(rest)
	text, ok := atomText(function)
	return string(text), ok && isAtom(module, "erpc")
}

// spawnRefused is {31, ReqRef, From, 0, notsup}, as of a node that does not spawn.
func (c *conn) spawnRefused(request, from []byte) {
	b := appendInt(appendTuple(nil, 5), opSpawnReply)
	c.sendControl(nil, b, request, from, appendAtom(appendInt(nil, 0), "notsup"))
}

// newSpawned tells that the process is there: {31, ReqRef, From, Flags, Pid}.
func (c *conn) newSpawned(request, from, options []byte) *spawned {
	s := &spawned{c: c, to: bytes.Clone(from), request: bytes.Clone(request)}
	s.pid = c.n.appendSpawnedPid(nil)
	flags := int64(0)
	list, _ := listOf(options, maxCallArgs)
	for _, option := range list {
		if arity, elements := tupleOf(option); arity == 2 {
			option, _ = next(elements) // {monitor, Options}
		}
		switch {
		case isAtom(option, "link"):
			s.linked = true
			flags |= 1
		case isAtom(option, "monitor"):
			s.monitored = true
			flags |= 2
		}
	}
	b := appendInt(appendTuple(nil, 5), opSpawnReply)
	c.sendControl(nil, b, request, from, appendInt(nil, flags), s.pid)
	return s
}

// appendSpawnedPid appends a pid that nothing else has: ids come again after 2^31 calls.
func (n *Node) appendSpawnedPid(dst []byte) []byte {
	dst = append(dst, n.pidHead...)
	dst = binary.BigEndian.AppendUint32(dst, spawnedIDs|n.lastSpawned.Add(1))
	dst = binary.BigEndian.AppendUint32(dst, 0)
	return binary.BigEndian.AppendUint32(dst, n.creation)
}

const maxCallArgs = 255 // of a function, as in Erlang

// call runs a function and ends with {ResRef, return, Value}, or {ResRef, error,
// Reason, Stack} as erpc:execute_call/4 does.
func (s *spawned) call(module, name, args []byte) {
	reply := func(value []byte) {
		b := appendAtom(append(appendTuple(nil, 3), s.result...), "return")
		s.end(append(b, value...))
	}
	if s.c.apply(module, name, args, reply) {
		return
	}
	reason := "undef"
	if list, ok := listOf(args, maxCallArgs); ok && functionOf(module, name, len(list)) != nil {
		reason = "badarg"
	}
	b := appendAtom(append(appendTuple(nil, 4), s.result...), "error")
	b = appendTuple(appendList(appendAtom(b, reason), 1), 4)
	b = append(append(b, module...), name...)
	if list, ok := listOf(args, maxCallArgs); ok && len(args) > maxEcho {
		b = appendInt(b, int64(len(list))) // the arity does in a stack, too
	} else {
		b = append(b, args...)
	}
	s.end(append(b, tagNil, tagNil)) // no location; end of the stack
}

// functionOf is nil for what cannot be called.
func functionOf(module, name []byte, arity int) *function {
	for i := range functions {
		if f := &functions[i]; f.arity == arity && isAtom(name, f.name) && isAtom(module, f.module) {
			return f
		}
	}
	return nil
}

// apply is false if there is no such function, or it does not take these arguments.
func (c *conn) apply(module, name, args []byte, reply func(value []byte)) bool {
	list, ok := listOf(args, maxCallArgs)
	if !ok {
		return false
	}
	f := functionOf(module, name, len(list))
	return f != nil && f.call(c, list, reply)
}

// end sends what the end of a process would: to who is linked, {24, Pid, From}, and to
// who monitors, {28, Pid, From, ReqRef}. Any goroutine.
func (s *spawned) end(reason []byte) {
	if s.linked {
		s.c.sendControl(reason, appendInt(appendTuple(nil, 3), opPayloadExit), s.pid, s.to)
	}
	if s.monitored {
		s.c.sendControl(reason, appendInt(appendTuple(nil, 4), opPayloadMonExit), s.pid, s.to, s.request)
	}
}
