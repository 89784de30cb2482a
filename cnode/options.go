package cnode

import (
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"
)

// Options say who we are and whom we serve. Each comment gives unit, default and
// what the zero value means; Validate's errors name the flag of the command line.
type Options struct {
	Name        string        // node name, "halley@host"; a host with a dot or an IP address makes it a long name
	Cookie      string        // the cluster's cookie, 1 to 255 printable characters; see LoadCookie
	Connect     []string      // peers to stay connected to; none: wait to be dialled
	Register    string        // registered name that Erlang sends to; default "httpd"
	DistListen  string        // "addr:port" or "addr"; "" is loopback or the host's address, any port; port 0 is any port
	EPMD        string        // host:port of this host's epmd, whose port serves for other hosts too; default ":4369", on loopback
	NetTickTime time.Duration // the cluster's net_ticktime, 60s; smaller finds silent peers sooner, too small loses slow ones
	MaxPacket   int           // bytes of the largest packet taken, 64 MiB; the price is that much memory per peer at worst
	Logger      *slog.Logger  // nil: slog.Default()

	// NewFeed makes the Feed of one peer's connection. Nil: nothing is registered, as
	// for a node that only sends.
	NewFeed func(peer string) Feed

	// Stats answers the call `stats`, as a map with atom keys. It is called from readers
	// and must not block. Nil: an empty map.
	Stats func() []Stat

	// Version is what halley:info/0 gives as version; "" leaves it out.
	Version string

	// Subscribe begins to tell sub of all connections, and end stops it; calls of sub
	// may still be under way then. Needed for Login, Logout and Presence.
	Subscribe func(sub Subscriber) (end func())

	Login        string // MODULE:FUNCTION called with (Uid, Pid) for each connection; "": none
	Logout       string // MODULE:FUNCTION called with (Pid) at its end, where no link tells of it; "": none
	LoginNode    string // the peer that these are called on, and that Inbox is on; "": the first connected
	LoginFailure string // what becomes of a connection whose login fails, "keep", the default, or "close"
	Presence     string // registered name that is told of connections on every peer that has it; "": none
	Inbox        string // registered name that gets what clients send; "": none
}

// Stat is one number of the answer to the call `stats`.
type Stat struct {
	Name  string // an atom: at most 255 characters
	Value int64
}

const (
	minTickTime  = 1 * time.Second
	minMaxPacket = 4 << 10
	maxMaxPacket = 1 << 30
	maxAtomBytes = 255
)

// DefaultOptions are those of a node on this machine; Cookie has no default.
func DefaultOptions() Options {
	return Options{
		Name:        "halley@localhost",
		Register:    "httpd",
		EPMD:        ":4369",
		NetTickTime: 60 * time.Second,
		MaxPacket:   64 << 20,

		LoginFailure: loginKeep,
	}
}

// Validate reports the first option that cannot work.
func (o *Options) Validate() error {
	if err := checkNodeName(o.Name); err != nil {
		return fmt.Errorf("--name %q: %w", o.Name, err)
	}
	if err := checkCookie(o.Cookie); err != nil {
		return fmt.Errorf("--cookie: %w", err) // its value stays out of every message
	}
	for _, peer := range o.Connect {
		if err := checkNodeName(peer); err != nil {
			return fmt.Errorf("--connect %q: %w", peer, err)
		}
		if peer == o.Name {
			return fmt.Errorf("--connect %q: that is this node's own name (--name)", peer)
		}
	}
	if err := checkRegistered(o.Register); err != nil {
		return fmt.Errorf("--register %q: %w", o.Register, err)
	}
	if err := o.validateTold(); err != nil {
		return err
	}
	if o.DistListen != "" {
		if _, port := splitListen(o.DistListen); !validPort(port, 0) {
			return fmt.Errorf("--dist-listen %q: port %q must be a number from 0 to 65535", o.DistListen, port)
		}
	}
	if _, port, err := net.SplitHostPort(o.EPMD); err != nil || !validPort(port, 1) {
		return fmt.Errorf("--epmd %q: must be HOST:PORT with a port from 1 to 65535", o.EPMD)
	}
	if o.NetTickTime < minTickTime {
		return fmt.Errorf("--net-ticktime %v: must be at least %v, and the cluster's net_ticktime", o.NetTickTime, minTickTime)
	}
	if o.MaxPacket < minMaxPacket || o.MaxPacket > maxMaxPacket {
		return fmt.Errorf("--max-packet %d: must be from %d to %d bytes", o.MaxPacket, minMaxPacket, maxMaxPacket)
	}
	return nil
}

