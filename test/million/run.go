//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"halley/test/memlog"
)

const (
	nodeName = "million@localhost"
	// sampleEvery is the pause between two lines of the memory log, and reports
	// of flood.
	sampleEvery   = time.Second
	progressEvery = 5 * time.Second
	// settle passes between the last connection and the first message; memory is
	// measured restAfter the last connection.
	settle    = 15 * time.Second
	restAfter = 10 * time.Second
	// publishRate is far below what Halley delivers: here the number of
	// connections is measured, not the number of messages.
	publishRate = 5000
	startLimit  = time.Minute // for epmd and halley serve to come up
)

// million is a run. One goroutine owns it; what is done aside touches only files,
// processes and the field that says so.
type million struct {
	o        options
	out      io.Writer
	start    time.Time
	front    string // addresses
	admin    string
	epmd     *child
	server   *child
	client   *child
	memory   *os.File // the log
	slabs    map[string]int64
	counters map[string]int64 // at the beginning
	counted  map[string]int64 // now
	atRest   map[string]int64 // when rest was taken, or the run ended before
	base     sample           // before the first connection
	last     sample
	openAt   sample // when all were open
	rest     sample // all open, before the first message
	full     sample // the last one with all open
	changed  time.Time
	printed  sample
	resent   int64          // segments sent again until then
	aside    sync.WaitGroup // what is done beside following the run
	problems []error
	// openSaved is what became of metrics-open.txt; not to be read before aside is over.
	openSaved error
}

// run does everything, and returns what went wrong. Results are in o.out, also
// of a run that failed.
func run(ctx context.Context, o options, out io.Writer) error {
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return err
	}
	m := &million{o: o, out: out, start: time.Now()}
	defer m.end()
	if err := m.begin(ctx); err != nil {
		return err
	}
	m.follow(ctx)
	s := m.summary()
	fmt.Fprint(out, s.text())
	text, err := json.MarshalIndent(s, "", "  ")
	if err == nil {
		err = os.WriteFile(filepath.Join(o.out, "summary.json"), append(text, '\n'), 0o644)
	}
	return errors.Join(append(m.problems, err)...)
}

func (m *million) file(name string) string { return filepath.Join(m.o.out, name) }

func (m *million) problem(format string, args ...any) {
	m.problems = append(m.problems, fmt.Errorf(format, args...))
}

// begin starts epmd, of the run's own, and halley serve, measures, and starts
// halley flood.
func (m *million) begin(ctx context.Context) error {
	var addrs [3]string
	for i := range addrs {
		var err error
		if addrs[i], err = freeAddr(); err != nil {
			return err
		}
	}
	m.front, m.admin = addrs[0], addrs[1]
	_, epmdPort, _ := net.SplitHostPort(addrs[2])
	cookie := m.file(".cookie")
	if err := os.WriteFile(cookie, []byte(strconv.FormatInt(time.Now().UnixNano(), 36)), 0o600); err != nil {
		return err
	}
	defer os.Remove(cookie)
	var err error
	if m.memory, err = os.Create(m.file("memory.log")); err != nil {
		return err
	}
	if m.epmd, err = startChild(m.file("epmd.log"), false, m.o.epmd, "-address", "127.0.0.1", "-port", epmdPort); err != nil {
		return err
	}
	if err = m.answers(ctx, m.epmd, func() error { return dial(addrs[2]) }); err != nil {
		return err
	}
	node := []string{"--cookie-file", cookie, "--epmd", addrs[2]}
	if m.server, err = startChild(m.file("serve.log"), false, m.o.halley,
		append([]string{"serve", "--keep-alive", "10m", "--name", nodeName, "--listen", m.front, "--admin", m.admin}, node...)...); err != nil {
		return err
	}
	if err = m.answers(ctx, m.server, func() error { return m.get("readyz", io.Discard) }); err != nil {
		return err
	}
	m.slabs, m.counters = slabs(), netCounters()
	m.resent = m.counters[resent]
	if m.base, err = m.measure(); err != nil {
		return err
	}
	n := strconv.Itoa(m.o.connections)
	args := append([]string{"flood", "--url", "http://" + m.front + "/test/{uid}", "--connections", n, "--uids", "1-" + n,
		"--rate", fmt.Sprint(m.o.rate), "--from", fmt.Sprintf("127.0.0.1-127.0.0.%d", addresses), "--report", sampleEvery.String(),
		"--barrier", "--json", m.file("flood.json")}, node...)
	if m.o.messages == 0 {
		args = append(args, "--hold", settle.String())
	} else { // the hold is no limit: patience is
		args = append(args, "--hold", "0", "--publish", nodeName, "--publish-count", strconv.Itoa(m.o.messages),
			"--publish-rate", fmt.Sprint(publishRate), "--publish-after", settle.String())
	}
	m.client, err = startChild(m.file("flood.log"), true, m.o.halley, args...)
	m.changed = time.Now()
	if err != nil {
		return err
	}
	return m.answers(ctx, m.client, func() error { // it needs the cookie until then
		if len(m.client.lines) == 0 {
			return errors.New("no report")
		}
		return nil
	})
}

