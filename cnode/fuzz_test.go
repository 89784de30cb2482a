package cnode

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// FuzzPacket gives any bytes to a reader, whole and in two halves: the same comes
// out, and nothing breaks. What the node answers must itself be packets.
func FuzzPacket(f *testing.F) {
	for _, tc := range messageTable {
		f.Add(toHTTPD(tc.term), uint16(9))
	}
	for _, tc := range undecodable {
		f.Add(toHTTPD(tc.term), uint16(30))
		f.Add(packetOf(tTuple(tSmall(6), peerPid, tAtom(""), tAtom("net_kernel")), tc.term), uint16(3))
	}
	for _, tc := range sentTable {
		f.Add(toConn(tc.term), uint16(40))
	}
	ours := tPid("halley@localhost", 1001, 0, 42)
	ref := tRef("e@localhost", 1, 2, 3, 4, 5)
	for _, control := range [][]byte{
		tTuple(tSmall(1), peerPid, ours),
		tTuple(tSmall(4), peerPid, ours),
		tTuple(tSmall(35), tU64(1<<63+5), peerPid, ours),
		tTuple(tSmall(19), peerPid, ours, ref),
		tTuple(tSmall(19), peerPid, tAtom("nobody"), ref),
		tTuple(tSmall(20), peerPid, ours, ref),
		tTuple(tSmall(3), peerPid, ours, tAtom("boom")),
		tTuple(tSmall(21), peerPid, ours, ref, tAtom("boom")),
		tTuple(tSmall(8), peerPid, ours, tAtom("kill")),
		tTuple(tSmall(1), peerPid, ourPid),
		tTuple(tSmall(35), tSmall(1), peerPid, ourPid),
		tTuple(tSmall(19), peerPid, ourPid, ref),
		tTuple(tSmall(20), peerPid, ourPid, ref),
		tTuple(tSmall(3), peerPid, ourPid, tAtom("boom")),
		tTuple(tSmall(8), peerPid, ourPid, tAtom("kill")),
		tTuple(tSmall(7), peerPid, ours),
		tTuple(tSmall(5)),
		{104, 0},
	} {
		f.Add(packetOf(control), uint16(5))
	}
	for _, control := range [][]byte{
		tTuple(tSmall(2), tAtom(""), ours),
		tTuple(tSmall(22), peerPid, ours),
		tTuple(tSmall(24), peerPid, ours),
		tTuple(tSmall(26), peerPid, ours),
		tTuple(tSmall(28), peerPid, ours, ref),
		tTuple(tSmall(33), peerPid, ref),
		tTuple(tSmall(16), peerPid, tAtom(""), tAtom("rex"), tSmall(0)),
		tTuple(tSmall(29), ref, peerPid, peerPid, tTuple(tAtom("m"), tAtom("f"), tSmall(0)), tNil()),
	} {
		f.Add(packetOf(control, tTuple(peerPid, tTuple(tAtom("x"), tBin("y")))), uint16(5))
	}
	link, monitor := packetOf(tTuple(tSmall(1), peerPid, ourPid)), packetOf(tTuple(tSmall(19), peerPid, ourPid, ref))
	f.Add(append(append(link, monitor...), packetOf(tTuple(tSmall(24), peerPid, ourPid), tAtom("boom"))...), uint16(99))
	f.Add(append(packetOf(tTuple(tSmall(1), peerPid, ourPid)), packetOf(tTuple(tSmall(26), peerPid, ourPid), tAtom("normal"))...), uint16(9))
	for _, request := range [][]byte{tTuple(tAtom("whereis"), tSmall(1)), tTuple(tAtom("info"), ourPid), tTuple(tAtom("info"), peerPid)} {
		f.Add(toHTTPD(tTuple(tAtom("$gen_call"), tTuple(peerPid, callTag), request)), uint16(9))
	}
	mfa := tTuple(tAtom("erpc"), tAtom("execute_call"), tSmall(4))
	for _, call := range [][]byte{
		tList(ref, tAtom("halley"), tAtom("info"), tNil()),
		tList(ref, tAtom("halley"), tAtom("connections"), tStr("\x01")),
		tList(ref, tAtom("halley"), tAtom("close"), tList(tBin("u"))),
		tList(ref, tAtom("erlang"), tAtom("node"), tList(tSmall(1))),
		tList(ref, tAtom("m"), tAtom("f"), tImproper(tSmall(1), tSmall(2))),
		tList(ref),
	} {
		f.Add(packetOf(tTuple(tSmall(29), ref, peerPid, peerPid, mfa, tList(tAtom("link"), tTuple(tAtom("monitor"), tNil()))), call), uint16(9))
	}
	f.Add(packetOf(tTuple(tSmall(30), ref, peerPid, peerPid, tTuple(tAtom("erpc"), tAtom("execute_cast"), tSmall(3)), tNil(), tNil()),
		tList(tAtom("halley"), tAtom("close"), tList(tSmall(1)))), uint16(9))
	n := bareNode(f)
	f.Fuzz(func(t *testing.T, stream []byte, at uint16) {
		cut := int(at) % (len(stream) + 1)
		whole, c1, err1 := readAll(t, n, stream)
		halves, c2, err2 := readAll(t, n, stream[:cut:cut], stream[cut:])
		if err1.Error() != err2.Error() {
			t.Errorf("whole: %v, halves: %v", err1, err2)
		}
		if diff := cmp.Diff(whole.list(), halves.list()); diff != "" {
			t.Error(diff)
		}
		for _, c := range []*conn{c1, c2} {
			for conn := range c.held.first {
				c.held.fire(conn, "normal", nil)
			}
			fired, _, _ := c.held.appendFired(nil)
			for b := append(answers(c), fired...); len(b) > 0; {
				size := int(b[0])<<24 | int(b[1])<<16 | int(b[2])<<8 | int(b[3])
				p := b[4 : 4+size]
				b = b[4+size:]
				n := skip(p[2:], noTermsLimit)
				if n < 0 || p[0] != 112 || p[1] != 131 {
					t.Fatalf("answered %v", p)
				}
				if rest := p[2+n:]; len(rest) > 0 && (rest[0] != 131 || skip(rest[1:], noTermsLimit) != len(rest)-1) {
					t.Fatalf("answered with message %v", rest)
				}
			}
			c.forgotten() // what the stream has linked and monitored
		}
	})
}

