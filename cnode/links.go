package cnode

import (
	"sync"

	"github.com/ergo-services/ergo/etf"
	"github.com/ergo-services/ergo/gen"
)

// Links and monitors that a peer asks for, and its exit signals. Connections can have
// them, see held.go, and ergo's own processes; everything else is dead and is answered
// so at once, with the pids and references as they came. What the peer holds ends with
// its connection by itself: Erlang fires noconnection on its side.

const maxWatches = 1 << 16 // links and monitors of ergo's processes held by one peer

// watches are what one peer holds of ergo's processes. ergo's table of monitors does
// not forget those of a node that went down, and knows no number of words.
type watches struct {
	mu       sync.Mutex        // protects all fields
	monitors map[etf.Ref]watch // by the peer's reference
	links    map[linkPair]bool // by both ends
	quiet    map[linkPair]bool // the peer is unlinking: nothing to tell it
}

type watch struct {
	by    etf.Pid
	words int // of the reference as it came: 3 from OTP 25, 5 from OTP 27
}

type linkPair struct{ local, remote etf.Pid }

func newWatches() *watches {
	return &watches{
		monitors: make(map[etf.Ref]watch),
		links:    make(map[linkPair]bool),
		quiet:    make(map[linkPair]bool),
	}
}

// knows is true for the pid of a living process of this start of ours.
func (n *Node) knows(pid etf.Pid) bool {
	return n.ours(pid) && n.ergo.ProcessByPid(pid) != nil
}

// linked answers {1, From, To}.
func (c *conn) linked(from, to []byte) bool {
	if conn, ok := c.connOf(to); ok && isPid(from) {
		if by, ok := c.theirs(from); !ok || !c.hold(conn, by, holdLink, reference{}) {
			c.linkNoproc(from, to)
		}
		return true
	}
	remote, ok1 := pidOf(from)
	local, ok2 := pidOf(to)
	if !ok1 || !ok2 {
		return false
	}
	pair := linkPair{local, remote}
	c.watches.mu.Lock()
	room := len(c.watches.links) < maxWatches
	if room && c.n.knows(local) {
		c.watches.links[pair] = true
		c.watches.mu.Unlock()
		c.router.RouteLink(remote, local) // ergo answers itself if the process has just died
		return true
	}
	c.watches.mu.Unlock()
	c.linkNoproc(from, to)
	return true
}

// hold is false if nothing more can be held. The hold is in before the loop is asked,
// so that no end can come between.
func (c *conn) hold(conn uint64, by process, kind holdKind, ref reference) bool {
	watch, ok := c.held.add(conn, by, kind, ref)
	if watch {
		c.fed = true
		c.feed.Watch(conn)
	}
	return ok
}

func (c *conn) linkNoproc(from, to []byte) {
	b := appendInt(appendTuple(nil, 3), opPayloadExit)
	c.sendControl(appendAtom(nil, "noproc"), b, to, from)
}

// unlinked answers {35, Id, From, To} with {36, Id, To, From}, always: until then the
// peer's process takes the link for half alive. id is nil for the obsolete form.
func (c *conn) unlinked(id, from, to []byte) bool {
	remote, ok1 := pidOf(from)
	local, ok2 := pidOf(to)
	if !ok1 || !ok2 {
		return false
	}
	if conn, ok := c.connOf(to); ok { // first, so that no exit follows the acknowledgement
		if by, ok := c.theirs(from); ok {
			c.held.remove(conn, by, holdLink, reference{})
		}
	}
	if id != nil {
		b := appendInt(appendTuple(nil, 4), opUnlinkIDAck)
		c.sendControl(nil, b, id, to, from)
	}
	pair := linkPair{local, remote}
	c.watches.mu.Lock()
	held := c.watches.links[pair]
	delete(c.watches.links, pair)
	if held {
		c.watches.quiet[pair] = true
	}
	c.watches.mu.Unlock()
	if held {
		// This way round ergo forgets both directions; it also calls our Unlink.
		c.router.RouteUnlink(local, remote)
		c.watches.mu.Lock()
		delete(c.watches.quiet, pair)
		c.watches.mu.Unlock()
	}
	return true
}

