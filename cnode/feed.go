package cnode

import (
	"net/netip"
	"time"
)

// Feed takes what one peer sends to the registered name and to connections. Its
// methods are called from that peer's reader goroutine only, in the order in which
// Erlang sent. A name of nil means the integer uid id; conn is the number of a
// connection, see pid.go. The slices are valid until the done of the Flush that
// follows has been called; they must not be written to.
//
// A reply is called once, later and from any goroutine, and does not block. What it
// is given is valid during the call.
type Feed interface {
	// Message is {Uid, Body}.
	Message(id int64, name, body []byte)
	// Send is Pid ! Body.
	Send(conn uint64, body []byte)
	// All is {all, Body}.
	All(body []byte)
	// Close is {close, Uid, Reason}. text is printable and made from the term reason,
	// which is handed back to Ended as it came; nil: none was given.
	Close(id int64, name []byte, text, reason []byte)
	// CloseCount is Close that tells how many connections it has ended.
	CloseCount(id int64, name []byte, text, reason []byte, reply func(n int))
	// Exit ends one connection, with a reason as for Close.
	Exit(conn uint64, text, reason []byte)
	// Deliver is the call {deliver, Uid, Body}; reply gets the number of connections.
	Deliver(id int64, name, body []byte, reply func(n int))
	// Watch asks for Node.Ended when conn ends, with noproc at once if it is gone.
	Watch(conn uint64)
	// Whereis gives the connections of a uid, the newest last.
	Whereis(id int64, name []byte, reply func(conns []uint64))
	// Info tells of one connection; nil: it is gone.
	Info(conn uint64, reply func(info *Info))
	// Bad is one message that could not be used; cnode has logged it.
	Bad()
	// Flush hands over everything since the last Flush. It may block up to
	// Options.NetTickTime/2, which makes Erlang suspend the senders. done is called
	// exactly once, from any goroutine, when no slice is used any more.
	Flush(done func())
	// End tells that the peer is gone; nothing follows.
	End()
}

// Info is what Erlang is told of a connection.
type Info struct {
	ID         int64          // the uid, an integer if Name is nil
	Name       []byte         // the uid, else
	Transport  string         // an atom to Erlang
	Peer       netip.AddrPort // the client's address
	Age        time.Duration  // since its stream began
	Pending    int            // bytes that wait for its socket
	Bytes      uint64         // bytes that its socket was given, if BytesKnown
	BytesKnown bool
}

// Subscriber is told of all connections: first of those that are there, as far as it
// has room, then of each that comes and goes. Its methods are called from several
// goroutines at once and must not block; slices are valid during the call.
type Subscriber interface {
	// Opened tells of a connection; present: it was there before the subscription.
	Opened(conn uint64, id int64, name []byte, transport string, present bool)
	// Closed tells of the end of one that Opened has told of, once. why and reason are
	// as for Node.Ended.
	Closed(conn uint64, id int64, name []byte, why string, reason []byte)
	// Room is how many that were there before can be told of now.
	Room() int
	// Caught tells that loop, of as many as loops, has told of all that were there.
	Caught(loop int, loops int)
}
