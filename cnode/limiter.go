package cnode

import (
	"sync"
	"time"
)

// limiter lets one log line per kind and second through, so that what a peer or a
// stranger sends cannot fill the log.
type limiter struct {
	mu    sync.Mutex // protects kinds
	kinds map[string]*limited
}

type limited struct {
	since      time.Time // of the last line
	suppressed int       // lines since then
}

// allow is true if a line of kind may be written now. Kinds are constants of this
// package, so their number is bounded.
func (l *limiter) allow(kind string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.kinds[kind]
	if k == nil {
		if l.kinds == nil {
			l.kinds = make(map[string]*limited)
		}
		k = new(limited)
		l.kinds[kind] = k
	}
	if now := time.Now(); now.Sub(k.since) >= time.Second {
		k.since = now
		return true
	}
	k.suppressed++
	return false
}

// suppressed is how many lines of kind were not written since the last one that was.
func (l *limiter) suppressed(kind string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.kinds[kind].suppressed
	l.kinds[kind].suppressed = 0
	return n
}

// complain logs a warning, once per kind and second.
func (n *Node) complain(message, kind string, args ...any) {
	if n.limiter.allow(kind) {
		n.say(message, kind, args...)
	}
}

// say logs what allow has let through; n is the number of lines left out before it.
func (n *Node) say(message, kind string, args ...any) {
	if left := n.limiter.suppressed(kind); left > 0 {
		args = append(args, "n", left)
	}
	n.log.Warn(message, args...)
}
