package test

import (
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
)

// TestOTP runs what must work with every Erlang, with those of HALLEY_OTP_ROOTS:
// directories separated by colons, each an installation that is entered by chroot.
func TestOTP(t *testing.T) {
	roots := filepath.SplitList(os.Getenv("HALLEY_OTP_ROOTS"))
	if len(roots) == 0 {
		t.Skip("HALLEY_OTP_ROOTS names no other Erlang")
	}
	if os.Getuid() != 0 {
		t.Skip("chroot is for root only")
	}
	for _, root := range roots {
		for _, direction := range []string{"halley-dials", "erlang-dials"} {
			t.Run(filepath.Base(root)+"/"+direction, func(t *testing.T) { testOTP(t, otp{root}, direction == "halley-dials") })
		}
		t.Run(filepath.Base(root)+"/pids", func(t *testing.T) { testPids(t, otp{root}) })
		t.Run(filepath.Base(root)+"/router", func(t *testing.T) { testRouter(t, otp{root}) })
	}
}

func testOTP(t *testing.T, o otp, halleyDials bool) {
	name := uniqueName("e") + "@localhost"
	options := halleyOptions{args: []string{"--max-pending", "8MiB"}}
	if halleyDials {
		options.args = append(options.args, "--connect", name)
	}
	h := startHalley(t, options)
	e := startErl(t, erlOptions{otp: o, name: name})
	t.Logf("OTP %s", e.eval("erlang:system_info(otp_release)"))
	s := h.open("1")
	if halleyDials {
		h.connected(e)
	}
	e.eval("%s ! {1, <<\"first\">>}", h.to)
	s.want("first")
	h.connected(e)
	e.want("pong", "net_adm:ping('%s')", h.name)
	e.want("[]", "nodes()")
	e.want("true", "nodes(hidden) =:= ['%s']", h.name)

	e.eval("gen_server:cast(%s, [{1, \"cast\"}, {<<\"nobody\">>, <<\"x\">>}])", h.to)
	e.want("{ok,1}", "gen_server:call(%s, {deliver, 1, <<\"call\">>})", h.to)
	e.want("{ok,0}", "gen_server:call(%s, {deliver, 2, <<\"call\">>})", h.to)
	s.want("cast", "call")
	h.atRest(1 + 2 + 2)
	e.want("{5,3}", "(fun(S) -> {maps:get(messages_received_total, S), maps:get(messages_written_total, S)} end)(gen_server:call(%s, stats))", h.to)
	e.want("true", "(fun(R) -> {error, {bad_request, R}} =:= gen_server:call(%s, R) end)({what, make_ref(), self(), #{a => 1.5}})", h.to)
	e.want("true", "rpc:call('%s', erlang, node, []) =:= '%s'", h.name, h.name)
	e.want("undef", "element(1, element(2, element(2, rpc:call('%s', os, cmd, [\"ls\"]))))", h.name)
	e.want("{ok,1}", "gen_server:call(%s, {deliver, 1, binary:copy(<<\"x\">>, 1048576)})", h.to)
	s.conn.SetReadDeadline(time.Now().Add(patience))
	if got, err := s.next(); err != nil || len(got) != 1<<20 {
		t.Fatalf("%d bytes, %v", len(got), err)
	}

	// 100,000 messages, in order.
	users := make([]*stream, 100)
	for i := range users {
		users[i] = h.open(strconv.Itoa(i + 1))
	}
	took := countAll(t, users, 1, 1000)
	e.want("ok", "load:singles(%s, 100, 1, 500), load:mixed(%s, 100, 501, 1000)", h.to, h.to)
	t.Logf("100000 messages in %v", took())
	var progress atomic.Int64
	e.want("ok", "load:singles(%s, 1, 1001, 2000)", h.to)
	s.conn.SetReadDeadline(time.Now().Add(patience))
	if err := s.counted(1, 1, 2000, &progress); err != nil { // it is user 1's other connection
		t.Fatal(err)
	}

	// Killed, and back under the same name.
	e.kill()
	eventually(t, "the peer is gone", func() bool { return h.metric("peers") == 0 })
	e = startErl(t, erlOptions{otp: o, name: name})
	if halleyDials {
		h.connected(e)
	}
	e.eval("%s ! {1, <<\"back\">>}", h.to)
	s.want("back")

	// Halley is killed: monitors fire.
	e.want("true", "is_reference(erlang:monitor(process, %s))", h.to)
	e.want("ok", "net_kernel:monitor_nodes(true, [{node_type, hidden}])")
	h.kill()
	e.want("noconnection", "receive {'DOWN', _, _, _, W} -> W after 10000 -> nothing end")
	e.want("true", "receive {nodedown, N, _} -> N =:= '%s' after 10000 -> nothing end", h.name)
}
