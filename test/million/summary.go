//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// summary is what a run has found; summary.json has it under these names.
type summary struct {
	Connections int
	Streams     uint64
	Failed      uint64
	Broken      uint64
	// SecondsToOpen until every stream has its first chunk; 0: never.
	SecondsToOpen float64
	// At rest: all open, before the first message.
	ServerResidentBytes int64
	ServerBytesEach     float64 // what the connections have added, by their number
	ClientBytesEach     float64
	KernelBytesPair     float64 // both ends of a connection
	KernelBytesEach     float64 // half of that
	SlabBytesPair       float64
	TCPBufferBytesPair  float64
	// At the end: all open, after the messages.
	ServerResidentBytesEnd int64
	MessagesSent           uint64
	MessagesArrived        uint64
	Missing                uint64
	Doubled                uint64
	OutOfOrder             uint64
	// Processor seconds until all were open.
	ServerUserSeconds, ServerSystemSeconds float64
	ClientUserSeconds, ClientSystemSeconds float64
	// BusyAtRest is the share of all processors that idle connections take.
	BusyAtRest float64
	// Counters of the kernel, up to the first message; counters.txt has all.
	KeepAliveProbes int64
	ListenDrops     int64
	BacklogDrops    int64 // packets for which loopback had no room
	Retransmissions int64
	TotalSeconds    float64
	Kernel          string
	Processors      int
	MemoryBytes     int64
	Problems        []string
}

// floodSummary is the part of halley flood --json that matters here.
type floodSummary struct {
	Streams, Failed, Broken, Sent, Expected, Messages, Missing, Doubled, OutOfOrder uint64
}

