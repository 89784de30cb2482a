package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/urfave/cli/v2"

	"halley/cnode"
	"halley/httpd"
)

const serveHelp = `Joins the Erlang cluster as a hidden node and serves HTTP streams. Every flag can
also be given as HALLEY_... in the environment and as a key of the --config file.

Examples:

  Serve http://127.0.0.1:8000/test/{uid} beside the Erlang node app@myhost:
    halley serve --name halley@myhost --connect app@myhost

  In Erlang, to the browser at /test/123:
    {httpd, 'halley@myhost'} ! {123, <<"hello">>}

  On all addresses, numbers only, with limits for slow clients:
    halley serve --name halley@web1.example.com --connect app@core.example.com \
        --listen :80 --path /events/{uid} --uids integer --max-pending 256KiB --slow drop

  router:login(Uid, Pid) is called for each connection, as a mochiweb process would:
    halley serve --connect app@myhost --login router:login --logout router:logout

  From a file:
    halley serve --config /etc/halley.yaml

SIGTERM and SIGINT end the streams cleanly, spread over --drain, and exit with 0;
a second one exits at once with 1.`

func serveCommand() *cli.Command {
	d := cnode.DefaultOptions()
	flags := append(nodeFlags(d.Name, "info"),
		&cli.StringSliceFlag{Name: "connect", EnvVars: env("connect"),
			Usage: "Erlang `NODE` to stay connected to; may be repeated", DefaultText: "none, wait to be connected"},
		&cli.StringFlag{Name: "register", Value: d.Register, EnvVars: env("register"), Usage: "the name that Erlang sends to"},
		&cli.StringFlag{Name: "dist-listen", EnvVars: env("dist-listen"), DefaultText: "the name's host, any port",
			Usage: "`ADDR` that Erlang nodes connect to"},
		sizeFlag("max-packet", int64(d.MaxPacket), "largest message from Erlang", ""),
	)
	flags = append(flags, tellFlags()...)
	flags = append(flags, frontFlags()...)
	flags = append(flags, &cli.StringFlag{Name: "admin", Value: "127.0.0.1:8001", EnvVars: env("admin"),
		Usage: "`ADDR` of /metrics, /healthz and /readyz; \"\": none"})
	return &cli.Command{
		Name:        "serve",
		Usage:       "join the cluster and serve",
		UsageText:   "halley serve [flags]",
		Description: serveHelp,
		Flags:       flags,
		Before:      readConfig,
		Action:      serve,
	}
}

// service is a running Halley.
type service struct {
	log      *slog.Logger
	front    *httpd.Server
	node     *cnode.Node
	admin    *httpd.Admin
	registry *prometheus.Registry
	// waitsForPeer says that --connect was given: ready means connected.
	waitsForPeer bool
}

func serve(c *cli.Context) error {
	if c.Args().Present() {
		return fmt.Errorf("%w: serve takes no argument, got %q; see halley serve --help", errUsage, c.Args().First())
	}
	log, err := newLogger(c)
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	node, err := nodeOptions(c, log)
	if err != nil {
		return err
	}
	node.Connect = c.StringSlice("connect")
	node.Register = c.String("register")
	node.DistListen = c.String("dist-listen")
	node.MaxPacket = int(sizeOf(c, "max-packet"))
	tellOptions(c, &node)
	front := frontOptions(c, log)
	if err := errors.Join(node.Validate(), front.Validate()); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	ctx, stop := signal.NotifyContext(c.Context, syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	s := &service{log: log, registry: prometheus.NewRegistry(), waitsForPeer: len(node.Connect) > 0}
	if err := s.start(ctx, node, front, c.String("admin")); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
	case err := <-s.front.Failed():
		s.end()
		return err
	}
	stop()
	go func() { // the second signal
		again := make(chan os.Signal, 1)
		signal.Notify(again, syscall.SIGTERM, syscall.SIGINT)
		<-again
		log.Warn("second signal, leaving at once")
		os.Exit(exitFailure)
	}()
	return s.stop(front.Drain)
}

