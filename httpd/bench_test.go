package httpd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"testing"
)

// drainer reads and forgets what a client gets.
func drainer(t testing.TB, s *Server, uid string) {
	st := connect(t, s, uid)
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(io.Discard, st.conn) }()
	t.Cleanup(func() { st.conn.Close(); <-done })
}

// BenchmarkDeliver is the way of a message from the feed to the socket: 1,000
// connections, batches of messages to one after the other.
func BenchmarkDeliver(b *testing.B) {
	benchmarkFeed(b, func(f *Feed, i int, _ []uint64, body []byte) { f.Message(int64(1+i), nil, body) })
}

// BenchmarkSend is the same for messages to numbers.
func BenchmarkSend(b *testing.B) {
	benchmarkFeed(b, func(f *Feed, i int, conns []uint64, body []byte) { f.Send(conns[i], body) })
}

// benchmarkFeed feeds messages with one, to the i-th of some connections.
func benchmarkFeed(b *testing.B, one func(f *Feed, i int, conns []uint64, body []byte)) {
	for _, size := range []int{100, 4096} {
		for _, batch := range []int{1, 100} {
			b.Run(fmt.Sprintf("size=%d/batch=%d", size, batch), func(b *testing.B) {
				const users = 1000
				s := testServer(b, func(o *Options) { o.MaxPendingBytes = 64 << 20 })
				var conns []uint64
				for i := range users {
					drainer(b, s, fmt.Sprint(i+1))
					conns = append(conns, numberOf(b, s, fmt.Sprint(i+1)))
				}
				f, body, done := s.NewFeed(), bytes.Repeat([]byte{'x'}, size), make(chan struct{}, 1)
				finished := func() { done <- struct{}{} }
				before := s.Stats().Writes
				b.ReportAllocs()
				b.ResetTimer()
				for i := 0; i < b.N; {
					for j := 0; j < batch && i < b.N; i, j = i+1, j+1 {
						one(f, i%users, conns, body)
					}
					f.Flush(finished)
					<-done
				}
				b.StopTimer()
				b.ReportMetric(float64(s.Stats().Writes-before)/float64(b.N), "writes/msg")
			})
		}
	}
}

// BenchmarkWrite compares the two ways to write a frame: copied into one piece,
// or as three pieces. It gives copyBelow.
func BenchmarkWrite(b *testing.B) {
	for _, size := range []int{100, 256, 512, 1024, 2048, 4096, 16384} {
		body := bytes.Repeat([]byte{'x'}, size)
		head := appendFrameHead(nil, transportChunked, size)
		buf := make([]byte, 0, size+32)
		one, three := make([][]byte, 1), make([][]byte, 3)
		ways := map[string]func() [][]byte{
			"copy": func() [][]byte {
				one[0] = append(append(append(buf[:0], head...), body...), crlf...)
				return one
			},
			"pieces": func() [][]byte {
				three[0], three[1], three[2] = head, body, crlf
				return three
			},
		}
		for _, way := range []string{"copy", "pieces"} {
			b.Run(fmt.Sprintf("size=%d/%s", size, way), func(b *testing.B) {
				fd := socketToDrain(b)
				var w socketWriter
				b.ReportAllocs()
				for b.Loop() {
					for n := 0; n == 0; {
						var err error
						if n, err = w.write(fd, ways[way]()); err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// socketToDrain returns the descriptor of a connection that somebody reads.
func socketToDrain(b *testing.B) int {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer ln.Close()
	reader, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	writer, err := ln.Accept()
	if err != nil {
		b.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); io.Copy(io.Discard, reader) }()
	b.Cleanup(func() { writer.Close(); reader.Close(); <-done })
	raw, err := writer.(*net.TCPConn).SyscallConn()
	if err != nil {
		b.Fatal(err)
	}
	var fd int
	raw.Control(func(f uintptr) { fd = int(f) })
	return fd
}

// TestDeliver_DoesNotAllocate guards the hot path, small bodies and large.
func TestDeliver_DoesNotAllocate(t *testing.T) {
	for _, size := range []int{100, 5000} {
		s := testServer(t, func(o *Options) { o.MaxPendingBytes = 64 << 20 })
		var conns []uint64
		for i := range 50 {
			drainer(t, s, fmt.Sprint(i+1))
			conns = append(conns, numberOf(t, s, fmt.Sprint(i+1)))
		}
		f, body, done := s.NewFeed(), bytes.Repeat([]byte{'x'}, size), make(chan struct{}, 1)
		finished := func() { done <- struct{}{} }
		perBatch := testing.AllocsPerRun(50, func() {
			for i := range 250 {
				f.Message(int64(1+i%50), nil, body)
				f.Send(conns[i%50], body)
				f.Send(conns[i%50]+1<<32, body) // who is gone costs nothing either
			}
			f.Flush(finished)
			<-done
		})
		// Wakes, and pending bytes of a reader that is late, allocate now and then; a message never does.
		if perBatch > 25 {
			t.Errorf("%d-byte bodies: %.0f allocations for 750 messages", size, perBatch)
		}
	}
}
