package cnode

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"
)

// front is an HTTP side for tests: a table of connections, of which each has a log of
// what it was sent. It is the Feed of every peer and tells the node of ends, as httpd
// does.
type front struct {
	t    testing.TB
	node *Node

	mu     sync.Mutex // protects what follows
	conns  map[uint64]*browser
	opened uint32
	log    []string
	bad    int
	held   []func() // replies kept back while hold is set
	hold   bool
}

type browser struct {
	id      int64
	watched bool
	got     []string
}

func newFront(t testing.TB) *front {
	return &front{t: t, conns: make(map[uint64]*browser)}
}

// startFront starts a node with a front.
func startFront(t *testing.T, epmd int, change func(o *Options)) (*testNode, *front) {
	t.Helper()
	f := newFront(t)
	n := startNode(t, epmd, func(o *Options, _ *testNode) {
		o.NewFeed = func(string) Feed { return f }
		if change != nil {
			change(o)
		}
	})
	f.node = n.Node
	return n, f
}

// open gives the number of a new connection: slots come again with another generation.
func (f *front) open(id int64) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.opened++
	conn := uint64(f.opened/4+1)<<32 | uint64(f.opened%4)<<30 | 5
	f.conns[conn] = &browser{id: id}
	return conn
}

// pid is an Erlang expression for a connection's pid.
func (f *front) pid(conn uint64) string { return erlTerm(f.node.appendConnPid(nil, conn)) }

// end ends a connection as a loop does.
func (f *front) end(conn uint64, why string, reason []byte) {
	f.mu.Lock()
	b := f.conns[conn]
	delete(f.conns, conn)
	f.mu.Unlock()
	if b != nil && b.watched {
		f.node.Ended(conn, why, reason)
	}
}

func (f *front) got(conn uint64) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.conns[conn]; b != nil {
		return slices.Clone(b.got)
	}
	return nil
}

func (f *front) alive(conn uint64) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.conns[conn] != nil
}

func (f *front) of(id int64) (conns []uint64) {
	for conn, b := range f.conns {
		if b.id == id {
			conns = append(conns, conn)
		}
	}
	slices.Sort(conns)
	return conns
}

func (f *front) Message(id int64, _, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.of(id) {
		f.conns[conn].got = append(f.conns[conn].got, string(body))
	}
}

func (f *front) Send(conn uint64, body []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b := f.conns[conn]; b != nil {
		b.got = append(b.got, string(body))
	}
}

func (f *front) All([]byte) {}

func (f *front) Exit(conn uint64, text, reason []byte) {
	f.mu.Lock()
	f.log = append(f.log, fmt.Sprintf("exit %s", text))
	f.mu.Unlock()
	f.end(conn, "kicked", slices.Clone(reason))
}

func (f *front) Close(id int64, name []byte, text, reason []byte) {
	f.CloseCount(id, name, text, reason, func(int) {})
}

func (f *front) CloseCount(id int64, _ []byte, text, reason []byte, reply func(int)) {
	f.mu.Lock()
	conns := f.of(id)
	f.log = append(f.log, fmt.Sprintf("close %d %s", id, text))
	f.mu.Unlock()
	for _, conn := range conns {
		f.end(conn, "kicked", slices.Clone(reason))
	}
	f.reply(func() { reply(len(conns)) })
}

func (f *front) Deliver(id int64, name, body []byte, reply func(int)) {
	f.Message(id, name, body)
	f.mu.Lock()
	n := len(f.of(id))
	f.mu.Unlock()
	f.reply(func() { reply(n) })
}

func (f *front) Watch(conn uint64) {
	f.mu.Lock()
	b := f.conns[conn]
	if b != nil {
		b.watched = true
	}
	f.mu.Unlock()
	if b == nil {
		f.node.Ended(conn, "noproc", nil)
	}
}

func (f *front) Whereis(id int64, _ []byte, reply func([]uint64)) {
	f.mu.Lock()
	conns := f.of(id)
	f.mu.Unlock()
	f.reply(func() { reply(conns) })
}

func (f *front) Info(conn uint64, reply func(*Info)) {
	f.mu.Lock()
	var info *Info
	if b := f.conns[conn]; b != nil {
		info = &Info{ID: b.id, Transport: "chunked", Peer: netip.MustParseAddrPort("192.0.2.1:4711"),
			Age: 90 * time.Second, Pending: 17, Bytes: 1 << 40, BytesKnown: true}
		if b.id == 6 {
			info.Peer, info.BytesKnown, info.Name = netip.MustParseAddrPort("[2001:db8::1]:80"), false, []byte("joe")
		}
	}
	f.mu.Unlock()
	f.reply(func() { reply(info) })
}

// reply answers from another goroutine, as a loop does, or later.
func (f *front) reply(answer func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.hold {
		f.held = append(f.held, answer)
		return
	}
	go answer()
}

// keep makes replies wait until it is called again; it gives how many did.
func (f *front) keep(hold bool) int {
	f.mu.Lock()
	held := f.held
	f.held, f.hold = nil, hold
	f.mu.Unlock()
	for _, answer := range held {
		answer()
	}
	return len(held)
}

func (f *front) Bad() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.bad++
}
func (f *front) Flush(done func()) { done() }
func (f *front) End()              {}
