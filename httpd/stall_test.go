package httpd

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"
)

// blockingHandler is a log that stands still while it is held.
type blockingHandler struct {
	slog.Handler
	mu *sync.Mutex
}

func (h blockingHandler) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == "connected" {
		h.mu.Lock()
		defer h.mu.Unlock()
	}
	return h.Handler.Handle(ctx, r)
}

// A loop that stands still is told by Ready and in the log, and so is its recovery.
func TestStall(t *testing.T) {
	var held sync.Mutex
	var out logText
	s := testServer(t, func(o *Options) {
		o.Logger = slog.New(blockingHandler{slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), &held})
	})
	if err := s.Ready(); err != nil {
		t.Fatal(err)
	}
	held.Lock()
	c := dial(t, s)
	c.Write([]byte("GET /test/1 HTTP/1.1\r\nHost: x\r\n\r\n"))
	eventually(t, "it is told", func() bool {
		err := s.Ready()
		return err != nil && strings.Contains(err.Error(), "no progress") && strings.Contains(out.String(), "a loop makes no progress")
	})
	held.Unlock()
	eventually(t, "it goes on", func() bool { return s.Ready() == nil && strings.Contains(out.String(), "the loop goes on") })
}

// logText is written by a log and read by a test.
type logText struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logText) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
