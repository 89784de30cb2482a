package httpd

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// whereis asks for a uid's numbers.
func whereis(s *Server, uid string) []uint64 {
	f, answer := s.NewFeed(), make(chan []uint64, 1)
	f.Whereis(0, []byte(uid), func(conns []uint64) { answer <- slices.Clone(conns) })
	f.Flush(func() {})
	return <-answer
}

func infoOf(s *Server, conn uint64) *Info {
	f, answer := s.NewFeed(), make(chan *Info, 1)
	f.Info(conn, func(info *Info) { answer <- info })
	f.Flush(func() {})
	return <-answer
}

// numberOf is the number of a uid's only connection.
func numberOf(t testing.TB, s *Server, uid string) uint64 {
	t.Helper()
	conns := whereis(s, uid)
	if len(conns) != 1 {
		t.Fatalf("uid %s has connections %v, want one", uid, conns)
	}
	return conns[0]
}

// flush hands over what a feed has and waits until it is done with.
func flush(f *Feed) {
	done := make(chan struct{})
	f.Flush(func() { close(done) })
	<-done
}

// TestSend_OrderWithMessages: one feed's messages to a uid and to its connection come in
// their order, small ones and large, and only that connection gets the latter.
func TestSend_OrderWithMessages(t *testing.T) {
	s := testServer(t, nil)
	other, st := connect(t, s, "1"), connect(t, s, "1")
	conns := whereis(s, "1")
	f := s.NewFeed()
	var want, wantOther strings.Builder
	for i := range 3000 {
		body := numbered(i, 10)
		if i%100 == 50 {
			body = numbered(i, 2000)
		}
		want.WriteString(body)
		if i%3 == 0 {
			f.Message(1, nil, []byte(body))
			wantOther.WriteString(body)
		} else {
			f.Send(conns[1], []byte(body))
		}
		if i%700 == 0 {
			f.Flush(func() {})
		}
	}
	f.Flush(func() {})
	st.want(want.String())
	other.want(wantOther.String())
	if b := balance(t, s); b.Received != 3000 || b.Written != 4000 || b.Copied != 1000 {
		t.Errorf("ledger %+v", b)
	}
}

func TestSend_EmptyBodyIsNoChunk(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "1")
	conn, f := numberOf(t, s, "1"), s.NewFeed()
	for _, body := range []string{"", "a", "", "b"} {
		f.Send(conn, []byte(body))
	}
	f.Flush(func() {})
	st.want("ab")
	if got := balance(t, s); got.Written != 4 {
		t.Errorf("written %d, want 4", got.Written)
	}
}

// TestSend_StaleNumbersMiss: a number names one connection in its life, and nobody before
// and after, although another one has its slot.
func TestSend_StaleNumbersMiss(t *testing.T) {
	s := testServer(t, nil)
	s.Observe(newEndings())
	first := connect(t, s, "1")
	old := numberOf(t, s, "1")
	first.conn.Close()
	eventually(t, "it is gone", func() bool { return s.Stats().Open == 0 })
	gone := infoOf(s, old)
	var streams []*stream
	var now []uint64
	for range 20 { // some of them in the slot of the first
		streams = append(streams, connect(t, s, "1"))
	}
	now = whereis(s, "1")
	for uid := 2; uid < 20; uid++ { // on all loops
		streams = append(streams, connect(t, s, fmt.Sprint(uid)))
		now = append(now, numberOf(t, s, fmt.Sprint(uid)))
	}
	if slices.Contains(now, old) || gone != nil || infoOf(s, old) != nil {
		t.Errorf("number %x names another connection, or one that is gone: %v", old, gone)
	}
	waits := dial(t, s) // has a slot, and is no stream
	eventually(t, "it waits", func() bool { return s.Stats().Open == int64(len(now))+1 })
	low := uint64(uint32(old))
	wrong := []uint64{0, old, math.MaxUint64, low, low | math.MaxUint32<<32, old + 1<<32*1000}
	for slot := range uint64(64) {
		for gen := range uint64(3) {
			for loop := range uint64(len(s.loops)) + 2 {
				if conn := gen<<32 | loop<<s.numbers.shift | slot; !slices.Contains(now, conn) {
					wrong = append(wrong, conn)
				}
			}
		}
	}
	f := s.NewFeed()
	for _, conn := range wrong {
		f.Send(conn, []byte("for somebody else"))
		f.Exit(conn, []byte("no"), nil)
		f.Watch(conn)
		f.Info(conn, func(info *Info) {
			if info != nil {
				t.Errorf("%x names %+v", conn, info)
			}
		})
	}
	for _, conn := range now {
		f.Send(conn, []byte("right"))
	}
	flush(f)
	for _, st := range streams {
		st.want("right")
	}
	b := balance(t, s)
	if b.Discarded["not_connected"] != uint64(len(wrong)) || b.Written != uint64(len(now)) {
		t.Errorf("written %d, discarded %v, want %d not_connected", b.Written, b.Discarded, len(wrong))
	}
	if got := s.observer.(*endings).count("noproc"); got != len(wrong) {
		t.Errorf("noproc %d times, want %d", got, len(wrong))
	}
	waits.Close()
}

