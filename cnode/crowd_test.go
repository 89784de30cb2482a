package cnode

import (
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowd is a table of connections that tells subscribers of them as loops do: each loop
// is a goroutine that owns its slots, walks them for a new subscriber by pages, and tells
// at once of what happens at slots it has walked.
type crowd struct {
	t     *testing.T
	loops []*crowdLoop
	next  atomic.Int64
	subs  atomic.Pointer[[]*crowdSub]
	mu    sync.Mutex // taken to change subs

	// closedFirst: Closed comes before Ended.
	closedFirst bool
	ended       func(conn uint64, why string, reason []byte)
}

type crowdSub struct{ to Subscriber }

type crowdLoop struct {
	crowd *crowd
	index int
	do    chan func()
	slots []crowdConn
	free  []int
	subs  []*crowdSub // the list that walks were made of
	walks []*crowdWalk
}

type crowdConn struct {
	gen     uint32
	open    bool
	id      int64
	name    []byte
	watched bool
}

type crowdWalk struct {
	*crowdSub
	cursor int
	caught bool
}

const crowdShift = 20 // bits for the slots of one loop

func newCrowd(t *testing.T, loops int) *crowd {
	w := &crowd{t: t}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for i := range loops {
		l := &crowdLoop{crowd: w, index: i, do: make(chan func(), 1024)}
		w.loops = append(w.loops, l)
		wg.Go(func() { l.run(stop) })
	}
	t.Cleanup(func() {
		close(stop)
		wg.Wait()
	})
	return w
}

func (l *crowdLoop) run(stop chan struct{}) {
	ticks := time.NewTicker(10 * time.Millisecond)
	defer ticks.Stop()
	for {
		select {
		case f := <-l.do:
			f()
		case <-ticks.C:
			l.tick()
		case <-stop:
			return
		}
	}
}

func (l *crowdLoop) tick() {
	var list []*crowdSub
	if p := l.crowd.subs.Load(); p != nil {
		list = *p
	}
	if !slices.Equal(list, l.subs) {
		l.subs = list
		before := l.walks
		l.walks = nil
		for _, s := range list {
			walk := &crowdWalk{crowdSub: s}
			for _, old := range before {
				if old.crowdSub == s {
					walk = old
				}
			}
			l.walks = append(l.walks, walk)
		}
	}
	for _, w := range l.walks {
		if w.caught {
			continue
		}
		for room := w.to.Room(); w.cursor < len(l.slots); w.cursor++ {
			if s := &l.slots[w.cursor]; s.open {
				if room--; room < 0 {
					break
				}
				w.to.Opened(l.number(w.cursor), s.id, s.name, "chunked", true)
			}
		}
		if w.cursor == len(l.slots) {
			w.caught = true
			w.to.Caught(l.index, len(l.crowd.loops))
		}
	}
}

func (l *crowdLoop) number(slot int) uint64 {
	return uint64(l.slots[slot].gen)<<32 | uint64(l.index<<crowdShift|slot)
}

// find is the slot of a connection that is there.
func (l *crowdLoop) find(conn uint64) (*crowdConn, int) {
	slot := int(conn & (1<<crowdShift - 1))
	s := &l.slots[slot]
	if !s.open || s.gen != uint32(conn>>32) {
		return nil, 0
	}
	return s, slot
}

func (l *crowdLoop) open(id int64, name []byte) uint64 {
	slot := len(l.slots)
	if n := len(l.free); n > 0 {
		slot = l.free[n-1]
		l.free = l.free[:n-1]
	} else {
		l.slots = append(l.slots, crowdConn{})
	}
	s := &l.slots[slot]
	*s = crowdConn{gen: s.gen + 1, open: true, id: id, name: name}
	for _, w := range l.walks {
		if w.caught || slot < w.cursor {
			w.to.Opened(l.number(slot), id, name, "chunked", false)
		}
	}
	return l.number(slot)
}

func (l *crowdLoop) close(conn uint64, why string, reason []byte) {
	s, slot := l.find(conn)
	if s == nil {
		return
	}
	s.open = false
	end := func() {
		if s.watched && l.crowd.ended != nil {
			l.crowd.ended(conn, why, reason)
		}
	}
	if !l.crowd.closedFirst {
		end()
	}
	for _, w := range l.walks {
		if w.caught || slot < w.cursor {
			w.to.Closed(conn, s.id, s.name, why, reason)
		}
	}
	if l.crowd.closedFirst {
		end()
	}
	l.free = append(l.free, slot)
}

func (l *crowdLoop) watch(conn uint64) {
	if s, _ := l.find(conn); s != nil {
		s.watched = true
	} else if l.crowd.ended != nil {
		l.crowd.ended(conn, "noproc", nil)
	}
}

func (w *crowd) loopOf(conn uint64) *crowdLoop {
	return w.loops[uint32(conn)>>crowdShift]
}

// on runs f on a loop's goroutine and waits for it.
func (l *crowdLoop) on(f func()) {
	done := make(chan struct{})
	l.do <- func() {
		f()
		close(done)
	}
	<-done
}

func (w *crowd) subscribe(sub Subscriber) (end func()) {
	mine := &crowdSub{sub}
	w.change(func(list []*crowdSub) []*crowdSub { return append(list, mine) })
	return func() {
		w.change(func(list []*crowdSub) []*crowdSub {
			return slices.DeleteFunc(list, func(s *crowdSub) bool { return s == mine })
		})
	}
}

func (w *crowd) change(f func([]*crowdSub) []*crowdSub) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []*crowdSub
	if old := w.subs.Load(); old != nil {
		list = slices.Clone(*old)
	}
	list = f(list)
	w.subs.Store(&list)
}

