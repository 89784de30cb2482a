//go:build linux

package main

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// plan is the size of everything in a round.
type plan struct {
	Connections int // of the figures
	More        int // beyond them, for memory only
	Bytes       int // of a message
	Flat        int // messages, flat out
	Fixed       float64
	Hold        time.Duration // of a fixed rate
	Step        time.Duration // of each rate that is tried
	Fanouts     int
	Deaf        int // messages of deafBytes for a client that never reads
	Stalled     int // clients that never read, beside the connections
}

// deafBytes is the size of a message for those who do not read.
const deafBytes = 10000

// figures are the measurements of one server in one round, by figure.key.
type figures map[string]float64

// figure is a line of the table.
type figure struct {
	key    string
	title  string
	unit   string
	format func(float64) string
	ratio  bool // to the first server says something
}

func catalogue(p plan) []figure {
	return []figure{
		{"rss_empty", "resident, no connection", "MB", scaled(1e6, 1), true},
		{"rss", fmt.Sprintf("resident per idle connection, %d", p.Connections), "B", scaled(1, 0), true},
		{"rss_more", fmt.Sprintf("resident per idle connection, %d", p.Connections+p.More), "B", scaled(1, 0), true},
		{"kernel", "kernel memory per end of a connection", "B", scaled(1, 0), true},
		{"connects", "connects per second", "/s", scaled(1, 0), true},
		{"flat_rate", "unicast flat out: messages per second", "/s", scaled(1, 0), true},
		{"flat_p50", "unicast flat out: p50", "ms", scaled(1e3, 2), true},
		{"flat_p99", "unicast flat out: p99", "ms", scaled(1e3, 2), true},
		{"flat_cpu", "unicast flat out: server CPU per million", "s", scaled(1, 2), true},
		{"highest", "highest rate with p99 below 10 ms", "/s", scaled(1, 0), true},
		{"fixed_p50", fmt.Sprintf("at %.0f/s: p50", p.Fixed), "µs", scaled(1, 0), true},
		{"fixed_p99", fmt.Sprintf("at %.0f/s: p99", p.Fixed), "µs", scaled(1, 0), true},
		{"fixed_max", fmt.Sprintf("at %.0f/s: longest", p.Fixed), "ms", scaled(1e3, 1), true},
		{"fixed_cpu", fmt.Sprintf("at %.0f/s: server CPU", p.Fixed), "%", scaled(1, 1), true},
		{"fanout", fmt.Sprintf("one message to %d: the last has it", p.Connections), "ms", scaled(1e3, 0), true},
		{"deaf_rss", fmt.Sprintf("%.0f MB to a client that never reads: memory", float64(p.Deaf)*deafBytes/1e6), "MB", scaled(1e6, 1), false},
		{"deaf_p50", "the others meanwhile: p50", "µs", scaled(1, 0), true},
		{"deaf_p99", "the others meanwhile: p99", "µs", scaled(1, 0), true},
		{"stalled_rss", fmt.Sprintf("%d clients stalled: memory", p.Stalled), "MB", scaled(1e6, 1), false},
		{"stalled_p50", "the healthy meanwhile: p50", "µs", scaled(1, 0), true},
		{"stalled_p99", "the healthy meanwhile: p99", "µs", scaled(1, 0), true},
	}
}

func scaled(by float64, digits int) func(float64) string {
	return func(v float64) string { return fmt.Sprintf("%.*f", digits, v/by) }
}

// result is all rounds of one server.
type result struct {
	Name   string
	Note   string    // what it is, and built on
	Absent string    // why it was left out; "" if it was not
	Rounds []figures `json:",omitempty"`
	Notes  []string  `json:",omitempty"` // figures that could not be had
}

// of returns the median of a figure and the least and most of its rounds; ok is false
// if no round has it.
func (r *result) of(key string) (mid, low, high float64, ok bool) {
	var values []float64
	for _, f := range r.Rounds {
		if v, has := f[key]; has {
			values = append(values, v)
		}
	}
	if len(values) == 0 {
		return 0, 0, 0, false
	}
	return median(values), slices.Min(values), slices.Max(values), true
}

func median(values []float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	v := slices.Sorted(slices.Values(values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}
