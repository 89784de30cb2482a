package cnode

import (
	"crypto/md5"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// The messages of the handshake, version 6: OTP erl_dist_protocol, Distribution
// Handshake. Each has a length of two bytes before it.

// Distribution flags, OTP erl_dist_protocol. Never among them: PUBLISHED, which
// would make us visible; atom cache and fragments, which would make a packet depend
// on others; ALIAS, for we make none and what we send to others' needs no flag of ours.
const (
	flagExtendedReferences = 1 << 2
	flagDistMonitor        = 1 << 3
	flagFunTags            = 1 << 4
	flagDistMonitorName    = 1 << 5
	flagNewFunTags         = 1 << 7
	flagExtendedPidsPorts  = 1 << 8
	flagExportPtrTag       = 1 << 9
	flagBitBinaries        = 1 << 10
	flagNewFloats          = 1 << 11
	flagSmallAtomTags      = 1 << 14
	flagUTF8Atoms          = 1 << 16
	flagMapTag             = 1 << 17
	flagBigCreation        = 1 << 18
	flagSendSender         = 1 << 19
	flagExitPayload        = 1 << 22
	flagHandshake23        = 1 << 24
	flagUnlinkID           = 1 << 25
	flagMandatory25        = 1 << 26
	flagSpawn              = 1 << 32
	flagNameMe             = 1 << 33
	flagV4NC               = 1 << 34
	flagAlias              = 1 << 35

	mandatoryFlags = flagExtendedReferences | flagFunTags | flagNewFunTags | flagExtendedPidsPorts |
		flagExportPtrTag | flagBitBinaries | flagNewFloats | flagUTF8Atoms | flagMapTag |
		flagBigCreation | flagHandshake23

	ourFlags = mandatoryFlags | flagMandatory25 | flagUnlinkID | flagV4NC | flagDistMonitor |
		flagDistMonitorName | flagSmallAtomTags | flagSendSender | flagExitPayload | flagSpawn
)

const (
	maxHelloBytes  = 2 << 10 // a hello is 15 bytes and a name of at most 255
	digestBytes    = md5.Size
	nameHeadBytes  = 1 + 8 + 4 + 2     // 'N', flags, creation, length of the name
	challHeadBytes = 1 + 8 + 4 + 4 + 2 // the same with a challenge
)

// hello is what a node tells of itself.
type hello struct {
	flags     uint64
	challenge uint32
	creation  uint32
	name      string
}

// readHello reads exactly one message, so that nothing of the packets that follow
// the handshake is taken from the socket.
func readHello(r io.Reader) ([]byte, error) {
	var head [2]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint16(head[:])
	if n == 0 || n > maxHelloBytes {
		return nil, fmt.Errorf("%w: a message of %d bytes", errNotErlang, n)
	}
	m := make([]byte, n)
	if _, err := io.ReadFull(r, m); err != nil {
		return nil, err
	}
	return m, nil
}

func writeHello(w io.Writer, m []byte) error {
	out := make([]byte, 2, 2+len(m))
	binary.BigEndian.PutUint16(out, uint16(len(m)))
	_, err := w.Write(append(out, m...))
	return err
}

// parseName reads an initiator's 'N' message. What follows the name is for later
// versions and ignored.
func parseName(m []byte) (h hello, err error) {
	if len(m) > 0 && m[0] == 'n' {
		return h, fmt.Errorf("%w: it uses handshake version 5", errTooOld)
	}
	if len(m) < nameHeadBytes || m[0] != 'N' {
		return h, fmt.Errorf("%w: no name message", errNotErlang)
	}
	h.flags = binary.BigEndian.Uint64(m[1:])
	h.creation = binary.BigEndian.Uint32(m[9:])
	return h, h.setName(m[nameHeadBytes:], binary.BigEndian.Uint16(m[13:]))
}

// parseChallenge reads an acceptor's 'N' message.
func parseChallenge(m []byte) (h hello, err error) {
	if len(m) < challHeadBytes || m[0] != 'N' {
		return h, fmt.Errorf("%w: no challenge message", errNotErlang)
	}
	h.flags = binary.BigEndian.Uint64(m[1:])
	h.challenge = binary.BigEndian.Uint32(m[9:])
	h.creation = binary.BigEndian.Uint32(m[13:])
	return h, h.setName(m[challHeadBytes:], binary.BigEndian.Uint16(m[17:]))
}

func (h *hello) setName(b []byte, n uint16) error {
	if int(n) > len(b) {
		return fmt.Errorf("%w: its name is cut off", errNotErlang)
	}
	h.name = string(b[:n])
	return nil
}

func (h *hello) nameMessage() []byte {
	m := append(make([]byte, 0, nameHeadBytes+len(h.name)), 'N')
	m = binary.BigEndian.AppendUint64(m, h.flags)
	m = binary.BigEndian.AppendUint32(m, h.creation)
	m = binary.BigEndian.AppendUint16(m, uint16(len(h.name)))
	return append(m, h.name...)
}

func (h *hello) challengeMessage() []byte {
	m := append(make([]byte, 0, challHeadBytes+len(h.name)), 'N')
	m = binary.BigEndian.AppendUint64(m, h.flags)
	m = binary.BigEndian.AppendUint32(m, h.challenge)
	m = binary.BigEndian.AppendUint32(m, h.creation)
	m = binary.BigEndian.AppendUint16(m, uint16(len(h.name)))
	return append(m, h.name...)
}

// check refuses nodes that we could not understand, or that cannot exist.
func (h *hello) check() error {
	if h.flags&flagMandatory25 == 0 && h.flags&mandatoryFlags != mandatoryFlags || h.flags&flagV4NC == 0 {
		return fmt.Errorf("%w: flags %#x", errTooOld, h.flags)
	}
	if err := checkNodeName(h.name); err != nil {
		return fmt.Errorf("%w: its name %.64q %w", errNotErlang, h.name, err)
	}
	return nil
}

// dynamic is true for a node that wants its name from us (erl -sname undefined): it
// asks by a flag and gives its host alone.
func (h *hello) dynamic() bool {
	return h.flags&flagNameMe != 0 || !strings.Contains(h.name, "@")
}

// newChallenge is unpredictable and made for each connection.
func newChallenge() uint32 {
	var b [4]byte
	rand.Read(b[:]) // never fails: crypto/rand ends the process instead
	return binary.BigEndian.Uint32(b[:])
}

// digest proves the cookie: MD5 of it and the challenge in decimal.
func digest(cookie string, challenge uint32) [digestBytes]byte {
	return md5.Sum(strconv.AppendUint([]byte(cookie), uint64(challenge), 10))
}

// sameDigest takes the same time for every wrong digest.
func sameDigest(got []byte, want [digestBytes]byte) bool {
	return subtle.ConstantTimeCompare(got, want[:]) == 1
}
