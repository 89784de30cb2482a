package test

import (
	"net"
	"strings"
	"testing"
)

// How Halley looks to Erlang.

func TestCluster_HiddenAndPing(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := startErl(t, erlOptions{})
	e.want("pong", "net_adm:ping('%s')", h.name)
	e.want("[]", "nodes()")
	e.want("true", "nodes(hidden) =:= ['%s']", h.name)
	// After a pang Erlang would disconnect; after pong the connection stays.
	for range 3 {
		e.want("pong", "net_adm:ping('%s')", h.name)
	}
	if m := h.metrics(); m.of(t, "peers") != 1 || m[`halley_dist_handshakes_total{result="ok"}`] != 1 {
		t.Errorf("%d peers, %v handshakes: the connection did not stay", m.of(t, "peers"), m[`halley_dist_handshakes_total{result="ok"}`])
	}
	e.want("[]", "nodes()")
	e.want("true", "nodes(connected) =:= ['%s']", h.name)
}

// A second Erlang node does not learn of Halley, and global leaves it alone.
func TestCluster_IsNotGossiped(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	one := startErl(t, erlOptions{})
	two := startErl(t, erlOptions{})
	one.want("pong", "net_adm:ping('%s')", h.name)
	one.want("pong", "net_adm:ping('%s')", two.name)
	one.want("ok", "global:sync()")
	two.want("ok", "global:sync()")
	one.want("true", "nodes() =:= ['%s']", two.name)
	two.want("true", "nodes() =:= ['%s']", one.name)
	two.want("[]", "nodes(hidden)")
}

func TestCluster_HalleyDials(t *testing.T) {
	e := sharedErl(t)
	h := startHalley(t, halleyOptions{args: []string{"--connect", e.name}})
	h.connected(e)
	s := h.open("123")
	e.eval("%s ! {123, <<\"hello\">>}", h.to)
	s.want("hello")
}

func TestCluster_ErlangDialsBySending(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	e := sharedErl(t)
	s := h.open("123")
	e.eval("%s ! {123, <<\"hello\">>}", h.to)
	s.want("hello")
	h.connected(e)
}

func TestCluster_LongNames(t *testing.T) {
	for _, direction := range []string{"halley-dials", "erlang-dials"} {
		t.Run(direction, func(t *testing.T) {
			e := startErl(t, erlOptions{name: uniqueName("e") + "@127.0.0.1"})
			o := halleyOptions{name: uniqueName("halley") + "@127.0.0.1"}
			if direction == "halley-dials" {
				o.args = []string{"--connect", e.name}
			}
			h := startHalley(t, o)
			if direction == "erlang-dials" {
				e.want("pong", "net_adm:ping('%s')", h.name)
			}
			h.connected(e)
			s := h.open("123")
			e.eval("%s ! {123, <<\"hello\">>}", h.to)
			s.want("hello")
		})
	}
}

// One Halley serves several Erlang nodes; --connect may be repeated.
func TestCluster_SeveralNodes(t *testing.T) {
	one, two := sharedErl(t), startErl(t, erlOptions{})
	h := startHalley(t, halleyOptions{args: []string{"--connect", one.name, "--connect", two.name, "--register", "web"}})
	eventually(t, "two peers", func() bool { return h.metric("peers") == 2 })
	s := h.open("1")
	one.eval("{web, '%s'} ! {1, <<\"one\">>}", h.name)
	s.want("one")
	two.eval("{web, '%s'} ! {1, <<\"two\">>}", h.name)
	s.want("two")
}

func TestCluster_IPv6Front(t *testing.T) {
	if l, err := net.Listen("tcp", "[::1]:0"); err != nil {
		t.Skipf("no IPv6 here: %v", err)
	} else {
		l.Close()
	}
	h := startHalley(t, halleyOptions{listen: "[::1]:0", args: []string{"--listen", "127.0.0.1:0"}})
	e := sharedErl(t)
	if !strings.HasPrefix(h.addr, "[::1]:") {
		t.Fatalf("the first address is %s", h.addr)
	}
	six := h.open("6")
	h.addr = h.logged("msg=listening addr=127.0.0.1:")
	h.addr = "127.0.0.1:" + h.addr
	four := h.open("4")
	e.eval("%s ! [{4, <<\"four\">>}, {6, <<\"six\">>}]", h.to)
	four.want("four")
	six.want("six")
}
