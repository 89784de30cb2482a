package cnode

import (
	"context"
	"sync"
)

// failedLogins are those whose connections are to be closed. A Feed may make its caller
// wait, so that a goroutine of its own does it.
type failedLogins struct {
	woken chan struct{} // 1: there is one
	mu    sync.Mutex    // protects list; taken with that of logins held
	list  []failedLogin // at most as many as places for calls
}

type failedLogin struct {
	of   *logins
	slot int // of of, to be given back
	conn uint64
}

func newFailedLogins() failedLogins { return failedLogins{woken: make(chan struct{}, 1)} }

func (f *failedLogins) add(l failedLogin) {
	f.mu.Lock()
	f.list = append(f.list, l)
	f.mu.Unlock()
	select {
	case f.woken <- struct{}{}:
	default:
	}
}

func (f *failedLogins) take() []failedLogin {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := f.list
	f.list = nil
	return list
}

var (
	loginFailedText = []byte("login_failed")
	loginFailedTerm = appendAtom(nil, "login_failed")
)

// closeFailed runs until ctx ends.
func (t *teller) closeFailed(ctx context.Context) {
	feed := t.n.o.NewFeed("")
	defer feed.End()
	for {
		select {
		case <-t.failed.woken:
		case <-ctx.Done():
			return
		}
		list := t.failed.take()
		for _, f := range list {
			feed.Exit(f.conn, loginFailedText, loginFailedTerm)
		}
		feed.Flush(func() {})
		for _, f := range list {
			f.of.mu.Lock()
			f.of.release(f.slot)
			f.of.mu.Unlock()
		}
		t.wake()
	}
}
