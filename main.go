// Halley joins an Erlang cluster as a hidden node and holds the cluster's
// long-lived HTTP connections. This package is its command line: it builds the
// parts, ties them together and runs them.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set by the linker in a release: -ldflags "-X main.version=1.2.3".
var version = "development"

const (
	exitFailure = 1
	exitUsage   = 2
)

// errUsage marks mistakes on the command line.
var errUsage = errors.New("usage")

func main() {
	err := app().RunContext(context.Background(), hideCookie())
	if err == nil {
		return
	}
	fmt.Fprintln(os.Stderr, "halley:", err)
	if errors.Is(err, errUsage) {
		os.Exit(exitUsage)
	}
	os.Exit(exitFailure)
}

func app() *cli.App {
	usage := func(c *cli.Context, err error, _ bool) error {
		return fmt.Errorf("%w: %w; see %s --help", errUsage, err, c.App.HelpName)
	}
	commands := []*cli.Command{serveCommand(), sendCommand(), floodCommand(), memlogCommand(), doctorCommand(), versionCommand()}
	for _, command := range commands {
		name := command.Name
		command.OnUsageError = func(_ *cli.Context, err error, _ bool) error {
			return fmt.Errorf("%w: %w; see halley %s --help", errUsage, err, name)
		}
	}
	return &cli.App{
		Name:            "halley",
		HelpName:        "halley",
		Usage:           "hold an Erlang cluster's long-lived HTTP connections",
		HideVersion:     true,
		HideHelpCommand: true,
		Commands:        commands,
		OnUsageError:    usage,
		ExitErrHandler:  func(*cli.Context, error) {}, // main prints errors and chooses the status
		Action: func(c *cli.Context) error {
			if c.Args().Present() {
				return fmt.Errorf("%w: no command %q; see halley --help", errUsage, c.Args().First())
			}
			return cli.ShowAppHelp(c)
		},
	}
}

func versionCommand() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version",
		Action: func(c *cli.Context) error {
			text := version
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" && len(s.Value) >= 12 {
						text += " " + s.Value[:12]
					}
				}
			}
			fmt.Fprintf(c.App.Writer, "halley %s, %s, %s/%s\n", text, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return nil
		},
	}
}