// open makes n connections, spread over the loops; every fifth uid is a binary.
func (w *crowd) open(n int) []uint64 {
	conns := make([][]uint64, len(w.loops))
	var wg sync.WaitGroup
	for i, l := range w.loops {
		wg.Go(func() {
			l.on(func() {
				for k := i; k < n; k += len(w.loops) {
					id, name := w.next.Add(1), []byte(nil)
					if id%5 == 0 {
						name = []byte("user-" + string(rune('a'+id%26)))
					}
					conns[i] = append(conns[i], l.open(id, name))
				}
			})
		})
	}
	wg.Wait()
	return slices.Concat(conns...)
}

func (w *crowd) close(why string, conns ...uint64) {
	by := make([][]uint64, len(w.loops))
	for _, conn := range conns {
		i := w.loopOf(conn).index
		by[i] = append(by[i], conn)
	}
	var wg sync.WaitGroup
	for i, l := range w.loops {
		wg.Go(func() {
			l.on(func() {
				for _, conn := range by[i] {
					l.close(conn, why, nil)
				}
			})
		})
	}
	wg.Wait()
}

// size is how many are there.
func (w *crowd) size() (n int) {
	for _, l := range w.loops {
		l.on(func() { n += len(l.slots) - len(l.free) })
	}
	return n
}

// settled waits until every loop has told sub's like of all that were there.
func (w *crowd) settled() {
	w.t.Helper()
	eventually(w.t, "subscribers are told of all", func() bool {
		all := true
		for _, l := range w.loops {
			l.on(func() {
				list := w.subs.Load()
				all = all && list != nil && len(*list) > 0 && len(l.walks) == len(*list)
				for _, walk := range l.walks {
					all = all && walk.caught
				}
			})
		}
		return all
	})
}

// crowdFeed hands on what concerns single connections.
type crowdFeed struct {
	*recorder
	crowd *crowd
}

func (f crowdFeed) Watch(conn uint64) {
	l := f.crowd.loopOf(conn)
	l.do <- func() { l.watch(conn) }
}

func (f crowdFeed) Exit(conn uint64, text, reason []byte) {
	f.recorder.Exit(conn, text, reason)
	reason = slices.Clone(reason)
	l := f.crowd.loopOf(conn)
	l.do <- func() { l.close(conn, "kicked", reason) }
}

