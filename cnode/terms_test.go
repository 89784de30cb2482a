package cnode

import (
	"encoding/base64"
	"encoding/binary"
	"math"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ergo-services/ergo/etf"
	"github.com/ergo-services/ergo/gen"
)

// Erlang's own encoder against our scanner, and our encoder against Erlang's decoder.
func TestTerms_AgainstErlang(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		for _, expr := range []string{
			"0", "255", "256", "-1", "1 bsl 31", "1 bsl 63", "-(1 bsl 63)", "1 bsl 64", "-(1 bsl 64)", "1 bsl 3000", "1.5", "-0.0",
			"a", "''", "list_to_atom(lists:duplicate(255, $x))", "list_to_atom(lists:duplicate(255, 16#20ac))", "true",
			"<<>>", "<<1,2,3>>", "<<1:1>>", "<<5:3>>", "<<255:15>>", "binary:copy(<<1>>, 100000)",
			"[]", "[1,2,3]", "[1,256]", "[a|b]", "\"text\"", "lists:seq(1, 70000)", "lists:duplicate(70000, 1)", "[[[[[]]]]]",
			"{}", "{a}", "list_to_tuple(lists:seq(1, 300))", "#{}", "#{a => 1, [b] => #{<<\"c\">> => {}}}",
			"self()", "make_ref()", "[alias|erlang:monitor(process, self(), [{alias, reply_demonitor}])]", "hd(erlang:ports())",
			"fun lists:map/2", "fun() -> self() end", "(fun(X, Y) -> fun() -> {X, Y} end end)(1, [a])",
			"lists:foldl(fun(_, A) -> {A} end, x, lists:seq(1, 100000))",
		} {
			text := e.eval("base64:encode(term_to_binary(%s, [{minor_version, 2}]))", expr)
			b, err := base64.StdEncoding.DecodeString(strings.Trim(text, `<">`))
			if err != nil {
				t.Fatalf("%s: %v", expr, err)
			}
			if n := skip(b[1:], noTermsLimit); n != len(b)-1 {
				t.Errorf("%s: skip gives %d of %d bytes", expr, n, len(b)-1)
			}
			textOf(b[1:])
			if p, ok := pidOf(b[1:]); ok && string(appendPid(nil, p)) != string(b[1:]) {
				t.Errorf("%s: the pid changes", expr)
			}
			if r, words, ok := refOf(b[1:]); ok && string(appendRef(nil, r, words)) != string(b[1:]) {
				t.Errorf("%s: the reference changes", expr)
			}
		}
		for _, v := range []int64{0, 1, 255, 256, -1, math.MaxInt32, math.MinInt32, math.MaxInt32 + 1, math.MinInt32 - 1, math.MaxInt64, math.MinInt64} {
			ours := base64.StdEncoding.EncodeToString(append([]byte{131}, appendInt(nil, v)...))
			e.want("true", "<<131, (base64:decode(\"%s\"))/binary>> =:= <<131, (term_to_binary(%d))/binary>>", ours, v)
			if got, ok := integer(appendInt(nil, v)); !ok || got != v {
				t.Errorf("%d becomes %d", v, got)
			}
		}
		id := base64.StdEncoding.EncodeToString(append([]byte{131}, appendUint(nil, 1<<63+5)...))
		e.want(strconv.FormatUint(1<<63+5, 10), "binary_to_term(base64:decode(\"%s\"))", id)
	})
}

// worker is a process of ergo's that tells what it gets.
type worker struct{ got chan etf.Term }

func (w worker) ProcessInit(p gen.Process, _ ...etf.Term) (gen.ProcessState, error) {
	return gen.ProcessState{Process: p}, nil
}

func (w worker) ProcessLoop(state gen.ProcessState, started chan<- bool) string {
	in := state.ProcessChannels()
	started <- true
	for {
		select {
		case m := <-in.Mailbox:
			w.got <- m.Message
			if m.Message == etf.Term(etf.Atom("stop")) {
				return "stopped"
			}
		case <-state.Context().Done():
			return "killed"
		}
	}
}

