package cnode

import (
	"errors"
	"io"
	"net"
	"testing"
	"time"
)

func startWriter(t *testing.T, tick time.Duration) (*writer, net.Conn) {
	us, them := net.Pipe()
	w := newWriter(us, new(counters), tick)
	ended := make(chan struct{})
	go func() {
		w.run()
		close(ended)
	}()
	t.Cleanup(func() {
		us.Close()
		them.Close()
		w.finish()
		<-ended
	})
	them.SetDeadline(time.Now().Add(5 * time.Second))
	return w, them
}

func TestWriter_TicksWhenIdle(t *testing.T) {
	_, them := startWriter(t, 80*time.Millisecond)
	began := time.Now()
	b := make([]byte, 12)
	if _, err := io.ReadFull(them, b); err != nil || string(b) != string(make([]byte, 12)) {
		t.Fatalf("%v, %v", b, err)
	}
	if took := time.Since(began); took < 30*time.Millisecond {
		t.Errorf("3 ticks in %v", took)
	}
}

func TestWriter_Coalesces(t *testing.T) {
	w, them := startWriter(t, time.Minute)
	w.put([]byte("one")) // written first; the pipe holds the writer until it is read
	time.Sleep(10 * time.Millisecond)
	w.put([]byte("two"))
	w.put([]byte("three"))
	flushed := w.flushed()
	b := make([]byte, 100)
	n, _ := them.Read(b)
	if string(b[:n]) != "one" {
		t.Errorf("first write %q", b[:n])
	}
	select {
	case <-flushed:
		t.Error("flushed before it is written")
	default:
	}
	if n, _ = them.Read(b); string(b[:n]) != "twothree" {
		t.Errorf("second write %q", b[:n])
	}
	<-flushed
	<-w.flushed()
}

func TestWriter_Bound(t *testing.T) {
	w := newWriter(nil, new(counters), time.Minute) // nobody writes
	if err := w.put(make([]byte, maxQueuedBytes+1)); err != nil {
		t.Errorf("a single large packet: %v", err)
	}
	if err := w.put([]byte{1}); !errors.Is(err, errQueueFull) {
		t.Errorf("one byte more: %v", err)
	}
	w = newWriter(nil, new(counters), time.Minute)
	for range maxQueuedBytes / 1024 {
		if err := w.put(make([]byte, 1024)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.put([]byte{1}); !errors.Is(err, errQueueFull) {
		t.Errorf("at the bound: %v", err)
	}
}

func TestWriter_FinishWritesFirst(t *testing.T) {
	w, them := startWriter(t, time.Minute)
	w.put([]byte("last"))
	w.finish()
	b := make([]byte, 4)
	if _, err := io.ReadFull(them, b); err != nil || string(b) != "last" {
		t.Errorf("%q, %v", b, err)
	}
	<-w.done
	if err := w.put([]byte("x")); !errors.Is(err, errGone) {
		t.Errorf("after the end: %v", err)
	}
}
