package peers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 5 * time.Second // between SIGTERM and SIGKILL
)

// raiseFiles runs a program with as many descriptors as it may have: Go gives children
// the soft limit that it found itself.
const raiseFiles = `ulimit -n "$(ulimit -H -n)"; exec "$@"`

// command is a peer's process, in a group of its own.
func command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("/bin/sh", append([]string{"-c", raiseFiles, "sh", name}, args...)...)
	cmd.SysProcAttr = ownGroup()
	return cmd
}

// launch starts a peer's process. Its standard input is a pipe that the Peer keeps:
// what reads it ends with us. Its standard output is given line by line to ready,
// until that says that the peer is; with nil, the caller finds out. What comes then
// is the caller's to read.
func (p *Peer) launch(ctx context.Context, cfg *Config, cmd *exec.Cmd, ready func(line string) bool) (io.Writer, *bufio.Reader, error) {
	if err := free(cfg.Addr); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", p.Name, err)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	p.stderr = &tail{next: cfg.Stderr}
	cmd.Stdout, cmd.Stderr = in, p.stderr
	cmd.WaitDelay = stopTimeout // for a child of the child that keeps stderr open
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, nil, fmt.Errorf("start %s: %w", p.Name, err)
	}
	p.cmd, p.stdin, p.stdout, p.ended = cmd, stdin, out, make(chan struct{})
	p.PIDs = []int{cmd.Process.Pid}
	p.URL = streamURL(cfg.Addr)
	go func() {
		cmd.Wait()
		close(p.ended)
	}()
	lines := bufio.NewReader(out)
	if ready == nil {
		return stdin, lines, nil
	}
	if err := p.await(ctx, lines, ready); err != nil {
		p.Stop()
		return nil, nil, err
	}
	return stdin, lines, nil
}

func (p *Peer) await(ctx context.Context, lines *bufio.Reader, ready func(string) bool) error {
	found := make(chan error, 1)
	go func() {
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				<-p.ended // and has said why
				found <- fmt.Errorf("%s ended: %s", p.Name, p.stderr)
				return
			}
			if ready(strings.TrimSpace(line)) {
				found <- nil
				return
			}
			io.WriteString(p.stderr, line)
		}
	}()
	select {
	case err := <-found:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startTimeout):
		return fmt.Errorf("%s is not ready after %v: %s", p.Name, startTimeout, p.stderr)
	}
}

// until polls until cond is true, the peer has ended, or it is too late.
func (p *Peer) until(ctx context.Context, cond func() bool) error {
	for end := time.Now().Add(startTimeout); !cond(); {
		select {
		case <-p.ended:
			return fmt.Errorf("%s ended: %s", p.Name, p.stderr)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(end) {
			return fmt.Errorf("%s is not ready after %v: %s", p.Name, startTimeout, p.stderr)
		}
	}
	return nil
}

// relay treats what else comes on a peer's standard output as its standard error: a
// pipe that nobody reads stops who writes to it.
func (p *Peer) relay(out io.Reader) { go io.Copy(p.stderr, out) }

// Ended is closed when the peer is no longer there, by Stop or of its own.
func (p *Peer) Ended() <-chan struct{} { return p.ended }

// Stop ends the peer and all its processes, and waits for that. It may be called more
// than once. Its error says that the peer had ended of its own, or had to be killed.
func (p *Peer) Stop() (err error) {
	p.stop.Do(func() {
		select {
		case <-p.ended:
			err = fmt.Errorf("%s had ended: %v: %s", p.Name, p.cmd.ProcessState, p.stderr)
		default:
			terminate(p.cmd.Process.Pid)
		}
		p.stdin.Close()
		select {
		case <-p.ended:
		case <-time.After(stopTimeout):
			err = fmt.Errorf("%s did not end within %v of SIGTERM", p.Name, stopTimeout)
		}
		killGroup(p.cmd.Process.Pid) // and what it may have left behind
		<-p.ended
		p.stdout.Close()
	})
	return err
}

// tail passes on what a peer writes to its standard error, and keeps the end of it.
type tail struct {
	mu   sync.Mutex
	kept []byte
	next io.Writer
}

const tailBytes = 2048

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, b...)
	t.kept = t.kept[max(0, len(t.kept)-tailBytes):]
	if t.next != nil {
		t.next.Write(b)
	}
	return len(b), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(bytes.TrimSpace(t.kept))
}

// run runs a tool to its end; its error has what the tool has said.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	out, err := cmd.CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		err = errors.Join(fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err), errors.New(text))
	}
	return text, err
}
