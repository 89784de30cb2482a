package flood

import (
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
	"time"
)

// percentiles are those that a summary prints.
var percentiles = []float64{50, 90, 99, 99.9, 100}

// Printer writes what a run tells: progress on a terminal, the articles' tuple
// at each report, a summary at the end.
type Printer struct {
	Out      io.Writer
	Terminal bool // Out is one: progress is drawn over itself
	Want     int  // connections
	start    time.Time
	last     Stats
	lastAt   time.Time
	drawn    bool
}

// NewPrinter begins the clock of a run.
func NewPrinter(out io.Writer, terminal bool, want int) *Printer {
	now := time.Now()
	return &Printer{Out: out, Terminal: terminal, Want: want, start: now, lastAt: now}
}

const barWidth = 24

// Progress draws a bar and the rates since the last one.
func (p *Printer) Progress(s *Stats) {
	if !p.Terminal {
		return
	}
	now := time.Now()
	seconds := max(now.Sub(p.lastAt).Seconds(), 1e-3)
	full := min(barWidth, barWidth*s.Open/max(1, p.Want))
	fmt.Fprintf(p.Out, "\r[%s%s] %d/%d open, %d closed, %d chunks (%.0f/s), %s (%s/s)\x1b[K",
		strings.Repeat("=", full), strings.Repeat(" ", barWidth-full), s.Open, p.Want, s.Closed+s.Broken+s.Failed,
		s.Chunks, float64(s.Chunks-p.last.Chunks)/seconds, bytesText(s.Bytes), bytesText(uint64(float64(s.Bytes-p.last.Bytes)/seconds)))
	p.last, p.lastAt, p.drawn = *s, now, true
}

// Report prints the tuple of the articles' floodtest2: open, closed, chunks, bytes.
func (p *Printer) Report(s *Stats) {
	p.clear()
	fmt.Fprintf(p.Out, "%7.1fs  {%d, %d, %d, %d}\n", time.Since(p.start).Seconds(), s.Open, s.Closed+s.Broken+s.Failed, s.Chunks, s.Bytes)
}

func (p *Printer) clear() {
	if p.drawn {
		fmt.Fprint(p.Out, "\r\x1b[K")
		p.drawn = false
	}
}

// Summary prints the whole of a run.
func (p *Printer) Summary(s *Stats) {
	p.clear()
	fmt.Fprintf(p.Out, "\nconnections  %d opened, %d streams, %d failed, %d ended cleanly, %d broke, %d open at the end\n",
		s.Opened, s.Streams, s.Failed, s.Closed, s.Broken, s.Open)
	if len(s.Answers) > 1 || len(s.Answers) == 1 && s.Answers[200] == 0 {
		codes := make([]int, 0, len(s.Answers))
		for code := range s.Answers {
			codes = append(codes, code)
		}
		sort.Ints(codes)
		fmt.Fprint(p.Out, "answers     ")
		for _, code := range codes {
			fmt.Fprintf(p.Out, " %d: %d", code, s.Answers[code])
		}
		fmt.Fprintln(p.Out)
	}
	if s.Sent > 0 {
		fmt.Fprintf(p.Out, "published    %d messages", s.Sent)
		if s.Expected > 0 {
			fmt.Fprintf(p.Out, ", %d of them expected here", s.Expected)
		}
		fmt.Fprintln(p.Out)
	}
	fmt.Fprintf(p.Out, "received     %d chunks, %s in %.1f s\n", s.Chunks, bytesText(s.Bytes), time.Since(p.start).Seconds())
	if s.Messages == 0 {
		return
	}
	fmt.Fprintf(p.Out, "messages     %d with numbers: %d missing, %d doubled, %d out of order\n", s.Messages, s.Missing, s.Doubled, s.OutOfOrder)
	fmt.Fprint(p.Out, "latency     ")
	for _, q := range percentiles {
		name := fmt.Sprintf("p%v", q)
		if q == 100 {
			name = "max"
		}
		fmt.Fprintf(p.Out, " %s %v", name, micros(s.Latency.ValueAtQuantile(q)))
	}
	fmt.Fprintln(p.Out)
}

// bucketWidth and maxBucket are those of the Janus bot's histogram.
const (
	bucketWidth = 500 * time.Millisecond
	maxBucket   = 5 * time.Second
)

// Buckets prints the latencies as the Janus bot did, in steps of 500 ms.
func (p *Printer) Buckets(s *Stats) {
	if s.Messages == 0 {
		return
	}
	counts := make([]int64, maxBucket/bucketWidth+1)
	for _, bar := range s.Latency.Distribution() {
		i := min(int(time.Duration(bar.To)*time.Microsecond/bucketWidth), len(counts)-1)
		counts[i] += bar.Count
	}
	for i, n := range counts {
		name := fmt.Sprintf("%4d ms", time.Duration(i+1)*bucketWidth/time.Millisecond)
		if i == len(counts)-1 {
			name = "   more"
		}
		fmt.Fprintf(p.Out, "%s  %9d  %5.1f%%\n", name, n, 100*float64(n)/float64(s.Messages))
	}
}

func micros(n int64) time.Duration {
	return (time.Duration(n) * time.Microsecond).Round(time.Microsecond)
}

func bytesText(n uint64) string {
	for _, unit := range []struct {
		name string
		size uint64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.size {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(unit.size), unit.name)
		}
	}
	return fmt.Sprintf("%d B", n)
}

// JSON has the counters and the percentiles of the latency, for scripts.
func (s *Stats) JSON() ([]byte, error) {
	latency := map[string]int64{}
	if s.Messages > 0 {
		for _, q := range percentiles {
			latency[fmt.Sprintf("p%v", q)] = s.Latency.ValueAtQuantile(q)
		}
	}
	return json.MarshalIndent(struct {
		*Stats
		LatencyMicros map[string]int64
	}{s, latency}, "", "  ")
}
