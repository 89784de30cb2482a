package main

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/urfave/cli/v2"

	"halley/test/doctor"
)

const doctorHelp = `Reads what so many connections need of this machine and says what is enough, what
is not, why, and what to type to mend it. Changes nothing. docs/tuning.md explains
each value. Exits with 0 when nothing is too low, with 1 when something is;
with --sysctl and --systemd with 0.

Examples:

  halley doctor
  halley doctor --connections 100000
  halley doctor --pid $(pidof halley)
  halley doctor --sysctl | sudo tee /etc/sysctl.d/90-halley.conf
  halley doctor --systemd | sudo tee /etc/systemd/system/halley.service`

func doctorCommand() *cli.Command {
	return &cli.Command{
		Name:        "doctor",
		Usage:       "say what this machine lacks for many connections",
		UsageText:   "halley doctor [flags]",
		Description: doctorHelp,
		Flags: []cli.Flag{
			&cli.IntFlag{Name: "connections", Value: 1000000, EnvVars: env("connections"), Usage: "how many are wanted"},
			&cli.IntFlag{Name: "pid", DefaultText: "a new one, started as this command is",
				Usage: "look at the limits of the running process `PID`"},
			&cli.BoolFlag{Name: "sysctl", Usage: "print a file for /etc/sysctl.d instead"},
			&cli.BoolFlag{Name: "systemd", Usage: "print a unit for systemd instead"},
			&cli.BoolFlag{Name: "json", Usage: "print the findings for scripts"},
		},
		Action: runDoctor,
	}
}

func runDoctor(c *cli.Context) error {
	n, pid := c.Int("connections"), c.Int("pid")
	forms := 0
	for _, name := range []string{"sysctl", "systemd", "json"} {
		if c.Bool(name) {
			forms++
		}
	}
	switch {
	case c.Args().Present():
		return fmt.Errorf("%w: doctor takes no argument, got %q; see halley doctor --help", errUsage, c.Args().First())
	case n < 1 || n > doctor.MaxConnections:
		return fmt.Errorf("%w: --connections %d must be from 1 to %d, the most that one Halley can have", errUsage, n, doctor.MaxConnections)
	case c.IsSet("pid") && pid < 1:
		return fmt.Errorf("%w: --pid %d is no PID: give that of a running halley, see pidof halley", errUsage, pid)
	case forms > 1:
		return fmt.Errorf("%w: --sysctl, --systemd and --json exclude each other: give one of them", errUsage)
	case runtime.GOOS != "linux":
		return fmt.Errorf("doctor knows Linux only, this is %s: run it on the machine that is to hold the connections; elsewhere look at ulimit -Hn and kern.maxfiles", runtime.GOOS)
	}
	facts, err := doctor.Read(os.DirFS("/"), pid)
	if errors.Is(err, doctor.ErrNoProcess) {
		return fmt.Errorf("%w: --pid: %w: give that of a running halley, see pidof halley", errUsage, err)
	}
	if err != nil {
		return err
	}
	findings := doctor.Judge(facts, n)
	switch {
	case c.Bool("sysctl"):
		return doctor.Sysctl(c.App.Writer, n, findings)
	case c.Bool("systemd"):
		return doctor.Unit(c.App.Writer, facts, n)
	case c.Bool("json"):
		err = doctor.JSON(c.App.Writer, facts, n, findings)
	default:
		err = doctor.Table(c.App.Writer, facts, n, findings)
	}
	if low := doctor.Low(findings); err == nil && len(low) > 0 {
		err = fmt.Errorf("%d of %d values are too low for %d connections", len(low), len(findings), n)
	}
	return err
}
