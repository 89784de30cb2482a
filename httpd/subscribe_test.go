package httpd

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// presence is a Subscriber that keeps what it is told, and finds what it must not be told.
type presence struct {
	room atomic.Int64 // what Room answers
	mu   sync.Mutex   // protects the rest
	// By number: what Opened said, and the ends.
	opened  map[uint64]string
	present map[uint64]bool
	closed  map[uint64][]string
	there   map[string]int // streams by uid
	caught  map[int]bool
	faults  []string
	asked   int // calls of Room
}

func newPresence() *presence {
	p := &presence{
		opened: map[uint64]string{}, present: map[uint64]bool{}, closed: map[uint64][]string{}, there: map[string]int{}, caught: map[int]bool{},
	}
	p.room.Store(1 << 20)
	return p
}

func (p *presence) fault(format string, args ...any) {
	p.faults = append(p.faults, fmt.Sprintf(format, args...))
}

func spelled(id int64, name []byte) string {
	if name != nil {
		return string(name)
	}
	return strconv.FormatInt(id, 10)
}

func (p *presence) Opened(conn uint64, id int64, name []byte, transport string, present bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.opened[conn]; known {
		p.fault("%x was told twice", conn)
	}
	if transport != "chunked" {
		p.fault("%x has transport %s", conn, transport)
	}
	uid := spelled(id, name)
	p.opened[conn], p.present[conn] = uid, present
	p.there[uid]++
}

func (p *presence) Closed(conn uint64, id int64, name []byte, why string, reason []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	uid := spelled(id, name)
	if p.opened[conn] != uid {
		p.fault("the end of %x of %s was told, which is of %q", conn, uid, p.opened[conn])
	}
	if p.closed[conn] = append(p.closed[conn], why+string(reason)); len(p.closed[conn]) > 1 {
		p.fault("the end of %x was told twice: %v", conn, p.closed[conn])
	}
	if p.there[uid]--; p.there[uid] == 0 {
		delete(p.there, uid)
	}
}

func (p *presence) Room() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked++
	return int(p.room.Load())
}

func (p *presence) Caught(loop, loops int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.caught[loop] || loop >= loops {
		p.fault("loop %d of %d has caught up twice, or is none", loop, loops)
	}
	p.caught[loop] = true
}

func (p *presence) isCaught(s *Server) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.caught) == s.Loops()
}

func (p *presence) counts() (opened, closed int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.opened), len(p.closed)
}

// check compares with who is there, at rest.
func (p *presence) check(t *testing.T, s *Server, uids []string) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, fault := range p.faults {
		t.Error(fault)
	}
	there := map[uint64]string{}
	for conn, uid := range p.opened {
		if len(p.closed[conn]) == 0 {
			there[conn] = uid
		}
	}
	n := 0
	for _, uid := range uids {
		for _, conn := range whereis(s, uid) {
			if n++; there[conn] != uid {
				t.Errorf("%x of %s is there; told was %q, closed %v", conn, uid, p.opened[conn], p.closed[conn])
			}
		}
	}
	if n != len(there) {
		t.Errorf("%d are told to be there, %d are", len(there), n)
	}
}

func TestSubscribe_PresentThenNew(t *testing.T) {
	s := testServer(t, nil)
	var streams []*stream
	uids := []string{"1", "2", "alice", "bob", "9223372036854775807"}
	for _, uid := range uids {
		streams = append(streams, connect(t, s, uid), connect(t, s, uid))
	}
	p := newPresence()
	end := s.Subscribe(p)
	eventually(t, "all loops have caught up", func() bool { return p.isCaught(s) })
	p.check(t, s, uids)
	p.mu.Lock()
	for conn, present := range p.present {
		if !present {
			t.Errorf("%x was there before", conn)
		}
	}
	p.mu.Unlock()
	late := connect(t, s, "carol")
	eventually(t, "it is told", func() bool { opened, _ := p.counts(); return opened == 11 })
	conn := numberOf(t, s, "carol")
	p.mu.Lock()
	if p.present[conn] {
		t.Error("a new connection is told to have been there")
	}
	p.mu.Unlock()
	f := s.NewFeed()
	f.Exit(conn, nil, []byte(" term"))
	f.Flush(func() {})
	streams[0].conn.Close()
	eventually(t, "both ends are told", func() bool { _, closed := p.counts(); return closed == 2 })
	p.mu.Lock()
	if got := p.closed[conn]; !slices.Equal(got, []string{"kicked term"}) {
		t.Errorf("its end is %v", got)
	}
	p.mu.Unlock()
	late.conn.Close()
	p.check(t, s, append(uids, "carol"))
	end()
	end()
	time.Sleep(3 * tickEvery)
	connect(t, s, "dave")
	streams[1].conn.Close()
	eventually(t, "it is gone", func() bool { return s.Stats().Connections == 9 })
	if opened, closed := p.counts(); opened != 11 || closed != 2 {
		t.Errorf("told after the end of the subscription: %d opened, %d closed", opened, closed)
	}
}

