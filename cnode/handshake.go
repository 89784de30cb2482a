package cnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// What a handshake can end with. The text says what to do, for the log.
var (
	errNotErlang  = errors.New("not an Erlang node")
	errTooOld     = errors.New("the peer is older than OTP 25, or no full Erlang node")
	errCookie     = errors.New("wrong cookie: give both nodes the same one (--cookie, --cookie-file, ~/.erlang.cookie)")
	errNotAllowed = errors.New("the peer does not allow this node: see its net_kernel:allow/1 and its dist_auto_connect")
	errDynamic    = errors.New("dynamic node names are not served: start the peer with -sname NAME or -name NAME@HOST")
	errSelf       = errors.New("the peer introduced itself with this node's own name: two nodes are called the same, rename one")
	errOtherName  = errors.New("another node answers under that address: check the name and its EPMD entry")
	errBothDial   = errors.New("the peer is dialling this node at the same time")
	errStopping   = errors.New("the node is stopping")
	errHaveOne    = errors.New("connected already")
)

// peerInfo is what a handshake has found out about the other side.
type peerInfo struct {
	name     string
	flags    uint64
	creation uint32
	replaces bool // the peer knows of an old connection and gives it up
}

// us is our side of every handshake.
func (n *Node) us() hello {
	return hello{flags: ourFlags, creation: n.creation, name: n.o.Name}
}

// accept is the acceptor's part up to the peer's proof. The acknowledgement is the
// caller's, after it has taken the name: the peer sends packets as soon as it has it.
// The whole has one deadline, set by the caller. info.name may be set with an error.
func (n *Node) accept(c net.Conn) (info peerInfo, ack []byte, err error) {
	m, err := readHello(c)
	if err != nil {
		return info, nil, err
	}
	them, err := parseName(m)
	if err != nil {
		return info, nil, err
	}
	info = peerInfo{name: them.name, flags: them.flags, creation: them.creation}
	refusal := error(nil)
	switch {
	case them.dynamic():
		refusal = errDynamic
	case them.name == n.o.Name:
		refusal = errSelf
	default:
		refusal = them.check()
	}
	if refusal != nil {
		writeHello(c, []byte("snot_allowed")) // the peer may be gone; it is refused either way
		return info, nil, refusal
	}

	status := n.registry.greet(them.name)
	if err := writeHello(c, append([]byte{'s'}, status...)); err != nil {
		return info, nil, err
	}
	switch status {
	case "nok":
		return info, nil, errBothDial
	case "alive": // the peer may have lost the old connection before we noticed
		m, err := readHello(c)
		if err != nil {
			return info, nil, err
		}
		if string(m) != "strue" {
			return info, nil, fmt.Errorf("%w: the peer keeps its old connection", errHaveOne)
		}
		info.replaces = true
	}

	us := n.us()
	us.challenge = newChallenge()
	if err := writeHello(c, us.challengeMessage()); err != nil {
		return info, nil, err
	}
	if m, err = readHello(c); err != nil {
		return info, nil, err
	}
	if len(m) != 1+4+digestBytes || m[0] != 'r' {
		return info, nil, fmt.Errorf("%w: no challenge reply", errNotErlang)
	}
	if !sameDigest(m[5:], digest(n.o.Cookie, us.challenge)) {
		return info, nil, errCookie
	}
	proof := digest(n.o.Cookie, binary.BigEndian.Uint32(m[1:]))
	return info, append([]byte{'a'}, proof[:]...), nil
}

// initiate is the whole of the initiator's part with peer.
func (n *Node) initiate(c net.Conn, peer string) (info peerInfo, err error) {
	us := n.us()
	if err := writeHello(c, us.nameMessage()); err != nil {
		return info, err
	}
	m, err := readHello(c)
	if err != nil {
		return info, err
	}
	switch string(m) {
	case "sok", "sok_simultaneous":
	case "snok":
		return info, errBothDial
	case "snot_allowed":
		return info, errNotAllowed
	case "salive":
		// The peer holds a connection with us. It is one that we have lost, unless the
		// peer's own dialling was quicker than ours.
		if n.registry.connected(peer) {
			writeHello(c, []byte("sfalse")) // closing would say the same
			return info, errHaveOne
		}
		if err := writeHello(c, []byte("strue")); err != nil {
			return info, err
		}
	default:
		return info, fmt.Errorf("%w: status %.32q", errNotErlang, m)
	}

	if m, err = readHello(c); err != nil {
		return info, err
	}
	them, err := parseChallenge(m)
	if err != nil {
		return info, err
	}
	if err := them.check(); err != nil {
		return info, err
	}
	if them.name != peer {
		return info, fmt.Errorf("%w: it is %.64q", errOtherName, them.name)
	}
	info = peerInfo{name: them.name, flags: them.flags, creation: them.creation}

	challenge := newChallenge()
	proof := digest(n.o.Cookie, them.challenge)
	reply := binary.BigEndian.AppendUint32([]byte{'r'}, challenge)
	if err := writeHello(c, append(reply, proof[:]...)); err != nil {
		return info, err
	}
	if m, err = readHello(c); err != nil {
		// A peer that refuses our proof says nothing, it closes.
		if errors.Is(err, io.EOF) || isReset(err) {
			return info, errCookie
		}
		return info, err
	}
	if len(m) != 1+digestBytes || m[0] != 'a' {
		return info, fmt.Errorf("%w: no acknowledgement", errNotErlang)
	}
	if !sameDigest(m[1:], digest(n.o.Cookie, challenge)) {
		return info, errCookie
	}
	return info, nil
}

const (
	// One silent client keeps nothing out, but the sum of them must not either.
	acceptTimeout   = 2 * time.Second
	initiateTimeout = 5 * time.Second // Erlang's own setup time is 7s
)