func TestSend_TooBigForTheBudget(t *testing.T) {
	s := testServer(t, func(o *Options) { o.MaxPendingTotalBytes = 1000 * 500 })
	st := connect(t, s, "1")
	f := s.NewFeed()
	conn := numberOf(t, s, "1")
	f.Send(conn, make([]byte, 500*1000+1))
	f.Send(conn, []byte("small"))
	f.Flush(func() {})
	st.want("small")
	if b := balance(t, s); b.Discarded["too_big"] != 1 {
		t.Errorf("discarded %v", b.Discarded)
	}
}

// TestExit_EndsOne: after what was sent before, and nobody else.
func TestExit_EndsOne(t *testing.T) {
	s := testServer(t, nil)
	st, other := connect(t, s, "1"), connect(t, s, "1")
	conns := whereis(s, "1")
	f := s.NewFeed()
	f.Message(1, nil, []byte("to both;"))
	f.Send(conns[0], []byte("last words"))
	f.Exit(conns[0], []byte("enough"), []byte("term"))
	f.Exit(conns[0], []byte("again"), nil)
	f.Send(conns[0], []byte("too late"))
	f.Message(1, nil, []byte("to one"))
	flush(f)
	st.want("to both;last words")
	st.wantEnd()
	other.want("to both;to one")
	if b := balance(t, s); b.Discarded["not_connected"] != 1 || b.Received != 4 {
		t.Errorf("ledger %+v", b)
	}
	if got := whereis(s, "1"); !slices.Equal(got, conns[1:]) {
		t.Errorf("left are %v, want %v", got, conns[1:])
	}
	st.conn.Close()
	eventually(t, "closed as kicked", func() bool { return s.Stats().Closed["kicked"] == 1 })
}

func TestCloseCount_TellsHowMany(t *testing.T) {
	s := testServer(t, nil)
	streams := []*stream{connect(t, s, "alice"), connect(t, s, "alice"), connect(t, s, "alice")}
	f, counts := s.NewFeed(), make(chan int, 3)
	f.CloseCount(0, []byte("alice"), []byte("bye"), nil, func(n int) { counts <- n })
	f.CloseCount(0, []byte("alice"), []byte("bye"), nil, func(n int) { counts <- n })
	f.Flush(func() {})
	if first, second := <-counts, <-counts; first != 3 || second != 0 {
		t.Errorf("closed %d and %d, want 3 and 0", first, second)
	}
	for _, st := range streams {
		st.wantEnd()
	}
	f.CloseCount(0, []byte("nobody"), nil, nil, func(n int) { counts <- n })
	f.Flush(func() {})
	if n := <-counts; n != 0 {
		t.Errorf("closed %d of nobody", n)
	}
}