// TestSubscribe_InPages: no more in a tick than there is room for, none while there is none; who
// comes before the walk has come to its slot is told by the walk, who goes before that not at all.
func TestSubscribe_InPages(t *testing.T) {
	l := testLoop(t, nullEngine{}, nil)
	var slots []uint32
	for i := range 100 {
		slots = append(slots, accepted(t, l, fmt.Sprint(i+1)))
	}
	p := newPresence()
	defer l.server.Subscribe(p)()
	p.room.Store(10)
	accepted(t, l, "101") // before the loop has seen the subscription
	if len(p.opened) != 0 {
		t.Fatalf("told %v before a tick", p.opened)
	}
	l.onTick()
	if len(p.opened) != 10 || p.isCaught(l.server) {
		t.Fatalf("told of %d, caught %v", len(p.opened), p.caught)
	}
	p.room.Store(0)
	l.onTick()
	p.room.Store(-1)
	l.onTick()
	if len(p.opened) != 10 {
		t.Fatalf("told of %d with no room", len(p.opened))
	}
	gone, goneToo := l.number(slots[50]), l.number(slots[5])
	l.onClosed(slots[50], nil) // ahead of the walk
	l.onClosed(slots[5], nil)  // behind it
	if len(p.closed) != 1 || len(p.closed[goneToo]) != 1 {
		t.Errorf("closed %v", p.closed)
	}
	five := l.number(accepted(t, l, "102")) // takes the slot behind
	if behind := p.opened[five]; behind != "102" || p.present[five] {
		t.Errorf("behind the walk a new one was told %v", p.opened)
	}
	fifty := l.number(accepted(t, l, "103")) // and this the one ahead
	if _, told := p.opened[fifty]; told {
		t.Error("a new one ahead of the walk was told")
	}
	p.room.Store(1 << 40)
	l.onTick()
	if !p.isCaught(l.server) || p.opened[fifty] != "103" || !p.present[fifty] || len(p.opened) != 102 {
		t.Errorf("caught %v, told of %d", p.caught, len(p.opened))
	}
	if _, told := p.opened[gone]; told {
		t.Error("one that went before it was told of was told")
	}
	asked := p.asked
	l.onTick()
	if p.asked != asked || len(p.opened) != 102 {
		t.Errorf("told of %d, asked for room %d times after it had all", len(p.opened), p.asked-asked)
	}
	for _, fault := range p.faults {
		t.Error(fault)
	}
}

// TestSubscribe_PageIsBounded: with nobody there a loop has caught up at once, and a
// page is bounded whatever room there is.
func TestSubscribe_PageIsBounded(t *testing.T) {
	l := testLoop(t, nullEngine{}, func(o *Options) { o.MaxConnections = 3 * maxPage })
	l.server.maxOpen = 3 * maxPage // whatever this process may open: no socket is
	l.slots, _ = newSlots(3 * maxPage)
	t.Cleanup(l.slots.room.free)
	empty := newPresence()
	empty.room.Store(0)
	defer l.server.Subscribe(empty)()
	l.onTick()
	if !empty.isCaught(l.server) {
		t.Error("a loop without connections has not caught up")
	}
	for i := range 2*maxPage + 10 {
		accepted(t, l, fmt.Sprint(i+1))
	}
	p := newPresence()
	defer l.server.Subscribe(p)()
	for tick, want := range []int{maxPage, 2 * maxPage, 2*maxPage + 10} {
		if l.onTick(); len(p.opened) != want {
			t.Errorf("after tick %d: %d, want %d", tick, len(p.opened), want)
		}
	}
	if !p.isCaught(l.server) || len(empty.opened) != 2*maxPage+10 {
		t.Errorf("caught %v, the other was told of %d", p.caught, len(empty.opened))
	}
}

