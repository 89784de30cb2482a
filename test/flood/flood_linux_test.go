package flood

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"
)

func TestConn_Size(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 200 {
		t.Errorf("%d bytes for a connection, at most 200 are allowed", size)
	}
}

// streamServer is net/http serving streams of numbered messages until it is
// told to end them.
func streamServer(t *testing.T, messages int) (url string, seen *atomic.Int64, end func()) {
	open := make(chan struct{})
	close(open)
	return gatedServer(t, messages, open)
}

// gatedServer is a streamServer whose messages wait for gate to be closed.
func gatedServer(t *testing.T, messages int, gate <-chan struct{}) (url string, seen *atomic.Int64, end func()) {
	seen = new(atomic.Int64)
	done := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/test/") {
			http.NotFound(w, r)
			return
		}
		seen.Add(1)
		fmt.Fprint(w, "Welcome")
		w.(http.Flusher).Flush()
		select {
		case <-gate:
		case <-r.Context().Done():
			return
		}
		for i := range messages {
			w.(http.Flusher).Flush()
			fmt.Fprintf(w, "%d %d x", i+1, time.Now().UnixMicro())
		}
		w.(http.Flusher).Flush()
		select {
		case <-done:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	return server.URL, seen, func() { close(done) }
}

func testOptions(url string) Options {
	o := DefaultOptions()
	o.URL = url + "/test/{uid}"
	o.Connections, o.Rate, o.Hold = 50, 0, 500*time.Millisecond
	return o
}

func TestRun_OpensReadsAndHolds(t *testing.T) {
	url, _, _ := streamServer(t, 10)
	o := testOptions(url)
	o.From, _ = ParseFrom("127.0.0.1-127.0.0.3")
	o.Report = 100 * time.Millisecond
	connected, reports := 0, 0
	st, err := Run(t.Context(), o, Events{Connected: func() { connected++ }, Report: func(*Stats) { reports++ }})
	if err != nil || st.Err() != nil {
		t.Fatal(err, st.Err())
	}
	if st.Streams != 50 || st.Messages != 500 || st.Unnumbered != 50 || st.Open != 50 || connected != 1 || reports < 2 {
		t.Errorf("%+v, connected %d, reports %d", st, connected, reports)
	}
}

func TestRun_EndsWithTheServer(t *testing.T) {
	url, seen, end := streamServer(t, 1)
	o := testOptions(url)
	o.Hold = 0
	go func() {
		for seen.Load() < 50 {
			time.Sleep(time.Millisecond)
		}
		end()
	}()
	st, err := Run(t.Context(), o, Events{Report: func(*Stats) {}})
	if err != nil || st.Err() != nil || st.Closed != 50 {
		t.Errorf("%v, %v, %+v", err, st.Err(), st)
	}
}

func TestRun_ChurnAndStall(t *testing.T) {
	url, seen, _ := streamServer(t, 3)
	o := testOptions(url)
	o.Churn, o.Stall = 2000, 0.5
	o.First = 480 // so that half of these stall
	o.Connections = 40
	st, err := Run(t.Context(), o, Events{Report: func(*Stats) {}})
	if err != nil || st.Err() != nil {
		t.Fatal(err, st.Err())
	}
	if n := uint64(seen.Load()); n < 80 || n > st.Opened { // some are closed before net/http has seen them
		t.Errorf("%d seen, %+v", n, st)
	}
	if st.Open > o.Connections {
		t.Errorf("%d are open, more than %d", st.Open, o.Connections)
	}
}

// Those that stall have their stream, and read nothing of what comes then.
func TestRun_Stall(t *testing.T) {
	connected := make(chan struct{})
	url, _, _ := gatedServer(t, 3, connected)
	o := testOptions(url)
	o.Stall, o.First, o.Connections = 0.5, 480, 40 // 480 to 499 stall
	o.Hold = 2 * time.Second
	st, err := Run(t.Context(), o, Events{Connected: func() { close(connected) }, Report: func(*Stats) {}})
	if err != nil || st.Err() != nil {
		t.Fatal(err, st.Err())
	}
	if st.Streams != 40 || st.Messages != 3*20 {
		t.Errorf("%+v", st)
	}
}

// A server that accepts and never answers is given up.
func TestClient_NoAnswer(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0") // the system accepts
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	o := testOptions("http://" + ln.Addr().String())
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	c.patience = 100 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := c.Run(ctx, Events{}); err == nil || !strings.Contains(err.Error(), "no answer") || ctx.Err() != nil {
		t.Errorf("%v, %v", err, ctx.Err())
	}
}

