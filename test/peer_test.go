package test

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"testing"
	"time"
)

// A small Erlang node of our own, for what a real one never sends: the initiator's
// part of the handshake, version 6 (OTP, erl_dist_protocol).

type rawPeer struct {
	t *testing.T
	net.Conn
}

func (p rawPeer) write(m []byte) {
	p.t.Helper()
	if _, err := p.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...)); err != nil {
		p.t.Fatal(err)
	}
}

func (p rawPeer) read() []byte {
	p.t.Helper()
	var n [2]byte
	if _, err := io.ReadFull(p, n[:]); err != nil {
		p.t.Fatal(err)
	}
	m := make([]byte, binary.BigEndian.Uint16(n[:]))
	if _, err := io.ReadFull(p, m); err != nil {
		p.t.Fatal(err)
	}
	return m
}

// peerFlags are what OTP 25 makes mandatory, with its newer tags: DFLAG_MANDATORY_25,
// HANDSHAKE_23, V4_NC, UNLINK_ID, BIG_CREATION and the older mandatory ones.
const peerFlags = 1<<34 | 1<<26 | 1<<25 | 1<<24 | 1<<18 | 1<<17 | 1<<16 | 1<<11 | 1<<10 | 1<<9 | 1<<8 | 1<<7 | 1<<4 | 1<<2

// shake connects as the node name.
func (h *halley) shake(name string) rawPeer {
	h.t.Helper()
	c, err := net.Dial("tcp", h.dist)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { c.Close() })
	p := rawPeer{h.t, c}
	c.SetDeadline(time.Now().Add(patience))
	m := binary.BigEndian.AppendUint64([]byte{'N'}, peerFlags)
	m = binary.BigEndian.AppendUint32(m, 1)
	m = binary.BigEndian.AppendUint16(m, uint16(len(name)))
	p.write(append(m, name...))
	if got := p.read(); string(got) != "sok" {
		h.t.Fatalf("status %q", got)
	}
	challenge := p.read()
	if len(challenge) < 19 || challenge[0] != 'N' {
		h.t.Fatalf("challenge %q", challenge)
	}
	proof := func(of uint32) []byte {
		d := md5.Sum(fmt.Appendf([]byte(testCookie), "%d", of))
		return d[:]
	}
	const ours = 4711
	reply := binary.BigEndian.AppendUint32([]byte{'r'}, ours)
	p.write(append(reply, proof(binary.BigEndian.Uint32(challenge[9:]))...))
	if got := p.read(); string(got) != "a"+string(proof(ours)) {
		h.t.Fatalf("acknowledgement %q", got)
	}
	return p
}

// wantClosed reads until Halley closes the connection, ticks included.
func (p rawPeer) wantClosed() {
	p.t.Helper()
	if _, err := io.Copy(io.Discard, p); err != nil {
		if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
			p.t.Error("the connection was not closed")
		}
	}
}
