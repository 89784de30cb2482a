package cnode

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/ergo-services/ergo/etf"
	"github.com/ergo-services/ergo/gen"
	"github.com/ergo-services/ergo/lib"
	"github.com/ergo-services/ergo/node"
)

// What we plug into ergo. ergo insists on a listener, on dialling itself and on
// accepting one client after the other. So it gets a listener of its own on loopback
// that nobody knows and that refuses everyone; and a connection that our listener or
// our dialling has finished comes in by a static route: ergo dials a port that is
// there for this alone, our handshake for that route gives the finished peer, our
// protocol the finished connection. The dialled socket stays as an idle token, which
// ergo closes at the end.

const (
	ergoPortMin = 20000 // of ergo's listener; it takes the first free one from a random start
	ergoPortMax = 60000
	enterWait   = 2 * time.Second
	distVersion = 6 // handshake
)

// noRegistrar is our node.Registrar. It knows nobody, so that ergo never dials but by
// enter, and registers nothing: EPMD is told of our own port, in register.go.
type noRegistrar struct{}

// startErgo starts ergo's node without any of its default applications, and a process
// of ours for sending.
func (n *Node) startErgo() error {
	begin := uint16(ergoPortMin + rand.IntN(ergoPortMax-ergoPortMin))
	started, err := node.StartWithContext(context.Background(), n.o.Name, lib.RandomString(32), node.Options{
		Creation:  n.creation,
		Listeners: []node.Listener{{Hostname: "127.0.0.1", ListenBegin: begin, ListenEnd: ergoPortMax + 5000}},
		Flags:     node.Flags{Enable: true, EnableBigCreation: true, EnableBigPidRef: true},
		Registrar: noRegistrar{},
		Handshake: noHandshake{},
		Proto:     noProto{},
		System:    node.System{DisableAnonMetrics: true},
	})
	if err != nil {
		return fmt.Errorf("start ergo node %s: %w", n.o.Name, err)
	}
	router, ok := started.(node.CoreRouter)
	if !ok {
		started.Stop()
		return fmt.Errorf("start ergo node %s: this version of ergo does not route", n.o.Name)
	}
	n.ergo, n.ergoRouter = started, router
	n.senderDone = make(chan struct{})
	if n.sender, err = started.Spawn("", gen.ProcessOptions{}, sender{n.senderDone}); err != nil {
		started.Stop()
		return fmt.Errorf("start ergo process: %w", err)
	}
	return nil
}

// enter hands a finished connection to ergo and returns when it stands in the registry.
func (n *Node) enter(c *conn) error {
	// Nobody accepts here: the system finishes ergo's dialling, and closing the listener
	// ends the other side of the token. So no accept can fail for want of descriptors,
	// upon which ergo's own accept loop would spin.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open a port for ergo: %w", err)
	}
	defer l.Close()
	port := uint16(l.Addr().(*net.TCPAddr).Port)
	err = n.ergo.AddStaticRoute(c.peer, "127.0.0.1", port, node.RouteOptions{IsErgo: true, Handshake: handshakeRoute{c}, Proto: route{c}})
	if err != nil {
		return fmt.Errorf("add route to ergo: %w", err)
	}
	err = n.ergo.Connect(c.peer)
	n.ergo.RemoveStaticRoute(c.peer)
	if err == nil {
		// Connect also succeeds if ergo has another connection to that name; then nobody
		// serves this one.
		late := time.NewTimer(enterWait)
		defer late.Stop()
		select {
		case <-c.serving:
		case <-late.C:
			err = errors.New("ergo holds another connection to this peer")
		}
	}
	if err != nil && c.abandon() {
		return fmt.Errorf("hand over to ergo: %w", err)
	}
	close(c.entered)
	<-c.standing
	return c.refused
}

// route gives one finished connection to ergo.
type route struct{ c *conn }