// startCrowd is startNode with a crowd.
func startCrowd(t *testing.T, epmd int, loops int, change func(o *Options)) (*testNode, *crowd) {
	t.Helper()
	w := newCrowd(t, loops)
	var node atomic.Pointer[Node]
	w.ended = func(conn uint64, why string, reason []byte) { node.Load().Ended(conn, why, reason) }
	n := startNode(t, epmd, func(o *Options, n *testNode) {
		o.Subscribe = w.subscribe
		o.NewFeed = func(peer string) Feed { return crowdFeed{n.newFeed(peer).(*recorder), w} }
		change(o)
	})
	node.Store(n.Node)
	return n, w
}

// toldModule is what Erlang does with what it is told. Its table has for each call when
// it was made, and how many were under way.
const toldModule = `
-module(told).
-compile(nowarn_deprecated_catch).
-export([start/0, mode/1, login/2, logout/1, release/0, log/1, count/1, value/1, twice/0,
         listen/1, summary/1, unlisten/1, keep/1, kept/1]).

start() ->
    Me = self(),
    spawn(fun() ->
        ets:new(told, [named_table, public]),
        ets:new(told_log, [named_table, public, ordered_set]),
        ets:new(told_hung, [named_table, public]),
        ets:insert(told, [{mode, ok}, {flying, 0}, {most, 0}, {overlaps, 0}]),
        register(told_linker, self()),
        process_flag(trap_exit, true),
        Me ! started,
        linker()
    end),
    receive started -> ok end.

linker() ->
    receive
        {link, Pid, From} -> link(Pid), From ! linked, linker();
        {'EXIT', Pid, Reason} -> note(exited, Reason, Pid), linker()
    end.

mode(Mode) -> ets:insert(told, {mode, Mode}).
value(Key) -> ets:lookup_element(told, Key, 2).

login(Uid, Pid) -> call(login, Uid, Pid).
logout(Pid) -> call(logout, none, Pid).

call(What, Uid, Pid) ->
    Most = ets:update_counter(told, flying, 1),
    Most > value(most) andalso ets:insert(told, {most, Most}),
    ets:update_counter(told, {flying, Pid}, 1, {{flying, Pid}, 0}) > 1
        andalso ets:update_counter(told, overlaps, 1),
    note(What, Uid, Pid),
    try act(value(mode), What, Pid)
    after
        ets:update_counter(told, {flying, Pid}, -1),
        ets:update_counter(told, flying, -1)
    end.

act(ok, _, _) -> ok;
act({sleep, Most}, _, _) -> timer:sleep(rand:uniform(Most + 1) - 1);
act(fail, _, _) -> error(oops);
act(error, _, _) -> {error, no};
act(hang, _, _) -> ets:insert(told_hung, {self()}), receive go -> ok end;
act(link, login, Pid) -> told_linker ! {link, Pid, self()}, receive linked -> ok end;
act(link, logout, _) -> ok;
act(hang_link, login, Pid) -> act(hang, login, Pid), act(link, login, Pid).

release() ->
    [begin ets:delete(told_hung, P), P ! go end || {P} <- ets:tab2list(told_hung)],
    ok.

note(What, Uid, Pid) ->
    ets:insert(told_log, {erlang:unique_integer([monotonic]), What, Uid, Pid}).

log(Pid) -> [What || {_, What, _, P} <- ets:tab2list(told_log), P =:= Pid].
count(What) -> length(ets:match(told_log, {'_', What, '_', '_'})).
%% How many pids were logged in more than once.
twice() ->
    Pids = [P || {_, login, _, P} <- ets:tab2list(told_log)],
    length(Pids) - length(lists:usort(Pids)).

%% A process that keeps what it gets, in order.
keep(Name) ->
    Me = self(),
    spawn(fun() -> register(Name, self()), Me ! started, keeper([]) end),
    receive started -> ok end.
keeper(Got) ->
    receive
        {kept, From} -> From ! {kept, lists:reverse(Got)}, keeper(Got);
        M -> keeper([M | Got])
    end.
kept(Name) -> Name ! {kept, self()}, receive {kept, L} -> L end.

%% A process that rebuilds who is online, and counts what cannot be.
listen(Name) ->
    Me = self(),
    spawn(fun() -> register(Name, self()), Me ! started, listener(#{}, #{epochs => 0, epoch => 0, done => false, seen => 0, wrong => []}) end),
    receive started -> ok end.
unlisten(Name) -> exit(whereis(Name), kill), ok.
summary(Name) ->
    Name ! {summary, self()},
    receive {summary, Online, S} -> {maps:get(epochs, S), maps:get(done, S), maps:size(Online), maps:get(wrong, S)} end.

listener(Online, S) ->
    receive
        {summary, From} -> From ! {summary, Online, S}, listener(Online, S);
        {all_present, E, L} -> {O, S1} = epoch(E, Online, S), present(L, O, S1);
        {connected, Uid, Pid, #{epoch := E, version := V, transport := chunked} = Info} when map_size(Info) =:= 3 ->
            {O, S1} = epoch(E, Online, S),
            S2 = seen(S1),
            S3 = wrong(maps:get(seen, S2) =/= V, {version, V, maps:get(seen, S2)}, S2),
            listener(O#{Pid => Uid}, wrong(is_map_key(Pid, O), {connected_twice, Pid}, S3));
        {disconnected, Uid, Pid, normal} ->
            S1 = wrong(maps:get(Pid, Online, none) =/= Uid, {unknown, Uid, Pid}, seen(S)),
            listener(maps:remove(Pid, Online), S1);
        M -> listener(Online, wrong(true, M, S))
    end.

epoch(E, Online, #{epoch := E} = S) -> {Online, S};
epoch(E, _, #{epoch := Old, epochs := N} = S) ->
    {#{}, wrong(E < Old, {epoch, E, Old}, S#{epoch := E, epochs := N + 1, done := false, seen := 0})}.

present(Node, Online, S) when is_atom(Node) ->
    Others = [Pid || Pid <- maps:keys(Online), node(Pid) =/= Node],
    S1 = wrong(Others =/= [] orelse not lists:member(Node, nodes(hidden)), {mark_of, Node}, S),
    listener(Online, wrong(maps:get(done, S1), done_twice, S1#{done := true}));
present(L, Online, S) ->
    S1 = wrong(length(L) > 1000, {batch, length(L)}, S),
    S2 = wrong(maps:get(done, S), present_after_done, S1),
    New = maps:from_list([{Pid, Uid} || {Uid, Pid} <- L]),
    S3 = wrong(map_size(maps:with(maps:keys(New), Online)) > 0 orelse map_size(New) =/= length(L), present_twice, S2),
    listener(maps:merge(Online, New), S3).

seen(#{seen := N} = S) -> S#{seen := N + 1}.
wrong(true, What, #{wrong := W} = S) when length(W) < 5 -> S#{wrong := [What | W]};
wrong(_, _, S) -> S.
`

// compileTold binds B to the module's code, without a file.
var compileTold = "{ok, Ts, _} = erl_scan:string(" + erlString(toldModule) + "), " +
	"Split = fun S([], [], Fs) -> lists:reverse(Fs); S([{dot, _} = D | T], A, Fs) -> S(T, [], [lists:reverse([D | A]) | Fs]); S([H | T], A, Fs) -> S(T, [H | A], Fs) end, " +
	"{ok, told, B} = compile:forms([begin {ok, F} = erl_parse:parse_form(X), F end || X <- Split(Ts, [], [])], [])"

// loadTold gives an Erlang node the module, and starts it.
func loadTold(e *erlNode) {
	e.t.Helper()
	e.want("{module,told}", "begin %s, code:load_binary(told, \"told\", B) end", compileTold)
	e.want("ok", "told:start()")
}

// erlString is text as an Erlang string on one line.
func erlString(s string) string {
	b := []byte{'"'}
	for _, c := range []byte(s) {
		switch c {
		case '\n':
			b = append(b, `\n`...)
		case '"', '\\':
			b = append(b, '\\', c)
		default:
			b = append(b, c)
		}
	}
	return string(append(b, '"'))
}
