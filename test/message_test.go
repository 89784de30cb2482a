package test

import (
	"bytes"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What Erlang may send, and what it gets back.

// pair is a Halley and an Erlang node that are connected.
func pair(t *testing.T, args ...string) (*halley, *erlNode) {
	t.Helper()
	h := startHalley(t, halleyOptions{args: args})
	e := sharedErl(t)
	e.want("pong", "net_adm:ping('%s')", h.name)
	return h, e
}

func TestMessage_Bodies(t *testing.T) {
	h, e := pair(t)
	s := h.open("1")
	for _, c := range []struct{ name, body, want string }{
		{"binary", `<<"hello">>`, "hello"},
		{"one-byte", `<<0>>`, "\x00"},
		{"string", `"hello"`, "hello"},
		{"latin1-string", `[255, 0, 10]`, "\xff\x00\n"},
		{"iolist", `[<<"a">>, $b, "cd", [[], ["e" | <<"f">>]] | <<"g">>]`, "abcdefg"},
		{"deep-iolist", `lists:foldl(fun(_, A) -> [A] end, <<"deep">>, lists:seq(1, 10000))`, "deep"},
		{"html", `<<"<b>\r\n0\r\n\r\n</b>">>`, "<b>\r\n0\r\n\r\n</b>"},
		{"utf8", `unicode:characters_to_binary([228, 8364])`, "ä€"},
		{"64KiB", `binary:copy(<<"x">>, 65536)`, strings.Repeat("x", 65536)},
		{"long-string", `lists:duplicate(70000, $y)`, strings.Repeat("y", 70000)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, send := range []string{"%s ! {1, %s}", "%s ! [{1, %s}]", "gen_server:cast(%s, {1, %s})", "gen_server:call(%s, {deliver, 1, %s})"} {
				e.eval("element(1, {ok, "+send+"})", h.to, c.body)
				s.want(c.want)
			}
		})
	}
}

// An empty body is no chunk: that would end the stream. It counts as written.
func TestMessage_EmptyBody(t *testing.T) {
	h, e := pair(t)
	s := h.open("1")
	for _, empty := range []string{`<<>>`, `""`, `[[], <<>>]`} {
		e.eval("%s ! {1, %s}", h.to, empty)
		e.eval("%s ! [{1, %s}, {1, <<\"a\">>}, {1, %s}]", h.to, empty, empty)
		e.want("{ok,1}", "gen_server:call(%s, {deliver, 1, %s})", h.to, empty)
	}
	e.eval("%s ! {all, <<>>}", h.to)
	s.want("a", "a", "a")
	e.eval("%s ! {1, <<\"last\">>}", h.to)
	s.want("last")
	if m := h.atRest(3*5 + 2); m.of(t, "messages_written_total") != 3*5+2 {
		t.Errorf("%d written", m.of(t, "messages_written_total"))
	}
}

