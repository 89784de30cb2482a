package cnode

// inboxBytes is what may wait for a peer when a client's message comes.
const inboxBytes = 1 << 20

// Inbox is {message, Uid, Pid, Body} to the process registered as Options.Inbox on one
// peer: Options.LoginNode if it has the name, else the first connected one that has. conn
// is 0 for a uid that has no connection. False: no peer can take it now. Any goroutine;
// it does not block, and keeps nothing of body.
func (n *Node) Inbox(id int64, name []byte, conn uint64, body []byte) bool {
	c := n.teller.inbox.Load()
	if c == nil || !c.w.offer(n.inboxPacket(id, name, conn, body), inboxBytes) {
		n.teller.counts.inboxRefused.Add(1)
		return false
	}
	n.teller.counts.inboxAccepted.Add(1)
	return true
}

func (n *Node) inboxPacket(id int64, name []byte, conn uint64, body []byte) []byte {
	b := n.appendNamedHead(make([]byte, 0, 4*64+2*len(n.o.Name)+len(name)+len(body)), n.o.Inbox)
	b = appendUID(appendAtom(appendTuple(b, 4), "message"), id, name)
	if conn != 0 {
		b = n.appendConnPid(b, conn)
	} else {
		b = appendAtom(b, "undefined")
	}
	return seal(appendBinary(b, body))
}
