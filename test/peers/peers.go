package peers

import (
	"context"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"sync"
)

// Config is what a peer needs to start.
type Config struct {
	Dir    string // scratch directory, for binaries, configurations and logs
	Addr   string // host:port of the HTTP front, such as 127.0.0.1:24500
	Host   string // host part of node names, such as localhost
	Cookie string
	Epmd   int // port of the epmd that runs
	// Connections is how many must fit; 0: DefaultConnections. A peer gets a few
	// hundred descriptors more, or what the system allows.
	Connections int
	Stderr      io.Writer // what a peer has to say; nil: nobody hears it
}

// DefaultConnections fits into a limit of 20,000 open files.
const DefaultConnections = 18000

// spareFiles is what a peer needs beside its streams: publishers, listeners, logs.
const spareFiles = 1000

func (c *Config) connections() int {
	if c.Connections == 0 {
		return DefaultConnections
	}
	return c.Connections
}

// Peer is a running server.
type Peer struct {
	Name    string
	Version string // of what it is built on, such as "nginx 1.22.1, nchan 1.3.6"
	PIDs    []int  // processes whose memory and CPU are the server's
	URL     string // of the streams, with {uid}
	Dest    Dest   // how messages are sent to it

	cmd    *exec.Cmd
	ended  chan struct{} // closed when cmd is waited for
	stop   sync.Once
	stdin  io.Closer
	stdout io.Closer
	stderr *tail
}

// Dest is how messages get to a peer; one of its fields is set.
type Dest struct {
	Erlang  *Erlang
	Publish string   // URL with {uid}: a POST's body is the message
	Control *Control // the peer makes messages itself, as told
}

// Erlang is a registered process, or what looks like one, that takes {Uid, Body}
// with an integer and a binary.
type Erlang struct {
	Name  string
	Node  string
	Lists bool // it takes [{Uid, Body}, ...] too
	// Single: a uid has one connection, a newer one ends the older.
	Single bool
}

// String is the destination as Erlang writes it.
func (e *Erlang) String() string { return fmt.Sprintf("{%s,'%s'}", e.Name, e.Node) }

// Kind is a peer that can be started.
type Kind struct {
	Name  string
	Note  string // for a reader of the table: what it is
	Start func(context.Context, Config) (*Peer, error)
}

// All returns the peers in the order of the table.
func All() []Kind {
	return []Kind{
		{"ceiling", "the bare loop: epoll and write(2), messages made in place", startCeiling},
		{"cnode", "the articles' C node on libevent, made safe: a wake for each message", startCNode},
		{"cnode-queue", "the same with a queue: one wake for all that waits, one write for a user's part of it", startCNodeQueue},
		{"nchan", "nginx with nchan, one worker; each message is an HTTP request", startNchan},
		{"mochiweb", "the articles' mochiweb front, a process for each stream; each message is a call of the router", startMochiweb},
		{"mochiweb-ets", "the same; the process that gets a message looks into the router's table itself", startMochiwebETS},
	}
}

// Missing is why a peer cannot be had on this system.
type Missing struct {
	Peer     string
	What     string   // that was looked for
	Packages []string // of Debian, that bring it; none: nothing would help
}

func (m *Missing) Error() string {
	text := m.Peer + " needs " + m.What
	if len(m.Packages) > 0 {
		text += ": apt-get install " + strings.Join(m.Packages, " ")
	}
	return text
}

func streamURL(addr string) string { return "http://" + addr + "/test/{uid}" }

// free returns an error when somebody listens there already: the peer would fail, and
// the somebody be measured in its place.
func free(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	return l.Close()
}

func splitAddr(addr string) (host, port string, err error) {
	host, port, err = net.SplitHostPort(addr)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	return host, port, err
}
