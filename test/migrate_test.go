//go:build linux

package test

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
)

// docs/migrating.md, with its parts: the articles' router and mochiweb front, Halley,
// nginx before both. What it says is what these tests see.

// eachOTP runs a test with this machine's Erlang and those of HALLEY_OTP_ROOTS.
func eachOTP(t *testing.T, test func(t *testing.T, o otp)) {
	t.Run("this", func(t *testing.T) { test(t, otp{}) })
	if os.Getuid() != 0 {
		return // chroot is for root only
	}
	for _, root := range filepath.SplitList(os.Getenv("HALLEY_OTP_ROOTS")) {
		t.Run(filepath.Base(root), func(t *testing.T) { test(t, otp{root}) })
	}
}

const (
	quiet  = 60_000 // ms between mochiweb's newlines: none comes
	newURL = "/test/123 halley;"
	allURL = "~^/test/ halley;"
)

// What the team has, before Halley comes.
func TestMigrate_Before(t *testing.T) {
	eachOTP(t, func(t *testing.T, o otp) {
		c := startComet(t, o, "", 50)
		n := startNginx(t, c.front, "127.0.0.1:9") // nobody
		tabs := []*browser{browse(t, c.front, 123), browse(t, n.addr, 123)}
		c.wantPids(123, 2, 0)
		eventually(t, "newlines come, also through nginx", func() bool { return tabs[0].blanks() > 1 && tabs[1].blanks() > 1 })
		for _, addr := range []string{c.front, n.addr} {
			if resp, _ := ask(t, dial(t, addr), "GET", "/test/x"); resp.StatusCode != http.StatusNotFound {
				t.Errorf("/test/x: %s", resp.Status)
			}
		}
		c.startSender(123)
		for _, b := range tabs {
			b.servedBy(false)
			b.reaches(500)
		}
		tabs[0].conn.Close()
		c.wantPids(123, 1, 0)
		tabs[1].has(0, c.stopSender())
	})
}

// A running system moves; messages are sent all the time.
func TestMigrate(t *testing.T) {
	eachOTP(t, testMigrate)
}

