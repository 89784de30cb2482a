package test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// logBuffer keeps what a process prints.
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

// halley is a running `halley serve`.
type halley struct {
	t     *testing.T
	name  string
	to    string // {httpd, 'name'}, in Erlang
	addr  string // of the front
	admin string
	dist  string // address of the distribution listener
	cmd   *exec.Cmd
	log   *logBuffer
	ended chan struct{}
	// fatal says that the log may have an error: the test provokes one.
	fatal bool
	// left says that the test itself has ended it.
	left sync.Once
}

type halleyOptions struct {
	name   string   // "": unique, at localhost
	listen string   // "": 127.0.0.1:0
	cookie string   // "": testCookie
	epmd   int      // 0: the run's own
	files  int      // limit of open files; 0: ours
	args   []string // more flags
	env    []string // more variables
}

// startHalley starts the binary and waits until it says that it is ready.
func startHalley(t *testing.T, o halleyOptions) *halley {
	t.Helper()
	if o.epmd == 0 {
		o.epmd = epmd.use(t)
	}
	if o.name == "" {
		o.name = uniqueName("halley") + "@localhost"
	}
	if o.listen == "" {
		o.listen = "127.0.0.1:0"
	}
	if o.cookie == "" {
		o.cookie = testCookie
	}
	args := append([]string{halleyBin, "serve", "--name", o.name, "--cookie-file", cookieFile(t, o.cookie),
		"--epmd", fmt.Sprintf("127.0.0.1:%d", o.epmd), "--listen", o.listen, "--admin", "127.0.0.1:0"}, append(engineFlags(), o.args...)...)
	if o.files != 0 {
		need(t, "bash")
		args = append([]string{"bash", "-c", fmt.Sprintf(`ulimit -n %d; exec "$@"`, o.files), "bash"}, args...)
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = cleanEnv(append(o.env, "HOME="+t.TempDir())...)
	return runHalley(t, o.name, cmd)
}

// engineFlags are what HALLEY_TEST_ENGINE says: an engine, and after a slash a number of
// loops. The tests pass with each.
func engineFlags() []string {
	engine, loops, found := strings.Cut(os.Getenv("HALLEY_TEST_ENGINE"), "/")
	var flags []string
	if engine != "" {
		flags = append(flags, "--engine", engine)
	}
	if found {
		flags = append(flags, "--loops", loops)
	}
	return flags
}

// runHalley starts a command that is `halley serve` and waits until it is ready.
func runHalley(t *testing.T, name string, cmd *exec.Cmd) *halley {
	t.Helper()
	h := &halley{t: t, name: name, to: "{httpd, '" + name + "'}", cmd: cmd, log: new(logBuffer), ended: make(chan struct{})}
	h.cmd.Stdout, h.cmd.Stderr = h.log, h.log
	dieWithUs(h.cmd)
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		h.cmd.Wait()
		close(h.ended)
	}()
	t.Cleanup(h.cleanup)
	eventually(t, "ready", func() bool {
		if h.hasEnded() {
			t.Fatalf("halley has ended: %v", h.cmd.ProcessState)
		}
		return h.log.count("msg=ready") == 1
	})
	h.addr, h.admin = h.logged("msg=listening addr="), h.logged("msg=admin addr=")
	h.dist = h.logged(`msg="node started" .* addr=`)
	return h
}

func (h *halley) logged(before string) string {
	h.t.Helper()
	m := regexp.MustCompile(before + `(\S+)`).FindStringSubmatch(h.log.String())
	if m == nil {
		h.t.Fatalf("no %s in the log", before)
	}
	return m[1]
}

func (h *halley) hasEnded() bool {
	select {
	case <-h.ended:
		return true
	default:
		return false
	}
}

// cleanup ends it, and checks what must be so in every test.
func (h *halley) cleanup() {
	h.left.Do(func() {
		if h.hasEnded() {
			h.t.Errorf("%s has ended by itself: %v", h.name, h.cmd.ProcessState)
			return
		}
		h.cmd.Process.Kill()
		<-h.ended
	})
	text := h.log.String()
	for _, bad := range []string{testCookie, otherCookie, "panic", "goroutine ", "DATA RACE"} {
		if strings.Contains(text, bad) {
			h.t.Errorf("%q is in the log", bad)
		}
	}
	if !h.fatal && strings.Contains(text, "level=ERROR") {
		h.t.Error("an error is in the log")
	}
	if h.t.Failed() {
		if len(text) > 20_000 {
			text = text[:10_000] + "\n...\n" + text[len(text)-10_000:]
		}
		h.t.Logf("%s printed:\n%s", h.name, text)
	}
}