// TestClose_WhileItClosesOthers: what a close flushes may go over --max-pending-total and
// close other connections of the uid; the rest are ended all the same.
func TestClose_WhileItClosesOthers(t *testing.T) {
	var fault fault
	l := testLoop(t, faultyEngine{fault: &fault}, func(o *Options) { o.MaxPendingBytes, o.MaxPendingTotalBytes = 10000, 10000 })
	watching := newEndings()
	l.server.Observe(watching)
	f := l.server.NewFeed()
	var conns []uint64
	for range 5 {
		conns = append(conns, l.number(accepted(t, l, "1")))
		f.Watch(conns[len(conns)-1])
	}
	fault.full = true
	f.Send(conns[3], make([]byte, 8000)) // will have the most waiting
	f.Flush(func() {})
	l.onWake()
	var told int
	f.Send(conns[4], make([]byte, 4000)) // the newest: its close comes first
	f.CloseCount(1, nil, nil, nil, func(n int) { told = n })
	f.Flush(func() {})
	l.onWake()
	if n := l.count.streams.Load(); n != 0 || told != 5 || watching.count("kicked") != 4 || watching.count("total") != 1 {
		t.Errorf("%d streams are left, closed %d of 5, %v", n, told, watching.all)
	}
}

func TestWhereis_NewestLast(t *testing.T) {
	s := testServer(t, nil)
	if got := whereis(s, "7"); got != nil {
		t.Errorf("nobody has numbers %v", got)
	}
	var streams []*stream
	for range 5 {
		streams = append(streams, connect(t, s, "7"))
	}
	conns := whereis(s, "7")
	f := s.NewFeed()
	for i, conn := range conns {
		f.Send(conn, fmt.Appendf(nil, "you are %d", i))
	}
	f.Flush(func() {})
	for i, st := range streams {
		st.want(fmt.Sprintf("you are %d", i))
	}
	streams[2].conn.Close()
	eventually(t, "one is gone", func() bool { return s.Stats().Connections == 4 })
	if got := whereis(s, "7"); !slices.Equal(got, slices.Delete(slices.Clone(conns), 2, 3)) {
		t.Errorf("%v, want %v without the third", got, conns)
	}
}

func TestInfo(t *testing.T) {
	s := testServer(t, nil)
	st := connect(t, s, "alice")
	old := dial(t, s)
	io.WriteString(old, "GET /test/42 HTTP/1.0\r\n\r\n")
	eventually(t, "both are there", func() bool { return s.Stats().Connections == 2 })
	conn := numberOf(t, s, "alice")
	info := infoOf(s, conn)
	if string(info.Name) != "alice" || info.ID != 0 || info.Transport != "chunked" || info.Pending != 0 || info.Age != 0 {
		t.Errorf("%+v", info)
	}
	if want := netip.MustParseAddrPort(st.conn.LocalAddr().String()); info.Peer != want {
		t.Errorf("peer %v, want %v", info.Peer, want)
	}
	number := infoOf(s, numberOf(t, s, "42"))
	if number.ID != 42 || number.Name != nil || number.Transport != "identity" {
		t.Errorf("%+v", number)
	}
	before := info.Bytes
	f := s.NewFeed()
	var after *Info
	f.Send(conn, []byte("ten bytes.")) // a chunk of 15
	f.Info(conn, func(info *Info) { after = info })
	flush(f)
	if after.BytesKnown != info.BytesKnown || after.BytesKnown && after.Bytes != before+15 {
		t.Errorf("%d bytes (known: %v), want %d", after.Bytes, after.BytesKnown, before+15)
	}
	if runtime.GOOS == "linux" && !after.BytesKnown {
		t.Error("the bytes are not known")
	}
	eventually(t, "it ages", func() bool { return infoOf(s, conn).Age == time.Second })
}

func TestInfo_Pending(t *testing.T) {
	s := testServer(t, nil)
	st := stall(t, s, "1")
	fill(t, s, s.NewFeed(), 1, 1000)
	info := infoOf(s, numberOf(t, s, "1"))
	if info.Pending == 0 || int64(info.Pending) != s.Stats().PendingBytes {
		t.Errorf("%d bytes wait, want %d", info.Pending, s.Stats().PendingBytes)
	}
	if written := s.Stats().BytesWritten; info.BytesKnown && info.Bytes != written {
		t.Errorf("its socket was given %d bytes, want %d", info.Bytes, written)
	}
	st.conn.Close()
}

