// Package cnode joins an Erlang cluster as a hidden node and hands what Erlang sends
// to the registered name and to the pids of connections to a Feed. It knows nothing
// of HTTP: a connection is a number that makes a pid, see pid.go.
//
// Nouns: a Node is our member of the cluster; a peer is an Erlang node that we are
// connected to; a conn is the connection to one peer; a block is the memory that a
// conn reads into; a Feed takes the messages of one peer; a hold is a link or monitor
// that a peer's process has of a connection, see held.go.
//
// Threads. Each conn has one reader goroutine, which decodes, answers and calls the
// Feed, and one writer goroutine, which owns the sending side of the socket and the
// ticks, and encodes the signals of holds that have fired. Nothing blocks the writer
// but the socket. Each peer of Options.Connect has a goroutine that dials; each
// handshake has one; the registrar has one; the teller, which tells Erlang of
// connections, is one, see teller.go. Stop waits for all of them. Locks: under those of
// registry, writer, peers, held and asked no other is taken, and none of them on the
// way of a message to the Feed. Those of logins and epoch come before them.
//
// Bounds. A conn's outgoing queue holds maxQueuedBytes; beyond that the peer is
// disconnected. A peer has at most maxHeld holds; those that have fired stay where they
// are until the socket takes their signals. Incoming memory is what has been handed to
// the Feed and not been given back, plus one block; the Feed slows the reader by
// blocking in Flush. At most maxHandshakes accepted sockets may be unauthenticated at
// a time.
//
// The node's life cycle, its processes and their routing are ergo's
// (github.com/ergo-services/ergo); handshake, protocol and registrar are ours, see
// ergo.go for how a finished connection gets into ergo.
//
// Erlang can call five functions by rpc and erpc, those of rpc.go, and spawn nothing.
//
// Caveats: the slices that a Feed method gets belong to a block and change after
// the done of the Flush that follows; their contents must not be written to. A
// message larger than Options.MaxPacket ends the peer's connection, because Erlang
// does not fragment what it sends to us.
package cnode
