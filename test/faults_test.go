package test

import (
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// What dies, comes back, or is wrong around Halley.

func TestFault_ErlangKilledAndBack(t *testing.T) {
	for _, direction := range []string{"halley-dials", "erlang-dials"} {
		t.Run(direction, func(t *testing.T) {
			name := uniqueName("e") + "@localhost"
			o := halleyOptions{}
			if direction == "halley-dials" {
				o.args = []string{"--connect", name}
			}
			h := startHalley(t, o)
			s := h.open("1")
			for round := range 2 {
				e := startErl(t, erlOptions{name: name})
				if direction == "halley-dials" {
					h.connected(e)
				}
				e.eval("%s ! {1, <<\"round %d\">>}", h.to, round)
				s.want(fmt.Sprintf("round %d", round))
				e.kill()
				eventually(t, "the peer is gone", func() bool { return h.metric("peers") == 0 })
			}
			if m := h.metrics(); m.of(t, "connections") != 1 || m.of(t, "dist_reconnects_total") != 1 || m.of(t, "connections_opened_total") != 1 {
				t.Errorf("connections %d, reconnects %d", m.of(t, "connections"), m.of(t, "dist_reconnects_total"))
			}
			if n := h.log.count("peer lost"); n != 2 {
				t.Errorf("%d lines for 2 losses", n)
			}
		})
	}
}

// A node killed in the middle of a message takes nothing with it but that message.
func TestFault_ErlangKilledWhileSending(t *testing.T) {
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "8MiB"}})
	streams := h.openMany(20)
	other := sharedErl(t)
	for range 2 {
		e := startErl(t, erlOptions{})
		e.want("true", "is_pid(load:start(%s, 20))", h.to)
		before := h.metric("messages_received_total")
		eventually(t, "messages", func() bool { return h.metric("messages_received_total") > before+10_000 })
		e.kill()
	}
	h.atRest(-1)
	other.eval("%s ! {all, <<\"end\">>}", h.to)
	for i, s := range streams {
		s.conn.SetReadDeadline(time.Now().Add(patience))
		for got := ""; got != "end"; {
			b, err := s.next()
			if err != nil {
				t.Fatalf("uid %d: %v", i+1, err)
			}
			got = string(b)
		}
	}
}

func TestFault_HalleyKilledAndBack(t *testing.T) {
	for _, direction := range []string{"halley-dials", "erlang-dials"} {
		t.Run(direction, func(t *testing.T) {
			e := startErl(t, erlOptions{})
			e.want("ok", "net_kernel:monitor_nodes(true, [{node_type, hidden}])")
			o := halleyOptions{name: uniqueName("halley") + "@localhost"}
			if direction == "halley-dials" {
				o.args = []string{"--connect", e.name}
			}
			for range 3 {
				h := startHalley(t, o)
				if direction == "erlang-dials" {
					e.want("pong", "net_adm:ping('%s')", h.name)
				}
				e.want("true", "receive {nodeup, N, _} -> N =:= '%s' after 10000 -> nothing end", h.name)
				e.want("true", "is_reference(erlang:monitor(process, %s))", h.to)
				s := h.open("1")
				e.want("{ok,1}", "gen_server:call(%s, {deliver, 1, <<\"hello\">>})", h.to)
				s.want("hello")
				h.kill()
				e.want("true", "receive {nodedown, N, _} -> N =:= '%s' after 10000 -> nothing end", h.name)
				e.want("noconnection", "receive {'DOWN', _, _, _, W} -> W after 10000 -> nothing end")
				s.conn.SetReadDeadline(time.Now().Add(patience))
				if got, err := s.next(); err == nil || err == io.EOF {
					t.Errorf("the stream of a killed Halley went on: %q, %v", got, err)
				}
			}
		})
	}
}

func TestFault_EPMDKilledAndBack(t *testing.T) {
	need(t, "epmd", "erl")
	port := freePort(t)
	cmd := startEPMD(t, port)
	defer func() { kill(cmd) }()
	h := startHalley(t, halleyOptions{epmd: port})
	alive, _, _ := strings.Cut(h.name, "@")
	e := startErl(t, erlOptions{epmd: port})
	e.want("pong", "net_adm:ping('%s')", h.name)
	s := h.open("1")
	kill(cmd)
	eventually(t, "a log line", func() bool { return h.log.count("epmd lost") == 1 })
	e.eval("%s ! {1, <<\"without epmd\">>}", h.to)
	s.want("without epmd")
	cmd = startEPMD(t, port)
	eventually(t, "registered again", func() bool { return epmdKnows(t, port, alive) })
	later := startErl(t, erlOptions{epmd: port})
	later.want("pong", "net_adm:ping('%s')", h.name)
	later.eval("%s ! {1, <<\"with another\">>}", h.to)
	s.want("with another")
}