func TestClient_Restart(t *testing.T) {
	url, _, end := streamServer(t, 5)
	o := testOptions(url)
	o.Hold = 0
	c, err := NewClient(o)
	if err != nil {
		t.Fatal(err)
	}
	connected, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		c.Run(t.Context(), Events{Connected: func() { close(connected) }})
	}()
	<-connected
	var before *Stats
	for before = c.Snapshot(t.Context()); before.Messages < 250; before = c.Snapshot(t.Context()) {
		time.Sleep(time.Millisecond)
	}
	if again := c.Restart(t.Context()); again.Messages != 250 || again.Latency.TotalCount() != 250 {
		t.Errorf("before: %+v", again)
	}
	after := c.Snapshot(t.Context())
	if after.Messages != 0 || after.Latency.TotalCount() != 0 || after.Streams != 50 || after.Open != 50 {
		t.Errorf("after: %+v", after)
	}
	for i := range c.conns { // this reads what the loop owns, which has no more to do with it
		if c.conns[i].last != 0 {
			t.Fatalf("connection %d remembers %d", i, c.conns[i].last)
		}
	}
	end()
	<-done
	if st := c.Snapshot(t.Context()); st != nil {
		t.Errorf("a client that has ended: %+v", st)
	}
}

// Without --rate, requests that are not answered yet are few.
func TestRun_WaitsForAnswers(t *testing.T) {
	var asked atomic.Int64
	gate := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		<-gate
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(func() { server.CloseClientConnections(); server.Close() })
	o := testOptions(server.URL)
	o.Connections = maxAsking + 100
	most := int64(0)
	time.AfterFunc(time.Second, func() { most = asked.Load(); close(gate) })
	st, err := Run(t.Context(), o, Events{Report: func(*Stats) {}})
	<-gate
	if err != nil || st.Streams != uint64(o.Connections) || most != maxAsking {
		t.Errorf("%v, %d asked at once, %+v", err, most, st)
	}
}

func TestRun_EndsWithItsContext(t *testing.T) {
	url, _, _ := streamServer(t, 0)
	o := testOptions(url)
	o.Hold = 0
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if st, err := Run(ctx, o, Events{Report: func(*Stats) {}}); err != nil || st.Streams != 50 {
		t.Errorf("%v, %+v", err, st)
	}
}

func TestRun_Failures(t *testing.T) {
	closed, _ := net.Listen("tcp", "127.0.0.1:0")
	closed.Close()
	url, _, _ := streamServer(t, 0)
	breaks := breakingServer(t)
	for _, c := range []struct {
		name   string
		change func(*Options)
		want   string
	}{
		{"nobody-there", func(o *Options) { o.URL = "http://" + closed.Addr().String() + "/{uid}" }, "is the server there?"},
		{"not-found", func(o *Options) { o.URL = url + "/other/{uid}" }, "50 got another answer than 200"},
		{"broken", func(o *Options) { o.URL = breaks + "/{uid}" }, "50 streams broke"},
		{"no-uid", func(o *Options) { o.URL = url }, "must have {uid} once"},
		{"https", func(o *Options) { o.URL = "https://x/{uid}" }, "must be http://"},
		{"too-many-for-addresses", func(o *Options) {
			o.From, o.Connections = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 1000000
		}, "16 addresses are needed"},
		{"too-many-for-descriptors", func(o *Options) { o.Connections = 10 << 20 }, "--processes"},
		{"no-ports-left", func(o *Options) {
			o.From, o.FirstPort, o.LastPort = []netip.Addr{netip.MustParseAddr("127.0.0.1")}, 1024, 1024+49
			o.Connections = 50
			o.URL = "http://127.0.0.1:1030/{uid}" // one of the ports is the target's
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(url)
			c.change(&o)
			st, err := Run(t.Context(), o, Events{Report: func(*Stats) {}})
			if err == nil {
				err = st.Err()
			}
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// breakingServer begins a chunked answer and breaks it off.
func breakingServer(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, okHead+"5\r\nab")
			c.Close()
		}
	}()
	return "http://" + ln.Addr().String()
}

func TestParse(t *testing.T) {
	for in, want := range map[string]int{"127.0.0.1": 1, "127.0.0.1-127.0.0.17": 17, "127.0.0.9-127.0.0.1": 0, "::1": 1,
		"127.0.0.1,127.0.0.5-127.0.0.6": 3, "x": 0, "0.0.0.0-255.255.255.255": 0, "127.0.0.1-::1": 0} {
		if got, err := ParseFrom(in); len(got) != want || (err == nil) != (want > 0) {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for in, want := range map[string]float64{"10%": 0.1, "0.5": 0.5, "0": 0, "100%": 1, "101%": -1, "x": -1, "-1": -1, "NaN": -1} {
		if got, err := ParseShare(in); (err == nil) != (want >= 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	for in, want := range map[string][2]int64{"1-10": {1, 10}, "7": {7, 7}, "0-5": {}, "5-1": {}, "x": {}} {
		if first, last, err := ParseUIDs(in); first != want[0] || last != want[1] || (err == nil) != (want[0] > 0) {
			t.Errorf("%q: %d-%d, %v", in, first, last, err)
		}
	}
}
