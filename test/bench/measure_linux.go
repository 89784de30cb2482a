package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"halley/test/flood"
)

const (
	deafRate = 4000 // messages a second to clients that do not read
	limitP99 = 10 * time.Millisecond
)

// trial is one server in one round.
type trial struct {
	plan
	*running
	figures figures
	note    func(format string, args ...any)
	crowd   *crowd
}

// measure takes all figures of a running server. A figure that cannot be had is
// missing, and a note says why.
func (t *trial) measure(ctx context.Context) error {
	if err := t.idle(ctx); err != nil {
		return err
	}
	defer func() { t.crowd.disperse() }()
	for _, part := range []struct {
		name string
		run  func(context.Context) error
	}{
		{"fixed rate", t.fixedRate},
		{"flat out", t.flatOut},
		{"highest rate", t.highestRate},
		{"a client that never reads", t.neverReads},
		{"stalled clients", t.stalledClients},
		{"fan-out", t.fanOut},
	} {
		if err := part.run(ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			t.note("%s: %v", part.name, err)
		}
		if t.crowd.client.Snapshot(ctx) == nil {
			return fmt.Errorf("%s: the streams have ended", part.name)
		}
	}
	return nil
}

// settle is how long a server may tidy up before its memory is read.
const settle = time.Second

// idle opens the connections and reads what they cost.
func (t *trial) idle(ctx context.Context) error {
	time.Sleep(settle)
	empty, err := residentBytes(t.pids)
	if err != nil {
		return err
	}
	kernel, err := kernelBytes()
	if err != nil {
		return err
	}
	t.figures["rss_empty"] = empty
	if t.crowd, err = gather(ctx, t.url, t.Connections, 1, t.Connections, false); err != nil {
		return err
	}
	t.figures["connects"] = float64(t.Connections) / t.crowd.took.Seconds()
	time.Sleep(settle)
	resident, err := residentBytes(t.pids)
	if err != nil {
		return err
	}
	after, err := kernelBytes()
	if err != nil {
		return err
	}
	t.figures["rss"] = (resident - empty) / float64(t.Connections)
	t.figures["kernel"] = (after - kernel) / float64(2*t.Connections)
	if t.More == 0 {
		return nil
	}
	more, err := gather(ctx, t.url, t.More, t.Connections+1, t.Connections+t.More, false)
	if err != nil {
		t.note("%d connections: %v", t.Connections+t.More, err)
		return nil
	}
	time.Sleep(settle)
	resident, err = residentBytes(t.pids)
	more.disperse()
	time.Sleep(2 * settle) // until the server has done with them
	if err != nil {
		return err
	}
	t.figures["rss_more"] = (resident - empty) / float64(t.Connections+t.More)
	return nil
}

// run sends a load to the crowd and waits for all of it.
func (t *trial) run(ctx context.Context, l load) (*flood.Stats, sent, error) {
	t.crowd.begin(ctx)
	s, err := t.source.send(ctx, l)
	if err != nil {
		return nil, s, err
	}
	st, err := t.crowd.wait(ctx, l.count)
	return st, s, err
}

func (t *trial) load(count int, rate float64) load {
	return load{count: count, rate: rate, bytes: t.Bytes, first: 1, last: t.Connections}
}

func (t *trial) fixedRate(ctx context.Context) error {
	cpu, err := cpuSeconds(t.pids)
	if err != nil {
		return err
	}
	start := time.Now()
	st, _, err := t.run(ctx, t.load(int(t.Fixed*t.Hold.Seconds()), t.Fixed))
	if err != nil {
		return err
	}
	used, err := cpuSeconds(t.pids)
	if err != nil {
		return err
	}
	t.figures["fixed_cpu"] = 100 * (used - cpu) / time.Since(start).Seconds()
	t.latency("fixed", st)
	t.figures["fixed_max"] = float64(st.Latency.Max())
	return nil
}

func (t *trial) latency(name string, st *flood.Stats) {
	t.figures[name+"_p50"] = float64(st.Latency.ValueAtQuantile(50))
	t.figures[name+"_p99"] = float64(st.Latency.ValueAtQuantile(99))
}

