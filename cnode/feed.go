package cnode

// Feed takes what one peer sends to the registered name. Its methods are called
// from that peer's reader goroutine only, in the order in which Erlang sent. A name
// of nil means the integer uid id. The slices are valid until the done of the Flush
// that follows has been called; they must not be written to.
type Feed interface {
	// Message is {Uid, Body}.
	Message(id int64, name, body []byte)
	// All is {all, Body}.
	All(body []byte)
	// Close is {close, Uid, Reason}; reason is printable text made from the term.
	Close(id int64, name []byte, reason []byte)
	// Deliver is the call {deliver, Uid, Body}. reply is called once with the number of
	// connections, later and from any goroutine; it does not block.
	Deliver(id int64, name, body []byte, reply func(n int))
	// Bad is one message that could not be used; cnode has logged it.
	Bad()
	// Flush hands over everything since the last Flush. It may block up to
	// Options.NetTickTime/2, which makes Erlang suspend the senders. done is called
	// exactly once, from any goroutine, when no slice is used any more.
	Flush(done func())
	// End tells that the peer is gone; nothing follows.
	End()
}
