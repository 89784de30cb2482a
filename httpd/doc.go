// Package httpd is the HTTP side of Halley: it holds the long-lived
// connections of the browsers, writes to them what a Feed brings in, and tells
// of them and of what they send. It knows nothing of Erlang.
//
// # Nouns
//
// A uid names a user: an integer or a short binary. A connection is one
// client's socket; a uid has any number of them. A connection lives in a slot
// of an array made at start; the slot and its generation make its number, valid
// while it is a stream (number.go). A loop is one goroutine that owns connections,
// their users, their pending bytes and its counters. An engine drives the sockets
// of a loop (engine.go).
//
// # Threads
//
// Methods of *loop, and of everything a loop owns (*slots, *users, *pendings,
// *wheel), run on the loop's goroutine only. Methods of *Server may be
// called from any goroutine. A *Feed belongs to the goroutine that fills it.
// Between them stands the mailbox: bounded, without a lock, one wake per batch.
// What goes back is called on the loops' goroutines: replies, an Observer,
// Subscribers, Options.Inbox. None of them may block.
//
// # Memory
//
// The array costs unsafe.Sizeof(conn{}), at most 64 bytes, of address space a
// slot, and resident memory only for the pages that were used. It holds no Go
// pointer, so the collector never reads it. An idle connection costs its slot,
// an entry in the table of users and what the engine and the kernel keep; watched or
// told of it costs no more. Pending bytes exist only for a client that does not
// read: at most Options.MaxPendingBytes and the message that is being written, and
// Options.MaxPendingTotalBytes for all. Incomplete POSTs have 16 MiB a loop.
//
// # The ledger
//
// Every message handed to a Feed ends in exactly one counter. At rest
//
//	received + copied = written + discarded (by reason) + pending
//
// where copied counts the deliveries beyond the first of a message that went to
// several connections. Commands are not in it (command.go).
package httpd
