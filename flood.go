package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"halley/cnode"
	"halley/test/flood"
)

const floodHelp = `Opens many streams and checks what arrives: framing, and for messages that begin
with "SEQ MICROS ", as those of --publish and of msggen do, order, completeness and
latency. Exits with 1 if connections failed or messages were lost, doubled or out
of order.

Examples:

  Ten thousand streams, kept for a minute:
    halley flood --connections 10000 --rate 2000

  The same with 5,000 messages a second, published as an Erlang node would:
    halley flood --connections 10000 --rate 2000 --barrier \
        --publish halley@localhost --publish-rate 5000

  A million from 17 addresses, in as many processes as descriptors demand:
    halley flood --connections 1000000 --rate 10000 --from 127.0.0.1-127.0.0.17 --uids 1-1000000

  Half of the clients never read, a hundred come and go each second:
    halley flood --stall 50% --churn 100`

func floodCommand() *cli.Command {
	d := flood.DefaultOptions()
	flags := []cli.Flag{
		&cli.StringFlag{Name: "url", Value: d.URL, EnvVars: env("url"), Usage: "what to open, with {uid}"},
		&cli.IntFlag{Name: "connections", Value: d.Connections, EnvVars: env("connections"), Usage: "how many"},
		&cli.Float64Flag{Name: "rate", Value: d.Rate, EnvVars: env("rate"), Usage: "opened a second; 0: as fast as the server answers"},
		&cli.DurationFlag{Name: "hold", Value: d.Hold, EnvVars: env("hold"), Usage: "how long to go on when all are open; 0: until Ctrl-C"},
		&cli.StringFlag{Name: "from", EnvVars: env("from"), DefaultText: "the system chooses",
			Usage: "source `ADDRS`, such as 127.0.0.1-127.0.0.17; ports are then taken from 1024 up"},
		&cli.StringFlag{Name: "uids", Value: "1-10000", EnvVars: env("uids"), Usage: "the uids, given out in turn"},
		&cli.Float64Flag{Name: "churn", EnvVars: env("churn"), Usage: "connections closed and opened again, a second"},
		&cli.StringFlag{Name: "stall", Value: "0%", EnvVars: env("stall"), Usage: "share of connections that never read"},
		&cli.BoolFlag{Name: "barrier", EnvVars: env("barrier"), Usage: "publish only when all are open, and check that all arrives"},
		&cli.IntFlag{Name: "processes", EnvVars: env("processes"), DefaultText: "as many as file descriptors demand",
			Usage: "split the connections over so many"},
		&cli.DurationFlag{Name: "report", Value: d.Report, EnvVars: env("report"),
			Usage: "pause between two reports, {open, closed, chunks, bytes}"},
		&cli.BoolFlag{Name: "buckets", EnvVars: env("buckets"), Usage: "print latencies in steps of 500 ms too"},
		&cli.StringFlag{Name: "json", EnvVars: env("json"), Usage: "write the summary to `FILE`"},
		&cli.StringFlag{Name: "publish", EnvVars: env("publish"), DefaultText: "nobody",
			Usage: "send messages to the Halley `NODE`, as an Erlang node"},
		&cli.Float64Flag{Name: "publish-rate", Value: 1000, EnvVars: env("publish-rate"), Usage: "messages a second"},
		&cli.Uint64Flag{Name: "publish-count", EnvVars: env("publish-count"), DefaultText: "no limit",
			Usage: "messages in all; the run ends when they have arrived, after --hold at the latest"},
		&cli.DurationFlag{Name: "publish-after", EnvVars: env("publish-after"), Usage: "pause before the first message, with --barrier once all are open"},
		&cli.IntFlag{Name: "publish-bytes", Value: 100, EnvVars: env("publish-bytes"), Usage: "size of a message"},
		&cli.StringFlag{Name: "publish-uids", Value: "uniform", EnvVars: env("publish-uids"), Usage: strings.Join(flood.Distributions, ", ")},
		&cli.StringFlag{Name: "register", Value: cnode.DefaultOptions().Register, EnvVars: env("register"),
			Usage: "the name that the Halley node is registered under"},
	}
	return &cli.Command{
		Name:        "flood",
		Usage:       "open many streams and check what arrives",
		UsageText:   "halley flood [flags]",
		Description: floodHelp,
		Flags:       append(flags, nodeFlags("halley_flood_"+strconv.Itoa(os.Getpid())+"@localhost", "warn")...),
		Before:      readConfig,
		Action:      runFlood,
	}
}

func runFlood(c *cli.Context) error {
	if options := os.Getenv(flood.ChildEnv); options != "" {
		return flood.Child(options, os.Stdin, os.Stdout)
	}
	if c.Args().Present() {
		return fmt.Errorf("%w: flood takes no argument, got %q; see halley flood --help", errUsage, c.Args().First())
	}
	o, err := floodOptions(c)
	if err == nil {
		err = o.Validate()
	}
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	log, err := newLogger(c)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	info, _ := os.Stdout.Stat()
	printer := flood.NewPrinter(os.Stdout, info != nil && info.Mode()&os.ModeCharDevice != 0, o.Connections)
	st, err := flooding(ctx, c, o, log, printer)
	if st == nil {
		return err
	}
	printer.Summary(st)
	if c.Bool("buckets") {
		printer.Buckets(st)
	}
	if file := c.String("json"); file != "" {
		text, jsonErr := st.JSON()
		err = errors.Join(err, jsonErr, os.WriteFile(file, append(text, '\n'), 0o644))
	}
	return errors.Join(err, st.Err())
}

