package cnode

import (
	"github.com/ergo-services/ergo/etf"
	"github.com/ergo-services/ergo/gen"
	"github.com/ergo-services/ergo/lib"
	"github.com/ergo-services/ergo/node"
)

// What ergo's processes send to a peer: node.ConnectionInterface. Any goroutine.

// send queues a packet; a full queue ends the connection.
func (c *conn) send(packet []byte) error {
	err := c.w.put(packet)
	if err != nil && err != errGone {
		c.end(endSlow, err)
	}
	return err
}

// sendControl queues a control message, given in pieces, and its message if any.
func (c *conn) sendControl(message []byte, control ...[]byte) error {
	b := beginPacket(make([]byte, 0, 128))
	for _, piece := range control {
		b = append(b, piece...)
	}
	if message != nil {
		b = append(append(b, tagVersion), message...)
	}
	return c.send(seal(b))
}

// sendTerm is sendControl with a term of ergo's. It is encoded before anything is
// queued, so that a term without an encoding costs nobody else.
func (c *conn) sendTerm(control []byte, term etf.Term) error {
	b := append(beginPacket(make([]byte, 0, 256)), control...)
	b, err := encodeTerm(append(b, tagVersion), term)
	if err != nil {
		return err
	}
	return c.send(seal(b))
}

// Send is {22, From, To} and the message.
func (c *conn) Send(from gen.Process, to etf.Pid, message etf.Term) error {
	b := appendPid(appendInt(appendTuple(nil, 3), opSendSender), from.Self())
	return c.sendTerm(appendPid(b, to), message)
}

// SendReg is {6, From, Unused, Name} and the message.
func (c *conn) SendReg(from gen.Process, to gen.ProcessID, message etf.Term) error {
	b := appendPid(appendInt(appendTuple(nil, 4), opRegSend), from.Self())
	return c.sendTerm(appendAtom(appendAtom(b, ""), to.Name), message)
}

// SendAlias is {33, From, Alias} and the message.
func (c *conn) SendAlias(from gen.Process, to etf.Alias, message etf.Term) error {
	b := appendPid(appendInt(appendTuple(nil, 3), opAliasSend), from.Self())
	return c.sendTerm(appendRef(b, etf.Ref(to), refWords(etf.Ref(to))), message)
}

// Link is {1, From, To}.
func (c *conn) Link(local, remote etf.Pid) error {
	b := appendPid(appendInt(appendTuple(nil, 3), opLink), local)
	return c.sendControl(nil, appendPid(b, remote))
}

// Unlink is {35, Id, From, To}, unless it is the peer that is unlinking.
func (c *conn) Unlink(local, remote etf.Pid) error {
	c.watches.mu.Lock()
	quiet := c.watches.quiet[linkPair{local, remote}]
	c.watches.mu.Unlock()
	if quiet {
		return nil
	}
	b := appendUint(appendInt(appendTuple(nil, 4), opUnlinkID), c.unlinks.Add(1))
	return c.sendControl(nil, appendPid(appendPid(b, local), remote))
}

// LinkExit is {24, Terminated, To} and the reason.
func (c *conn) LinkExit(to, terminated etf.Pid, reason string) error {
	c.watches.mu.Lock()
	delete(c.watches.links, linkPair{terminated, to})
	c.watches.mu.Unlock()
	b := appendPid(appendInt(appendTuple(nil, 3), opPayloadExit), terminated)
	return c.sendControl(reasonTerm(reason), appendPid(b, to))
}

// Monitor is {19, From, To, Ref}.
func (c *conn) Monitor(local, remote etf.Pid, ref etf.Ref) error {
	b := appendPid(appendInt(appendTuple(nil, 4), opMonitor), local)
	return c.sendControl(nil, appendRef(appendPid(b, remote), ref, refWords(ref)))
}

