package main

import (
	"fmt"
	"log/slog"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"halley/cnode"
	"halley/httpd"
)

// size is a flag's value in bytes, written as 64KiB, 8MiB, 1GiB or a number.
type size int64

var sizeUnits = []struct {
	name  string
	bytes int64
}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}, {"", 1}}

// Set reads a size.
func (s *size) Set(text string) error {
	for _, unit := range sizeUnits {
		digits, ok := strings.CutSuffix(text, unit.name)
		if !ok {
			continue
		}
		n, err := strconv.ParseInt(strings.TrimSpace(digits), 10, 64)
		if err != nil || n < 0 || n > math.MaxInt64/unit.bytes {
			break
		}
		*s = size(n * unit.bytes)
		return nil
	}
	return fmt.Errorf("must be a size such as 64KiB, 8MiB or 1GiB")
}

// String writes a size in the largest unit that divides it.
func (s *size) String() string {
	for _, unit := range sizeUnits[:3] {
		if *s != 0 && int64(*s)%unit.bytes == 0 {
			return strconv.FormatInt(int64(*s)/unit.bytes, 10) + unit.name
		}
	}
	return strconv.FormatInt(int64(*s), 10)
}

// sizeFlag is a flag of type size with its default.
func sizeFlag(name string, value int64, usage, text string) cli.Flag {
	s := size(value)
	return &cli.GenericFlag{Name: name, Value: &s, Usage: usage, DefaultText: text, EnvVars: env(name)}
}

func sizeOf(c *cli.Context, name string) int64 { return int64(*c.Generic(name).(*size)) }

