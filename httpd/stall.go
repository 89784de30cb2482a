package httpd

import (
	"fmt"
	"sync/atomic"
	"time"
)

// This file finds a loop that makes no progress: a bug, a log that blocks, a machine
// that has stopped. Its clients get nothing, and nobody else would tell.

// doing is what a loop does.
type doing uint32

const (
	doingSockets  doing = iota // or it waits
	doingArrivals              // connections that other loops have accepted
	doingMessages
	doingWrites
	doingTicks // timeouts, the drain, subscriptions
)

var doingNames = [...]string{"sockets", "arrivals", "messages", "writes", "ticks"}

// pulse is a loop's sign of life: written by the loop, read by anyone.
type pulse struct {
	tick  atomic.Int64 // when the loop last looked at its ticks, on the server's clock
	doing atomic.Uint32
}

func (p *pulse) at(d doing) { p.doing.Store(uint32(d)) }

const (
	// stallAfter is many ticks, and more than a turn takes.
	stallAfter = 3 * time.Second
	watchEvery = time.Second
)

// stalled says for how long a loop has made no progress, 0 if it is well.
func (s *Server) stalled(l *loop) time.Duration {
	if age := time.Since(s.start) - time.Duration(l.pulse.tick.Load()); age > stallAfter {
		return age
	}
	return 0
}

// watch logs the loops that stall, and those that go on again, until done.
func (s *Server) watch(done <-chan struct{}) {
	ticks := time.NewTicker(watchEvery)
	defer ticks.Stop()
	known := make([]bool, len(s.loops))
	for {
		select {
		case <-done:
			return
		case <-ticks.C:
		}
		for i, l := range s.loops {
			age := s.stalled(l)
			switch {
			case age > 0 && !known[i]:
				s.log.Error("a loop makes no progress, its clients get nothing", "loop", i,
					"doing", doingNames[l.pulse.doing.Load()], "dur_ms", age.Milliseconds())
			case age == 0 && known[i]:
				s.log.Info("the loop goes on", "loop", i)
			}
			known[i] = age > 0
		}
	}
}

// stallError is what /readyz says of a loop.
func (s *Server) stallError() error {
	for i, l := range s.loops {
		if age := s.stalled(l); age > 0 {
			return fmt.Errorf("loop %d has made no progress for %s: %s", i, age.Round(time.Millisecond), doingNames[l.pulse.doing.Load()])
		}
	}
	return nil
}
