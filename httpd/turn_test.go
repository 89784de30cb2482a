package httpd

import (
	"fmt"
	"log/slog"
	"testing"
)

// testLoop is a server of one loop that nobody runs: a test takes its turns.
func testLoop(t testing.TB, e engine, change func(*Options)) *loop {
	t.Helper()
	o := DefaultOptions()
	o.MaxConnections, o.Logger = 2000, slog.New(slog.DiscardHandler)
	o.Loops = 1
	if change != nil {
		change(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range s.loops {
		t.Cleanup(l.slots.room.free)
	}
	l, err := newLoop(s, 0, e)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.slots.room.free)
	s.loops = []*loop{l}
	return l
}

// fault is what the sockets of a faultyEngine do.
type fault struct {
	full bool // they take nothing
	err  error
}

// faultyEngine is a nullEngine until told otherwise.
type faultyEngine struct {
	nullEngine
	fault *fault
}

func (e faultyEngine) write(slot uint32, bufs [][]byte) (int, error) {
	if e.fault.full || e.fault.err != nil {
		return 0, e.fault.err
	}
	return e.nullEngine.write(slot, bufs)
}

// accepted gives a testLoop a stream and returns its slot.
func accepted(t testing.TB, l *loop, uid string) uint32 {
	t.Helper()
	slot, ok := l.onAccept()
	if !ok {
		t.Fatal("no slot")
	}
	l.onRead(slot, fmt.Appendf(nil, "GET /test/%s HTTP/1.1\r\nHost: x\r\n\r\n", uid))
	if l.slots.conns[slot].state != stateStream {
		t.Fatalf("state %d, want a stream", l.slots.conns[slot].state)
	}
	return slot
}

// BenchmarkTurn is what a message costs without a socket: from the feed through the
// mailbox and the tables to the pieces of a write.
func BenchmarkTurn(b *testing.B) {
	for _, to := range []string{"uid", "number"} {
		b.Run("to="+to, func(b *testing.B) {
			const users, batch = 1000, 100
			l := testLoop(b, nullEngine{}, nil)
			var conns []uint64
			for i := range users {
				conns = append(conns, l.number(accepted(b, l, fmt.Sprint(i+1))))
			}
			f, body := l.server.NewFeed(), make([]byte, 100)
			b.ReportAllocs()
			b.ResetTimer()
			for i := 0; i < b.N; {
				for j := 0; j < batch && i < b.N; i, j = i+1, j+1 {
					if to == "uid" {
						f.Message(int64(1+i%users), nil, body)
					} else {
						f.Send(conns[i%users], body)
					}
				}
				f.Flush(func() {})
				l.onWake()
			}
		})
	}
}