// monitored answers {19, From, ToPidOrName, Ref}. A name that is served is alive as
// long as the node is: nothing to say and nothing to remember.
func (c *conn) monitored(from, to, ref []byte) bool {
	if conn, ok := c.connOf(to); ok && isPid(from) && isRef(ref) {
		by, r, ok := c.monitorOf(from, ref)
		if !ok || !c.hold(conn, by, holdMonitor, r) {
			c.monitorNoproc(from, to, ref)
		}
		return true
	}
	by, ok1 := pidOf(from)
	r, words, ok2 := refOf(ref)
	if !ok1 || !ok2 {
		return false
	}
	name, isName := atomText(to)
	local, isPid := pidOf(to)
	if !isName && !isPid {
		return false
	}
	alive := false
	switch {
	case isName && c.serves(string(name)):
		return true
	case isName:
		alive = c.n.ergo.ProcessByName(string(name)) != nil
	default:
		alive = c.n.knows(local)
	}
	c.watches.mu.Lock()
	if alive = alive && len(c.watches.monitors) < maxWatches; alive {
		c.watches.monitors[r] = watch{by, words}
	}
	c.watches.mu.Unlock()
	switch {
	case !alive:
		c.monitorNoproc(from, to, ref)
	case isName:
		c.router.RouteMonitorReg(by, gen.ProcessID{Name: string(name), Node: c.n.o.Name}, r)
	default:
		c.router.RouteMonitor(by, local, r)
	}
	return true
}

// monitorOf gives who has a monitor, and its reference, if both are the peer's.
func (c *conn) monitorOf(from, ref []byte) (by process, r reference, ok bool) {
	by, ok1 := c.theirs(from)
	node, r, ok2 := refParts(ref)
	return by, r, ok1 && ok2 && string(node) == c.peer
}

func (c *conn) monitorNoproc(from, to, ref []byte) {
	b := appendInt(appendTuple(nil, 4), opPayloadMonExit)
	c.sendControl(appendAtom(nil, "noproc"), b, to, from, ref)
}

// demonitored takes {20, From, ToPidOrName, Ref}, which has no answer.
func (c *conn) demonitored(from, to, ref []byte) bool {
	if conn, ok := c.connOf(to); ok && isPid(from) && isRef(ref) {
		if by, r, ok := c.monitorOf(from, ref); ok {
			c.held.remove(conn, by, holdMonitor, r)
		}
		return true
	}
	by, ok1 := pidOf(from)
	r, _, ok2 := refOf(ref)
	if !ok1 || !ok2 {
		return false
	}
	if c.watches.forget(r) != 0 {
		c.router.RouteDemonitor(by, r)
	}
	return true
}

// exited takes {24, From, To}: a link of ours is broken. That ends a connection as it
// ends a process that does not trap exits. A link that is not there any more is none.
func (c *conn) exited(from, to, reason []byte) bool {
	if conn, ok := c.connOf(to); ok && isPid(from) {
		by, ok := c.theirs(from)
		switch {
		case !ok:
		case isAtom(reason, "normal"):
			c.held.remove(conn, by, holdLink, reference{})
		case c.held.breakLink(conn, by):
			c.exit(conn, reason)
		}
		return true
	}
	remote, ok1 := pidOf(from)
	local, ok2 := pidOf(to)
	if ok1 && ok2 && c.n.knows(local) {
		c.watches.mu.Lock()
		delete(c.watches.links, linkPair{local, remote})
		c.watches.mu.Unlock()
		c.router.RouteExit(local, remote, string(textOf(reason)))
	}
	return ok1 && ok2
}

// exitAsked takes {26, From, To}: exit(To, Reason). Processes of ergo's do not die of
// what a peer says.
func (c *conn) exitAsked(from, to, reason []byte) bool {
	conn, ok := c.connOf(to)
	switch {
	case !ok || isAtom(reason, "normal"):
	case isAtom(reason, "kill"):
		c.exit(conn, appendAtom(nil, "killed")) // what others are told, as by OTP
	default:
		c.exit(conn, reason)
	}
	return isPid(from) && isPid(to)
}

// monitorFired takes {28, PidOrName, To, Ref}: what a process of ours monitors is down.
func (c *conn) monitorFired(down, to, ref, reason []byte) bool {
	r, _, ok1 := refOf(ref)
	local, ok2 := pidOf(to)
	if !ok1 || !ok2 {
		return false
	}
	if c.n.isSender(local) {
		c.askedDown(ref, reason)
		return true
	}
	if name, ok := atomText(down); ok {
		c.router.RouteMonitorExitReg(gen.ProcessID{Name: string(name), Node: c.peer}, string(textOf(reason)), r)
		return true
	}
	pid, ok := pidOf(down)
	if ok {
		c.router.RouteMonitorExit(pid, string(textOf(reason)), r)
	}
	return ok
}

// forget drops the monitor r and gives its number of words, 0 if there is none.
func (w *watches) forget(r etf.Ref) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.monitors[r]
	delete(w.monitors, r)
	return m.words
}

// end drops what the peer holds, after its connection has ended.
func (w *watches) end(forget func(by etf.Pid, r etf.Ref) error) {
	w.mu.Lock()
	monitors := w.monitors
	w.monitors, w.links = nil, nil
	w.mu.Unlock()
	for r, m := range monitors {
		forget(m.by, r)
	}
}