// One large message does not make a client slow, whatever --max-pending.
func TestMessage_Large(t *testing.T) {
	const size = 16 << 20
	h, e := pair(t)
	s := h.open("1")
	for _, body := range []string{"binary:copy(<<\"0123456789abcdef\">>, 1048576)", "[binary:copy(<<\"01234567\">>, 1024), [binary:copy(<<\"89abcdef\">>, 2096128)]]"} {
		e.eval("%s ! {1, %s}, ok", h.to, body)
		s.conn.SetReadDeadline(time.Now().Add(patience))
		got, err := s.next()
		if err != nil || len(got) != size {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		want := bytes.Repeat([]byte("0123456789abcdef"), 1<<20)
		if body[0] == '[' {
			want = append(bytes.Repeat([]byte("01234567"), 1<<10), bytes.Repeat([]byte("89abcdef"), 2<<20-1<<10)...)
		}
		if !bytes.Equal(got, want) {
			t.Error("not the bytes that were sent")
		}
		e.eval("%s ! {1, <<\"next\">>}", h.to)
		s.want("next")
	}
}

// A message above --max-packet costs the connection to that node, not the streams.
func TestMessage_TooLarge(t *testing.T) {
	h, e := pair(t, "--max-packet", "1MiB")
	s := h.open("1")
	e.eval("%s ! {1, binary:copy(<<\"x\">>, 2 bsl 20)}, ok", h.to)
	eventually(t, "a log line", func() bool { return h.log.count("peer lost", "--max-packet") == 1 })
	e.want("true", "load:down('%s')", h.name)
	e.eval("%s ! {1, <<\"again\">>}", h.to)
	s.want("again")
}

func TestMessage_Uids(t *testing.T) {
	h, e := pair(t)
	long := strings.Repeat("n", 255)
	for _, c := range []struct{ name, segment, uid string }{
		{"one", "1", "1"},
		{"highest", "9223372036854775807", "9223372036854775807"},
		{"highest-as-binary", "9223372036854775807", `<<"9223372036854775807">>`},
		{"integer-as-binary", "123", `<<"123">>`},
		{"binary", "alice", `<<"alice">>`},
		{"leading-zero", "007", `<<"007">>`},
		{"zero", "0", `<<"0">>`},
		{"beyond-highest", "9223372036854775808", `<<"9223372036854775808">>`},
		{"percent-encoded", "a%2Fb%20%C3%A4%00%ff", `<<"a/b ", 195, 164, 0, 255>>`},
		{"percent-encoded-integer", "%31%32", "12"},
		{"longest", long, `<<"` + long + `">>`},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := h.openOn(dial(t, h.addr), c.segment)
			if _, err := s.next(); err != nil { // the welcome, HTML-escaped
				t.Fatal(err)
			}
			e.eval("%s ! {%s, <<\"sent\">>}", h.to, c.uid)
			e.want("{ok,1}", "gen_server:call(%s, {deliver, %s, <<\"called\">>})", h.to, c.uid)
			s.want("sent", "called")
			s.conn.Close()
			eventually(t, "gone", func() bool { return h.metric("connections") == 0 })
		})
	}
	if resp, _ := ask(t, dial(t, h.addr), "GET", "/test/"+strings.Repeat("n", 256)); resp.StatusCode != 404 {
		t.Errorf("a uid of 256 bytes: %s", resp.Status)
	}
}

func TestMessage_AllAndClose(t *testing.T) {
	h, e := pair(t)
	one, two, tab := h.open("1"), h.open("bob"), h.open("bob")
	e.eval("%s ! {all, [\"ne\", <<\"ws\">>]}", h.to)
	e.eval("gen_server:cast(%s, {all, <<\"more\">>})", h.to)
	for _, s := range []*stream{one, two, tab} {
		s.want("news", "more")
	}
	e.eval("%s ! {<<\"bob\">>, <<\"before\">>}", h.to)
	e.eval("%s ! {close, <<\"bob\">>, {shutdown, bye}}", h.to)
	for _, s := range []*stream{two, tab} {
		s.want("before")
		s.wantEnd()
		s.conn.Close()
	}
	e.want("{ok,0}", "gen_server:call(%s, {deliver, <<\"bob\">>, <<\"after\">>})", h.to)
	e.eval("gen_server:cast(%s, {close, 1, bye})", h.to)
	one.wantEnd()
	eventually(t, "closed as kicked", func() bool { return h.metric(`connections_closed_total{reason="kicked"}`) == 3 })
	h.atRest(2 + 1 + 1)
}

func TestMessage_Calls(t *testing.T) {
	h, e := pair(t)
	s := h.open("1")
	h.open("7")
	h.open("7")
	e.want("{ok,1}", "gen_server:call(%s, {deliver, 1, <<\"x\">>})", h.to)
	s.want("x")
	e.want("{ok,2}", "gen_server:call(%s, {deliver, 7, <<\"x\">>})", h.to)
	e.want("{ok,0}", "gen_server:call(%s, {deliver, 8, <<\"x\">>})", h.to)
	for _, bad := range []string{"what", "{deliver,0,<<\"x\">>}", "{deliver,-1,<<\"x\">>}", "{deliver,1,what}", "{deliver,<<>>,<<\"x\">>}",
		"{deliver,1 bsl 63,<<\"x\">>}", "#{a => [1.5,make_ref(),self()]}"} {
		e.want("true", "(fun(R) -> {error, {bad_request, R}} =:= gen_server:call(%s, R) end)(%s)", h.to, bad)
	}
	h.atRest(3 + 7)
	e.want("[1,10,7,3]", "(fun(S) -> [maps:get(K, S) || K <- [messages_discarded_total_not_connected, messages_received_total, "+
		"messages_discarded_total_bad, messages_written_total]] end)(gen_server:call(%s, stats))", h.to)
	// Many callers at once, each gets its own answer.
	e.want("[normal]", "[spawn_monitor(fun() -> {ok, 1} = gen_server:call(%s, {deliver, 1, integer_to_list(I)}) end) || I <- lists:seq(1, 300)], "+
		"lists:usort([receive {'DOWN', _, _, _, W} -> W end || _ <- lists:seq(1, 300)])", h.to)
}