// answers waits until a child does what it was started for.
func (m *million) answers(ctx context.Context, c *child, try func() error) error {
	for deadline := time.Now().Add(startLimit); ; {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-c.ended:
			return c.failure()
		case <-ctx.Done():
			return errors.New("interrupted")
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%s does not work after %v: %w", c.name, startLimit, err)
		}
	}
}

// follow takes samples and tells, until flood has ended.
func (m *million) follow(ctx context.Context) {
	tick := time.NewTicker(sampleEvery)
	defer tick.Stop()
	interrupted := ctx.Done()
	for {
		select {
		case line, ok := <-m.client.lines:
			if !ok {
				<-m.client.ended
				m.conclude()
				return
			}
			m.report(line)
		case <-tick.C:
			if err := m.step(); err != nil {
				m.serverGone(err)
				return
			}
		case <-m.server.ended:
			m.serverGone(nil)
			return
		case <-interrupted:
			interrupted = nil
			m.problem("interrupted")
			m.client.stop(m.o.patience)
		}
	}
}

// serverGone ends a run that has no server any more, or one of which nothing can
// be read.
func (m *million) serverGone(err error) {
	select {
	case <-m.server.ended:
		err = m.server.failure()
	case <-time.After(time.Second):
	}
	m.problem("%w", err)
	m.client.stop(m.o.patience)
}

// report reads a line of flood's, "  12.0s  {open, closed, chunks, bytes}".
func (m *million) report(line string) {
	var seconds float64
	var open, closed, chunks int
	if n, _ := fmt.Sscanf(strings.TrimSpace(line), "%fs {%d, %d, %d,", &seconds, &open, &closed, &chunks); n < 4 {
		return
	}
	if chunks > m.last.chunks || open > m.last.open && m.openAt.at == 0 {
		m.changed = time.Now()
	}
	m.last.open, m.last.chunks = open, chunks
}

func (m *million) measure() (sample, error) {
	s := sample{at: time.Since(m.start), open: m.last.open, chunks: m.last.chunks, busy: busySeconds()}
	var err, clientErr error
	if s.server, err = measureProcess(m.server.pid()); err != nil {
		return s, err
	}
	if m.client != nil {
		if s.client, clientErr = measureProcess(m.client.pid()); clientErr != nil {
			s.client = m.last.client // it ends
		}
	}
	s.kernel, err = measureKernel()
	return s, err
}

// step is one turn of the clock.
func (m *million) step() (err error) {
	if m.last, err = m.measure(); err != nil {
		return err
	}
	allOpen := m.last.open == m.o.connections && m.last.chunks >= m.o.connections
	if m.counted = netCounters(); m.rest.at == 0 {
		m.atRest = m.counted
	}
	// Lines as halley memlog writes them, for halley memlog --plot; open is what
	// flood says: before Linux 6.2 to count a process's descriptors is to list
	// them, and costs the kernel an entry in its caches for each.
	fmt.Fprintln(m.memory, memlog.Sample{Time: time.Now(), ResidentKB: m.last.server.Resident >> 10,
		SocketKB: m.last.kernel.TCP >> 10, Open: int64(m.last.open)})
	if m.last.at-m.printed.at >= progressEvery {
		fmt.Fprint(m.out, m.progress())
		m.printed, m.resent = m.last, m.counted[resent]
	}
	if allOpen {
		m.full = m.last
	}
	switch {
	case allOpen && m.openAt.at == 0:
		m.openAt = m.last
		fmt.Fprintf(m.out, "all open after %.0f s\n", (m.openAt.at - m.base.at).Seconds())
	case m.openAt.at != 0 && m.rest.at == 0 && m.last.at-m.openAt.at >= restAfter:
		m.rest = m.last
		m.notSaved(m.save("slabs.txt", func(w io.Writer) error {
			_, err := io.WriteString(w, slabGrowth(m.slabs, slabs(), m.o.connections))
			return err
		}))
		m.aside.Go(func() {
			m.openSaved = m.save("metrics-open.txt", func(w io.Writer) error { return m.get("metrics", w) })
		})
	}
	quiet := m.o.patience
	if m.openAt.at != 0 && m.last.open < m.o.connections {
		quiet = min(quiet, settle+restAfter) // connections ended, their messages will never come
	}
	if m.client.alive() && time.Since(m.changed) > quiet {
		m.problem("nothing has come for %v: %d of %d connections are open", quiet, m.last.open, m.o.connections)
		m.changed = time.Now()
		m.aside.Go(func() { m.client.stop(m.o.patience) })
	}
	return nil
}

