package cnode

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// rawPeer speaks the handshake as OTP's documentation has it, byte by byte.
type rawPeer struct {
	t testing.TB
	net.Conn
}

func dialRaw(t testing.TB, n *testNode) *rawPeer {
	t.Helper()
	c, err := net.Dial("tcp", n.listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	return &rawPeer{t, c}
}

func (p *rawPeer) write(m []byte) {
	p.Conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(m))), m...))
}

// read gives nil when the other side has closed.
func (p *rawPeer) read() []byte {
	var head [2]byte
	if _, err := io.ReadFull(p.Conn, head[:]); err != nil {
		return nil
	}
	m := make([]byte, binary.BigEndian.Uint16(head[:]))
	if _, err := io.ReadFull(p.Conn, m); err != nil {
		return nil
	}
	return m
}

const otp27Flags = 0xD07DF7FBD

func nameMessage(name string, flags uint64) []byte {
	m := binary.BigEndian.AppendUint64([]byte{'N'}, flags)
	m = binary.BigEndian.AppendUint32(m, 9)
	m = binary.BigEndian.AppendUint16(m, uint16(len(name)))
	return append(m, name...)
}

func proofOf(cookie string, challenge uint32) []byte {
	sum := md5.Sum([]byte(cookie + fmt.Sprint(challenge)))
	return sum[:]
}

// introduce sends the name and gives the status.
func (p *rawPeer) introduce(name string) string {
	p.write(nameMessage(name, otp27Flags))
	status := p.read()
	if len(status) == 0 {
		return ""
	}
	if status[0] != 's' {
		p.t.Fatalf("status %q", status)
	}
	return string(status[1:])
}

// prove answers the challenge; true if ours was answered in turn.
func (p *rawPeer) prove(cookie string) bool {
	m := p.read()
	if len(m) < 19 || m[0] != 'N' {
		return false
	}
	const challenge = 12345
	reply := binary.BigEndian.AppendUint32([]byte{'r'}, challenge)
	p.write(append(reply, proofOf(cookie, binary.BigEndian.Uint32(m[9:]))...))
	ack := p.read()
	if ack == nil {
		return false
	}
	if string(ack) != "a"+string(proofOf(cookie, challenge)) {
		p.t.Errorf("wrong acknowledgement %q", ack)
	}
	return true
}

// connect does it all.
func (p *rawPeer) connect(name string) {
	p.t.Helper()
	switch status := p.introduce(name); status {
	case "ok", "ok_simultaneous":
	case "alive":
		p.write([]byte("strue"))
	default:
		p.t.Fatalf("status %q", status)
	}
	if !p.prove(testCookie) {
		p.t.Fatal("not let in")
	}
}

// closed is true if the other side closes without a word within d.
func (p *rawPeer) closed(d time.Duration) bool {
	p.SetReadDeadline(time.Now().Add(d))
	n, err := p.Conn.Read(make([]byte, 1))
	timeout, _ := err.(net.Error)
	return n == 0 && err != nil && (timeout == nil || !timeout.Timeout())
}

func TestHandshake_Accept(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	p := dialRaw(t, n)
	p.connect("raw@localhost")
	eventually(t, "connected", func() bool { return len(n.Peers()) == 1 })
	p.Conn.Write(toHTTPD(tTuple(tSmall(7), tBin("hello"))))
	r := n.of("raw@localhost")
	eventually(t, "the message", func() bool { return len(r.list()) == 1 })
	p.Close()
	eventually(t, "disconnected", func() bool { return len(n.Peers()) == 0 })
	eventually(t, "end", func() bool { r.mu.Lock(); defer r.mu.Unlock(); return r.ended })
	if n.log.count("peer connected") != 1 || n.log.count("peer lost", `reason="closed by peer"`) != 1 {
		t.Errorf("log:\n%s", n.log)
	}
}