// fanOut comes last: it takes another crowd, in which all have one uid if the
// server allows that.
func (t *trial) fanOut(ctx context.Context) error {
	if t.source.oneUID() {
		t.crowd.disperse()
		time.Sleep(2 * settle)
		one, err := gather(ctx, t.url, t.Connections, 1, 1, false)
		if err != nil {
			return err
		}
		t.crowd = one
	}
	var last []float64
	for range t.Fanouts {
		t.crowd.begin(ctx)
		if err := t.source.fanOut(ctx, t.Connections, t.Bytes); err != nil {
			return err
		}
		st, err := t.crowd.wait(ctx, t.Connections)
		if err != nil {
			return err
		}
		last = append(last, float64(st.Latency.Max()))
	}
	t.figures["fanout"] = median(last)
	return nil
}

func (t *trial) flatOut(ctx context.Context) error {
	cpu, err := cpuSeconds(t.pids)
	if err != nil {
		return err
	}
	start := time.Now()
	st, _, err := t.run(ctx, t.load(t.Flat, 0))
	if err != nil {
		return err
	}
	took := time.Since(start)
	used, err := cpuSeconds(t.pids)
	if err != nil {
		return err
	}
	t.figures["flat_rate"] = float64(t.Flat) / took.Seconds()
	t.figures["flat_cpu"] = (used - cpu) / float64(t.Flat) * 1e6
	t.latency("flat", st)
	return nil
}

// ladder are the rates that are tried, each about 1.4 times the one before.
var ladder = []float64{5e3, 7e3, 10e3, 14e3, 20e3, 28e3, 40e3, 56e3, 80e3, 112e3, 160e3, 224e3, 320e3}

// highestRate climbs the ladder until a rate fails twice: messages late for more than
// limitP99, or lost.
func (t *trial) highestRate(ctx context.Context) error {
	best := 0.0
	first := max(0, slices.IndexFunc(ladder, func(r float64) bool { return r > t.figures["flat_rate"]/8 })-1)
climb:
	for _, rate := range ladder[first:] {
		for try := 0; ; try++ {
			l := t.load(int(rate*t.Step.Seconds()), rate)
			l.due = true
			st, s, err := t.run(ctx, l)
			if err != nil && (st == nil || ctx.Err() != nil) {
				return err
			}
			late := time.Duration(s.micros)*time.Microsecond - time.Duration(float64(l.count)/rate*1e9) // a source that could not keep up
			if err == nil && late < limitP99 && time.Duration(st.Latency.ValueAtQuantile(99))*time.Microsecond < limitP99 {
				break
			}
			if try == 1 {
				break climb
			}
		}
		best = rate
	}
	t.figures["highest"] = best
	return nil
}

// neverReads sends much to one client that does not read, and looks at what that
// does to the others, who get the fixed rate.
func (t *trial) neverReads(ctx context.Context) error {
	return t.beside(ctx, "deaf", 1, t.Deaf)
}

// stalledClients does so with many.
func (t *trial) stalledClients(ctx context.Context) error {
	return t.beside(ctx, "stalled", t.Stalled, int(deafRate*t.Hold.Seconds()))
}

func (t *trial) beside(ctx context.Context, name string, clients, messages int) error {
	if clients == 0 || !t.concurrent {
		return nil
	}
	deaf, err := gather(ctx, t.url, clients, t.Connections+1, t.Connections+clients, true)
	if err != nil {
		return err
	}
	defer deaf.disperse()
	before, err := residentBytes(t.pids)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, besideLimit)
	defer cancel()
	toDeaf := make(chan error, 1)
	go func() {
		_, err := t.source.send(ctx, load{count: messages, rate: deafRate, bytes: deafBytes, first: t.Connections + 1, last: t.Connections + clients})
		toDeaf <- err
	}()
	st, _, err := t.run(ctx, t.load(int(t.Fixed*t.Hold.Seconds()), t.Fixed))
	if err == nil {
		t.latency(name, st)
	}
	if deafErr := <-toDeaf; deafErr != nil {
		err = errors.Join(err, fmt.Errorf("messages to those who do not read: %w", deafErr))
	}
	after, rssErr := residentBytes(t.pids)
	t.figures[name+"_rss"] = after - before
	return errors.Join(err, rssErr)
}

// besideLimit ends a publisher that a deaf client holds up for good.
const besideLimit = time.Minute