// kill is kill -9.
func (h *halley) kill() {
	h.left.Do(func() {
		h.cmd.Process.Kill()
		<-h.ended
	})
}

func (h *halley) signal(s syscall.Signal) {
	h.t.Helper()
	if err := h.cmd.Process.Signal(s); err != nil {
		h.t.Fatal(err)
	}
}

// wantExit waits for the end that a signal has begun.
func (h *halley) wantExit(code int, limit time.Duration) {
	h.t.Helper()
	select {
	case <-h.ended:
		h.left.Do(func() {})
		if got := h.cmd.ProcessState.ExitCode(); got != code {
			h.t.Errorf("exit status %d, want %d", got, code)
		}
	case <-time.After(limit):
		h.t.Errorf("has not ended within %v", limit)
	}
}

var adminClient = http.Client{Timeout: patience}

// get asks the admin address.
func (h *halley) get(path string) (code int, body string) {
	h.t.Helper()
	resp, err := adminClient.Get("http://" + h.admin + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// metrics are values by name, with labels as /metrics writes them.
type metrics map[string]float64

var sample = regexp.MustCompile(`^([a-zA-Z_:][a-zA-Z0-9_:]*(?:\{[^}]*\})?) (\S+)$`)

// parseMetrics reads the text format of Prometheus; every line must fit it.
func parseMetrics(t *testing.T, text string) metrics {
	t.Helper()
	m := metrics{}
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasPrefix(line, "# HELP ") || strings.HasPrefix(line, "# TYPE ") {
			continue
		}
		f := sample.FindStringSubmatch(line)
		if f == nil {
			t.Fatalf("/metrics has the line %q", line)
		}
		v, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			t.Fatalf("/metrics has the line %q", line)
		}
		if _, twice := m[f[1]]; twice {
			t.Fatalf("/metrics has %s twice", f[1])
		}
		m[f[1]] = v
	}
	return m
}

func (h *halley) metrics() metrics {
	h.t.Helper()
	code, text := h.get("/metrics")
	if code != http.StatusOK {
		h.t.Fatalf("/metrics: %d", code)
	}
	return parseMetrics(h.t, text)
}

// metric is one of Halley's own; a name that it does not have fails the test.
func (h *halley) metric(name string) int {
	h.t.Helper()
	return h.metrics().of(h.t, name)
}

func (m metrics) of(t *testing.T, name string) int {
	t.Helper()
	v, ok := m["halley_"+name]
	if !ok {
		t.Fatalf("no metric halley_%s", name)
	}
	return int(v)
}

// sum adds a metric over its labels.
func (m metrics) sum(name string) (n int) {
	for key, v := range m {
		if strings.HasPrefix(key, "halley_"+name+"{") {
			n += int(v)
		}
	}
	return n
}

// atRest waits until received messages have come, if received is not negative, and
// each has ended in a counter.
func (h *halley) atRest(received int) (m metrics) {
	h.t.Helper()
	last := ""
	defer func() {
		if h.t.Failed() && last != "" {
			h.t.Log(last)
		}
	}()
	eventually(h.t, "received + copied = written + discarded", func() bool {
		m = h.metrics()
		in, copied := m.of(h.t, "messages_received_total"), m.of(h.t, "messages_copied_total")
		out, lost := m.of(h.t, "messages_written_total"), m.sum("messages_discarded_total")
		last = fmt.Sprintf("received %d, copied %d, written %d, discarded %d", in, copied, out, lost)
		return (received < 0 || in == received) && in+copied == out+lost && m.of(h.t, "mailbox_entries") == 0
	})
	return m
}

// connected waits until both sides have the connection.
func (h *halley) connected(e *erlNode) {
	h.t.Helper()
	eventually(h.t, "the peer is connected", func() bool { return h.metric("peers") > 0 })
	e.want("true", "load:hidden('%s')", h.name)
}
