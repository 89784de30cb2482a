package cnode

import (
	"encoding/binary"
	"io"
	"log/slog"
	"math"
	"net"
	"strings"
	"testing"
	"time"
)

// Terms and packets for tests, written here independently of encode.go, as the OTP
// documentation of the format has them.

func tSmall(v byte) []byte { return []byte{97, v} }
func tInt(v int32) []byte  { return binary.BigEndian.AppendUint32([]byte{98}, uint32(v)) }
func tBig(sign byte, digits ...byte) []byte {
	return append([]byte{110, byte(len(digits)), sign}, digits...)
}
func tU64(u uint64) []byte { return tBig(0, binary.LittleEndian.AppendUint64(nil, u)...) }
func tBin(s string) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{109}, uint32(len(s))), s...)
}
func tStr(s string) []byte {
	return append(binary.BigEndian.AppendUint16([]byte{107}, uint16(len(s))), s...)
}
func tAtom(s string) []byte { return append([]byte{119, byte(len(s))}, s...) }
func tNil() []byte          { return []byte{106} }
func tTuple(e ...[]byte) []byte {
	b := []byte{104, byte(len(e))}
	for _, t := range e {
		b = append(b, t...)
	}
	return b
}
func tList(e ...[]byte) []byte { return tImproper(tNil(), e...) }
func tImproper(tail []byte, e ...[]byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{108}, uint32(len(e)))
	for _, t := range e {
		b = append(b, t...)
	}
	return append(b, tail...)
}
func tPid(node string, id, serial, creation uint32) []byte {
	b := append([]byte{88}, tAtom(node)...)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, serial)
	return binary.BigEndian.AppendUint32(b, creation)
}
func tRef(node string, words ...uint32) []byte {
	b := append([]byte{90, 0, byte(len(words))}, tAtom(node)...)
	b = binary.BigEndian.AppendUint32(b, 77)
	for _, w := range words {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return b
}

var (
	peerPid = tPid("e@localhost", 100, 0, 5)
	callTag = tImproper(tRef("e@localhost", 1, 2, 3, 4, 5), tAtom("alias"))
)

// packetOf is a packet with its length.
func packetOf(control []byte, message ...[]byte) []byte {
	b := append([]byte{0, 0, 0, 0, 112, 131}, control...)
	for _, m := range message {
		b = append(append(b, 131), m...)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b
}

// toHTTPD is {httpd, Node} ! message.
func toHTTPD(message []byte) []byte {
	return packetOf(tTuple(tSmall(6), peerPid, tAtom(""), tAtom("httpd")), message)
}

// ourConn is a connection of bareNode's, ourPid its pid.
const ourConn = 3<<32 | 0x80000005

var ourPid = tPid("halley@localhost", 0x80000005, 3, 42)

// toConn is Pid ! message, to a connection.
func toConn(message []byte) []byte {
	return packetOf(tTuple(tSmall(22), peerPid, ourPid), message)
}

// pipeConn is a socket whose input is given in pieces.
type pipeConn struct {
	net.Conn // nil: what is not below is not used
	pieces   [][]byte
	closed   bool
}

func (p *pipeConn) Read(b []byte) (int, error) {
	if len(p.pieces) == 0 || p.closed {
		return 0, io.EOF
	}
	n := copy(b, p.pieces[0])
	if p.pieces[0] = p.pieces[0][n:]; len(p.pieces[0]) == 0 {
		p.pieces = p.pieces[1:]
	}
	return n, nil
}
func (p *pipeConn) Close() error                     { p.closed = true; return nil }
func (p *pipeConn) SetReadDeadline(time.Time) error  { return nil }
func (p *pipeConn) SetWriteDeadline(time.Time) error { return nil }

// bareNode is a Node without sockets: ergo is real, EPMD and listener are not there.
func bareNode(t testing.TB) *Node {
	t.Helper()
	o := DefaultOptions()
	o.Name = "halley@localhost"
	o.Cookie = testCookie
	o.NewFeed = func(string) Feed { return new(recorder) }
	o.Logger = slog.New(slog.DiscardHandler)
	n, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	n.creation = 42
	if err := n.startErgo(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.stopErgo)
	return n
}

// bareConn reads pieces as if from a peer; what it answers stays in its writer.
func bareConn(n *Node, feed Feed, pieces ...[]byte) *conn {
	c := newConn(n, &pipeConn{pieces: pieces}, peerInfo{name: "e@localhost", flags: ourFlags, creation: 5}, nil)
	c.router, c.feed = n.ergoRouter, feed
	return c
}

// uidTable has the limits of uids.
var uidTable = []struct {
	name string
	term []byte
	want string // what the Feed gets before the body; "" is bad
}{
	{"zero", tSmall(0), ""},
	{"one", tSmall(1), "1"},
	{"byte", tSmall(255), "255"},
	{"int", tInt(256), "256"},
	{"minus-one", tInt(-1), ""},
	{"minimum-int", tInt(math.MinInt32), ""},
	{"maximum-int", tInt(math.MaxInt32), "2147483647"},
	{"2^31", tBig(0, 0, 0, 0, 128), "2147483648"},
	{"2^63-1", tU64(math.MaxInt64), "9223372036854775807"},
	{"2^63", tU64(1 << 63), ""},
	{"2^64", tBig(0, 0, 0, 0, 0, 0, 0, 0, 0, 1), ""},
	{"big-with-leading-zeros", tBig(0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0), "7"},
	{"minus-2^31-1", tBig(1, 1, 0, 0, 128), ""},
	{"big-of-no-digits", tBig(0), ""},
	{"binary-of-0", tBin(""), ""},
	{"binary-of-1", tBin("x"), `"x"`},
	{"binary-of-255", tBin(string(make([]byte, 255))), ""}, // wanted below
	{"binary-of-256", tBin(string(make([]byte, 256))), ""},
	{"float", []byte{70, 0, 0, 0, 0, 0, 0, 0, 0}, ""},
	{"atom", tAtom("x"), ""},
	{"list", tStr("x"), ""},
}

// messageTable is what the registered name takes and what it refuses. It also seeds
// the fuzz targets.
var messageTable = []struct {
	name string
	term []byte
	want []string
	bad  int
}{
	{"pair", tTuple(tSmall(7), tBin("a")), []string{"7 a"}, 0},
	{"empty-body", tTuple(tSmall(7), tBin("")), []string{"7 "}, 0},
	{"binary-uid", tTuple(tBin("joe"), tBin("a")), []string{`"joe" a`}, 0},
	{"string-body", tTuple(tSmall(7), tStr("abc")), []string{"7 abc"}, 0},
	{"nil-body", tTuple(tSmall(7), tNil()), []string{"7 "}, 0},
	{"iolist", tTuple(tSmall(7), tList(tBin("a"), tSmall('b'), tStr("cd"), tList(tBin("e"), tNil()), tInt('f'))), []string{"7 abcdef"}, 0},
	{"iolist-improper", tTuple(tSmall(7), tImproper(tBin("z"), tSmall('a'))), []string{"7 az"}, 0},
	{"iolist-tail-list", tTuple(tSmall(7), tImproper(tList(tSmall('b')), tSmall('a'))), []string{"7 ab"}, 0},
	{"iolist-tail-integer", tTuple(tSmall(7), tImproper(tSmall('b'), tSmall('a'))), nil, 1},
	{"iolist-256", tTuple(tSmall(7), tList(tInt(256))), nil, 1},
	{"iolist-atom", tTuple(tSmall(7), tList(tBin("a"), tAtom("b"))), nil, 1},
	{"body-atom", tTuple(tSmall(7), tAtom("a")), nil, 1},
	{"body-integer", tTuple(tSmall(7), tSmall(1)), nil, 1},
	{"body-bits", tTuple(tSmall(7), []byte{77, 0, 0, 0, 1, 3, 0xa0}), nil, 1},
	{"list", tList(tTuple(tSmall(1), tBin("a")), tTuple(tInt(300), tBin("b"))), []string{"1 a", "300 b"}, 0},
	{"list-empty", tNil(), nil, 0},
	{"list-mixed", tList(tTuple(tSmall(1), tBin("a")), tSmall(9), tTuple(tSmall(0), tBin("b")), tTuple(tSmall(2), tAtom("c")),
		tTuple(tSmall(3), tStr("d")), tTuple(tAtom("all"), tBin("e"))), []string{"1 a", "3 d"}, 4},
	{"list-improper", tImproper(tTuple(tSmall(2), tBin("b")), tTuple(tSmall(1), tBin("a"))), []string{"1 a"}, 1},
	{"string", tStr("abc"), nil, 1},
	{"all", tTuple(tAtom("all"), tBin("a")), []string{"all a"}, 0},
	{"all-bad", tTuple(tAtom("all"), tAtom("a")), nil, 1},
	{"close", tTuple(tAtom("close"), tSmall(7), tAtom("kick")), []string{"close 7 kick"}, 0},
	{"close-term", tTuple(tAtom("close"), tBin("u"), tTuple(tAtom("x"), tList(tSmall(1), tBin("y")))), []string{`close "u" {x,[1,<<"y">>]}`}, 0},
	{"close-bad", tTuple(tAtom("close"), tSmall(0), tAtom("kick")), nil, 1},
	{"topic", tTuple(tAtom("topic"), tBin("t"), tBin("b")), nil, 1},
	{"subscribe", tTuple(tAtom("subscribe"), tSmall(1), tBin("b")), nil, 1},
	{"triple", tTuple(tSmall(1), tBin("b"), tBin("c")), nil, 1},
	{"single", tTuple(tSmall(1)), nil, 1},
	{"empty-tuple", tTuple(), nil, 1},
	{"atom", tAtom("hello"), nil, 1},
	{"cast", tTuple(tAtom("$gen_cast"), tTuple(tSmall(7), tBin("a"))), []string{"7 a"}, 0},
	{"cast-list", tTuple(tAtom("$gen_cast"), tList(tTuple(tSmall(7), tBin("a")))), []string{"7 a"}, 0},
	{"cast-all", tTuple(tAtom("$gen_cast"), tTuple(tAtom("all"), tBin("a"))), []string{"all a"}, 0},
	{"cast-cast", tTuple(tAtom("$gen_cast"), tTuple(tAtom("$gen_cast"), tTuple(tSmall(7), tBin("a")))), nil, 1},
	{"large-tuple", append([]byte{105, 0, 0, 0, 2}, append(tSmall(7), tBin("a")...)...), []string{"7 a"}, 0},
	{"call-deliver", tTuple(tAtom("$gen_call"), tTuple(peerPid, callTag), tTuple(tAtom("deliver"), tSmall(7), tBin("a"))), []string{`deliver 7 "" a`}, 0},
	{"call-bad-uid", tTuple(tAtom("$gen_call"), tTuple(peerPid, callTag), tTuple(tAtom("deliver"), tSmall(0), tBin("a"))), nil, 1},
	{"call-unknown", tTuple(tAtom("$gen_call"), tTuple(peerPid, callTag), tAtom("what")), nil, 1},
	{"call-stats", tTuple(tAtom("$gen_call"), tTuple(peerPid, callTag), tAtom("stats")), nil, 0},
	{"call-from-nobody", tTuple(tAtom("$gen_call"), tAtom("x"), tAtom("stats")), nil, 1},
}

// sentTable is what a connection takes and what it refuses; it too seeds the fuzz targets.
var sentTable = []struct {
	name string
	term []byte
	want string // of the event behind the connection's number; "" is none
	bad  int
}{
	{"binary", tBin("a"), "send a", 0},
	{"empty", tBin(""), "send ", 0},
	{"tagged", tTuple(tAtom("router_msg"), tBin("a")), "send a", 0},
	{"tagged-empty-atom", tTuple(tAtom(""), tBin("a")), "send a", 0},
	{"tagged-large-tuple", append([]byte{105, 0, 0, 0, 2}, append(tAtom("t"), tBin("a")...)...), "send a", 0},
	{"tagged-utf8-atom", tTuple([]byte{118, 0, 1, 't'}, tBin("a")), "send a", 0},
	{"tagged-latin1-atom", tTuple([]byte{100, 0, 1, 't'}, tBin("a")), "send a", 0},
	{"iolist", tList(tBin("a"), tSmall('b'), tList(tStr("cd"))), "send abcd", 0},
	{"tagged-iolist", tTuple(tAtom("t"), tImproper(tBin("b"), tSmall('a'))), "send ab", 0},
	{"string", tStr("abc"), "send abc", 0},
	{"tagged-string", tTuple(tAtom("t"), tStr("abc")), "send abc", 0},
	{"nil", tNil(), "send ", 0},
	{"cast", tTuple(tAtom("$gen_cast"), tBin("a")), "send a", 0},
	{"cast-tagged", tTuple(tAtom("$gen_cast"), tTuple(tAtom("t"), tStr("a"))), "send a", 0},
	{"cast-cast", tTuple(tAtom("$gen_cast"), tTuple(tAtom("$gen_cast"), tTuple(tAtom("t"), tStr("a")))), "", 1},
	{"close", tTuple(tAtom("close"), tAtom("kick")), "exit kick [119 4 107 105 99 107]", 0},
	{"close-binary", tTuple(tAtom("close"), tBin("x")), "exit x [109 0 0 0 1 120]", 0},
	{"close-cast", tTuple(tAtom("$gen_cast"), tTuple(tAtom("close"), tSmall(7))), "exit 7 [97 7]", 0},
	{"close-long", tTuple(tAtom("close"), tBin(string(make([]byte, maxReasonBytes-4)))), "exit " + strings.Repeat(".", maxTextBytes) + " []", 0},
	{"closed", tTuple(tAtom("closed"), tBin("x")), "send x", 0},
	{"atom", tAtom("a"), "", 1},
	{"integer", tSmall(1), "", 1},
	{"tagged-atom", tTuple(tAtom("t"), tAtom("a")), "", 1},
	{"pair", tTuple(tSmall(1), tBin("a")), "", 1},
	{"triple", tTuple(tAtom("t"), tBin("a"), tBin("b")), "", 1},
	{"single", tTuple(tAtom("t")), "", 1},
	{"empty-tuple", tTuple(), "", 1},
	{"call", tTuple(tAtom("$gen_call"), tTuple(peerPid, callTag), tAtom("what")), "", 1},
	{"call-from-nobody", tTuple(tAtom("$gen_call"), tAtom("x"), tAtom("what")), "", 1},
	{"bits", []byte{77, 0, 0, 0, 1, 3, 0xa0}, "", 1},
	{"improper", tImproper(tSmall('b'), tSmall('a')), "", 1},
}

// undecodable is what no term is.
var undecodable = []struct {
	name string
	term []byte
}{
	{"nothing", nil},
	{"unknown-tag", []byte{1}},
	{"truncated-binary", tBin("abc")[:6]},
	{"binary-of-4-gib", []byte{109, 255, 255, 255, 255, 1}},
	{"list-of-2^31", []byte{108, 128, 0, 0, 0, 97, 1, 106}},
	{"list-of-2^32-1", []byte{108, 255, 255, 255, 255, 106}},
	{"tuple-of-2^31", []byte{105, 128, 0, 0, 0, 97, 1}},
	{"map-of-2^31", []byte{116, 128, 0, 0, 0, 97, 1}},
	{"fun-of-2^31", append(append([]byte{112, 0, 0, 0, 40, 0}, make([]byte, 20)...), 128, 0, 0, 0, 106, 106, 106, 106)},
	{"list-without-tail", []byte{108, 0, 0, 0, 1, 97, 1}},
	{"atom-of-2000", append([]byte{118, 7, 208}, make([]byte, 2000)...)},
	{"reference-of-6-words", tRef("a@b", 1, 2, 3, 4, 5, 6)},
	{"pid-of-no-atom", append([]byte{88, 97, 1}, make([]byte, 12)...)},
	{"bits-9", []byte{77, 0, 0, 0, 1, 9, 0}},
	{"trailing", append(tSmall(1), 1)},
	{"compressed", []byte{80, 0, 0, 0, 1, 1}},
}

// answers are the bytes that wait in a bare conn's writer.
func answers(c *conn) []byte {
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	return append([]byte(nil), c.w.buf...)
}