func TestHandshake_Flags(t *testing.T) {
	if ourFlags != 0x5074F4FBC {
		t.Errorf("we offer %#x", uint64(ourFlags))
	}
	n := startNode(t, startEPMD(t), nil)
	for _, tc := range []struct {
		name   string
		flags  uint64
		status string
	}{
		{"otp25@localhost", otp27Flags, "ok"},
		{"otp29@localhost", 0x6D07DF7FBD, "ok"},
		{"digest-only@localhost", 0x406000000, "ok"},
		{"otp22@localhost", 0x7DF7FBD &^ flagHandshake23 &^ flagMandatory25, "not_allowed"},
		{"no-v4@localhost", otp27Flags &^ flagV4NC, "not_allowed"},
		{"dynamic", otp27Flags | flagNameMe, "not_allowed"},
		{"dynamic@localhost", otp27Flags | flagNameMe, "not_allowed"},
		{"two@at@signs", otp27Flags, "not_allowed"},
		{"@localhost", otp27Flags, "not_allowed"},
		{n.o.Name, otp27Flags, "not_allowed"},
		{strings.Repeat("x", 300) + "@localhost", otp27Flags, "not_allowed"},
	} {
		p := dialRaw(t, n)
		p.write(nameMessage(tc.name, tc.flags))
		if got := string(p.read()); got != "s"+tc.status {
			t.Errorf("%.40s: status %q, want %q", tc.name, got, tc.status)
		}
		p.Close()
	}
	if n.log.count("handshake failed", "dynamic node names are not served") != 1 {
		t.Errorf("log:\n%s", n.log)
	}
}

func TestHandshake_Garbage(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	for name, m := range map[string]string{
		"http":         "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"zero-length":  "\x00\x00",
		"too-long":     "\xff\xffN",
		"old-version":  "\x00\x0an\x00\x05\x00\x00\x00\x00a@b",
		"short-hello":  "\x00\x03Nab",
		"name-cut-off": "\x00\x10N\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xffa",
	} {
		p := dialRaw(t, n)
		io.WriteString(p.Conn, m)
		if !p.closed(time.Second) {
			t.Errorf("%s: not closed", name)
		}
	}
	if n.Stats().HandshakesFailed != 6 {
		t.Errorf("%d failures counted", n.Stats().HandshakesFailed)
	}
	if lines := n.log.count("handshake failed"); lines == 0 || lines > 4 {
		t.Errorf("%d lines logged:\n%s", lines, n.log)
	}
}

func TestHandshake_WrongCookie(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	p := dialRaw(t, n)
	if status := p.introduce("raw@localhost"); status != "ok" {
		t.Fatal(status)
	}
	if p.prove("another") {
		t.Error("let in")
	}
	eventually(t, "a log line", func() bool {
		return n.log.count("handshake failed", "peer=raw@localhost", `reason="wrong cookie"`, "--cookie") == 1
	})
	if len(n.Peers()) != 0 {
		t.Error("connected")
	}
}

// Silent and dripping clients keep nobody out, however many; each lives 2 seconds.
func TestHandshake_SilentClients(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	var silent []*rawPeer
	for range maxHandshakes + 10 {
		silent = append(silent, dialRaw(t, n))
	}
	holder := dialRaw(t, n) // claims the name and says no more
	if status := holder.introduce("raw@localhost"); status != "ok" {
		t.Fatal(status)
	}
	began := time.Now()
	p := dialRaw(t, n)
	p.connect("raw@localhost")
	if took := time.Since(began); took > time.Second {
		t.Errorf("the next handshake took %v", took)
	}
	for i, s := range silent {
		if !s.closed(acceptTimeout + 2*time.Second) {
			t.Fatalf("silent client %d is not closed", i)
		}
	}
	if took := time.Since(began); took > acceptTimeout+time.Second {
		t.Errorf("silent clients lived %v", took)
	}
	if n.Stats().HandshakesShed < 10 {
		t.Errorf("%d shed", n.Stats().HandshakesShed)
	}
	if len(n.Peers()) != 1 {
		t.Error("the good peer was lost")
	}
}

// A peer that lost its connection before we noticed may replace it, but only with the
// cookie.
func TestHandshake_Alive(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	first := dialRaw(t, n)
	first.connect("raw@localhost")
	r := n.of("raw@localhost")

	for _, answer := range []string{"strue", "sfalse", "sabc"} {
		thief := dialRaw(t, n)
		if status := thief.introduce("raw@localhost"); status != "alive" {
			t.Fatal(status)
		}
		thief.write([]byte(answer))
		if thief.prove("another") {
			t.Fatal("let in")
		}
	}
	first.Conn.Write(toHTTPD(tTuple(tSmall(7), tBin("still here"))))
	eventually(t, "the message", func() bool { return len(r.list()) == 1 })

	for range 20 {
		second := dialRaw(t, n)
		second.connect("raw@localhost")
		if !first.closed(time.Second) {
			t.Fatal("the old connection was not closed")
		}
		first = second
	}
	first.SetDeadline(time.Time{})
	eventually(t, "one peer", func() bool { return len(n.Peers()) == 1 })
	first.Conn.Write(toHTTPD(tTuple(tSmall(7), tBin("new"))))
	eventually(t, "the message", func() bool { l := n.of("raw@localhost").list(); return len(l) == 1 && l[0] == "7 new" })
	if got := n.Stats().Reconnects; got != 20 {
		t.Errorf("%d reconnects", got)
	}
}

