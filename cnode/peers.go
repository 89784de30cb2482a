package cnode

import (
	"slices"
	"sync"
	"sync/atomic"
)

// peers are the conns in service, the oldest first: each from before its Feed is told
// anything until after the Feed's End. Whoever must not wait for a lock, as the loops
// that tell of ended connections, reads the list as it is.
type peers struct {
	mu   sync.Mutex // taken to change the list
	list atomic.Pointer[[]*conn]
}

// all is not to be written to.
func (p *peers) all() []*conn {
	if list := p.list.Load(); list != nil {
		return *list
	}
	return nil
}

func (p *peers) add(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := append(slices.Clone(p.all()), c)
	p.list.Store(&list)
}

func (p *peers) remove(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Clone(p.all())
	if i := slices.Index(list, c); i >= 0 {
		list = slices.Delete(list, i, i+1)
	}
	p.list.Store(&list)
}

// peerUp is called on the reader's goroutine before it reads. The writer takes what is
// sent, but writes only after it has returned.
func (n *Node) peerUp(c *conn) {
	n.peers.add(c)
	n.teller.wake()
}

// peerDown is called on the reader's goroutine after the writer has ended; what is
// sent to c from now on is lost.
func (n *Node) peerDown(c *conn) {
	n.peers.remove(c)
	c.held.end()
	c.asked.end()
	n.teller.wake()
}
