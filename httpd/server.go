package httpd

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"math/bits"
	"net"
	"runtime"
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
	front           *front // of the epoll engine
	seed            maphash.Seed
	numbers         numbering
	observer        Observer // nil: nobody asks
	addrs           []net.Addr
	start           time.Time // the server's clock
	unwatch         chan struct{}

	unknownUID, badMethod, uidTooHigh, full, shutting *answer
	headTooLarge, uriTooLong, tooLate                 *answer
	inboxAnswers

	// Read and written by anyone.
	closing       atomic.Bool
	stopped       atomic.Bool // Close was called
	subscriptions atomic.Pointer[[]*subscription]
	acceptLog     atomic.Int64 // when a failing accept was last logged, on the server's clock
	open          atomic.Int64 // connections, those on their way between loops included
	received      atomic.Uint64
	copied        atomic.Uint64
	discarded     [numDiscards]atomic.Uint64
	commandsLost  atomic.Uint64
	mailboxWaited atomic.Int64 // nanoseconds
	deliveries    sync.Pool    // of *delivery
	parts         sync.Pool    // of *part
	running       sync.WaitGroup
	closeOnce     sync.Once
	failed        chan error // what ended a loop that was not told to end
}

// New prepares a server. It has no address yet.
func New(o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{opts: o, log: o.Logger, welcome: parseWelcome(o.Welcome), failed: make(chan error, 1), start: time.Now(), unwatch: make(chan struct{})}
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
	return s, s.makeLoops()
}

// makeLoops makes the loops, each with its share of what is bounded for all.
func (s *Server) makeLoops() error {
	o := &s.opts
	s.seed = maphash.MakeSeed()
	s.front = &front{listen: o.Listen}
	n := 1
	if o.Engine == EngineEpoll {
		if n = o.Loops; n == 0 {
			n = runtime.GOMAXPROCS(0)
		}
	}
	var err error
	if s.numbers, err = newNumbering(o.MaxConnections, n); err != nil {
		return err
	}
	s.maxPendingTotal /= int64(n)
	for i := range n {
		e, err := s.newEngine(i)
		if err != nil {
			return err
		}
		l, err := newLoop(s, i, e)
		if err != nil {
			return err
		}
		s.loops = append(s.loops, l)
	}
	return nil
}

func (s *Server) newEngine(index int) (engine, error) {
	if s.opts.Engine != EngineEpoll {
		return newEvio(s.opts), nil
	}
	core := -1
	if s.opts.Pin {
		core = index % runtime.NumCPU()
	}
	return newEpoll(s.front, s.maxOpen+overflowSlots, s.opts.KeepAlive, core)
}

// Start listens and serves until Close. It returns when every address is up.
func (s *Server) Start() error {
	up := make(chan []net.Addr, len(s.loops))
	for _, l := range s.loops {
		l.pulse.tick.Store(int64(time.Since(s.start)))
		s.running.Go(func() {
			if err := l.run(func(addrs []net.Addr) { up <- addrs }); err != nil {
				select {
				case s.failed <- err:
				default: // another loop has told
				}
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
	s.running.Go(func() { s.watch(s.unwatch) })
	return nil
}

// Failed tells what ended a loop that was not told to end. The server is of no
// use then.
func (s *Server) Failed() <-chan error { return s.failed }

// Loops is how many loops there are.
func (s *Server) Loops() int { return len(s.loops) }

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
	return s.stallError()
}

// owner is the loop that owns a uid: the integer id if name is nil.
func (s *Server) owner(id int64, name []byte) int {
	if len(s.loops) == 1 {
		return 0
	}
	if name != nil {
		n, ok := parseInteger(name)
		if !ok {
			return spread(maphash.Bytes(s.seed, name), len(s.loops))
		}
		id = n
	}
	return spread(uint64(id)*0x9e3779b97f4a7c15, len(s.loops)) // 2^64 / golden ratio: neighbours part
}

// ownerOf is owner for a uid as a URL has it.
func (s *Server) ownerOf(uid string) int { return s.owner(0, []byte(uid)) }

// spread maps a hash to one of n.
func spread(hash uint64, n int) int {
	hi, _ := bits.Mul64(hash, uint64(n))
	return int(hi)
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
	s.stopped.Store(true)
	s.closeOnce.Do(func() { close(s.unwatch) })
	for _, l := range s.loops {
		l.mailbox.close()
		l.engine.stop()
	}
	s.running.Wait()
	s.front.close()
	for _, l := range s.loops {
		l.slots.room.free()
	}
}
