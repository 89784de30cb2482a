package httpd

import (
	"sync/atomic"
	"time"
)

// mailbox hands batches from the feeds to a loop: a linked list that producers
// push to with one compare-and-swap and that the loop takes whole. It is
// bounded by the bytes and entries that are in it or being worked on.
type mailbox struct {
	// Set once.
	maxBytes   int64
	maxEntries int64
	wake       func()
	// Written by anyone.
	head    atomic.Pointer[part] // newest first
	bytes   atomic.Int64
	entries atomic.Int64
	closed  atomic.Bool
	waiters atomic.Int32
	room    chan struct{} // one token: there may be room
}

func newMailbox(maxBytes, maxEntries int64) *mailbox {
	return &mailbox{maxBytes: maxBytes, maxEntries: maxEntries, room: make(chan struct{}, 1)}
}

// reserve claims room for a part. An empty mailbox takes any part.
func (m *mailbox) reserve(p *part) bool {
	bytes, entries := m.bytes.Add(p.bytes), m.entries.Add(int64(len(p.entries)))
	if entries == int64(len(p.entries)) || (bytes <= m.maxBytes && entries <= m.maxEntries) {
		return true
	}
	m.release(p.bytes, int64(len(p.entries)))
	return false
}

// release gives room back and wakes one feed that waits for it.
func (m *mailbox) release(bytes, entries int64) {
	m.bytes.Add(-bytes)
	m.entries.Add(-entries)
	if m.waiters.Load() > 0 {
		select {
		case m.room <- struct{}{}:
		default:
		}
	}
}

// push adds a part, waiting for room at most as long as wait says. It returns
// false if there was none in time or the mailbox is closed.
func (m *mailbox) push(p *part, wait time.Duration) bool {
	if !m.reserve(p) && !m.reserveSlow(p, wait) {
		return false
	}
	if m.closed.Load() {
		m.release(p.bytes, int64(len(p.entries)))
		return false
	}
	for {
		head := m.head.Load()
		p.next = head
		if m.head.CompareAndSwap(head, p) {
			if head == nil { // the loop took all there was: it may sleep
				m.wake()
			}
			return true
		}
	}
}

// reserveSlow waits for room. It looks again after 10 ms even unasked, because
// two releases at once leave one token.
func (m *mailbox) reserveSlow(p *part, wait time.Duration) bool {
	if wait <= 0 || m.closed.Load() {
		return false
	}
	m.waiters.Add(1)
	defer m.waiters.Add(-1)
	deadline := time.Now().Add(wait)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		if m.reserve(p) {
			return true
		}
		if m.closed.Load() || time.Now().After(deadline) {
			return false
		}
		select {
		case <-m.room:
		case <-look.C:
		}
	}
}

// take returns all parts, oldest first. Only the loop calls it.
func (m *mailbox) take() *part {
	var oldest *part
	for p := m.head.Swap(nil); p != nil; {
		next := p.next
		p.next = oldest
		oldest, p = p, next
	}
	return oldest
}

// close makes further pushes fail. The loop then takes what is left.
func (m *mailbox) close() { m.closed.Store(true) }