// FuzzTerm checks that skip never lets through what the readers of terms cannot read.
func FuzzTerm(f *testing.F) {
	for _, tc := range messageTable {
		f.Add(tc.term)
	}
	for _, tc := range uidTable {
		f.Add(tc.term)
	}
	for _, tc := range undecodable {
		f.Add(tc.term)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n := skip(b, noTermsLimit)
		if n < 0 {
			return
		}
		if n == 0 || n > len(b) {
			t.Fatalf("%d of %d bytes", n, len(b))
		}
		term := b[:n:n]
		if skip(term, noTermsLimit) != n {
			t.Fatal("the term alone is another")
		}
		if skip(term[:n-1], noTermsLimit) != -1 {
			t.Fatal("the term without its last byte is one")
		}
		if len(textOf(term)) > 4*maxTextBytes {
			t.Fatal("long text")
		}
		uidOf(term)
		pidOf(term)
		if body, _, ok := bodyOf(term, nil); ok {
			if len(body) > n {
				t.Fatal("a body longer than its term")
			}
			if want, _ := refFlatten(term); !bytes.Equal(body, want) {
				t.Fatalf("got %q, want %q", body, want)
			}
		}
		if id, name, body, rest, ok := pair(b); ok {
			_, elements := tupleOf(b)
			uid, after := next(elements)
			want, wantName, good := uidOf(uid)
			value, _ := next(after)
			if !good || id != want || !bytes.Equal(name, wantName) || !bytes.Equal(body, binaryOf(value)) || len(rest) != len(b)-n {
				t.Fatal("the hot path reads another pair")
			}
		}
		if body, ok := sentBody(b); ok {
			value := b
			if arity, elements := tupleOf(b); arity == 2 {
				first, rest := next(elements)
				if _, ok := atomText(first); !ok || isAtom(first, "close") {
					t.Fatal("the hot path takes another tag")
				}
				value, _ = next(rest)
			}
			if len(b) != n || !bytes.Equal(body, binaryOf(value)) {
				t.Fatal("the hot path reads another body")
			}
		}
		if list, ok := listOf(term, 100); ok && len(list) > 100 {
			t.Fatal("more than was asked for")
		}
		if r, words, ok := refOf(term); ok && term[3] == 119 && !bytes.Equal(appendRef(nil, r, words), term) {
			t.Fatal("a reference changes")
		}
	})
}

// refFlatten is flatten, the recursive way.
func refFlatten(b []byte) (out, rest []byte) {
	switch b[0] {
	case 97:
		return b[1:2], b[2:]
	case 98:
		return b[4:5], b[5:]
	case 106:
		return nil, b[1:]
	case 107:
		n := int(b[1])<<8 | int(b[2])
		return b[3 : 3+n], b[3+n:]
	case 109:
		n := int(b[1])<<24 | int(b[2])<<16 | int(b[3])<<8 | int(b[4])
		return b[5 : 5+n], b[5+n:]
	}
	n := (int(b[1])<<24 | int(b[2])<<16 | int(b[3])<<8 | int(b[4])) + 1 // the tail
	rest = b[5:]
	for range n {
		var piece []byte
		piece, rest = refFlatten(rest)
		out = append(append([]byte(nil), out...), piece...)
	}
	return out, rest
}

// FuzzHandshake lets any bytes talk to the acceptor.
func FuzzHandshake(f *testing.F) {
	prefix := func(messages ...[]byte) (b []byte) {
		for _, m := range messages {
			b = append(append(b, byte(len(m)>>8), byte(len(m))), m...)
		}
		return b
	}
	f.Add(prefix(nameMessage("e@localhost", otp27Flags)))
	f.Add(prefix(nameMessage("e@localhost", otp27Flags), []byte("strue"), append([]byte("r1234"), make([]byte, 16)...)))
	f.Add(prefix(nameMessage("e", otp27Flags)))
	f.Add(prefix([]byte("nxxxx")))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte{255, 255})
	n := bareNode(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		us, them := net.Pipe()
		us.SetDeadline(time.Now().Add(time.Second))
		heard := make(chan []byte)
		go func() {
			all, _ := io.ReadAll(them)
			heard <- all
		}()
		go func() {
			them.Write(b)
			them.Close()
		}()
		_, ack, err := n.accept(us)
		us.Close()
		if err == nil || ack != nil {
			t.Fatal("let in without the cookie")
		}
		if errors.Is(err, errCookie) && len(b) < 30 {
			t.Fatal("a proof of no bytes")
		}
		if said := <-heard; bytes.Contains(said, []byte(testCookie)) {
			t.Fatal("told the cookie")
		}
		n.registry.mu.Lock()
		defer n.registry.mu.Unlock()
		if len(n.registry.peers) != 0 {
			t.Fatal("a refused client leaves its name behind")
		}
	})
}