// TestPeerOf_IPv6: of an IPv4 client of a listener for both, its IPv4 address.
func TestPeerOf_IPv6(t *testing.T) {
	for _, from := range []string{"127.0.0.1", "::1"} {
		s := testServer(t, func(o *Options) { o.Listen = []string{"[::]:0"} })
		_, port, _ := net.SplitHostPort(s.testAddr())
		c, err := net.Dial("tcp", net.JoinHostPort(from, port))
		if err != nil {
			t.Skip(err)
		}
		st := connectOver(t, c, "1")
		if got, want := infoOf(s, numberOf(t, s, "1")).Peer, netip.MustParseAddrPort(st.conn.LocalAddr().String()); got != want {
			t.Errorf("from %s: %v, want %v", from, got, want)
		}
		c.Close()
	}
}

// TestRefused_EveryReplyOnce: while a mailbox is full all that asks is answered; what ends
// connections, and what watches them, is done when the loop goes on.
func TestRefused_EveryReplyOnce(t *testing.T) {
	l := testLoop(t, nullEngine{}, func(o *Options) {
		o.MailboxEntries, o.MailboxWait, o.MailboxBytes = 10, time.Millisecond, 100<<10
	})
	s, watching := l.server, newEndings()
	s.Observe(watching)
	one, two := l.number(accepted(t, l, "1")), l.number(accepted(t, l, "2"))
	f := s.NewFeed()
	f.Watch(two)
	f.Flush(func() {})
	l.onWake()
	for range 11 {
		f.Message(1, nil, []byte("full"))
	}
	f.Flush(func() {})
	var replies []string
	say := func(what string) { replies = append(replies, what) }
	closed, done := -1, 0
	reason := []byte("its reason")
	f.Deliver(1, nil, nil, func(n int) { say(fmt.Sprint("deliver ", n)) })
	f.Send(one, []byte("no room"))
	f.Whereis(1, nil, func(conns []uint64) { say(fmt.Sprint("whereis ", conns == nil)) })
	f.Info(one, func(info *Info) { say(fmt.Sprint("info ", info == nil)) })
	f.All([]byte("no room"))
	f.Watch(one)
	f.Exit(one, []byte("text"), reason)
	f.CloseCount(2, nil, nil, nil, func(n int) { closed = n })
	f.Flush(func() { done++ })
	if got := strings.Join(replies, ", "); got != "deliver 0, whereis true, info true" || done != 1 || closed != -1 {
		t.Errorf("replied %q, done %d times, closed %d", got, done, closed)
	}
	if got := watching.of(one); len(got) != 0 {
		t.Errorf("it is alive, and passed for %v", got)
	}
	copy(reason, "XXXXXXXXXX") // it is the caller's again
	l.onWake()
	if got := watching.of(one); len(got) != 1 || got[0] != "kicked its reason" {
		t.Errorf("the connection ended with %v", got)
	}
	if got := watching.of(two); len(got) != 1 || got[0] != "kicked" || closed != 1 {
		t.Errorf("the other ended with %v, closed %d", got, closed)
	}
	if l.mailbox.entries.Load()+l.mailbox.bytes.Load()+l.mailbox.beyond.Load() != 0 {
		t.Error("room was not given back")
	}
	st := s.Stats()
	if st.Discarded["overload"] != 3 || st.CommandsDiscarded != 0 || st.Received+st.Copied != st.Written+st.DiscardedTotal() {
		t.Errorf("%+v", st)
	}
}

