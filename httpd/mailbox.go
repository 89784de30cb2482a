package httpd

import (
	"sync/atomic"
	"time"
)

// mailbox hands batches from the feeds to a loop: a linked list that a feed
// pushes to with one compare-and-swap and that the loop takes whole. It is
// bounded by the bytes and entries that are in it or being worked on.
type mailbox struct {
	// Set once.
	maxBytes   int64
	maxEntries int64
	wake       func()
	// Written by anyone.
	head    atomic.Pointer[part] // first part of the newest batch
	bytes   atomic.Int64
	entries atomic.Int64
	closed  atomic.Bool
	beyond  atomic.Int64 // bytes of commands that came when it was full
	waiters atomic.Int32
	room    chan struct{} // one token: there may be room
}

func newMailbox(maxBytes, maxEntries int64) *mailbox {
	return &mailbox{maxBytes: maxBytes, maxEntries: maxEntries, room: make(chan struct{}, 1)}
}

// reserve claims room for a batch. A mailbox that is no more than half full
// takes any: so one larger than the mailbox passes.
func (m *mailbox) reserve(b *batch) bool {
	bytes, entries := m.bytes.Add(b.bytes), m.entries.Add(b.entries)
	half := bytes-b.bytes <= m.maxBytes/2 && entries-b.entries <= m.maxEntries/2
	if half || bytes <= m.maxBytes && entries <= m.maxEntries {
		return true
	}
	m.bytes.Add(-b.bytes)
	m.entries.Add(-b.entries)
	return false
}

// release gives a part's room back and, once half of all is free, wakes one
// feed that waits: not at each part, for which there is seldom room again.
func (m *mailbox) release(p *part) {
	if p.beyond {
		m.beyond.Add(-p.bytes)
		return
	}
	bytes, entries := m.bytes.Add(-p.bytes), m.entries.Add(-int64(len(p.entries)))
	if bytes <= m.maxBytes/2 && entries <= m.maxEntries/2 && m.waiters.Load() > 0 {
		select {
		case m.room <- struct{}{}:
		default:
		}
	}
}

// push adds a batch, waiting for room at most as long as wait says. It returns
// false if there was none in time or the mailbox is closed.
func (m *mailbox) push(b *batch, wait time.Duration) bool {
	if m.closed.Load() || !m.reserve(b) && !m.reserveSlow(b, wait) {
		return false
	}
	m.link(b)
	return true
}

// pushBeyond adds commands that found no room. They have room of their own, of
// maxBytes, and the last batch may go over it.
func (m *mailbox) pushBeyond(b *batch) bool {
	if m.closed.Load() {
		return false
	}
	if m.beyond.Add(b.bytes)-b.bytes > m.maxBytes {
		m.beyond.Add(-b.bytes)
		return false
	}
	for p := b.first; p != nil; p = p.next {
		p.beyond = true
	}
	m.link(b)
	return true
}

// link makes a batch the newest, and wakes the loop if it may sleep.
func (m *mailbox) link(b *batch) {
	b.first.last = b.last
	for {
		head := m.head.Load()
		b.first.older = head
		if m.head.CompareAndSwap(head, b.first) {
			if head == nil { // the loop took all there was: it may sleep
				m.wake()
			}
			return
		}
	}
}

// reserveSlow waits for room. It looks again after 10 ms even unasked, because
// two releases at once leave one token.
func (m *mailbox) reserveSlow(b *batch, wait time.Duration) bool {
	if wait <= 0 || m.closed.Load() {
		return false
	}
	m.waiters.Add(1)
	defer m.waiters.Add(-1)
	deadline := time.Now().Add(wait)
	look := time.NewTicker(10 * time.Millisecond)
	defer look.Stop()
	for {
		if m.closed.Load() {
			return false
		}
		if m.reserve(b) {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		select {
		case <-m.room:
		case <-look.C:
		}
	}
}

// take returns all parts, oldest first. The loop calls it; once the mailbox is
// closed a feed may, too.
func (m *mailbox) take() *part {
	var parts *part
	for b := m.head.Swap(nil); b != nil; {
		older := b.older
		b.last.next = parts
		parts, b = b, older
	}
	return parts
}

// close makes further pushes fail. The loop then takes what is left; a feed that
// pushed in between takes it itself (Feed.push).
func (m *mailbox) close() { m.closed.Store(true) }
