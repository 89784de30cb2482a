package flood

import (
	"fmt"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Stats are what a run has counted.
type Stats struct {
	Open       int // connections that are open now
	Opened     uint64
	Streams    uint64         // responses with status 200
	Answers    map[int]uint64 // responses by status
	Failed     uint64         // connections that could not be made, or broke before a stream began
	Closed     uint64         // streams that the server ended cleanly
	Broken     uint64         // streams that ended otherwise, or were not HTTP chunks
	Chunks     uint64
	Bytes      uint64
	Messages   uint64 // with numbers
	Unnumbered uint64 // messages without
	Missing    uint64 // sequence numbers that never came
	Doubled    uint64
	OutOfOrder uint64
	// Sent and Expected are the publisher's: messages sent, and how many of them
	// these connections should get; Expected 0: not known.
	Sent     uint64
	Expected uint64
	// Latency of messages in microseconds.
	Latency *hdrhistogram.Histogram `json:"-"`
}

// The latency histogram reaches from 1 µs to an hour with two digits.
const (
	maxLatencyMicros = 3600e6
	latencyDigits    = 2
)

// NewStats returns empty Stats.
func NewStats() *Stats {
	return &Stats{Answers: map[int]uint64{}, Latency: hdrhistogram.New(1, maxLatencyMicros, latencyDigits)}
}

// clone returns a copy that shares nothing.
func (s *Stats) clone() *Stats {
	c := NewStats()
	c.Add(s)
	c.Sent, c.Expected = s.Sent, s.Expected
	return c
}

// restart forgets the messages.
func (s *Stats) restart() {
	s.Messages, s.Unnumbered, s.Missing, s.Doubled, s.OutOfOrder = 0, 0, 0, 0, 0
	s.Latency.Reset()
}

// Add adds what another process or loop has counted.
func (s *Stats) Add(o *Stats) {
	s.Open += o.Open
	s.Opened += o.Opened
	s.Streams += o.Streams
	s.Failed += o.Failed
	s.Closed += o.Closed
	s.Broken += o.Broken
	s.Chunks += o.Chunks
	s.Bytes += o.Bytes
	s.Messages += o.Messages
	s.Unnumbered += o.Unnumbered
	s.Missing += o.Missing
	s.Doubled += o.Doubled
	s.OutOfOrder += o.OutOfOrder
	for code, n := range o.Answers {
		s.Answers[code] += n
	}
	s.Latency.Merge(o.Latency)
}

// Err says what went wrong, nil if all connections were made and every message
// came once and in order.
func (s *Stats) Err() error {
	refused := uint64(0)
	for code, n := range s.Answers {
		if code != 200 {
			refused += n
		}
	}
	switch {
	case s.Opened > 0 && s.Streams == 0 && refused == 0 && s.Failed == 0:
		return fmt.Errorf("none of %d connections became a stream: is it an HTTP server? see --url", s.Opened)
	case s.Failed > 0 || refused > 0:
		return fmt.Errorf("%d connections failed, %d got another answer than 200", s.Failed, refused)
	case s.Broken > 0:
		return fmt.Errorf("%d streams broke", s.Broken)
	case s.Missing > 0 || s.Doubled > 0 || s.OutOfOrder > 0:
		return fmt.Errorf("messages: %d missing, %d doubled, %d out of order", s.Missing, s.Doubled, s.OutOfOrder)
	case s.Expected > s.Messages:
		return fmt.Errorf("messages: %d of %d did not arrive", s.Expected-s.Messages, s.Expected)
	}
	return nil
}
