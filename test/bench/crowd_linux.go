package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"halley/test/flood"
)

// crowd is a number of open streams that read and check what comes.
type crowd struct {
	client *flood.Client
	took   time.Duration // to open them all
	end    context.CancelFunc
	done   chan struct{}
	err    error // valid after done
}

// gather opens n streams, of the uids from first to last in turn. Those that are
// stalled never read.
func gather(ctx context.Context, url string, n, first, last int, stalled bool) (*crowd, error) {
	o := flood.DefaultOptions()
	o.URL, o.Connections, o.Rate, o.Hold = url, n, 0, 0
	o.FirstUID, o.LastUID = int64(first), int64(last)
	if stalled {
		o.Stall = 1
	}
	client, err := flood.NewClient(o)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := &crowd{client: client, end: cancel, done: make(chan struct{})}
	start, connected := time.Now(), make(chan struct{})
	go func() {
		defer close(c.done)
		_, c.err = client.Run(ctx, flood.Events{Connected: func() { close(connected) }})
	}()
	select {
	case <-connected:
		c.took = time.Since(start)
	case <-c.done:
		cancel()
		return nil, fmt.Errorf("open %d streams: %w", n, errors.Join(c.err, errors.New("they ended")))
	case <-time.After(openLimit):
		c.disperse()
		return nil, fmt.Errorf("not all of %d streams were open after %v", n, openLimit)
	}
	if st := client.Snapshot(ctx); st == nil || st.Err() != nil || st.Open != n {
		c.disperse()
		return nil, fmt.Errorf("open %d streams: %+v", n, st)
	}
	return c, nil
}

const openLimit = 60 * time.Second

// disperse closes the streams.
func (c *crowd) disperse() {
	c.end()
	<-c.done
}

// begin forgets what came before.
func (c *crowd) begin(ctx context.Context) { c.client.Restart(ctx) }

// wait returns when n messages have come since begin, or none for a while.
func (c *crowd) wait(ctx context.Context, n int) (*flood.Stats, error) {
	var last uint64
	for since := time.Now(); ; time.Sleep(2 * time.Millisecond) {
		st := c.client.Snapshot(ctx)
		switch {
		case st == nil:
			return nil, errors.Join(ctx.Err(), errors.New("the streams have ended"))
		case st.Messages >= uint64(n):
			return st, st.Err()
		case st.Messages > last:
			last, since = st.Messages, time.Now()
		case time.Since(since) > silence:
			return st, fmt.Errorf("%d of %d messages came", st.Messages, n)
		}
	}
}

// silence is how long nothing may come before the rest counts as lost.
const silence = 5 * time.Second
