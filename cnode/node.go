package cnode

import (
	"context"
	"errors"

	"github.com/ergo-services/ergo/etf"
)

// ErrNameInUse: another node is registered in EPMD under our name.
var ErrNameInUse = errors.New("node name is in use")

// Node is our member of the cluster. Its methods may be called from anywhere.
type Node struct{ counters counters }

var errLater = errors.New("node: not here yet")

// Start makes the node, registers it in EPMD and begins to dial and to accept.
func Start(ctx context.Context, o Options) (*Node, error) { return nil, errLater }

// Stop leaves the cluster and waits for every goroutine.
func (n *Node) Stop(ctx context.Context) error { return errLater }

// Peers are the names of the connected peers, sorted.
func (n *Node) Peers() []string { return nil }

// Connect dials peer once, now.
func (n *Node) Connect(ctx context.Context, peer string) error { return errLater }

// Send is {name, peer} ! term; it returns when the term is in the socket.
func (n *Node) Send(peer, name string, term etf.Term) error { return errLater }

// Stats is a snapshot of what the node has done.
func (n *Node) Stats() Counters { return n.counters.snapshot(0) }
