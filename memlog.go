package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"

	"halley/test/memlog"
)

const memlogHelp = `Prints a line now and every --every, until the processes end or Ctrl-C: date,
seconds since 1970, resident KB and open files of the processes together, and
between them the KB that the kernel has in TCP's buffers, of the whole network
namespace.

Examples:

  halley memlog $(pidof halley) | tee memory.log
  halley memlog --every 1s --plot memory.png $(pidof halley)
  halley memlog --plot memory.svg --log memory.log`

func memlogCommand() *cli.Command {
	return &cli.Command{
		Name:        "memlog",
		Usage:       "log the memory of processes over time, and draw it",
		UsageText:   "halley memlog [flags] PID...",
		Description: memlogHelp,
		Flags: []cli.Flag{
			&cli.DurationFlag{Name: "every", Value: time.Minute, EnvVars: env("every"), Usage: "pause between two lines"},
			&cli.StringFlag{Name: "plot", EnvVars: env("plot"), Usage: "draw the log into `FILE`, .png or .svg, at the end"},
			&cli.StringFlag{Name: "log", EnvVars: env("log"), Usage: "draw this `FILE` instead of watching processes"},
			&cli.StringFlag{Name: "title", EnvVars: env("title"), DefaultText: "the processes, or the file", Usage: "of the picture"},
		},
		Action: runMemlog,
	}
}

func runMemlog(c *cli.Context) error {
	file := c.String("plot")
	switch ext := filepath.Ext(file); {
	case file != "" && ext != ".png" && ext != ".svg":
		return fmt.Errorf("%w: --plot %q must end in .png or .svg", errUsage, file)
	case c.Duration("every") < 10*time.Millisecond:
		return fmt.Errorf("%w: --every %v must be 10ms or more", errUsage, c.Duration("every"))
	}
	if name := c.String("log"); name != "" {
		if file == "" || c.Args().Present() {
			return fmt.Errorf("%w: --log goes with --plot, and without processes", errUsage)
		}
		return plotLog(name, titleOr(c, name), file)
	}
	pids, err := parsePIDs(c.Args().Slice())
	if err != nil {
		return fmt.Errorf("%w: %w; see halley memlog --help", errUsage, err)
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	samples, err := watchMemory(ctx, c, pids)
	if err == nil && file != "" {
		err = memlog.Plot(samples, titleOr(c, "memory of process "+strings.Join(c.Args().Slice(), ", ")), file)
	}
	return err
}

func titleOr(c *cli.Context, title string) string {
	if c.IsSet("title") {
		return c.String("title")
	}
	return title
}

func parsePIDs(args []string) ([]int, error) {
	if len(args) == 0 {
		return nil, errors.New("memlog takes the PIDs of the processes to watch")
	}
	var pids []int
	for _, arg := range args {
		pid, err := strconv.Atoi(arg)
		if err != nil || pid < 1 {
			return nil, fmt.Errorf("%q is no PID", arg)
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// watchMemory prints until ctx ends or a process does, which is no error once
// there was a line.
func watchMemory(ctx context.Context, c *cli.Context, pids []int) ([]memlog.Sample, error) {
	ticker := time.NewTicker(c.Duration("every"))
	defer ticker.Stop()
	var samples []memlog.Sample
	for {
		s, err := memlog.Take(pids)
		if errors.Is(err, memlog.ErrGone) && len(samples) > 0 {
			fmt.Fprintln(os.Stderr, "halley:", err)
			return samples, nil
		}
		if err != nil {
			return samples, err
		}
		samples = append(samples, s)
		fmt.Fprintln(c.App.Writer, s)
		select {
		case <-ctx.Done():
			return samples, nil
		case <-ticker.C:
		}
	}
}

func plotLog(name, title, file string) error {
	f, err := os.Open(name)
	if err != nil {
		return fmt.Errorf("--log: %w", err)
	}
	defer f.Close()
	samples, err := memlog.Read(f)
	if err != nil {
		return fmt.Errorf("--log %s: %w", name, err)
	}
	return memlog.Plot(samples, title, file)
}
