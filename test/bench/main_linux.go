package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"halley/test/peers"
)

func main() {
	app := &cli.App{
		Name:            "scripts/bench",
		Usage:           "compare Halley with its peers, side by side",
		UsageText:       "scripts/bench [flags]",
		HideHelpCommand: true,
		Description: `Starts each server in turn, in every round, with real clients and a real Erlang node,
and prints the medians and their ratios. A server that cannot be had is left out.
Five rounds of all servers take about 40 minutes.

Examples:

  A quick look at two of them:
    scripts/bench --rounds 1 --only halley,ceiling

  What docs/benchmarks.md shows:
    scripts/bench --markdown table.md --plot docs/images --json bench.json

  The tables and pictures again, from a run's figures:
    scripts/bench --from bench.json --markdown table.md --plot docs/images`,
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "dir", Hidden: true, Required: true, Usage: "where scripts/bench has built everything"},
			&cli.IntFlag{Name: "rounds", Value: 5, Usage: "how many"},
			&cli.StringFlag{Name: "only", Usage: "`SERVERS` to compare, with commas (default: all)"},
			&cli.IntFlag{Name: "connections", Value: 10000, Usage: "held while messages are sent"},
			&cli.IntFlag{Name: "more", Value: 8000, Usage: "connections beyond them, for the memory of an idle one"},
			&cli.IntFlag{Name: "messages", Value: 200000, Usage: "sent flat out"},
			&cli.DurationFlag{Name: "hold", Value: 5 * time.Second, Usage: "how long 5,000 messages a second are sent"},
			&cli.DurationFlag{Name: "step", Value: 2 * time.Second, Usage: "how long each rate is tried"},
			&cli.StringFlag{Name: "json", Usage: "write all figures of all rounds to `FILE`"},
			&cli.StringFlag{Name: "markdown", Usage: "write the tables to `FILE`"},
			&cli.StringFlag{Name: "plot", Usage: "draw pictures into `FOLDER`"},
			&cli.StringFlag{Name: "from", Usage: "measure nothing, take the figures of `FILE`"},
		},
		Action: run,
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := app.RunContext(ctx, os.Args); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("it takes no argument, got %q; see scripts/bench --help", c.Args().First())
	}
	p := plan{
		Connections: c.Int("connections"), More: c.Int("more"), Bytes: 100, Flat: c.Int("messages"),
		Fixed: 5000, Hold: c.Duration("hold"), Step: c.Duration("step"), Fanouts: 5, Deaf: 20000, Stalled: 1000,
	}
	if p.Connections < 1 || p.More < 0 || p.Flat < 1 || p.Hold <= 0 || p.Step <= 0 || c.Int("rounds") < 1 {
		return errors.New("--rounds, --connections, --messages, --hold and --step must be more than 0, --more 0 or more")
	}
	chosen, err := choose(c.String("only"))
	if err != nil {
		return err
	}
	outputs := outputs{c.String("json"), c.String("markdown"), c.String("plot")}
	if err := outputs.prepare(); err != nil {
		return err
	}
	var r *report
	if file := c.String("from"); file != "" {
		r, err = readReport(file)
	} else {
		r, err = compare(c.Context, p, chosen, c.Int("rounds"), c.String("dir"))
	}
	if r == nil {
		return err
	}
	if r.base() == nil {
		return errors.Join(err, fmt.Errorf("nothing could be measured: %s", strings.Join(r.remarks(), "; ")))
	}
	r.text(os.Stdout)
	return errors.Join(err, r.save(outputs))
}

