//go:build linux

// Command million is the inner part of scripts/million: it opens many connections
// to a Halley and measures what they cost. It is the first process of the
// script's virtual machine, or an ordinary one with --here.
//
//	million run [flags]                        the run, on this machine
//	million initramfs OUT NAME=FILE...         packs the machine's files, itself as /init
//
// As process 1 it takes the flags of run from the kernel's command line, behind
// "--". Files:
//
//	main.go       commands and flags
//	run.go        starts epmd, halley serve and halley flood, follows them, judges
//	measure.go    memory, processor time, counters from /proc
//	summary.go    what a run found, as text and as JSON
//	limits.go     whether this machine lets so many connections be
//	init.go       process 1: mounts, limits, the way out for the results
//	initramfs.go  the archive that the kernel unpacks
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

var errUsage = errors.New("usage")

// options of a run. Each names its flag.
type options struct {
	connections int           // --connections
	rate        float64       // --rate: connections a second; 0: as fast as the server answers
	messages    int           // --messages, to uids drawn at random when all are open
	patience    time.Duration // --patience: how long nothing may change
	out         string        // --out: folder for the results
	halley      string        // --halley: the program
	epmd        string        // --epmd: the program
}

func parseOptions(args []string) (options, error) {
	var o options
	f := flag.NewFlagSet("million run", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.IntVar(&o.connections, "connections", 1000000, "")
	f.Float64Var(&o.rate, "rate", 0, "")
	f.IntVar(&o.messages, "messages", 100000, "")
	f.DurationVar(&o.patience, "patience", 5*time.Minute, "")
	f.StringVar(&o.out, "out", "/tmp/million", "")
	f.StringVar(&o.halley, "halley", "/bin/halley", "")
	f.StringVar(&o.epmd, "epmd", "/bin/epmd", "")
	err := f.Parse(args)
	switch {
	case err != nil:
	case f.NArg() > 0:
		err = fmt.Errorf("run takes no argument, got %q", f.Arg(0))
	case o.connections < 1 || o.connections > maxConnections:
		err = fmt.Errorf("--connections %d must be from 1 to %d: %d addresses have no more ports", o.connections, maxConnections, addresses)
	case o.rate < 0:
		err = fmt.Errorf("--rate %v must be 0 or more", o.rate)
	case o.messages < 0:
		err = fmt.Errorf("--messages %d must be 0 or more", o.messages)
	case o.patience < time.Second:
		err = fmt.Errorf("--patience %v must be 1s or more", o.patience)
	}
	if err != nil {
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	return o, nil
}

func main() {
	if os.Getpid() == 1 {
		asInit(os.Args[1:])
	}
	if err := command(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "million:", err)
		if errors.Is(err, errUsage) {
			os.Exit(exitUsage)
		}
		os.Exit(exitFailure)
	}
}

func command(args []string) error {
	switch {
	case len(args) > 0 && args[0] == "run":
		return runHere(args[1:])
	case len(args) > 2 && args[0] == "initramfs":
		return writeInitramfs(args[1], args[2:])
	}
	return fmt.Errorf("%w: no such command; see scripts/million --help", errUsage)
}

func runHere(args []string) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if o.out, err = filepath.Abs(o.out); err != nil {
		return err
	}
	if err := checkLimits(o); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return run(ctx, o, os.Stdout)
}
