package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ergo-services/ergo/etf"
	"github.com/urfave/cli/v2"

	"halley/cnode"
)

const sendHelp = `Joins the cluster for a moment as a hidden node of its own and sends one message
to a Halley. UID and BODY are what {Uid, Body} has in Erlang; a BODY of - is
read from standard input. It reports that the message was sent, not that a
browser got it: as with ! in Erlang, nobody may be connected.

Examples:

  halley send --to halley@myhost 123 hello
  date | halley send --to halley@myhost alice -
  halley send --to halley@myhost --all 'back in five minutes'`

func sendCommand() *cli.Command {
	flags := append(nodeFlags("halley_send_"+strconv.Itoa(os.Getpid())+"@localhost", "warn"),
		&cli.StringFlag{Name: "to", Value: cnode.DefaultOptions().Name, EnvVars: env("to"), Usage: "the Halley `NODE`"},
		&cli.StringFlag{Name: "register", Value: cnode.DefaultOptions().Register, EnvVars: env("register"),
			Usage: "the name that it is registered under"},
		&cli.BoolFlag{Name: "all", EnvVars: env("all"), Usage: "to every connection; UID is left out"},
		&cli.DurationFlag{Name: "timeout", Value: 10 * time.Second, EnvVars: env("timeout"), Usage: "how long to try"},
	)
	return &cli.Command{
		Name:        "send",
		Usage:       "send one message from the shell, as a node of its own",
		UsageText:   "halley send [flags] UID BODY",
		Description: sendHelp,
		Flags:       flags,
		Before:      readConfig,
		Action:      send,
	}
}

func send(c *cli.Context) error {
	message, err := sendMessage(c)
	if err != nil {
		return fmt.Errorf("%w: %w; see halley send --help", errUsage, err)
	}
	log, err := newLogger(c)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	ctx, cancel := context.WithTimeout(c.Context, c.Duration("timeout"))
	defer cancel()
	to := c.String("to")
	node, err := joinFor(ctx, c, to, log)
	if err != nil {
		return err
	}
	return errors.Join(node.Send(to, c.String("register"), message), node.Stop(ctx))
}

// joinFor starts a node of our own that is connected to another.
func joinFor(ctx context.Context, c *cli.Context, to string, log *slog.Logger) (*cnode.Node, error) {
	o, err := nodeOptions(c, log)
	if err != nil {
		return nil, err
	}
	if !c.IsSet("name") { // a node of the same kind of name as the other
		if _, host, ok := strings.Cut(to, "@"); ok {
			alive, _, _ := strings.Cut(o.Name, "@")
			o.Name = alive + "@" + host
			o.DistListen = "localhost"
		}
	}
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("%w: %w", errUsage, err)
	}
	node, err := cnode.New(o)
	if err != nil {
		return nil, err
	}
	if err := node.Start(ctx); err != nil {
		return nil, err
	}
	if err := node.Connect(ctx, to); err != nil {
		return nil, errors.Join(err, node.Stop(ctx))
	}
	return node, nil
}

// sendMessage makes the term from the arguments.
func sendMessage(c *cli.Context) (etf.Term, error) {
	args := c.Args().Slice()
	if c.Bool("all") {
		if len(args) != 1 {
			return nil, fmt.Errorf("--all takes one argument, BODY; got %d", len(args))
		}
		body, err := readBody(args[0])
		return etf.Tuple{etf.Atom("all"), body}, err
	}
	if len(args) != 2 {
		return nil, fmt.Errorf("takes two arguments, UID and BODY; got %d", len(args))
	}
	if n := len(args[0]); n == 0 || n > 255 {
		return nil, fmt.Errorf("UID has %d bytes, must have 1 to 255", n)
	}
	body, err := readBody(args[1])
	if err != nil {
		return nil, err
	}
	// A binary that spells an integer is that integer to Halley.
	return etf.Tuple{[]byte(args[0]), body}, nil
}

func readBody(arg string) ([]byte, error) {
	if arg != "-" {
		return []byte(arg), nil
	}
	body, err := io.ReadAll(os.Stdin)
	if err != nil {
		return nil, fmt.Errorf("read BODY from standard input: %w", err)
	}
	return body, nil
}