// MonitorReg is Monitor of a registered name.
func (c *conn) MonitorReg(local etf.Pid, remote gen.ProcessID, ref etf.Ref) error {
	b := appendPid(appendInt(appendTuple(nil, 4), opMonitor), local)
	return c.sendControl(nil, appendRef(appendAtom(b, remote.Name), ref, refWords(ref)))
}

// Demonitor is {20, From, To, Ref}.
func (c *conn) Demonitor(local, remote etf.Pid, ref etf.Ref) error {
	b := appendPid(appendInt(appendTuple(nil, 4), opDemonitor), local)
	return c.sendControl(nil, appendRef(appendPid(b, remote), ref, refWords(ref)))
}

// DemonitorReg is Demonitor of a registered name.
func (c *conn) DemonitorReg(local etf.Pid, remote gen.ProcessID, ref etf.Ref) error {
	b := appendPid(appendInt(appendTuple(nil, 4), opDemonitor), local)
	return c.sendControl(nil, appendRef(appendAtom(b, remote.Name), ref, refWords(ref)))
}

// MonitorExit is {28, Terminated, To, Ref} and the reason.
func (c *conn) MonitorExit(to, terminated etf.Pid, reason string, ref etf.Ref) error {
	b := appendPid(appendInt(appendTuple(nil, 4), opPayloadMonExit), terminated)
	return c.monitorExit(appendPid(b, to), reason, ref)
}

// MonitorExitReg is MonitorExit of a registered name.
func (c *conn) MonitorExitReg(to etf.Pid, terminated gen.ProcessID, reason string, ref etf.Ref) error {
	b := appendAtom(appendInt(appendTuple(nil, 4), opPayloadMonExit), terminated.Name)
	return c.monitorExit(appendPid(b, to), reason, ref)
}

// monitorExit ends with the reference in the length in which it came.
func (c *conn) monitorExit(control []byte, reason string, ref etf.Ref) error {
	words := c.watches.forget(ref)
	if words == 0 {
		words = refWords(ref)
	}
	return c.sendControl(reasonTerm(reason), appendRef(control, ref, words))
}

// refWords is the length of a reference that did not come from the wire, and the best
// guess for one that ergo has decoded. Ours have 3 words.
func refWords(r etf.Ref) int {
	if r.ID[3]|r.ID[4] != 0 {
		return maxRefWords
	}
	return 3
}

// reasonTerm is an atom, as Erlang expects of noproc and its like, if it fits one.
func reasonTerm(reason string) []byte {
	if len(reason) > maxAtomBytes {
		return appendBinary(nil, []byte(reason))
	}
	return appendAtom(nil, reason)
}

// Creation is the peer's.
func (c *conn) Creation() uint32 { return c.info.creation }

// Stats for ergo; the node's Counters are the whole picture.
func (c *conn) Stats() node.NetworkStats {
	return node.NetworkStats{NodeName: c.peer}
}

// Spawning and proxies are not part of what Halley does.

func (c *conn) SpawnRequest(string, string, gen.RemoteSpawnRequest, ...etf.Term) error {
	return lib.ErrUnsupported
}
func (c *conn) SpawnReply(etf.Pid, etf.Ref, etf.Pid) error         { return lib.ErrUnsupported }
func (c *conn) SpawnReplyError(etf.Pid, etf.Ref, error) error      { return lib.ErrUnsupported }
func (c *conn) ProxyConnectRequest(node.ProxyConnectRequest) error { return lib.ErrUnsupported }
func (c *conn) ProxyConnectReply(node.ProxyConnectReply) error     { return lib.ErrUnsupported }
func (c *conn) ProxyConnectCancel(node.ProxyConnectCancel) error   { return lib.ErrUnsupported }
func (c *conn) ProxyDisconnect(node.ProxyDisconnect) error         { return lib.ErrUnsupported }
func (c *conn) ProxyRegisterSession(node.ProxySession) error       { return lib.ErrUnsupported }
func (c *conn) ProxyUnregisterSession(string) error                { return lib.ErrUnsupported }
func (c *conn) ProxyPacket(*lib.Buffer) error                      { return lib.ErrUnsupported }