// TestRefused_CommandsAreBounded: the last room is bounded, and what it does not hold counted.
func TestRefused_CommandsAreBounded(t *testing.T) {
	l := testLoop(t, nullEngine{}, func(o *Options) {
		o.MailboxEntries, o.MailboxWait, o.MailboxBytes = 10, time.Millisecond, 100<<10
	})
	f := l.server.NewFeed()
	for range 11 {
		f.Message(1, nil, []byte("full"))
	}
	f.Flush(func() {})
	const exits = 1000
	replies := 0
	for range exits {
		f.CloseCount(1, nil, nil, make([]byte, 1000), func(int) { replies++ })
		f.Flush(func() {})
	}
	lost := int(l.server.Stats().CommandsDiscarded)
	if b := l.mailbox.beyond.Load(); lost == 0 || lost != replies || b > 110<<10 {
		t.Errorf("%d lost, %d replies, %d bytes wait", lost, replies, b)
	}
	watching := newEndings()
	l.server.Observe(watching)
	f.Watch(7) // nobody
	f.Flush(func() {})
	if got := watching.of(7); len(got) != 0 {
		t.Errorf("a watch that nobody has looked at was told %v", got)
	}
	l.onWake()
	if got := watching.of(7); len(got) != 1 || got[0] != "noproc" {
		t.Errorf("a watch of nobody was told %v", got)
	}
	if replies != exits {
		t.Errorf("%d replies, want %d", replies, exits)
	}
	f.Exit(1, nil, nil)
	f.Flush(func() {})
	l.onWake()
	if now := int(l.server.Stats().CommandsDiscarded); now != lost {
		t.Errorf("%d more were lost with room", now-lost)
	}
}

// TestRefused_AfterClose: whoever asks a server that has ended is answered.
func TestRefused_AfterClose(t *testing.T) {
	s := testServer(t, nil)
	watching := newEndings()
	s.Observe(watching)
	connect(t, s, "1")
	conn := numberOf(t, s, "1")
	s.Close()
	f := s.NewFeed()
	replies, done := 0, make(chan struct{})
	f.Send(conn, []byte("late"))
	f.Exit(conn, nil, nil)
	f.Close(1, nil, nil, nil)
	f.Watch(conn)
	f.Whereis(1, nil, func(conns []uint64) { replies++ })
	f.Info(conn, func(*Info) { replies++ })
	f.CloseCount(1, nil, nil, nil, func(int) { replies++ })
	f.Deliver(1, nil, nil, func(int) { replies++ })
	f.Flush(func() { close(done) })
	<-done
	if got := watching.of(conn); replies != 4 || len(got) != 1 || got[0] != "noproc" {
		t.Errorf("%d replies, told %v", replies, got)
	}
	if st := s.Stats(); st.Received != 2 || st.Discarded["closing"] != 2 || st.CommandsDiscarded != 0 {
		t.Errorf("%+v", st)
	}
}

// TestCommands_AreInNoLedger: only messages are counted.
func TestCommands_AreInNoLedger(t *testing.T) {
	s := testServer(t, nil)
	s.Observe(newEndings())
	connect(t, s, "1")
	conn, f := numberOf(t, s, "1"), s.NewFeed()
	for range 200 {
		f.Watch(conn)
		f.Info(conn, func(*Info) {})
		f.Whereis(1, nil, func([]uint64) {})
		f.Exit(conn+1<<32, nil, nil)
		f.Close(2, nil, nil, nil)
	}
	flush(f)
	if b := balance(t, s); b.Received != 0 || b.DiscardedTotal() != 0 {
		t.Errorf("%+v", b)
	}
}

// TestSend_WhileDraining: who is gone by then was closed, not unknown.
func TestSend_WhileDraining(t *testing.T) {
	l := testLoop(t, nullEngine{}, nil)
	conn := l.number(accepted(t, l, "1"))
	l.server.closing.Store(true) // as Shutdown does
	l.onWake()
	f := l.server.NewFeed()
	f.Send(conn, bytes.Repeat([]byte("x"), 10))
	f.Flush(func() {})
	l.onWake()
	if st := l.server.Stats(); st.Discarded["closing"] != 1 {
		t.Errorf("discarded %v", st.Discarded)
	}
}
