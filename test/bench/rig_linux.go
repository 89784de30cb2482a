package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// rig is what all servers of a run share: an EPMD of its own, and the Erlang node
// that publishes.
type rig struct {
	dir    string // scratch: binaries and beams that scripts/bench has built, logs
	cookie string
	epmd   int // port
	log    io.Writer

	epmdCmd *exec.Cmd
	erl     *exec.Cmd
	in      io.WriteCloser
	mu      sync.Mutex // protects what follows
	next    int
	waiting map[int]chan<- string
	dead    error
}

const (
	nodeHost  = "localhost"
	publisher = "bench@" + nodeHost
)

func newRig(dir string, log io.Writer) (*rig, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	r := &rig{dir: dir, cookie: "bench", epmd: port, log: log, waiting: map[int]chan<- string{}}
	r.epmdCmd = exec.Command("epmd", "-port", strconv.Itoa(port), "-address", "127.0.0.1")
	r.epmdCmd.SysProcAttr = endWithUs()
	if err := r.epmdCmd.Start(); err != nil {
		return nil, fmt.Errorf("start epmd: %w: install Erlang/OTP", err)
	}
	if err := r.startErl(); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

// startErl starts the publishing node and waits until it listens to us.
func (r *rig) startErl() error {
	if err := dialFor(fmt.Sprintf("127.0.0.1:%d", r.epmd), 5*time.Second); err != nil {
		return fmt.Errorf("epmd does not listen: %w", err)
	}
	// The node bounds what it queues, as docs/tuning.md advises: with the defaults a
	// megabyte and what the kernel's socket takes, up to four more, would be the latency
	// flat out, whatever the server. io:read needs standard input: -noshell, not -noinput.
	r.erl = exec.Command("erl", "-noshell", "-sname", publisher, "-setcookie", r.cookie, "-pa", r.dir, "-hidden",
		"+zdbbl", "128", "-kernel", "inet_dist_use_interface", "{127,0,0,1}",
		"inet_dist_connect_options", "[{sndbuf,65536}]", "inet_dist_listen_options", "[{sndbuf,65536}]", "-s", "driver", "main")
	r.erl.Env = append(cleanEnv(), r.epmdEnv(), "ERL_CRASH_DUMP=/dev/null")
	r.erl.Stderr = r.log
	r.erl.SysProcAttr = endWithUs()
	in, err := r.erl.StdinPipe()
	if err != nil {
		return err
	}
	out, err := r.erl.StdoutPipe()
	if err != nil {
		return err
	}
	if err := r.erl.Start(); err != nil {
		return fmt.Errorf("start erl: %w", err)
	}
	r.in = in
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if lines.Text() == "ready" {
			go r.read(lines) // ends with erl, which stop ends
			return nil
		}
		fmt.Fprintln(r.log, lines.Text())
	}
	return fmt.Errorf("erl ended before it was ready: %w", errors.Join(lines.Err(), r.erl.Wait()))
}

func (r *rig) epmdEnv() string { return fmt.Sprintf("ERL_EPMD_PORT=%d", r.epmd) }

// read hands the node's answers to those who wait for them.
func (r *rig) read(lines *bufio.Scanner) {
	for lines.Scan() {
		ref, rest, _ := strings.Cut(lines.Text(), " ")
		n, err := strconv.Atoi(ref)
		r.mu.Lock()
		reply := r.waiting[n]
		delete(r.waiting, n)
		r.mu.Unlock()
		if err != nil || reply == nil {
			fmt.Fprintln(r.log, lines.Text())
			continue
		}
		reply <- rest
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = errors.New("the publishing Erlang node has ended")
	for _, reply := range r.waiting {
		close(reply)
	}
	clear(r.waiting)
}

// erlang carries out a request in the publishing node and waits for its end.
func (r *rig) erlang(ctx context.Context, format string, args ...any) (sent, error) {
	reply := make(chan string, 1)
	r.mu.Lock()
	if r.dead != nil {
		defer r.mu.Unlock()
		return sent{}, r.dead
	}
	r.next++
	ref := r.next
	r.waiting[ref] = reply
	r.mu.Unlock()
	request := fmt.Sprintf(format, args...)
	if _, err := fmt.Fprintf(r.in, "{%d, %s}.\n", ref, request); err != nil {
		return sent{}, err
	}
	select {
	case text, ok := <-reply:
		var s sent
		if n, _ := fmt.Sscanf(text, "ok %d", &s.micros); !ok || n != 1 {
			return sent{}, fmt.Errorf("%s: %s", request, text)
		}
		return s, nil
	case <-ctx.Done():
		fmt.Fprintf(r.in, "{stop, %d}.\n", ref)
		return sent{}, fmt.Errorf("%s: %w", request, ctx.Err())
	}
}

// stop ends the node and EPMD.
func (r *rig) stop() {
	if r.in != nil {
		r.in.Close()
	}
	if r.erl != nil && r.erl.Process != nil {
		stopProcess(r.erl)
	}
	stopProcess(r.epmdCmd)
}

// endWithUs keeps a process from outliving a comparison that was killed.
func endWithUs() *syscall.SysProcAttr { return &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM} }

// stopProcess asks a process to end, and makes it after a while.
func stopProcess(cmd *exec.Cmd) {
	cmd.Process.Signal(os.Interrupt)
	kill := time.AfterFunc(2*time.Second, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait()
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// dialFor tries to connect until it can.
func dialFor(addr string, limit time.Duration) error {
	for until := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			return c.Close()
		}
		if time.Now().After(until) {
			return err
		}
	}
}

func (r *rig) file(name string) string { return filepath.Join(r.dir, name) }