// Processes of ergo's are processes to Erlang: messages, links and monitors, with
// references as long as they came.
func TestTerms_ErgoProcesses(t *testing.T) {
	forEachOTP(t, func(t *testing.T, o otp) {
		epmd := startEPMD(t)
		n := startNode(t, epmd, nil)
		e := startErl(t, o, epmd, uniqueName("e")+"@localhost")
		e.want("pong", "net_adm:ping('%s')", n.o.Name)
		w := worker{make(chan etf.Term, 10)}
		p, err := n.ergo.Spawn("worker", gen.ProcessOptions{}, w)
		if err != nil {
			t.Fatal(err)
		}
		e.want("true", "register(box, self())")
		if err := p.Send(gen.ProcessID{Name: "box", Node: e.name}, etf.Tuple{etf.Atom("pid"), p.Self()}); err != nil {
			t.Fatal(err)
		}
		e.want("true", "receive {pid, P} -> node(P) =:= '%s' after 3000 -> nothing end", n.o.Name)
		e.want("true", "process_flag(trap_exit, true), M1 = monitor(process, P), M2 = monitor(process, {worker, '%s'}), link(P)", n.o.Name)
		e.want("true", "M3 = monitor(process, P), demonitor(M3)")
		e.eval("P ! [hello, self()], {worker, '%s'} ! #{<<\"a\">> => 1}, P ! <<1>>, ok", n.o.Name)
		if got := <-w.got; len(got.(etf.List)) != 2 || got.(etf.List)[0] != etf.Atom("hello") {
			t.Errorf("got %v", got)
		}
		if got := <-w.got; string(got.([]byte)) != "\x01" { // the map is beyond ergo's codec: it is lost alone
			t.Errorf("got %v", got)
		}
		e.eval("{worker, '%s'} ! stop, ok", n.o.Name)
		e.want("stopped", "receive {'DOWN', M1, process, P, R1} -> R1 after 3000 -> nothing end")
		e.want("stopped", "receive {'DOWN', M2, process, {worker, '%s'}, R2} -> R2 after 3000 -> nothing end", n.o.Name)
		e.want("stopped", "receive {'EXIT', P, R3} -> R3 after 3000 -> nothing end")
		e.want("nothing", "receive {'DOWN', M3, _, _, _} -> late after 50 -> nothing end")

		// The other way: a process of ours links and monitors one of Erlang's.
		w2 := worker{make(chan etf.Term, 10)}
		p2, err := n.ergo.Spawn("", gen.ProcessOptions{}, w2)
		if err != nil {
			t.Fatal(err)
		}
		e.want("true", "V = spawn(fun() -> receive die -> exit(boom) end end), register(victim, V)")
		ref := p2.MonitorProcess(gen.ProcessID{Name: "victim", Node: e.name})
		gone := p2.MonitorProcess(gen.ProcessID{Name: "no_such_name", Node: e.name})
		if down := (<-w2.got).(gen.MessageDown); down.Ref != gone || down.Reason != "noproc" {
			t.Errorf("got %+v", down)
		}
		e.want("die", "victim ! die")
		if down := (<-w2.got).(gen.MessageDown); down.Ref != ref || down.Reason != "boom" {
			t.Errorf("got %+v", down)
		}
	})
}

// TestPlain: what is handed on from one peer to others is what every node decodes.
func TestPlain(t *testing.T) {
	cat := func(parts ...[]byte) []byte { return slices.Concat(parts...) }
	pid := appendPid(nil, etf.Pid{Node: "a@b", ID: 1, Creation: 2})
	float := func(f float64) []byte {
		return binary.BigEndian.AppendUint64([]byte{tagNewFloat}, math.Float64bits(f))
	}
	for name, c := range map[string]struct {
		term []byte
		want bool
	}{
		"atom":        {appendAtom(nil, "bye"), true},
		"tuple":       {cat(appendTuple(nil, 3), appendAtom(nil, "why"), appendInt(nil, 1<<40), appendBinary(nil, []byte("x"))), true},
		"list":        {cat([]byte{tagList, 0, 0, 0, 2}, appendInt(nil, -1), pid, []byte{tagNil}), true},
		"string":      {[]byte{tagString, 0, 2, 'h', 'i'}, true},
		"number":      {float(1.5), true},
		"reference":   {appendRef(nil, etf.Ref{Node: "a@b", Creation: 1}, 3), true},
		"no number":   {float(math.NaN()), false},
		"infinite":    {float(math.Inf(1)), false},
		"no UTF-8":    {appendAtom(nil, "\xff"), false},
		"deep inside": {cat(appendTuple(nil, 2), appendAtom(nil, "a"), appendTuple(nil, 1), appendAtom(nil, "\xc3\x28")), false},
		"pid of none": {appendPid(nil, etf.Pid{Node: "a@\xff", ID: 1}), false},
		"key twice":   {cat([]byte{tagMap, 0, 0, 0, 2}, appendInt(nil, 1), appendInt(nil, 1), appendInt(nil, 1), appendInt(nil, 1)), false},
	} {
		if skip(c.term, noTermsLimit) != len(c.term) {
			t.Fatalf("%s: not well-formed", name)
		}
		if got := plain(c.term); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
	odd := appendAtom(nil, "\xff")
	if got := handed(odd); !plain(got) {
		t.Errorf("% x is handed on", got)
	}
}

// TestCaller_OddTags: a tag is any term; that of a list without elements had an index out
// of range.
func TestCaller_OddTags(t *testing.T) {
	ref := appendRef(nil, etf.Ref{Node: "a@b", Creation: 1}, 3)
	list := func(n byte, rest ...[]byte) []byte {
		return slices.Concat(append([][]byte{{tagList, 0, 0, 0, n}}, rest...)...)
	}
	alias := appendAtom(nil, "alias")
	for name, c := range map[string]struct {
		tag  []byte
		want bool
	}{
		"alias":       {list(1, alias, ref), true},
		"nested":      {list(1, list(1, alias, ref), []byte{tagNil}), true},
		"no elements": {list(0, alias), false},
		"nested none": {list(1, list(0, alias), []byte{tagNil}), false},
		"two":         {list(2, alias, alias, ref), false},
		"no ref":      {list(1, alias, alias), false},
		"atom":        {alias, false},
	} {
		if skip(c.tag, noTermsLimit) != len(c.tag) {
			t.Fatalf("%s: not well-formed", name)
		}
		if got := (caller{tag: c.tag}).alias(); (got != nil) != c.want {
			t.Errorf("%s: % x", name, got)
		}
	}
}
