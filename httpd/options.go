package httpd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"strings"
	"time"
)

// SlowPolicy says what becomes of a client that does not read fast enough.
type SlowPolicy string

const (
	// SlowClose resets the connection: the client notices and comes back.
	SlowClose SlowPolicy = "close"
	// SlowDrop discards whole messages until the client has caught up.
	SlowDrop SlowPolicy = "drop"
)

// UIDPolicy says which uids a URL may name.
type UIDPolicy string

const (
	// UIDsAny takes integers and binaries.
	UIDsAny UIDPolicy = "any"
	// UIDsInteger takes integers only, as the C node did.
	UIDsInteger UIDPolicy = "integer"
)

// EngineName says what drives the sockets.
type EngineName string

const (
	// EngineEpoll is Halley's own for Linux, as many loops as wanted.
	EngineEpoll EngineName = "epoll"
	// EngineEvio is github.com/tidwall/evio, on every Unix, one loop.
	EngineEvio EngineName = "evio"
)

// DefaultMaxConnections is the number of slots: 17 source addresses of 65,536
// ports each, the size of the articles' test.
const DefaultMaxConnections = 17 * 65536

// Options configures a Server. Each field names the flag that sets it.
type Options struct {
	// Listen has the addresses of the front (--listen), "host:port"; port 0
	// takes any free one.
	Listen []string
	// Engine drives the sockets (--engine).
	Engine EngineName
	// Loops share the connections (--loops). 0: as many as the engine has use for, which
	// is one for evio and one a core for epoll.
	Loops int
	// Pin ties each loop of epoll to a core (--pin).
	Pin bool
	// Path is the stream's URL (--path); it has {uid} as a whole segment.
	Path string
	// UIDs and MaxUID limit who may connect (--uids, --max-uid). MaxUID 0: no limit.
	UIDs   UIDPolicy
	MaxUID int64
	// Welcome is the template of the first chunk (--welcome): {url} and {uid}
	// are replaced, HTML-escaped. Empty: no welcome.
	Welcome string
	// MaxConnections is the number of slots (--max-connections). A slot costs
	// 64 bytes of address space at once and of memory when first used.
	MaxConnections int
	// MaxPerUID is how many connections a uid may have (--max-per-uid); one
	// more closes the oldest. 0: no limit.
	MaxPerUID int
	// MaxPendingBytes may wait for one client that does not read
	// (--max-pending), behind the message that is being written, which is
	// taken whole whatever its size; then Slow (--slow) decides.
	MaxPendingBytes int
	Slow            SlowPolicy
	// MaxPendingTotalBytes may wait for all clients together
	// (--max-pending-total); above it those with the most are closed. 0: a
	// quarter of the machine's memory.
	MaxPendingTotalBytes int64
	// MailboxBytes and MailboxEntries bound what waits for a loop. Up to half
	// of them a batch of any size is taken, so that a message larger than the
	// mailbox passes.
	MailboxBytes   int64
	MailboxEntries int64
	// MailboxWait is how long Feed.Flush waits for room before it discards.
	MailboxWait time.Duration
	// HeadTimeout and MaxHeadBytes bound the request head; the body of a POST has
	// HeadTimeout once more.
	HeadTimeout  time.Duration
	MaxHeadBytes int
	// Inbox takes what a client has sent with POST to its stream's URL: for the integer uid
	// id, if name is nil. conn is the number of the uid's newest stream, 0 if it has
	// none. It is called on a loop's goroutine and must not block; body is valid during the
	// call. false: nobody can take it now, which is a 503 to the client. Nil: a POST is
	// answered with 405.
	Inbox func(id int64, name []byte, conn uint64, body []byte) bool
	// MaxInboxBytes is the longest body of a POST (--max-inbox); above it is 413.
	MaxInboxBytes int
	// Drain is how long Shutdown may take (--drain).
	Drain time.Duration
	// KeepAlive is the idle time after which TCP asks whether a client is
	// still there (--keep-alive); a client that does not answer is closed after
	// twice that.
	KeepAlive time.Duration
	Logger    *slog.Logger
}

