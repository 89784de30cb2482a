// Package httpd is the HTTP side of Halley: it holds the long-lived
// connections of the browsers and writes to them what a Feed brings in.
// It knows nothing of Erlang.
//
// # Nouns
//
// A uid names a user: an integer or a short binary. A connection is one
// client's socket; a uid has any number of them. A connection lives in a slot
// of an array made at start; the slot's number and generation name it. A loop
// is one goroutine that owns connections, their users, their pending bytes
// and its counters. An engine drives the sockets of a loop (engine.go).
//
// # Threads
//
// Methods of *loop, and of everything a loop owns (*slots, *users, *pendings,
// *wheel), run on the loop's goroutine only. Methods of *Server may be
// called from any goroutine. A *Feed belongs to the goroutine that fills it.
// Between them stands the mailbox: bounded, without a lock, one wake per batch.
//
// # Memory
//
// The array costs unsafe.Sizeof(conn{}), at most 64 bytes, of address space a
// slot, and resident memory only for the pages that were used. It holds no Go
// pointer, so the collector never reads it. An idle connection costs its slot,
// an entry in the table of users and what the engine and the kernel keep. Pending bytes exist only for a client that
// does not read: at most Options.MaxPendingBytes and the message that is being
// written, and Options.MaxPendingTotalBytes for all.
//
// # The ledger
//
// Every message handed to a Feed ends in exactly one counter. At rest
//
//	received + copied = written + discarded (by reason) + pending
//
// where copied counts the deliveries beyond the first of a message that went
// to several connections.
package httpd