const (
	loginKeep  = "keep"
	loginClose = "close"
)

// validateTold is Validate for what Erlang is told of connections.
func (o *Options) validateTold() error {
	if err := checkFunction(o.Login); err != nil {
		return fmt.Errorf("--login %q: %w", o.Login, err)
	}
	if err := checkFunction(o.Logout); err != nil {
		return fmt.Errorf("--logout %q: %w", o.Logout, err)
	}
	if o.LoginNode != "" {
		if err := checkNodeName(o.LoginNode); err != nil {
			return fmt.Errorf("--login-node %q: %w", o.LoginNode, err)
		}
		if o.LoginNode == o.Name {
			return fmt.Errorf("--login-node %q: that is this node's own name (--name), give a peer's", o.LoginNode)
		}
	}
	if o.LoginFailure != "" && o.LoginFailure != loginKeep && o.LoginFailure != loginClose {
		return fmt.Errorf("--login-failure %q: must be keep or close", o.LoginFailure)
	}
	if err := checkRegistered(o.Presence); err != nil && o.Presence != "" {
		return fmt.Errorf("--presence %q: %w", o.Presence, err)
	}
	if err := checkRegistered(o.Inbox); err != nil && o.Inbox != "" {
		return fmt.Errorf("--inbox %q: %w", o.Inbox, err)
	}
	return nil
}

// checkFunction takes MODULE:FUNCTION, and none at all.
func checkFunction(mf string) error {
	if mf == "" {
		return nil
	}
	module, function, found := strings.Cut(mf, ":")
	if !found || module == "" || function == "" || strings.Contains(function, ":") {
		return fmt.Errorf("must be MODULE:FUNCTION, as router:login")
	}
	if len(module) > maxAtomBytes || len(function) > maxAtomBytes {
		return fmt.Errorf("module and function have at most %d bytes each", maxAtomBytes)
	}
	return nil
}

// checkRegistered takes a name that a process of ours or of a peer's may have.
func checkRegistered(name string) error {
	switch {
	case name == "" || len(name) > maxAtomBytes:
		return fmt.Errorf("must have 1 to %d bytes", maxAtomBytes)
	case name == "net_kernel" || name == "rex":
		return fmt.Errorf("every Erlang node uses this name itself, choose another")
	}
	return nil
}

// checkNodeName takes what Erlang takes as a node name: name@host.
func checkNodeName(name string) error {
	alive, host, found := strings.Cut(name, "@")
	switch {
	case !found || alive == "" || host == "":
		return fmt.Errorf("must be NAME@HOST")
	case len(name) > maxAtomBytes:
		return fmt.Errorf("has %d bytes, at most %d fit", len(name), maxAtomBytes)
	}
	for _, r := range name[len(alive)+1:] {
		if r == '@' {
			return fmt.Errorf("has more than one @")
		}
	}
	for i := range len(name) {
		if name[i] <= ' ' || name[i] == 0x7f {
			return fmt.Errorf("has a space or control character")
		}
	}
	return nil
}

// hostOf is the part of a node name that says where the node is.
func hostOf(node string) string {
	_, host, _ := strings.Cut(node, "@")
	return host
}

// aliveOf is the part of a node name that EPMD knows.
func aliveOf(node string) string {
	alive, _, _ := strings.Cut(node, "@")
	return alive
}

// longName tells the two kinds of node name apart; Erlang nodes of one kind do not
// dial nodes of the other.
func longName(node string) bool {
	return strings.ContainsAny(hostOf(node), ".:")
}

// splitListen takes "addr:port", "addr", "[v6]:port", "[v6]" and "v6".
func splitListen(s string) (host, port string) {
	if h, p, err := net.SplitHostPort(s); err == nil {
		if p == "" {
			p = "0"
		}
		return h, p
	}
	return strings.TrimSuffix(strings.TrimPrefix(s, "["), "]"), "0"
}

func validPort(s string, least int) bool {
	n, err := strconv.Atoi(s)
	return err == nil && n >= least && n <= 65535
}