// maxLoops is how many epoll instances that are watched themselves may watch one
// listener (path_limits in the kernel's fs/eventpoll.c).
const maxLoops = 500

// maxKeepAlive is the kernel's bound, MAX_TCP_KEEPIDLE seconds (include/net/tcp.h).
const maxKeepAlive = 32767 * time.Second

// DefaultOptions returns what `halley serve` runs with when no flag is given.
func DefaultOptions() Options {
	return Options{
		Listen:          []string{"127.0.0.1:8000"},
		Engine:          DefaultEngine,
		Path:            "/test/{uid}",
		UIDs:            UIDsAny,
		Welcome:         "Welcome, Url: '{url}' Id: {uid}\n",
		MaxConnections:  DefaultMaxConnections,
		MaxPendingBytes: 64 << 10,
		Slow:            SlowClose,
		MailboxBytes:    8 << 20,
		MailboxEntries:  8 << 10,
		MailboxWait:     30 * time.Second,
		HeadTimeout:     10 * time.Second,
		MaxHeadBytes:    8 << 10,
		MaxInboxBytes:   64 << 10,
		Drain:           10 * time.Second,
		KeepAlive:       45 * time.Second,
		Logger:          slog.Default(),
	}
}

// Validate returns every mistake at once, each with the flag the operator typed.
func (o *Options) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if len(o.Listen) == 0 {
		bad("--listen must name at least one address, such as 127.0.0.1:8000")
	}
	for _, addr := range o.Listen {
		if _, _, err := net.SplitHostPort(addr); err != nil {
			bad("--listen %q must be host:port, such as 127.0.0.1:8000 or [::1]:8000", addr)
		}
	}
	if _, err := parsePath(o.Path); err != nil {
		bad("--path %q %w", o.Path, err)
	}
	if !slices.Contains(Engines, o.Engine) {
		bad("--engine %q must be one of %v on this system", o.Engine, Engines)
	}
	if o.Loops < 0 || o.Loops > maxLoops {
		bad("--loops %d must be from 1 to %d", o.Loops, maxLoops)
	}
	if o.Engine == EngineEvio && (o.Loops > 1 || o.Pin) {
		bad("--engine evio has one loop and does not pin it: leave --loops and --pin out, or take epoll, on Linux")
	}
	if o.UIDs != UIDsAny && o.UIDs != UIDsInteger {
		bad("--uids %q must be any or integer", o.UIDs)
	}
	if o.MaxUID < 0 {
		bad("--max-uid %d must be 0 (no limit) or more", o.MaxUID)
	}
	if o.MaxConnections < 1 || o.MaxConnections > maxSlots {
		bad("--max-connections %d must be from 1 to %d", o.MaxConnections, maxSlots)
	} else if _, err := newNumbering(o.MaxConnections, max(1, o.Loops)); err != nil {
		errs = append(errs, err)
	}
	if o.MaxPerUID < 0 {
		bad("--max-per-uid %d must be 0 (no limit) or more", o.MaxPerUID)
	}
	if o.MaxPendingBytes < 1 || o.MaxPendingBytes > maxMessage {
		bad("--max-pending %d must be from 1 byte to %d", o.MaxPendingBytes, maxMessage)
	}
	if o.Slow != SlowClose && o.Slow != SlowDrop {
		bad("--slow %q must be close or drop", o.Slow)
	}
	if o.MaxPendingTotalBytes < 0 {
		bad("--max-pending-total %d must be 0 (a quarter of memory) or more", o.MaxPendingTotalBytes)
	}
	if strings.Contains(o.Welcome, "{id}") {
		bad("--welcome knows {url} and {uid}, not {id}")
	}
	if o.MaxInboxBytes < 1 || o.MaxInboxBytes > maxMessage {
		bad("--max-inbox %d must be from 1 byte to %d", o.MaxInboxBytes, maxMessage)
	}
	if o.KeepAlive < time.Second || o.KeepAlive > maxKeepAlive {
		bad("--keep-alive %s must be from 1s to %s", o.KeepAlive, maxKeepAlive)
	}
	if o.Drain < 0 {
		bad("--drain %s must be 0 or more", o.Drain)
	}
	return errors.Join(errs...)
}