// Of many that prove the cookie under one name at once, one gets in.
func TestHandshake_OneWinner(t *testing.T) {
	n := startNode(t, startEPMD(t), nil)
	for round := range 10 {
		name := fmt.Sprintf("raw%d@localhost", round)
		var peers []*rawPeer
		for range 8 {
			p := dialRaw(t, n)
			if status := p.introduce(name); status != "ok" {
				t.Fatal(status)
			}
			peers = append(peers, p)
		}
		won := make(chan bool)
		for _, p := range peers {
			go func() { won <- p.prove(testCookie) }()
		}
		winners := 0
		for range peers {
			if <-won {
				winners++
			}
		}
		if winners != 1 {
			t.Fatalf("round %d: %d winners", round, winners)
		}
	}
}

// What a dialled node can answer. The fake node is registered in the epmd under its
// name by a real registration.
func TestHandshake_Initiate(t *testing.T) {
	epmd := startEPMD(t)
	n := startNode(t, epmd, nil)
	greet := func(p *rawPeer, name, cookie string) {
		m := binary.BigEndian.AppendUint64([]byte{'N'}, otp27Flags)
		m = binary.BigEndian.AppendUint32(m, 777)
		m = binary.BigEndian.AppendUint32(m, 9)
		m = binary.BigEndian.AppendUint16(m, uint16(len(name)))
		p.write(append(m, name...))
		reply := p.read()
		if len(reply) != 21 {
			return
		}
		p.write(append([]byte{'a'}, proofOf(cookie, binary.BigEndian.Uint32(reply[1:]))...))
	}
	for _, tc := range []struct {
		name string
		act  func(p *rawPeer, name string)
		want error
	}{
		{"ok", func(p *rawPeer, name string) { p.write([]byte("sok")); greet(p, name, testCookie) }, nil},
		{"simultaneous", func(p *rawPeer, name string) { p.write([]byte("sok_simultaneous")); greet(p, name, testCookie) }, nil},
		{"alive", func(p *rawPeer, name string) {
			p.write([]byte("salive"))
			if string(p.read()) == "strue" {
				greet(p, name, testCookie)
			}
		}, nil},
		{"nok", func(p *rawPeer, _ string) { p.write([]byte("snok")) }, errBothDial},
		{"not-allowed", func(p *rawPeer, _ string) { p.write([]byte("snot_allowed")) }, errNotAllowed},
		{"named", func(p *rawPeer, _ string) { p.write([]byte("snamed:x@y")) }, errNotErlang},
		{"other-name", func(p *rawPeer, _ string) { p.write([]byte("sok")); greet(p, "other@localhost", testCookie) }, errOtherName},
		{"refuses-our-proof", func(p *rawPeer, name string) {
			p.write([]byte("sok"))
			m := binary.BigEndian.AppendUint64([]byte{'N'}, otp27Flags)
			m = append(m, 0, 0, 3, 9, 0, 0, 0, 9, 0, byte(len(name)))
			p.write(append(m, name...))
			p.read()
			p.Close()
		}, errCookie},
		{"wrong-proof", func(p *rawPeer, name string) { p.write([]byte("sok")); greet(p, name, "another") }, errCookie},
		{"http", func(p *rawPeer, _ string) { io.WriteString(p.Conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }, errNotErlang},
		{"closes", func(p *rawPeer, _ string) { p.Close() }, io.EOF},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := uniqueName("fake") + "@localhost"
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				c, err := l.Accept()
				if err != nil {
					return
				}
				p := &rawPeer{t, c}
				p.SetDeadline(time.Now().Add(5 * time.Second))
				p.read()
				tc.act(p, name)
				io.Copy(io.Discard, c)
				c.Close()
			}()
			reg, err := registerName(t.Context(), fmt.Sprintf("127.0.0.1:%d", epmd), aliveOf(name), uint16(l.Addr().(*net.TCPAddr).Port))
			if err != nil {
				t.Fatal(err)
			}
			defer reg.Close()
			err = n.Connect(t.Context(), name)
			if tc.want == nil {
				if err != nil {
					t.Fatal(err)
				}
				n.registry.conn(name).end(endStopping, nil)
			} else if causeOf(err) != causeOf(tc.want) || err == nil {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			<-done
		})
	}
}