// env is the environment variable of a flag: --max-pending is HALLEY_MAX_PENDING.
func env(flag string) []string {
	return []string{"HALLEY_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))}
}

// nodeFlags are those of every command that joins the cluster. Their values
// never show the cookie, not even as a default that came from the environment.
func nodeFlags(name, logLevel string) []cli.Flag {
	d := cnode.DefaultOptions()
	return []cli.Flag{
		&cli.StringFlag{Name: "name", Value: name, EnvVars: env("name"),
			Usage: "node name; a host with a dot makes it a long name", DefaultText: name},
		&cli.StringFlag{Name: "cookie", EnvVars: env("cookie"), DefaultText: "from --cookie-file",
			Usage: "the cluster's cookie; others can read it in the process list, so prefer --cookie-file"},
		&cli.StringFlag{Name: "cookie-file", EnvVars: env("cookie-file"), DefaultText: "~/.erlang.cookie",
			Usage: "file with the cluster's cookie, readable by its owner only"},
		&cli.StringFlag{Name: "epmd", Value: d.EPMD, EnvVars: env("epmd"), Usage: "this host's epmd, `HOST:PORT`"},
		&cli.DurationFlag{Name: "net-ticktime", Value: d.NetTickTime, EnvVars: env("net-ticktime"),
			Usage: "the cluster's net_ticktime; a peer silent for longer is given up"},
		&cli.StringFlag{Name: "log-level", Value: logLevel, EnvVars: env("log-level"), Usage: "debug, info, warn or error"},
		&cli.StringFlag{Name: "log-format", Value: "text", EnvVars: env("log-format"), Usage: "text or json, on stderr"},
		configFlag(),
	}
}

// nodeOptions reads nodeFlags.
func nodeOptions(c *cli.Context, log *slog.Logger) (cnode.Options, error) {
	o := cnode.DefaultOptions()
	o.Name = c.String("name")
	o.EPMD = c.String("epmd")
	o.NetTickTime = c.Duration("net-ticktime")
	o.Logger = log
	cookie, err := cnode.LoadCookie(c.String("cookie"), c.String("cookie-file"))
	o.Cookie = cookie
	// An epmd that is started must not inherit it.
	os.Unsetenv(env("cookie")[0])
	return o, err
}

// tellFlags are what Erlang is told of connections.
func tellFlags() []cli.Flag {
	d := cnode.DefaultOptions()
	return []cli.Flag{
		&cli.StringFlag{Name: "login", EnvVars: env("login"), DefaultText: "none",
			Usage: "`MODULE:FUNCTION` called on an Erlang node with the uid and pid of each connection"},
		&cli.StringFlag{Name: "logout", EnvVars: env("logout"), DefaultText: "none",
			Usage: "`MODULE:FUNCTION` called with its pid at its end, unless a link tells of it"},
		&cli.StringFlag{Name: "login-node", EnvVars: env("login-node"), DefaultText: "the first connected",
			Usage: "`NODE` that these are called on, and that --inbox is on"},
		&cli.StringFlag{Name: "login-failure", Value: d.LoginFailure, EnvVars: env("login-failure"),
			Usage: "what becomes of a connection whose login fails: keep it, or close it"},
		&cli.StringFlag{Name: "presence", EnvVars: env("presence"), DefaultText: "none",
			Usage: "`NAME` of the process that is told who comes and goes, on every Erlang node that has it"},
		&cli.StringFlag{Name: "inbox", EnvVars: env("inbox"), DefaultText: "none, POST is refused",
			Usage: "`NAME` of the process that gets what clients send with POST"},
	}
}

// tellOptions reads tellFlags.
func tellOptions(c *cli.Context, o *cnode.Options) {
	o.Login = c.String("login")
	o.Logout = c.String("logout")
	o.LoginNode = c.String("login-node")
	o.LoginFailure = c.String("login-failure")
	o.Presence = c.String("presence")
	o.Inbox = c.String("inbox")
}

// frontFlags are those of the HTTP side.
func frontFlags() []cli.Flag {
	d := httpd.DefaultOptions()
	return []cli.Flag{
		&cli.StringSliceFlag{Name: "listen", Value: cli.NewStringSlice(d.Listen...), EnvVars: env("listen"),
			Usage: "`ADDR` of the front, host:port; may be repeated"},
		&cli.StringFlag{Name: "path", Value: d.Path, EnvVars: env("path"), Usage: "the stream's URL, with {uid} as a whole segment"},
		&cli.StringFlag{Name: "uids", Value: string(d.UIDs), EnvVars: env("uids"), Usage: "any, or integer to take numbers only"},
		&cli.Int64Flag{Name: "max-uid", EnvVars: env("max-uid"), Usage: "highest integer uid; 0: no limit"},
		&cli.StringFlag{Name: "welcome", Value: d.Welcome, EnvVars: env("welcome"), DefaultText: strconv.Quote(d.Welcome),
			Usage: "first chunk of a stream, {url} and {uid} are replaced; \"\": none"},
		&cli.IntFlag{Name: "max-connections", Value: d.MaxConnections, EnvVars: env("max-connections"),
			Usage: "slots, 64 bytes each; file descriptors may allow fewer"},
		&cli.IntFlag{Name: "max-per-uid", EnvVars: env("max-per-uid"),
			Usage: "connections of one uid, one more closes the oldest; 0: no limit"},
		sizeFlag("max-pending", int64(d.MaxPendingBytes), "bytes that may wait for one client that does not read", ""),
		sizeFlag("max-pending-total", 0, "bytes that may wait for all clients", "a quarter of memory"),
		&cli.StringFlag{Name: "slow", Value: string(d.Slow), EnvVars: env("slow"),
			Usage: "what becomes of a client beyond --max-pending: close it, or drop messages until it has caught up"},
		&cli.StringFlag{Name: "engine", Value: string(d.Engine), EnvVars: env("engine"), Usage: engineUsage()},
		&cli.IntFlag{Name: "loops", EnvVars: env("loops"), DefaultText: "one a core", Usage: "loops that share the connections; evio has one"},
		&cli.BoolFlag{Name: "pin", EnvVars: env("pin"), Usage: "tie each loop to a core"},
		sizeFlag("max-inbox", int64(d.MaxInboxBytes), "longest body of a POST", ""),
		&cli.DurationFlag{Name: "keep-alive", Value: d.KeepAlive, EnvVars: env("keep-alive"),
			Usage: "idle time after which TCP asks whether a client is still there; who does not answer is closed after twice that"},
		&cli.DurationFlag{Name: "drain", Value: d.Drain, EnvVars: env("drain"), Usage: "how long SIGTERM may take to end the streams"},
	}
}

// frontOptions reads frontFlags.
func frontOptions(c *cli.Context, log *slog.Logger) httpd.Options {
	o := httpd.DefaultOptions()
	o.Listen = c.StringSlice("listen")
	o.Path = c.String("path")
	o.UIDs = httpd.UIDPolicy(c.String("uids"))
	o.MaxUID = c.Int64("max-uid")
	o.Welcome = c.String("welcome")
	o.MaxConnections = c.Int("max-connections")
	o.MaxPerUID = c.Int("max-per-uid")
	o.MaxPendingBytes = int(sizeOf(c, "max-pending"))
	o.MaxPendingTotalBytes = sizeOf(c, "max-pending-total")
	o.Slow = httpd.SlowPolicy(c.String("slow"))
	o.Drain = c.Duration("drain")
	o.KeepAlive = c.Duration("keep-alive")
	o.MaxInboxBytes = int(sizeOf(c, "max-inbox"))
	o.Engine = httpd.EngineName(c.String("engine"))
	o.Loops = c.Int("loops")
	o.Pin = c.Bool("pin")
	o.MailboxWait = c.Duration("net-ticktime") / 2
	o.Logger = log
	return o
}

// newLogger reads --log-level and --log-format.
func newLogger(c *cli.Context) (*slog.Logger, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.String("log-level"))); err != nil {
		return nil, fmt.Errorf("--log-level %q must be debug, info, warn or error", c.String("log-level"))
	}
	options := &slog.HandlerOptions{Level: level}
	switch format := c.String("log-format"); format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	default:
		return nil, fmt.Errorf("--log-format %q must be text or json", format)
	}
}

// engineUsage names the engines of this system.
func engineUsage() string {
	names := make([]string, len(httpd.Engines))
	for i, e := range httpd.Engines {
		names[i] = string(e)
	}
	return "what drives the sockets: " + strings.Join(names, ", ")
}