func testMigrate(t *testing.T, o otp) {
	c := startComet(t, o, "", quiet)
	c.startSender(123, 124)
	joined := func(addr string, uid, here, elsewhere int) joiner {
		b := browse(t, addr, uid)
		c.wantPids(uid, here, elsewhere)
		return joiner{b, c.sent()}
	}
	old := joined(c.front, 123, 1, 0)

	// Halley beside mochiweb: the same user on both.
	h := startHalley(t, halleyOptions{args: []string{"--connect", c.name, "--login", "router:login", "--logout", "router:logout"}})
	h.connected(c.erlNode)
	direct := joined(h.addr, 123, 1, 1)
	old.servedBy(false)
	direct.servedBy(true)

	// nginx before both; at first all is mochiweb's.
	n := startNginx(t, c.front, h.addr)
	early := joined(n.addr, 123, 2, 1)
	other := joined(n.addr, 124, 1, 0)
	early.servedBy(false)

	// One URL moves. The streams that are open stay where they are.
	n.move(newURL)
	n.wantFronts("halley", "mochiweb")
	moved := joined(n.addr, 123, 2, 2)
	moved.servedBy(true)
	still := joined(n.addr, 124, 2, 0)
	still.servedBy(false)

	// And back.
	n.move()
	n.wantFronts("mochiweb", "mochiweb")
	back := joined(n.addr, 123, 3, 2)
	back.servedBy(false)

	// All move.
	n.move(allURL)
	n.wantFronts("halley", "halley")
	late := joined(n.addr, 124, 2, 1)
	late.servedBy(true)

	// So far nobody has missed anything.
	now := c.sent()
	onMochiweb := []joiner{old, early, other, still, back}
	onHalley := []joiner{direct, moved, late}
	for _, b := range append(onMochiweb, onHalley...) {
		b.reaches(now)
	}

	// mochiweb stops, first the streams of one user, then all: they break off after what
	// was sent before.
	c.want("2", "length([exit(P, shutdown) || {_, P} <- ets:lookup(element(3, sys:get_state({global, router})), 124), node(P) =:= node()])")
	c.wantPids(124, 0, 1)
	c.wantPids(123, 3, 2)
	c.want("ok", "supervisor:terminate_child(comet_sup, comet_web)")
	for _, b := range onMochiweb {
		if last := b.endsWith(anyEnd...); last < now || b.from() > b.before+1 {
			t.Errorf("%d to %d; %d had been sent", b.from(), last, now)
		}
	}
	c.wantPids(123, 0, 2)
	c.wantPids(124, 0, 1)
	again := joined(n.addr, 124, 0, 2) // the browser comes again, at the same URL
	again.servedBy(true)
	onHalley = append(onHalley, again)

	// All that was sent to those at Halley has come, once, in order.
	last := c.stopSender()
	count := 0
	for _, b := range onHalley {
		b.has(b.before, last)
		count += last - b.from() + 1
	}
	t.Logf("%d messages to each user; %d written to browsers at Halley", last, count)
	m := h.atRest(-1)
	if written, discarded := m.of(t, "messages_written_total"), m.sum("messages_discarded_total"); written != count || discarded != 0 {
		t.Errorf("%d written, %d discarded; browsers got %d", written, discarded, count)
	}

	// A browser closes: the link tells the router, no call does.
	moved.conn.Close()
	direct.conn.Close()
	c.wantPids(123, 0, 0)
	c.want("[]", "(fun({_, T, _}) -> [x || {_, 123} <- ets:tab2list(T)] end)(sys:get_state({global, router}))")
	if n := h.metrics().sum("logouts_total"); n != 0 {
		t.Errorf("%d logouts were called", n)
	}

	// Erlang goes and comes back: the browsers stay, and are logged in again.
	c.kill()
	eventually(t, "the peer is gone", func() bool { return h.metric("peers") == 0 })
	c = startComet(t, o, c.name, quiet)
	c.wantPids(124, 0, 2)
	c.want("ok", "router:send(124, \"%d\\n\")", last+1)
	late.has(late.before, last+1)
	again.has(again.before, last+1)

	// Halley goes: so do its browsers, and the links say so to the router.
	h.kill()
	late.endsWith(anyEnd...)
	c.wantPids(124, 0, 0)
}

// joiner is a browser that was logged in when the message numbered before had begun to
// be sent.
type joiner struct {
	*browser
	before int
}

// wantFronts checks who serves /test/123 and /test/124.
func (n *nginx) wantFronts(first, second string) {
	n.t.Helper()
	if f, s := n.front("/test/123"), n.front("/test/124"); f != first || s != second {
		n.t.Fatalf("/test/123 is served by %q, /test/124 by %q; want %q, %q", f, s, first, second)
	}
}

// A process that is linked to browsers takes them with it when it crashes, on either
// side; one that monitors them does not.
func TestMigrate_RouterCrashes(t *testing.T) {
	eachOTP(t, func(t *testing.T, o otp) {
		c := startComet(t, o, "", quiet)
		h := startHalley(t, halleyOptions{args: []string{"--connect", c.name, "--login", "router:login", "--logout", "router:logout"}})
		h.connected(c.erlNode)
		fronts := []string{c.front, h.addr}
		open := func() (tabs []*browser) {
			for _, addr := range fronts {
				tabs = append(tabs, browse(t, addr, 123))
			}
			c.wantPids(123, 1, 1)
			c.want("ok", `router:send(123, "1\n")`)
			for _, b := range tabs {
				b.reaches(1)
			}
			return tabs
		}
		tabs := open()
		c.want("2", "length(Watched = [P || {_, P} <- ets:lookup(element(3, sys:get_state({global, router})), 123)])")
		c.want("crash", "{_, Ref} = spawn_monitor(fun() -> [monitor(process, P) || P <- Watched], exit(crash) end), receive {'DOWN', Ref, _, _, Why} -> Why end")
		c.want("ok", `router:send(123, "2\n")`)
		for _, b := range tabs {
			b.reaches(2)
		}
		c.want("true", "exit(global:whereis_name(router), kill)")
		for _, b := range tabs {
			b.endsWith(anyEnd...)
		}
		eventually(t, "a new router", func() bool { return c.eval("is_pid(global:whereis_name(router))") == "true" })
		open()
	})
}