func floodOptions(c *cli.Context) (flood.Options, error) {
	o := flood.DefaultOptions()
	var errs [4]error
	o.URL = c.String("url")
	o.Connections = c.Int("connections")
	o.Rate = c.Float64("rate")
	o.Hold = c.Duration("hold")
	o.Churn = c.Float64("churn")
	o.Report = c.Duration("report")
	if text := c.String("from"); text != "" {
		if o.From, errs[0] = flood.ParseFrom(text); errs[0] != nil {
			errs[0] = fmt.Errorf("--from: %w", errs[0])
		}
	}
	if o.FirstUID, o.LastUID, errs[1] = flood.ParseUIDs(c.String("uids")); errs[1] != nil {
		errs[1] = fmt.Errorf("--uids %w", errs[1])
	}
	if n := c.Int("processes"); n < 0 || n > max(o.Connections, 1) {
		errs[3] = fmt.Errorf("--processes %d must be from 1 to the number of connections, %d", n, o.Connections)
	}
	if o.Stall, errs[2] = flood.ParseShare(c.String("stall")); errs[2] != nil {
		errs[2] = fmt.Errorf("--stall %w", errs[2])
	}
	return o, errors.Join(errs[:]...)
}

// flooding runs the connections, in children if it must, and the publisher.
func flooding(ctx context.Context, c *cli.Context, o flood.Options, log *slog.Logger, printer *flood.Printer) (*flood.Stats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ev := flood.Events{Report: printer.Report, Progress: printer.Progress}
	finish := func(*flood.Stats) error { return nil }
	if to := c.String("publish"); to != "" {
		p, stop, err := newPublisher(ctx, c, o, to, log)
		if err != nil {
			return nil, err
		}
		defer stop()
		finish = publish(ctx, cancel, p, c.Bool("barrier"), c.Duration("publish-after"), &o, &ev)
	}
	processes := c.Int("processes")
	if processes == 0 {
		room, err := flood.FileRoom()
		if err != nil {
			return nil, err
		}
		processes = max(1, (o.Connections+room-1)/room)
	}
	var st *flood.Stats
	var err error
	if processes > 1 {
		st, err = flood.RunChildren(ctx, o, processes, ev)
	} else {
		st, err = flood.Run(ctx, o, ev)
	}
	cancel()
	if st != nil {
		err = errors.Join(err, finish(st))
	}
	return st, err
}

// straggle is how long the last messages may take to arrive.
const straggle = 2 * time.Second

// publish ties a publisher to a run: it begins with it, or with barrier when all
// are connected, and ends a little before it; if the messages are counted, the
// run ends when all of them have arrived. finish waits for the publisher and
// adds to the Stats what it has sent.
func publish(ctx context.Context, cancel context.CancelFunc, p *flood.Publisher, barrier bool, after time.Duration,
	o *flood.Options, ev *flood.Events) (finish func(*flood.Stats) error) {
	ctx, stop := context.WithCancel(ctx)
	begin, done := make(chan struct{}), make(chan struct{})
	var sent, want uint64 // these and err are the goroutine's until done
	var err error
	go func() {
		defer close(done)
		select {
		case <-begin:
		case <-ctx.Done():
			return
		}
		select {
		case <-time.After(after):
		case <-ctx.Done():
			return
		}
		if sent, err = p.Run(ctx); err != nil {
			cancel()
		}
		want = p.Expected(o.Connections)
	}()
	if p.Count > 0 {
		progress := ev.Progress
		ev.Progress = func(st *flood.Stats) {
			progress(st)
			select {
			case <-done:
				if sent == p.Count && st.Messages >= want {
					cancel()
				}
			default:
			}
		}
	}
	if !barrier {
		close(begin)
	}
	hold := o.Hold
	ev.Connected = func() {
		if barrier {
			close(begin)
		}
		if hold > 0 {
			time.AfterFunc(hold, stop)
		}
	}
	if hold > 0 {
		o.Hold += straggle
	}
	checks := barrier && (hold > 0 || p.Count > 0) && o.Churn == 0 && o.Stall == 0
	return func(st *flood.Stats) error {
		stop()
		<-done
		st.Sent = sent
		if err == nil && sent < p.Count {
			err = fmt.Errorf("%d of --publish-count %d messages were sent before the end: give a longer --hold, or a higher --publish-rate", sent, p.Count)
		}
		if checks && err == nil {
			st.Expected = want
		}
		return err
	}
}

// newPublisher joins the cluster as a node of its own.
func newPublisher(ctx context.Context, c *cli.Context, o flood.Options, to string, log *slog.Logger) (*flood.Publisher, func(), error) {
	p := &flood.Publisher{
		To: to, Register: c.String("register"), Count: c.Uint64("publish-count"),
		Rate: c.Float64("publish-rate"), Bytes: c.Int("publish-bytes"), Distribution: c.String("publish-uids"),
		FirstUID: o.FirstUID, LastUID: o.LastUID,
	}
	err := p.Validate()
	if after := c.Duration("publish-after"); after < 0 || o.Hold > 0 && after >= o.Hold {
		err = errors.Join(err, fmt.Errorf("--publish-after %v must be 0 or more, and less than --hold %v", after, o.Hold))
	}
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	node, err := joinFor(ctx, c, to, log)
	if err != nil {
		return nil, nil, err
	}
	p.Node = node
	return p, func() {
		ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
		defer cancel()
		if err := node.Stop(ctx); err != nil {
			log.Warn("leave the cluster", "err", err)
		}
	}, nil
}