func (r route) Init(context.Context, lib.NetReadWriter, string, node.HandshakeDetails) (node.ConnectionInterface, error) {
	return r.c, nil
}
func (r route) Serve(_ node.ConnectionInterface, router node.CoreRouter) { r.c.serve(router) }
func (r route) Terminate(node.ConnectionInterface)                       { r.c.forgotten() }

// handshakeRoute is apart from route because both interfaces have an Init.
type handshakeRoute struct{ c *conn }

func (r handshakeRoute) Init(string, uint32, node.Flags) error { return nil }
func (r handshakeRoute) Version() node.HandshakeVersion        { return distVersion }
func (r handshakeRoute) Start(net.Addr, lib.NetReadWriter, bool, string) (node.HandshakeDetails, error) {
	return node.HandshakeDetails{
		Name:     r.c.peer,
		Flags:    node.Flags{Enable: true, EnableBigCreation: true, EnableBigPidRef: true},
		Creation: r.c.info.creation,
		Version:  distVersion,
	}, nil
}
func (r handshakeRoute) Accept(net.Addr, lib.NetReadWriter, bool, string) (node.HandshakeDetails, error) {
	return node.HandshakeDetails{}, io.EOF
}

// noHandshake refuses what comes to ergo's listener: io.EOF is the error that ergo
// does not print.
type noHandshake struct{}

func (noHandshake) Init(string, uint32, node.Flags) error { return nil }
func (noHandshake) Version() node.HandshakeVersion        { return distVersion }
func (noHandshake) Start(net.Addr, lib.NetReadWriter, bool, string) (node.HandshakeDetails, error) {
	return node.HandshakeDetails{}, lib.ErrUnsupported
}
func (noHandshake) Accept(net.Addr, lib.NetReadWriter, bool, string) (node.HandshakeDetails, error) {
	return node.HandshakeDetails{}, io.EOF
}

// noProto serves what noHandshake let through: nothing.
type noProto struct{}

func (noProto) Init(context.Context, lib.NetReadWriter, string, node.HandshakeDetails) (node.ConnectionInterface, error) {
	return nil, lib.ErrUnsupported
}
func (noProto) Serve(node.ConnectionInterface, node.CoreRouter) {}
func (noProto) Terminate(node.ConnectionInterface)              {}

func (noRegistrar) Register(context.Context, string, node.RegisterOptions) error { return nil }
func (noRegistrar) Resolve(string) (node.Route, error)                           { return node.Route{}, lib.ErrNoRoute }
func (noRegistrar) ResolveProxy(string) (node.ProxyRoute, error) {
	return node.ProxyRoute{}, lib.ErrProxyNoRoute
}
func (noRegistrar) RegisterProxy(string, int, node.ProxyFlags) error { return lib.ErrUnsupported }
func (noRegistrar) UnregisterProxy(string) error                     { return lib.ErrUnsupported }
func (noRegistrar) Config() (node.RegistrarConfig, error) {
	return node.RegistrarConfig{}, lib.ErrUnsupported
}
func (noRegistrar) ConfigItem(string) (etf.Term, error) { return nil, lib.ErrUnsupported }
func (noRegistrar) SetConfigUpdateCallback(func(string, etf.Term) error) error {
	return lib.ErrUnsupported
}

// sender is the process in whose name Node.Send sends. It drops what is sent to it,
// and nothing that a peer says ends it.
type sender struct{ done chan struct{} }

func (s sender) ProcessInit(p gen.Process, _ ...etf.Term) (gen.ProcessState, error) {
	p.SetTrapExit(true)
	return gen.ProcessState{Process: p}, nil
}

func (s sender) ProcessLoop(state gen.ProcessState, started chan<- bool) string {
	defer close(s.done)
	in := state.ProcessChannels()
	stop := state.Context().Done()
	started <- true
	for {
		select {
		case <-in.Mailbox:
		case <-in.GracefulExit:
		case <-in.Direct: // the asker runs into its timeout
		case <-stop:
			return "shutdown"
		}
	}
}