// summary judges too: what must not be becomes a problem.
func (m *million) summary() *summary {
	s := &summary{Connections: m.o.connections, Processors: runtime.NumCPU()}
	var st floodSummary
	text, err := os.ReadFile(m.file("flood.json"))
	if err == nil {
		err = json.Unmarshal(text, &st)
	}
	if err != nil {
		m.problem("flood left no summary: %w", err)
	} else {
		if st.Streams != uint64(m.o.connections) {
			m.problem("%d of %d connections became streams", st.Streams, m.o.connections)
		}
		if st.Sent != uint64(m.o.messages) || st.Messages != st.Sent {
			m.problem("%d of %d messages were sent, %d arrived", st.Sent, m.o.messages, st.Messages)
		}
	}
	s.Streams, s.Failed, s.Broken = st.Streams, st.Failed, st.Broken
	s.MessagesSent, s.MessagesArrived, s.Missing, s.Doubled, s.OutOfOrder = st.Sent, st.Messages, st.Missing, st.Doubled, st.OutOfOrder
	if m.openAt.at != 0 {
		s.SecondsToOpen = (m.openAt.at - m.base.at).Seconds()
		s.ServerUserSeconds, s.ServerSystemSeconds = m.openAt.server.User, m.openAt.server.System
		s.ClientUserSeconds, s.ClientSystemSeconds = m.openAt.client.User, m.openAt.client.System
	}
	if m.rest.at != 0 {
		each := func(before, after int64) float64 { return float64(after-before) / float64(m.o.connections) }
		s.ServerResidentBytes = m.rest.server.Resident
		s.ServerBytesEach = each(m.base.server.Resident, m.rest.server.Resident)
		s.ClientBytesEach = each(0, m.rest.client.Resident)
		s.KernelBytesPair = each(m.base.kernel.Used, m.rest.kernel.Used)
		s.KernelBytesEach = s.KernelBytesPair / 2
		s.SlabBytesPair = each(m.base.kernel.Slab, m.rest.kernel.Slab)
		s.TCPBufferBytesPair = each(m.base.kernel.TCP, m.rest.kernel.TCP)
		s.BusyAtRest = (m.rest.busy - m.openAt.busy) / (m.rest.at - m.openAt.at).Seconds() / float64(s.Processors)
		s.ServerResidentBytesEnd = m.full.server.Resident
	}
	grown := func(name string) int64 { return m.atRest[name] - m.counters[name] }
	s.KeepAliveProbes, s.ListenDrops, s.BacklogDrops, s.Retransmissions =
		grown("TCPKeepAlive"), grown("ListenDrops"), grown(backlogDrops), grown(resent)
	m.save("counters.txt", func(w io.Writer) error {
		_, err := io.WriteString(w, counterGrowth(m.counters, m.atRest))
		return err
	})
	s.TotalSeconds = m.last.at.Seconds()
	if memory, err := readKB("/proc/meminfo"); err == nil {
		s.MemoryBytes = memory["MemTotal"] << 10
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		s.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	for _, err := range m.problems {
		s.Problems = append(s.Problems, err.Error())
	}
	return s
}

func (s *summary) text() string {
	t := strings.Builder{}
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&t, "%-13s "+format+"\n", append([]any{name}, args...)...)
	}
	t.WriteByte('\n')
	line("connections", "%d of %d became streams, %d failed, %d broke", s.Streams, s.Connections, s.Failed, s.Broken)
	if s.SecondsToOpen > 0 {
		line("opening", "%.0f s, %.0f a second; processor seconds: server %.0f + %.0f in the kernel, client %.0f + %.0f",
			s.SecondsToOpen, float64(s.Connections)/s.SecondsToOpen, s.ServerUserSeconds, s.ServerSystemSeconds, s.ClientUserSeconds, s.ClientSystemSeconds)
	}
	if s.ServerResidentBytes > 0 {
		line("server", "%s resident with all open and idle, %.0f bytes a connection; %s after the messages",
			bytesText(s.ServerResidentBytes), s.ServerBytesEach, bytesText(s.ServerResidentBytesEnd))
		line("kernel", "%.0f bytes a connection, half of the %.0f of both ends (slab %.0f, TCP's buffers %.0f)",
			s.KernelBytesEach, s.KernelBytesPair, s.SlabBytesPair, s.TCPBufferBytesPair)
		line("client", "%.0f bytes a connection", s.ClientBytesEach)
		line("at rest", "the processors are busy for %.1f%% of the time", 100*s.BusyAtRest)
	}
	line("counts", "until then %d keep-alive probes, %d connection requests dropped at the listener, %d packets by loopback, %d segments sent again",
		s.KeepAliveProbes, s.ListenDrops, s.BacklogDrops, s.Retransmissions)
	line("messages", "%d sent to uids drawn at random, %d arrived: %d missing, %d doubled, %d out of order",
		s.MessagesSent, s.MessagesArrived, s.Missing, s.Doubled, s.OutOfOrder)
	line("machine", "Linux %s, %d processors, %s", s.Kernel, s.Processors, bytesText(s.MemoryBytes))
	line("time", "%.0f s", s.TotalSeconds)
	return t.String()
}

// progress is the line that tells how far the run is.
func (m *million) progress() string {
	l, seconds := m.last, max((m.last.at-m.printed.at).Seconds(), 1e-3)
	text := fmt.Sprintf("%6.0f s  %8d open %6.0f/s  server %s", l.at.Seconds(), l.open, float64(l.open-m.printed.open)/seconds, bytesText(l.server.Resident))
	if l.open > 0 {
		n := float64(l.open)
		text += fmt.Sprintf(", %.0f B each  kernel %s, %.0f B a pair", float64(l.server.Resident-m.base.server.Resident)/n,
			bytesText(l.kernel.Used-m.base.kernel.Used), float64(l.kernel.Used-m.base.kernel.Used)/n)
	}
	text += "  free " + bytesText(l.kernel.Available)
	if l.chunks > m.o.connections {
		text += fmt.Sprintf("  %d messages", l.chunks-m.o.connections)
	}
	if again := m.counted[resent] - m.resent; again > 0 {
		text += fmt.Sprintf("  %d segments again", again)
	}
	return text + "\n"
}

func bytesText(n int64) string {
	if n >= 1<<30 {
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	}
	return fmt.Sprintf("%.0f MiB", float64(n)/(1<<20))
}