// start brings the parts up, the front first: a port in use is found before
// the cluster sees a node.
func (s *service) start(ctx context.Context, node cnode.Options, front httpd.Options, admin string) (err error) {
	defer func() {
		if err != nil {
			s.end()
		}
	}()
	node.NewFeed = func(string) cnode.Feed { return feed{s.front.NewFeed()} }
	node.Subscribe = func(sub cnode.Subscriber) (end func()) { return s.front.Subscribe(sub) }
	node.Stats, node.Version = s.stats, version
	n, err := cnode.New(node)
	if err != nil {
		return err
	}
	if node.Inbox != "" {
		front.Inbox = n.Inbox
	}
	if s.front, err = httpd.New(front); err != nil {
		return err
	}
	s.front.Observe(n)
	collectSooner()
	spareProcessor(s.front.Loops())
	if err = s.front.Start(); err != nil {
		s.front = nil
		return err
	}
	if err = n.Start(ctx); err != nil {
		return err
	}
	s.node = n
	s.registry.MustRegister(s.front.Metrics(), nodeMetrics{s.node},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if admin != "" {
		if s.admin, err = httpd.NewAdmin(admin, s.registry, s.ready, s.log); err != nil {
			return err
		}
		s.log.Info("admin", "addr", s.admin.Addr().String())
	}
	for _, addr := range s.front.Addrs() {
		s.log.Info("listening", "addr", addr.String())
	}
	s.log.Info("ready", "node", node.Name)
	return nil
}

// collectSooner halves what the heap may grow by between two collections: Halley's is a few
// megabytes, of which what connects leave behind is the most, and a collection takes less
// than a millisecond; with a million binary uids, a hundred megabytes to look through, it
// takes twice as much of the processor. What an operator sets stays.
func collectSooner() {
	const percent = 50
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// spareProcessor lets Go run a goroutine more at a time than there are loops. A loop does
// not tell Go's scheduler of its writes, and holds its processor while it has work: the
// readers, who bring it, need another. What an operator sets stays, and so does what a
// container's quota allows: beyond it all would be made to stand still.
func spareProcessor(loops int) {
	p := runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") == "" && p <= loops && p >= runtime.NumCPU() {
		runtime.GOMAXPROCS(p + 1)
	}
}

// feed is the front's, with what it tells of a connection as cnode has it.
type feed struct{ *httpd.Feed }

func (f feed) Info(conn uint64, reply func(*cnode.Info)) {
	f.Feed.Info(conn, func(info *httpd.Info) { reply((*cnode.Info)(info)) })
}

// ready tells why this Halley should get no clients.
func (s *service) ready() error {
	if s.waitsForPeer && len(s.node.Peers()) == 0 {
		return errors.New("no Erlang node is connected")
	}
	return s.front.Ready()
}

// stop ends the streams while the cluster is still there, then the rest.
func (s *service) stop(drain time.Duration) error {
	st := s.front.Stats()
	s.log.Info("shutting down", "connections", st.Connections, "drain", drain.String())
	err := s.front.Shutdown(context.Background())
	if err != nil {
		s.log.Warn("drain is over", "err", err)
	}
	s.end()
	s.log.Info("stopped")
	return nil
}

// endTimeout is what leaving the cluster and the last answers of the admin
// side may take.
const endTimeout = 5 * time.Second

// end takes down what is up, the feeds before what they feed.
func (s *service) end() {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	if s.node != nil {
		if err := s.node.Stop(ctx); err != nil {
			s.log.Warn("leave the cluster", "err", err)
		}
	}
	if s.front != nil {
		s.front.Close()
	}
	if s.admin != nil {
		if err := s.admin.Stop(ctx); err != nil {
			s.log.Warn("stop admin", "err", err)
		}
	}
}

// stats answers the call `stats` of an Erlang node: the counters of /metrics
// without their prefix, a label's value behind the name.
func (s *service) stats() []cnode.Stat {
	families, err := s.registry.Gather()
	if err != nil {
		s.log.Warn("gather stats", "err", err)
	}
	var stats []cnode.Stat
	for _, family := range families {
		name, ok := strings.CutPrefix(family.GetName(), "halley_")
		if !ok {
			continue
		}
		for _, m := range family.GetMetric() {
			stat := cnode.Stat{Name: name, Value: int64(m.GetCounter().GetValue() + m.GetGauge().GetValue())}
			for _, label := range m.GetLabel() {
				stat.Name += "_" + label.GetValue()
			}
			stats = append(stats, stat)
		}
	}
	return stats
}
