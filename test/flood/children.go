package flood

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// ChildEnv is the variable by which a process knows that it is a child: its
// value has the child's Options.
const ChildEnv = "HALLEY_FLOOD_CHILD"

// line is what a child writes to its standard output, one JSON object a line.
type line struct {
	Stats     Stats
	Latency   *hdrhistogram.Snapshot
	Connected bool
	Final     bool
	Err       string
}

// split shares the work of o among n processes: connections, ports and rates.
func split(o Options, n int) []Options {
	parts := make([]Options, n)
	ports := (o.LastPort - o.FirstPort + 1) / n
	for k := range parts {
		p := o
		p.First = o.First + k*o.Connections/n
		p.Connections = (k+1)*o.Connections/n - k*o.Connections/n
		p.Rate, p.Churn = o.Rate/float64(n), o.Churn/float64(n)
		p.FirstPort = o.FirstPort + k*ports
		p.LastPort = p.FirstPort + ports - 1
		p.Hold = 0 // the parent says when it is over
		parts[k] = p
	}
	return parts
}

// RunChildren is Run in n processes of this program, their Stats merged.
func RunChildren(ctx context.Context, o Options, n int, ev Events) (*Stats, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type told struct {
		child int
		line  line
	}
	lines := make(chan told)
	var running sync.WaitGroup
	for k, part := range split(o, n) {
		running.Go(func() {
			err := runChild(ctx, part, func(l line) { lines <- told{k, l} })
			if err != nil {
				lines <- told{k, line{Stats: *NewStats(), Final: true, Err: err.Error()}}
			}
		})
	}
	go func() { running.Wait(); close(lines) }()

	latest := make([]line, n)
	sum := func() *Stats {
		all := NewStats()
		for i := range latest {
			st := latest[i].Stats
			if st.Latency = hdrhistogram.New(1, maxLatencyMicros, latencyDigits); latest[i].Latency != nil {
				st.Latency = hdrhistogram.Import(latest[i].Latency)
			}
			all.Add(&st)
		}
		return all
	}
	report, progress := time.NewTicker(o.Report), time.NewTicker(200*time.Millisecond)
	defer report.Stop()
	defer progress.Stop()
	var over <-chan time.Time
	connected, errs := false, []error(nil)
	for {
		select {
		case t, ok := <-lines:
			if !ok {
				return sum(), errors.Join(errs...)
			}
			if t.line.Err != "" {
				errs = append(errs, fmt.Errorf("process %d: %s", t.child+1, t.line.Err))
				cancel()
			}
			if t.line.Latency != nil || latest[t.child].Latency == nil {
				latest[t.child] = t.line
			}
			if !connected && all(latest, func(l line) bool { return l.Connected }) {
				connected = true
				if ev.Connected != nil {
					ev.Connected()
				}
				if o.Hold > 0 {
					over = time.After(o.Hold)
				}
			}
		case <-over:
			cancel()
		case <-report.C:
			if ev.Report != nil {
				ev.Report(sum())
			}
		case <-progress.C:
			if ev.Progress != nil {
				ev.Progress(sum())
			}
		}
	}
}

func all(lines []line, is func(line) bool) bool {
	for _, l := range lines {
		if !is(l) {
			return false
		}
	}
	return true
}

// runChild starts one process and passes on what it tells. The end of its
// standard input is how it is told to end: it does not outlive this process.
func runChild(ctx context.Context, o Options, tell func(line)) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	options, err := json.Marshal(o)
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "flood")
	cmd.Env = append(os.Environ(), ChildEnv+"="+string(options))
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = ownGroup() // Ctrl-C is for the parent, which then ends its children
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	r := bufio.NewReader(out)
	final := false
	for {
		text, err := r.ReadBytes('\n')
		if err != nil {
			break
		}
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			cmd.Process.Kill()
			return errors.Join(fmt.Errorf("read what it tells: %w", err), cmd.Wait())
		}
		final = final || l.Final
		tell(l)
	}
	if err := cmd.Wait(); err != nil || !final {
		return fmt.Errorf("it ended early: %w", errors.Join(err, io.ErrUnexpectedEOF))
	}
	return nil
}

// Child is the main of a child process: it runs the Options of the environment,
// tells on out, and ends when in does.
func Child(options string, in io.Reader, out io.Writer) error {
	var o Options
	if err := json.Unmarshal([]byte(options), &o); err != nil {
		return fmt.Errorf("%s: %w", ChildEnv, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() { // ends with the process: a read from a pipe cannot be interrupted
		io.Copy(io.Discard, in)
		cancel()
	}()
	o.Report = min(o.Report, childReport)
	w := json.NewEncoder(out)
	connected := false
	tell := func(st *Stats, final bool, err error) {
		l := line{Stats: *st, Latency: st.Latency.Export(), Connected: connected, Final: final}
		if err != nil {
			l.Err = err.Error()
		}
		w.Encode(l)
	}
	st, err := Run(ctx, o, Events{
		Connected: func() { connected = true },
		Report:    func(st *Stats) { tell(st, false, nil) },
	})
	if st == nil {
		st = NewStats()
	}
	tell(st, true, err)
	return nil
}

// childReport is how often a child tells its parent.
const childReport = 200 * time.Millisecond
