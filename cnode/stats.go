package cnode

import "sync/atomic"

// Counters are a snapshot of what a Node has done since Start.
type Counters struct {
	Peers int // connected now
	Held  int // links and monitors that peers have of connections now

	PacketsIn, BytesIn   int64 // from peers, ticks included in bytes
	PacketsOut, BytesOut int64 // to peers, ticks included in bytes

	HandshakesOK     int64 // connections made, dialled from either side
	HandshakesFailed int64 // connections that ended before the peer was authenticated
	HandshakesShed   int64 // unfinished ones closed because there were too many
	Reconnects       int64 // connections to a peer that had been connected before
	PeersLost        int64 // connections that ended other than by Stop

	Told Told // what Erlang was told of connections

	BadPackets  int64            // packets that ended their connection
	BadMessages map[string]int64 // messages lost, by kind: payload, shape, uid, body, call, unknown
}

// counters are what Stats copies; any goroutine adds.
type counters struct {
	packetsIn, bytesIn   atomic.Int64
	packetsOut, bytesOut atomic.Int64

	handshakesOK, handshakesFailed, handshakesShed atomic.Int64
	reconnects, peersLost                          atomic.Int64

	badPackets  atomic.Int64
	badMessages [badKinds]atomic.Int64
}

// A badKind says why a message could not be used.
type badKind int

const (
	badPayload badKind = iota // not a term: only this message is lost
	badShape                  // a term that the registered name does not take
	badUID                    // neither an integer from 1 to 2^63-1 nor a binary of 1 to 255 bytes
	badBody                   // neither a binary nor an iolist
	badCall                   // a call that the registered name does not take; it was answered
	badTarget                 // for a name or pid that does not exist here
	badKinds
)

func (k badKind) String() string {
	return [badKinds]string{"payload", "shape", "uid", "body", "call", "unknown"}[k]
}

func (c *counters) snapshot(peers int) Counters {
	s := Counters{
		Peers:            peers,
		PacketsIn:        c.packetsIn.Load(),
		BytesIn:          c.bytesIn.Load(),
		PacketsOut:       c.packetsOut.Load(),
		BytesOut:         c.bytesOut.Load(),
		HandshakesOK:     c.handshakesOK.Load(),
		HandshakesFailed: c.handshakesFailed.Load(),
		HandshakesShed:   c.handshakesShed.Load(),
		Reconnects:       c.reconnects.Load(),
		PeersLost:        c.peersLost.Load(),
		BadPackets:       c.badPackets.Load(),
		BadMessages:      make(map[string]int64, badKinds),
	}
	for k := range badKinds {
		s.BadMessages[k.String()] = c.badMessages[k].Load()
	}
	return s
}
