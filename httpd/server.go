package httpd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// Server holds the connections of the front. Its methods may be called from
// any goroutine.
type Server struct {
	// Set once.
	opts            Options
	log             *slog.Logger
	path            path
	welcome         welcome
	maxOpen         int // connections: slots, or descriptors less a reserve
	maxPendingTotal int64
	loops           []*loop
	addrs           []net.Addr

	unknownUID, badMethod, uidTooHigh, full, shutting *answer
	headTooLarge, uriTooLong, headTooLate             *answer

	// Read and written by anyone.
	closing       atomic.Bool
	received      atomic.Uint64
	copied        atomic.Uint64
	discarded     [numDiscards]atomic.Uint64
	mailboxWaited atomic.Int64 // nanoseconds
	deliveries    sync.Pool    // of *delivery
	parts         sync.Pool    // of *part
	running       sync.WaitGroup
	failed        chan error // what ended a loop that was not told to end
}

// New prepares a server. It has no address yet.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, log: o.Logger, welcome: parseWelcome(o.Welcome), failed: make(chan error, 1)}
	s.path, _ = parsePath(o.Path)
	s.makeAnswers()
	files, err := raiseOpenFiles()
	if err != nil {
		return nil, err
	}
	s.maxOpen = capacity(o.MaxConnections, files)
	if s.maxOpen < 1 {
		return nil, fmt.Errorf("the limit of open files, %d, leaves no room for connections: raise it (ulimit -n)", files)
	}
	if s.maxPendingTotal = o.MaxPendingTotalBytes; s.maxPendingTotal == 0 {
		s.maxPendingTotal = int64(memoryBytes() / 4)
	}
	attrs := []any{"connections", s.maxOpen, "slots", o.MaxConnections, "open_files", files, "max_pending_total", s.maxPendingTotal}
	if s.maxOpen < o.MaxConnections {
		s.log.Warn("capacity is limited by open files, raise the hard limit (ulimit -Hn, LimitNOFILE) to use all slots", attrs...)
	} else {
		s.log.Info("capacity", attrs...)
	}
	s.loops = []*loop{newLoop(s, newEvio(o))}
	return s, nil
}

// Start listens and serves until Close. It returns when every address is up.
func (s *Server) Start() error {
	up := make(chan []net.Addr, len(s.loops))
	for _, l := range s.loops {
		s.running.Go(func() {
			if err := l.run(func(addrs []net.Addr) { up <- addrs }); err != nil {
				s.failed <- err
			}
		})
	}
	for range s.loops {
		select {
		case s.addrs = <-up:
		case err := <-s.failed:
			s.Close()
			return err
		}
	}
	return nil
}

// Failed tells what ended a loop that was not told to end. The server is of no
// use then.
func (s *Server) Failed() <-chan error { return s.failed }

// Addrs are the addresses listened on, in the order of Options.Listen.
func (s *Server) Addrs() []net.Addr { return s.addrs }

// Ready tells why the front should get no clients, nil if it should.
func (s *Server) Ready() error {
	if s.closing.Load() {
		return errors.New("shutting down")
	}
	for _, l := range s.loops {
		if !l.engine.serving() {
			return errors.New("clients are not being accepted")
		}
	}
	return nil
}

// owner is the loop that owns a uid.
func (s *Server) owner(_ int64, _ []byte) int {
	return 0 // evio has one loop
}

// Shutdown refuses new clients and ends the streams cleanly, spread over
// Options.Drain. Messages that still come are discarded and counted. It
// returns when no connection is left, or with ctx's error.
func (s *Server) Shutdown(ctx context.Context) error {
	s.closing.Store(true)
	for _, l := range s.loops {
		l.engine.wake()
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.Drain+lingerTimeout+time.Second)
	defer cancel()
	for _, l := range s.loops {
		select {
		case <-l.isDrained:
		case <-ctx.Done():
			return fmt.Errorf("drain: %d connections are left: %w", s.Stats().Open, ctx.Err())
		}
	}
	return nil
}

// Close ends the loops, and with them all connections. Feeds must have ended,
// or what they flush from now on is discarded.
func (s *Server) Close() {
	s.closing.Store(true)
	for _, l := range s.loops {
		l.mailbox.close()
		l.engine.stop()
	}
	s.running.Wait()
}
