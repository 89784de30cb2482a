// Package peers starts the servers that Halley is compared with, each a whole one
// that holds streams of HTTP chunks at /test/{uid}: the bare loop, the C node of the
// articles, nginx with nchan, mochiweb. README.md says what each of them is and how
// it differs from its model.
//
// A peer is built when it starts, from sources that this package carries and from
// Debian's packages; where those are missing, Start returns a *Missing that names
// them. A running peer is one or more processes in a process group of their own,
// which ends with Peer.Stop, or with the program that started it (Linux).
//
// How messages get to a peer differs, and Dest says how: from an Erlang node, by HTTP,
// or, for the bare loop, which makes them itself, by commands.
package peers