// Each side with another cookie: one clear line, no cookie in it, and nodes with the
// right one are served.
func TestFault_WrongCookie(t *testing.T) {
	stranger := startErl(t, erlOptions{cookie: otherCookie})
	friend := sharedErl(t)
	h := startHalley(t, halleyOptions{args: []string{"--connect", stranger.name}})
	eventually(t, "a line on our dialling", func() bool { return h.log.count("cannot connect", "wrong cookie", stranger.name) > 0 })
	stranger.want("pang", "net_adm:ping('%s')", h.name)
	eventually(t, "a line on their dialling", func() bool { return h.log.count("handshake failed", "wrong cookie", stranger.name) > 0 })
	friend.want("pong", "net_adm:ping('%s')", h.name)
	s := h.open("1")
	stranger.eval("%s ! {1, <<\"bad\">>}", h.to)
	friend.eval("%s ! {1, <<\"good\">>}", h.to)
	s.want("good")
	if n := h.log.count("cannot connect"); n != 1 {
		t.Errorf("%d lines of one cause", n)
	}
	if h.log.count("cookie=") != 0 {
		t.Error("a cookie is logged")
	}
	// The stranger gets the right one, and is connected without a restart.
	stranger.want("true", "erlang:set_cookie(node(), '%s')", testCookie)
	within(t, patience, "connected", func() bool { return h.metric("peers") == 2 })
}

// What is not Erlang, or lies about its lengths, ends its own connection and nothing else.
func TestFault_GarbageOnTheDistributionPort(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	e.want("pong", "net_adm:ping('%s')", h.name)
	s := h.open("1")
	noise := make([]byte, 64<<10)
	rand.Read(noise)
	before := residentKiB(t, h.cmd.Process.Pid)
	for name, garbage := range map[string][]byte{
		"nothing":        {},
		"random":         noise,
		"http":           []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"4GiB":           {255, 255, 255, 255},
		"empty-message":  {0, 0},
		"half-a-message": {0, 100, 'N', 0, 0},
		"version-5":      append([]byte{0, 8, 'n', 0, 5, 0, 0, 0, 0}, 'x'),
		"tls":            {22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3},
	} {
		t.Run("before-handshake/"+name, func(t *testing.T) {
			c, err := net.Dial("tcp", h.dist)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.Write(garbage)
			c.SetDeadline(time.Now().Add(patience))
			rawPeer{t, c}.wantClosed()
		})
	}
	for name, garbage := range map[string][]byte{
		"random":         append([]byte{0, 0, 255, 0}, noise...),
		"http":           []byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"),
		"4GiB":           {255, 255, 255, 255},
		"1GiB":           {64, 0, 0, 0, 112, 131},
		"no-term":        {0, 0, 0, 1, 112},
		"fragment":       {0, 0, 0, 4, 131, 69, 0, 0},
		"endless-tuple":  {0, 0, 0, 8, 112, 131, 105, 255, 255, 255, 255, 97},
		"endless-list":   {0, 0, 0, 8, 112, 131, 108, 255, 255, 255, 255, 97},
		"endless-binary": {0, 0, 0, 8, 112, 131, 109, 255, 255, 255, 255, 97},
		"zip-bomb":       {0, 0, 0, 9, 112, 131, 80, 255, 255, 255, 255, 120, 156},
	} {
		t.Run("after-handshake/"+name, func(t *testing.T) {
			p := h.shake("raw@localhost")
			p.Write(garbage)
			p.wantClosed()
			p.Close()
			eventually(t, "forgotten", func() bool { return h.metric("peers") == 1 })
		})
	}
	if grown := residentKiB(t, h.cmd.Process.Pid) - before; grown > 48<<10 {
		t.Errorf("memory grew by %d KiB", grown)
	}
	e.eval("%s ! {1, <<\"still here\">>}", h.to)
	s.want("still here")
	if m := h.metrics(); m.of(t, `dist_handshakes_total{result="failed"}`) != 8 || m.of(t, "dist_bad_packets_total") != 10 {
		t.Errorf("%d failed handshakes, %d bad packets", m.of(t, `dist_handshakes_total{result="failed"}`), m.of(t, "dist_bad_packets_total"))
	}
}

// Silent sockets on the distribution port keep no Erlang node out.
func TestFault_SilentDialers(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	for range 100 {
		dial(t, h.dist)
	}
	e := sharedErl(t)
	e.want("pong", "net_adm:ping('%s')", h.name)
}