func TestMessage_BadOnesCostNothingElse(t *testing.T) {
	h, e := pair(t)
	s := h.open("1")
	for _, bad := range []string{"what", "{1}", "{1, 2}", "{0, <<\"x\">>}", "{-5, <<\"x\">>}", "{1 bsl 63, <<\"x\">>}", "{1 bsl 200, <<\"x\">>}",
		"{foo, <<\"x\">>}", "{1, [256]}", "{1, [<<\"a\">> | b]}", "{1, <<1:3>>}", "{<<>>, <<\"x\">>}", "{close, x, y}", "#{}", "self()", "1.5",
		"[{1, <<\"x\">>} | improper]", "fun lists:map/2", "{all, 7}", "{1, <<\"x\">>, extra}"} {
		e.eval("%s ! %s", h.to, bad)
	}
	e.eval("%s ! [{1, <<\"a\">>}, {bad, <<\"b\">>}, 3, {1, <<\"c\">>}]", h.to)
	e.eval("{nobody, '%s'} ! hello", h.name)
	s.want("x", "a", "c")
	m := h.atRest(20 + 3 + 2)
	if got := m.of(t, `messages_discarded_total{reason="bad"}`); got != 22 {
		t.Errorf("%d bad", got)
	}
	eventually(t, "the one for nobody is counted", func() bool { // it came last, and is no message that atRest waits for
		return h.metrics()[`halley_dist_bad_messages_total{kind="unknown"}`] == 1
	})
	if m.of(t, "peers") != 1 || m.of(t, "dist_peers_lost_total") != 0 {
		t.Error("the connection did not survive")
	}
	if lines := h.log.count("message not usable"); lines == 0 || lines > 20 {
		t.Errorf("%d log lines", lines)
	}
}

// rpc and erpc run what is in Halley's list, and refuse all else at once.
func TestMessage_RPC(t *testing.T) {
	h, e := pair(t)
	e.want("true", "rpc:call('%[1]s', erlang, node, []) =:= '%[1]s'", h.name)
	e.want("undef", "element(1, element(2, element(2, rpc:call('%s', os, cmd, [\"ls\"]))))", h.name)
	e.want("undef", "try erpc:call('%s', os, cmd, [\"ls\"]) catch error:{exception, Why, _} -> Why end", h.name)
	e.want("[0]", "rpc:multicall(['%s'], halley, connections, [1]) =:= {[[]], []} andalso [maps:get(connections, erpc:call('%s', halley, info, []))]", h.name, h.name)
	e.want("notsup", "(fun(R) -> receive {spawn_reply, R, error, E1} -> E1 after 10000 -> nothing end end)(erlang:spawn_request('%s', os, cmd, [\"ls\"], []))", h.name)
	e.want("true", "element(1, timer:tc(fun() -> rpc:call('%s', os, cmd, []) end)) < 3000000", h.name)
	e.want("pong", "net_adm:ping('%s')", h.name)
}

func TestMessage_MonitorFires(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			h, e := pair(t, "--drain", "1s")
			e.want("true", "is_reference(erlang:monitor(process, %s))", h.to)
			e.want("true", "monitor_node('%s', true)", h.name)
			e.want("noproc", "(fun(M) -> receive {'DOWN', M, _, _, W} -> W after 5000 -> nothing end end)"+
				"(erlang:monitor(process, {nobody, '%s'}))", h.name)
			h.signal(signal)
			e.want("noconnection", "receive {'DOWN', _, process, {httpd, _}, W1} -> W1 after 10000 -> nothing end")
			e.want("down", "receive {nodedown, _} -> down after 10000 -> nothing end")
			if signal == syscall.SIGTERM {
				h.wantExit(0, patience)
			} else {
				h.wantExit(-1, patience)
			}
		})
	}
}
