// Package flood is a load client for Halley and servers like it: it opens many
// streams from many source addresses, reads them with an epoll loop of its own,
// and checks what arrives: framing, order, completeness, latency.
//
// A message that flood can check begins with two decimal numbers, the message's
// sequence number among those of its uid, from 1, and the time it was sent, in
// microseconds since 1970: "17 1763692800123456 anything". Other messages, the
// welcome among them, are counted and not checked.
//
// One goroutine runs the loop and owns everything but the Stats it publishes.
// A connection costs its entry in one array without pointers
// (unsafe.Sizeof(conn{}), 48 bytes) and what the kernel keeps.
package flood
