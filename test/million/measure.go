//go:build linux

package main

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"sort"
	"strconv"
	"strings"
	"time"
)

// sample is the state at one moment.
type sample struct {
	at     time.Duration // since the run began
	open   int           // connections, as flood reports them
	chunks int           // that have arrived; the welcome is one
	server process
	client process
	kernel kernel
	busy   float64 // processor seconds of the whole machine
}

// process is what one process has and has used.
type process struct {
	Resident int64 // bytes
	User     float64
	System   float64 // seconds
}

// kernel is what the kernel has, in bytes.
type kernel struct {
	// Used is all memory that is not free and belongs to no process and no file.
	Used int64
	Slab int64
	// TCP are its buffers' pages.
	TCP int64
	// Available is what could still be given out.
	Available int64
}

// ticks is the unit of /proc/PID/stat, USER_HZ, the same on every Linux that Go knows.
const ticks = 100

func measureProcess(pid int) (p process, err error) {
	status, err := readKB(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return p, err
	}
	p.Resident = status["VmRSS"] << 10
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return p, err
	}
	_, rest, _ := strings.Cut(string(text), ") ") // the name may have blanks
	if fields := strings.Fields(rest); len(fields) > 12 {
		user, _ := strconv.ParseFloat(fields[11], 64)
		system, _ := strconv.ParseFloat(fields[12], 64)
		p.User, p.System = user/ticks, system/ticks
	}
	return p, nil
}

// measureKernel counts what neither a process (AnonPages) nor a file (Cached,
// Buffers) has. It is more than Slab: the tables of descriptors, epoll's own,
// page tables and the pages of buffers are in it too.
func measureKernel() (k kernel, err error) {
	m, err := readKB("/proc/meminfo")
	if err != nil {
		return k, err
	}
	k.Used = (m["MemTotal"] - m["MemFree"] - m["Buffers"] - m["Cached"] - m["SwapCached"] - m["AnonPages"]) << 10
	k.Slab = m["Slab"] << 10
	k.Available = m["MemAvailable"] << 10
	sockets, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return k, err
	}
	for line := range strings.Lines(string(sockets)) {
		if pages, ok := field(line, "TCP:", "mem"); ok {
			k.TCP = pages * int64(os.Getpagesize())
		}
	}
	return k, nil
}

// field is the number behind a name in a line that begins with head.
func field(line, head, name string) (int64, bool) {
	fields := strings.Fields(line)
	for i := 1; len(fields) > 0 && fields[0] == head && i+1 < len(fields); i += 2 {
		if fields[i] == name {
			n, err := strconv.ParseInt(fields[i+1], 10, 64)
			return n, err == nil
		}
	}
	return 0, false
}

// readKB reads the lines "Name:   123 kB" of a file of /proc.
func readKB(name string) (map[string]int64, error) {
	text, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	kb := map[string]int64{}
	for line := range strings.Lines(string(text)) {
		key, rest, _ := strings.Cut(line, ":")
		if digits, ok := strings.CutSuffix(strings.TrimSpace(rest), " kB"); ok {
			kb[key], _ = strconv.ParseInt(digits, 10, 64)
		}
	}
	return kb, nil
}

// netCounters are the kernel's counters of TCP, by name (/proc/net/netstat and
// snmp: a line of names, a line of numbers).
func netCounters() map[string]int64 {
	counters := map[string]int64{}
	for _, file := range []string{"/proc/net/netstat", "/proc/net/snmp"} {
		text, _ := os.ReadFile(file)
		lines := strings.Split(string(text), "\n")
		for i := 0; i+1 < len(lines); i += 2 {
			names, values := strings.Fields(lines[i]), strings.Fields(lines[i+1])
			if len(names) == 0 || len(names) != len(values) || !strings.HasPrefix(names[0], "Tcp") {
				continue
			}
			for k := range names {
				counters[names[k]], _ = strconv.ParseInt(values[k], 10, 64)
			}
		}
	}
	// Packets that a processor's backlog had no room for: the second column,
	// in hexadecimal digits.
	text, _ := os.ReadFile("/proc/net/softnet_stat")
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 1 {
			n, _ := strconv.ParseInt(fields[1], 16, 64)
			counters[backlogDrops] += n
		}
	}
	return counters
}

const (
	backlogDrops = "BacklogDrops"
	resent       = "RetransSegs"
)

// counterGrowth lists the counters that have changed.
func counterGrowth(before, after map[string]int64) string {
	text := strings.Builder{}
	for _, name := range slices.Sorted(maps.Keys(after)) {
		if more := after[name] - before[name]; more != 0 {
			fmt.Fprintf(&text, "%-28s %12d\n", name, more)
		}
	}
	return text.String()
}

// busySeconds is what the processors have worked (/proc/stat: user, nice,
// system, idle, iowait, irq, softirq).
func busySeconds() (seconds float64) {
	text, _ := os.ReadFile("/proc/stat")
	first, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(first) {
		if n, err := strconv.ParseFloat(f, 64); err == nil && i <= 7 && i != 4 && i != 5 {
			seconds += n / ticks
		}
	}
	return seconds
}

// slabs are the bytes of the kernel's caches by name; none where they may not be
// read.
func slabs() map[string]int64 {
	bytes := map[string]int64{}
	text, _ := os.ReadFile("/proc/slabinfo")
	for line := range strings.Lines(string(text)) {
		var name string
		var active, objects, size, perSlab, pages, a, b, c, activeSlabs, count, shared int64
		n, _ := fmt.Sscanf(line, "%s %d %d %d %d %d : tunables %d %d %d : slabdata %d %d %d", &name, &active, &objects, &size, &perSlab, &pages,
			&a, &b, &c, &activeSlabs, &count, &shared)
		if n == 12 {
			bytes[name] = count * pages * int64(os.Getpagesize())
		}
	}
	return bytes
}

// slabGrowth lists the caches that grew most.
func slabGrowth(before, after map[string]int64, connections int) string {
	type growth struct {
		name  string
		bytes int64
	}
	var all []growth
	for name, bytes := range after {
		if more := bytes - before[name]; more > 0 {
			all = append(all, growth{name, more})
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].bytes > all[j].bytes })
	text := strings.Builder{}
	fmt.Fprintf(&text, "%-24s %15s %15s\n", "cache", "bytes", "bytes a pair")
	for _, g := range all[:min(20, len(all))] {
		fmt.Fprintf(&text, "%-24s %15d %15.1f\n", g.name, g.bytes, float64(g.bytes)/float64(connections))
	}
	return text.String()
}
