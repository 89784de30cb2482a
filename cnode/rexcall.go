package cnode

import (
	"encoding/binary"
	"strings"
)

// Calls of functions on a peer, through its rex: {'$gen_call', {From, Ref},
// {call, M, F, Args, user}}, answered {Ref, Result}. The atom user stands for a group
// leader of ours and sends output to the peer's console. rex runs each call in a process
// of its own: two under way at once may be done in either order.

// rexCall is a function with everything of its call encoded but the reference and the
// arguments.
type rexCall struct {
	n    *Node
	head []byte // a packet up to the reference
	body []byte // after the reference, up to the arguments' number
}

// newRexCall takes MODULE:FUNCTION; nil for "".
func newRexCall(n *Node, mf string) *rexCall {
	if mf == "" {
		return nil
	}
	module, function, _ := strings.Cut(mf, ":")
	h := n.appendNamedHead(nil, "rex")
	h = appendAtom(appendTuple(h, 3), "$gen_call")
	h = n.appendSenderPid(appendTuple(h, 2))
	b := appendAtom(appendTuple(nil, 5), "call")
	b = appendAtom(appendAtom(b, module), function)
	return &rexCall{n: n, head: h, body: b}
}

// appendTo appends the packet of one call: uid is an encoded term, or nil for a function
// of the pid alone.
func (r *rexCall) appendTo(dst []byte, ref uint64, uid []byte, conn uint64) []byte {
	at := len(dst)
	dst = r.n.appendAskedRef(append(dst, r.head...), ref)
	dst = append(dst, r.body...)
	arguments := uint32(1)
	if uid != nil {
		arguments = 2
	}
	dst = binary.BigEndian.AppendUint32(append(dst, tagList), arguments)
	dst = r.n.appendConnPid(append(dst, uid...), conn)
	dst = appendAtom(append(dst, tagNil), "user")
	seal(dst[at:])
	return dst
}

// callResult reads an answer: {badrpc, _}, which is rex's word, and {error, _} have failed.
// notsup is from a node that runs no functions, such as this one.
func callResult(answer []byte) result {
	arity, elements := tupleOf(answer)
	if arity != 2 {
		return resultOK
	}
	first, rest := next(elements)
	switch {
	case isAtom(first, "badrpc") && (isAtom(rest, "notsup") || calledNobody(rest)):
		return resultNobody
	case isAtom(first, "badrpc"), isAtom(first, "error"):
		return resultFailed
	}
	return resultOK
}

// calledNobody is true for {'EXIT', {Why, _}} where the function, or the process that it
// asked, is not there or has just gone: what a node says that is starting, or whose
// router is being restarted. Why may be a tuple, as {nodedown, Node}.
func calledNobody(reason []byte) bool {
	arity, elements := tupleOf(reason)
	if arity != 2 {
		return false
	}
	exit, rest := next(elements)
	arity, elements = tupleOf(rest)
	if !isAtom(exit, "EXIT") || arity != 2 {
		return false
	}
	why, _ := next(elements)
	if arity, elements := tupleOf(why); arity > 0 {
		why, _ = next(elements)
	}
	for _, gone := range [...]string{"undef", "noproc", "nodedown", "noconnection", "shutdown", "killed", "normal"} {
		if isAtom(why, gone) {
			return true
		}
	}
	return false
}

// appendNamedHead appends the start of a packet to a registered name, up to the message:
// {6, From, ”, Name}.
func (n *Node) appendNamedHead(dst []byte, name string) []byte {
	dst = appendInt(appendTuple(beginPacket(dst), 4), opRegSend)
	dst = appendAtom(appendAtom(n.appendSenderPid(dst), ""), name)
	return append(dst, tagVersion)
}

// appendUID appends a uid: an integer, or a binary.
func appendUID(dst []byte, id int64, name []byte) []byte {
	if name != nil {
		return appendBinary(dst, name)
	}
	return appendInt(dst, id)
}