// choose returns the servers of a list of names, all if it is empty.
func choose(names string) ([]server, error) {
	all := servers()
	if names == "" {
		return all, nil
	}
	var known []string
	for _, s := range all {
		known = append(known, s.name)
	}
	wanted := strings.Split(names, ",")
	for _, name := range wanted {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("--only %q is none of %s", name, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(all, func(s server) bool { return !slices.Contains(wanted, s.name) }), nil
}

// compare runs all rounds.
func compare(ctx context.Context, p plan, chosen []server, rounds int, dir string) (*report, error) {
	log, err := os.Create(filepath.Join(dir, "bench.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	rig, err := newRig(dir, log)
	if err != nil {
		return nil, err
	}
	defer rig.stop()
	r := &report{Machine: machine(), Rounds: rounds, Plan: p}
	for _, s := range chosen {
		r.Results = append(r.Results, &result{Name: s.name, Note: s.note})
	}
	start := time.Now()
	for n := range rounds {
		for k := range chosen {
			i := (n + k) % len(chosen) // nobody is always the first
			s := chosen[i]
			if r.Results[i].Absent != "" {
				continue
			}
			fmt.Fprintf(os.Stderr, "%6s  round %d of %d: %s\n", time.Since(start).Round(time.Second), n+1, rounds, s.name)
			r.Results[i].round(ctx, rig, p, s, n+1)
			if ctx.Err() != nil {
				r.Rounds = n
				return r, fmt.Errorf("ended early, in round %d of %d", n+1, rounds)
			}
		}
	}
	return r, nil
}

// round measures a server once.
func (r *result) round(ctx context.Context, rig *rig, p plan, s server, n int) {
	note := func(format string, args ...any) {
		text := fmt.Sprintf("round %d: %s", n, fmt.Sprintf(format, args...))
		fmt.Fprintf(os.Stderr, "        %s: %s\n", s.name, text)
		r.Notes = append(r.Notes, text)
	}
	f := figures{}
	for _, sit := range sittings {
		if err := r.sitting(ctx, rig, &trial{plan: p, figures: f, note: note}, s, sit); err != nil && ctx.Err() == nil {
			note("%v", err)
		}
		if r.Absent != "" || ctx.Err() != nil {
			return // a round that was cut short says nothing
		}
	}
	r.Rounds = append(r.Rounds, f)
}

// sitting starts a server, takes some of its figures, and stops it.
func (r *result) sitting(ctx context.Context, rig *rig, t *trial, s server, sit sitting) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	up, err := s.start(ctx, rig, fmt.Sprintf("127.0.0.1:%d", port))
	if missing := new(peers.Missing); errors.As(err, &missing) && len(r.Rounds) == 0 {
		r.Absent = err.Error()
		fmt.Fprintf(os.Stderr, "        %s is left out: %v\n", s.name, err)
		return nil
	}
	if err != nil {
		return err
	}
	defer up.stop()
	if r.Note = s.note; up.version != "" {
		r.Note += " (" + up.version + ")"
	}
	if sit.concurrent && !up.concurrent {
		return nil
	}
	t.running = up
	return t.sit(ctx, sit.parts)
}

func readReport(file string) (*report, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	r := new(report)
	if err := json.Unmarshal(text, r); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return r, nil
}

// outputs are where a report goes; an empty name was not asked for.
type outputs struct{ json, markdown, plot string }

// prepare finds out before a long run whether they can be written.
func (o outputs) prepare() error {
	var errs []error
	for _, file := range []string{o.json, o.markdown} {
		if file == "" {
			continue
		}
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE, 0o644)
		if err == nil {
			err = f.Close()
		}
		errs = append(errs, err)
	}
	if o.plot != "" {
		errs = append(errs, os.MkdirAll(o.plot, 0o755))
	}
	return errors.Join(errs...)
}

func (r *report) save(o outputs) error {
	var errs []error
	if o.json != "" {
		text, err := json.MarshalIndent(r, "", "  ")
		if err == nil {
			err = os.WriteFile(o.json, append(text, '\n'), 0o644)
		}
		errs = append(errs, err)
	}
	if o.markdown != "" {
		var b strings.Builder
		r.markdown(&b)
		errs = append(errs, os.WriteFile(o.markdown, []byte(b.String()), 0o644))
	}
	if o.plot != "" {
		errs = append(errs, r.plots(o.plot))
	}
	return errors.Join(errs...)
}
