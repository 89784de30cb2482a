package peers

import (
	"bufio"
	"context"
	_ "embed"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

//go:embed ceiling/ceiling.c
var ceilingSource string

func startCeiling(ctx context.Context, cfg Config) (*Peer, error) {
	const name = "ceiling"
	if !supported {
		return nil, &Missing{Peer: name, What: "Linux"}
	}
	host, port, err := splitAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	bin, err := compileC(ctx, &cfg, name, ceilingSource)
	if err != nil {
		return nil, err
	}
	p := &Peer{Name: name, Version: ccVersion(ctx)}
	in, out, err := p.launch(ctx, &cfg, command(bin, host, port), func(line string) bool { return line == "ready" })
	if err != nil {
		return nil, err
	}
	p.Dest.Control = &Control{in: in, out: out}
	return p, nil
}

// Control tells a peer what to send. Its methods may be called from anywhere; they
// wait for one another.
type Control struct {
	mu  sync.Mutex // one command at a time
	in  io.Writer
	out *bufio.Reader
}

// Load is what to send.
type Load struct {
	Count    int
	Rate     int // messages a second; 0: as fast as it goes
	Bytes    int // of a body
	FirstUID int64
	LastUID  int64
}

// Sent is what became of a Load.
type Sent struct {
	Messages int64
	Bytes    int64 // of bodies
	Took     time.Duration
	Lost     int64 // the socket was full for a second, or broke
	Absent   int64 // nobody had the uid; no sequence number was used
}

// ControlStats are the counts since the start.
type ControlStats struct {
	Connections, Accepted, Closed, Refused, Sent, Bytes, Lost, Absent int64
}

// Send sends messages "SEQ MICROS xxx" to uids drawn at random.
func (c *Control) Send(l Load) (Sent, error) {
	return c.sent("send %d %d %d %d %d", l.Count, l.Rate, l.Bytes, l.FirstUID, l.LastUID)
}

// All sends one message to each connection.
func (c *Control) All(bytes int) (Sent, error) { return c.sent("all %d", bytes) }

func (c *Control) sent(format string, args ...any) (s Sent, err error) {
	var micros int64
	line, err := c.ask(fmt.Sprintf(format, args...))
	if err == nil {
		_, err = fmt.Sscanf(line, "sent %d bytes %d micros %d lost %d absent %d",
			&s.Messages, &s.Bytes, &micros, &s.Lost, &s.Absent)
	}
	s.Took = time.Duration(micros) * time.Microsecond
	return s, answered(line, err)
}

// Stats asks for the counts.
func (c *Control) Stats() (s ControlStats, err error) {
	line, err := c.ask("stats")
	if err == nil {
		_, err = fmt.Sscanf(line, "connections %d accepted %d closed %d refused %d sent %d bytes %d lost %d absent %d",
			&s.Connections, &s.Accepted, &s.Closed, &s.Refused, &s.Sent, &s.Bytes, &s.Lost, &s.Absent)
	}
	return s, answered(line, err)
}

func (c *Control) ask(command string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, err := fmt.Fprintln(c.in, command); err != nil {
		return "", err
	}
	line, err := c.out.ReadString('\n')
	return strings.TrimSpace(line), err
}

func answered(line string, err error) error {
	if err != nil {
		return fmt.Errorf("the peer answered %q: %w", line, err)
	}
	return nil
}