// conclude judges flood's summary, and ends the server as an operator would.
func (m *million) conclude() {
	if err := m.client.err; err != nil {
		m.problem("%w", m.client.failure())
	}
	m.notSaved(m.save("metrics.txt", func(w io.Writer) error { return m.get("metrics", w) }))
	m.server.stop(m.o.patience)
	if m.server.err != nil {
		m.problem("%w", m.server.failure())
	}
}

// save writes a file of the results. It may be called from anywhere.
func (m *million) save(name string, write func(io.Writer) error) error {
	f, err := os.Create(m.file(name))
	if err == nil {
		err = errors.Join(write(f), f.Close())
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}

// notSaved tells of a file that is missing. That fails no run.
func (m *million) notSaved(err error) {
	if err != nil {
		fmt.Fprintln(m.out, err)
	}
}

// get asks the server's admin address.
func (m *million) get(page string, w io.Writer) error {
	client := http.Client{Timeout: m.o.patience}
	answer, err := client.Get("http://" + m.admin + "/" + page)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("/%s: %s", page, answer.Status)
	}
	_, err = io.Copy(w, answer.Body)
	return err
}

// end leaves nothing running, and no file unfinished.
func (m *million) end() {
	for _, c := range []*child{m.client, m.server, m.epmd} {
		if c != nil {
			c.kill()
		}
	}
	m.aside.Wait() // not for long: whom it asks has ended
	m.notSaved(m.openSaved)
	if m.memory != nil {
		m.memory.Close()
	}
}

func freeAddr() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

func dial(addr string) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	return c.Close()
}

// child is a process that we have started.
type child struct {
	name  string
	cmd   *exec.Cmd
	log   string
	lines chan string   // of its standard output, closed with it; nil: goes to the log
	ended chan struct{} // closed when it has
	err   error         // then
	// killed: by us, not by a machine that wants memory.
	killed atomic.Bool
}

// startChild starts a process in a group of its own: Ctrl-C is for us. Standard
// error goes to a log, and standard output too if its lines are not wanted.
func startChild(log string, wantLines bool, name string, args ...string) (*child, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	c := &child{name: filepath.Base(name), cmd: exec.Command(name, args...), log: log, ended: make(chan struct{})}
	c.cmd.Stderr = f
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM} // it does not outlive us
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HALLEY_") && !strings.HasPrefix(v, "ERL_") {
			c.cmd.Env = append(c.cmd.Env, v)
		}
	}
	var out io.ReadCloser
	if wantLines {
		if out, err = c.cmd.StdoutPipe(); err != nil {
			return nil, err
		}
		c.lines = make(chan string, 16)
	} else {
		c.cmd.Stdout = f
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		if wantLines {
			for s := bufio.NewScanner(out); s.Scan(); {
				select {
				case c.lines <- s.Text():
				default: // nobody wants it any more
				}
			}
			close(c.lines)
		}
		c.err = c.cmd.Wait()
		close(c.ended)
	}()
	return c, nil
}

func (c *child) pid() int { return c.cmd.Process.Pid }

func (c *child) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// stop asks it to end, and insists after a while.
func (c *child) stop(limit time.Duration) {
	c.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-c.ended:
	case <-time.After(limit):
		c.kill()
	}
}

func (c *child) kill() {
	c.killed.Store(true)
	c.cmd.Process.Kill()
	<-c.ended
}

// failure is how it ended, with the last line of its log.
func (c *child) failure() error {
	text, _ := os.ReadFile(c.log)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	how := "it ended early"
	var exit *exec.ExitError
	if errors.As(c.err, &exit) {
		how = exit.String()
		status, _ := exit.Sys().(syscall.WaitStatus)
		switch killed := status.Signaled() && status.Signal() == syscall.SIGKILL; {
		case killed && c.killed.Load():
			how = "it did not end when asked to, and was killed"
		case killed:
			how += ", for want of memory, most likely"
		}
	}
	return fmt.Errorf("%s: %s: %s", filepath.Base(c.log), how, lines[len(lines)-1])
}
