//go:build linux

// Command bench compares Halley with its peers (package peers), whole systems with
// real clients and a real Erlang node, side by side in one run: see scripts/bench
// and docs/benchmarks.md.
//
// In each round each server is started, measured and stopped, one after the other,
// so that what disturbs the machine for a while disturbs them all. A figure is the
// median of the rounds.
//
// It needs Linux: the client is halley flood's, the readings are /proc's.
package main
