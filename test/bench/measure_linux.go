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
	empty   float64 // resident bytes before the first connection
	kernel  float64 // the kernel's then
}

// sitting is what is measured of one start of a server.
type sitting struct {
	concurrent bool // it takes a source that can send two loads at once
	parts      []part
}

type part struct {
	name string
	run  func(*trial, context.Context) error
}

// sittings are those of a round. Clients that do not read come to a fresh server: memory
// that it has freed before would hide what they cost.
var sittings = []sitting{
	{false, []part{{"memory", (*trial).idle}, {"fixed rate", (*trial).fixedRate}, {"flat out", (*trial).flatOut},
		{"highest rate", (*trial).highestRate}, {"fan-out", (*trial).fanOut}}},
	{true, []part{{"a client that never reads", (*trial).neverReads}}},
	{true, []part{{"stalled clients", (*trial).stalledClients}}},
}

// sit opens the connections and takes the figures of a sitting. A figure that cannot be
// had is missing, and a note says why.
func (t *trial) sit(ctx context.Context, parts []part) (err error) {
	time.Sleep(settle)
	if t.empty, err = residentBytes(t.pids); err != nil {
		return err
	}
	if t.kernel, err = kernelBytes(); err != nil {
		return err
	}
	if t.crowd, err = gather(ctx, t.url, t.Connections, 1, t.Connections, false); err != nil {
		return err
	}
	defer func() { t.crowd.disperse() }()
	time.Sleep(settle)
	for _, p := range parts {
		if err := p.run(t, ctx); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			t.note("%s: %v", p.name, err)
		}
		if t.crowd.client.Snapshot(ctx) == nil {
			return fmt.Errorf("%s: the streams have ended", p.name)
		}
	}
	return nil
}

// settle is how long a server may tidy up before its memory is read.
const settle = time.Second

// idle reads what the connections cost.
func (t *trial) idle(ctx context.Context) error {
	resident, err := residentBytes(t.pids)
	if err != nil {
		return err
	}
	kernel, err := kernelBytes()
	if err != nil {
		return err
	}
	t.figures["rss_empty"] = t.empty
	t.figures["connects"] = float64(t.Connections) / t.crowd.took.Seconds()
	t.figures["rss"] = (resident - t.empty) / float64(t.Connections)
	t.figures["kernel"] = (kernel - t.kernel) / float64(2*t.Connections)
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
	t.figures["rss_more"] = (resident - t.empty) / float64(t.Connections+t.More)
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

// highestRate climbs the ladder until a rate fails, from well below what was reached
// flat out; if that is too high already, it climbs down.
func (t *trial) highestRate(ctx context.Context) error {
	first := max(0, slices.IndexFunc(ladder, func(r float64) bool { return r > t.figures["flat_rate"]/8 })-1)
	for i := first; i < len(ladder); i++ {
		switch ok, err := t.holds(ctx, ladder[i]); {
		case err != nil:
			return err
		case ok:
			t.figures["highest"] = ladder[i]
		case i > first:
			return nil
		default:
			return t.highestBelow(ctx, first)
		}
	}
	return nil
}

func (t *trial) highestBelow(ctx context.Context, i int) error {
	t.figures["highest"] = 0
	for i--; i >= 0; i-- {
		ok, err := t.holds(ctx, ladder[i])
		if err != nil {
			return err
		}
		if ok {
			t.figures["highest"] = ladder[i]
			return nil
		}
	}
	return nil
}

// holds says whether a server keeps a rate, in one of two tries: no message is lost, the
// source keeps up, and the 99th percentile is below limitP99.
func (t *trial) holds(ctx context.Context, rate float64) (bool, error) {
	for range 2 {
		l := t.load(int(rate*t.Step.Seconds()), rate)
		l.due = true
		st, s, err := t.run(ctx, l)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		late := time.Duration(s.micros)*time.Microsecond - l.lasts()
		if err == nil && late < limitP99 && time.Duration(st.Latency.ValueAtQuantile(99))*time.Microsecond < limitP99 {
			return true, nil
		}
	}
	return false, nil
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
		l := load{count: messages, rate: deafRate, bytes: deafBytes, first: t.Connections + 1, last: t.Connections + clients}
		s, err := t.source.send(ctx, l)
		if took := time.Duration(s.micros) * time.Microsecond; err == nil && took > l.lasts()*11/10 {
			err = fmt.Errorf("only %.0f a second could be sent", float64(messages)/took.Seconds())
		}
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