// TestSubscribe_Churn: clients come and go in every way while subscriptions begin and end,
// with all loops. Each one that is there is told once, each end once, and nobody of whom
// nothing was told.
func TestSubscribe_Churn(t *testing.T) {
	s := testServer(t, nil)
	uids := []string{"alice", "bob", "c"}
	for i := range 20 {
		uids = append(uids, fmt.Sprint(i+1))
	}
	var wg sync.WaitGroup
	var stop atomic.Bool
	var dialed atomic.Uint64
	for i := range 12 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), uint64(i)))
			f := s.NewFeed()
			for !stop.Load() {
				uid := uids[r.IntN(len(uids))]
				c, err := net.Dial("tcp", s.testAddr())
				if err != nil {
					t.Error(err)
					return
				}
				dialed.Add(1)
				fmt.Fprintf(c, "GET /test/%s HTTP/1.1\r\nHost: x\r\n\r\n", uid)
				switch r.IntN(4) {
				case 0:
					c.SetReadDeadline(time.Now().Add(time.Duration(r.IntN(150)) * time.Millisecond))
					io.Copy(io.Discard, c)
				case 1:
					time.Sleep(time.Duration(r.IntN(3)) * time.Millisecond)
					c.(*net.TCPConn).SetLinger(0)
				case 2:
					for _, conn := range whereis(s, uid) {
						f.Exit(conn, nil, nil)
					}
					f.Flush(func() {})
				}
				c.Close()
			}
		})
	}
	connectAll := func() (streams []*stream) {
		for _, uid := range uids {
			streams = append(streams, connect(t, s, uid))
		}
		return streams
	}
	var subscribers []*presence
	var ends []func()
	deadline := time.Now().Add(3 * time.Second)
	for time.Now().Before(deadline) {
		p := newPresence()
		p.room.Store(int64(1 + rand.IntN(20)))
		end := s.Subscribe(p)
		if len(subscribers)%2 == 0 {
			ends = append(ends, end)
		} else {
			time.AfterFunc(time.Duration(rand.IntN(300))*time.Millisecond, end)
		}
		subscribers = append(subscribers, p)
		time.Sleep(time.Duration(rand.IntN(250)) * time.Millisecond)
	}
	stop.Store(true)
	wg.Wait()
	eventually(t, "all came and are gone", func() bool { st := s.Stats(); return st.Opened == dialed.Load() && st.Open == 0 })
	stay := connectAll()
	told := 0
	for i, p := range subscribers {
		if i%2 == 0 {
			eventually(t, "all loops have caught up", func() bool { return p.isCaught(s) })
			p.check(t, s, uids)
			opened, _ := p.counts()
			told += opened
			continue
		}
		p.mu.Lock()
		for _, fault := range p.faults {
			t.Error(fault)
		}
		p.mu.Unlock()
	}
	for _, end := range ends {
		end()
	}
	for _, st := range stay {
		st.conn.Close()
	}
	t.Logf("%d subscriptions, told of %d connections, opened %d", len(subscribers), told, s.Stats().Opened)
}

// TestSubscribe_AllThatCome: once the loops have caught up every stream is told, and
// every end, also of those that the end of the server ends.
func TestSubscribe_AllThatCome(t *testing.T) {
	s := testServer(t, nil)
	p := newPresence()
	s.Subscribe(p)
	eventually(t, "all loops have caught up", func() bool { return p.isCaught(s) })
	for i := range 200 {
		st := connect(t, s, fmt.Sprint(i%50+1))
		if i%3 == 0 {
			st.conn.Close()
		}
	}
	eventually(t, "the ends are told", func() bool { _, closed := p.counts(); return closed == 67 })
	s.Close()
	if opened, closed := p.counts(); opened != 200 || closed != 200 || len(p.there) != 0 {
		t.Errorf("%d opened, %d closed, there %v", opened, closed, p.there)
	}
	drained := 0
	for _, why := range p.closed {
		if why[0] == "drained" {
			drained++
		}
	}
	if drained != 133 {
		t.Errorf("%d were told to be drained, want 133", drained)
	}
	for _, fault := range p.faults {
		t.Error(fault)
	}
}
