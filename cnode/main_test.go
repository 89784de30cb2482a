package cnode

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const testCookie = "a-test-cookie"

// recorder is a Feed that keeps what it gets as text, in order. It gives blocks back
// late and from another goroutine, as a loop would.
type recorder struct {
	mu      sync.Mutex
	events  []string
	bytes   int
	bad     int
	quiet   bool // count only
	count   int
	ended   bool
	pending []func() // dones not yet called
	deliver func(id int64, name []byte) int
}

func (r *recorder) add(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.count++
	if !r.quiet {
		r.events = append(r.events, fmt.Sprintf(format, args...))
	}
}

func (r *recorder) Message(id int64, name, body []byte) {
	r.mu.Lock()
	r.bytes += len(body)
	r.mu.Unlock()
	if name != nil {
		r.add("%q %s", name, body)
		return
	}
	r.add("%d %s", id, body)
}
func (r *recorder) All(body []byte) { r.add("all %s", body) }
func (r *recorder) Close(id int64, name, text, _ []byte) {
	if name != nil {
		r.add("close %q %s", name, text)
		return
	}
	r.add("close %d %s", id, text)
}
func (r *recorder) Send(conn uint64, body []byte)       { r.add("send %#x %s", conn, body) }
func (r *recorder) Exit(conn uint64, text, term []byte) { r.add("exit %#x %s %v", conn, text, term) }
func (r *recorder) Watch(conn uint64)                   { r.add("watch %#x", conn) }
func (r *recorder) CloseCount(id int64, name, text, _ []byte, reply func(int)) {
	r.add("close %d %q %s, counting", id, name, text)
	r.answer(func() { reply(1) })
}
func (r *recorder) Whereis(id int64, name []byte, reply func([]uint64)) {
	r.add("whereis %d %q", id, name)
	r.answer(func() { reply(nil) })
}
func (r *recorder) Info(conn uint64, reply func(*Info)) {
	r.add("info %#x", conn)
	r.answer(func() { reply(nil) })
}

// answer calls f when the next Flush is done.
func (r *recorder) answer(f func()) {
	r.mu.Lock()
	r.pending = append(r.pending, f)
	r.mu.Unlock()
}
func (r *recorder) Deliver(id int64, name, body []byte, reply func(int)) {
	r.add("deliver %d %q %s", id, name, body)
	n := 1
	if r.deliver != nil {
		n = r.deliver(id, name)
	}
	r.answer(func() { reply(n) })
}
func (r *recorder) Bad() {
	r.mu.Lock()
	r.bad++
	r.mu.Unlock()
}
func (r *recorder) Flush(done func()) {
	r.mu.Lock()
	r.pending = append(r.pending, done)
	due := r.pending
	r.pending = nil
	r.mu.Unlock()
	go func() {
		for _, f := range due {
			f()
		}
	}()
}
func (r *recorder) End() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
}

func (r *recorder) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]string(nil), r.events...)
}

func (r *recorder) counts() (count, bad int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.count, r.bad
}

// logBuffer keeps log lines for tests that look at them.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// count is the number of lines that contain all of parts.
func (l *logBuffer) count(parts ...string) (n int) {
	for line := range strings.Lines(l.String()) {
		all := true
		for _, p := range parts {
			all = all && strings.Contains(line, p)
		}
		if all {
			n++
		}
	}
	return n
}

// testNode is a Node with the Feeds of its peers.
type testNode struct {
	*Node
	t    *testing.T
	log  *logBuffer
	mu   sync.Mutex
	feed map[string]*recorder
	all  *recorder // if set, of every peer
}

func (n *testNode) newFeed(peer string) Feed {
	n.mu.Lock()
	defer n.mu.Unlock()
	r := n.all
	if r == nil {
		r = new(recorder)
	}
	n.feed[peer] = r
	return r
}

// of waits for the Feed of peer.
func (n *testNode) of(peer string) (r *recorder) {
	n.t.Helper()
	eventually(n.t, "a feed of "+peer, func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		r = n.feed[peer]
		return r != nil
	})
	return r
}

// startNew is New and Start.
func startNew(ctx context.Context, o Options) (*Node, error) {
	n, err := New(o)
	if err != nil {
		return nil, err
	}
	return n, n.Start(ctx)
}

func startNode(t *testing.T, epmd int, change func(o *Options, n *testNode)) *testNode {
	t.Helper()
	n := &testNode{t: t, log: new(logBuffer), feed: make(map[string]*recorder)}
	o := DefaultOptions()
	o.Name = uniqueName("halley") + "@localhost"
	o.Cookie = testCookie
	o.EPMD = fmt.Sprintf("127.0.0.1:%d", epmd)
	o.Logger = slog.New(slog.NewTextHandler(n.log, nil))
	o.NewFeed = n.newFeed
	if change != nil {
		change(&o, n)
	}
	var err error
	if n.Node, err = startNew(context.Background(), o); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := n.stop(); err != nil {
			t.Error(err)
		}
		if strings.Contains(n.log.String(), o.Cookie) {
			t.Error("the cookie is in the log")
		}
		if t.Failed() {
			t.Log(n.log.String())
		}
	})
	return n
}

// stop may be called by a test before its cleanup does.
func (n *testNode) stop() error {
	if n.Node == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	node := n.Node
	n.Node = nil
	return node.Stop(ctx)
}

// uniqueName keeps tests, and runs of them, apart.
func uniqueName(what string) string {
	return fmt.Sprintf("%s_%d_%d", what, os.Getpid(), time.Now().UnixNano()%1e9)
}

func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for until := time.Now().Add(15 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("never came: %s", what)
		}
	}
}
