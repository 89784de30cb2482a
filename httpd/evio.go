package httpd

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/tidwall/evio"
	"golang.org/x/sys/unix"
)

// evioEngine drives one loop with github.com/tidwall/evio v1.0.8. evio
// accepts, reads, finds the end of connections and closes them. What it cannot
// do is done beside it:
//
//   - It replaces bytes that it still owes a socket with the next ones, does not
//     read a socket that it owes bytes, and does not tell when it owes none. So
//     it is never given any: write writes to the socket itself, and what did
//     not fit is tried again in short, growing steps (retry).
//   - It wakes connections only, not a loop, and a Wake that comes while it
//     empties its queue of wakes is found only when its poll times out, after
//     100 ms. So there is one connection of our own, over a Unix socket: a byte
//     written to it wakes the loop (control).
//   - It closes a connection that has something to write only when it can. So
//     close shuts the socket, whose end evio then finds.
//   - It ends when accept fails, at the limit of descriptors for one. So the
//     loop keeps connections well below it (limits.go), and should evio end
//     all the same, it is started again.
//   - It leaves Nagle's algorithm on.
type evioEngine struct {
	// Set once.
	listen    []string
	keepAlive time.Duration
	log       *slog.Logger
	handler   engineHandler
	up        func([]net.Addr) // nil once it was called
	addrs     []net.Addr
	began     time.Time // of this run of evio
	// Written by anyone.
	control   atomic.Pointer[net.UnixConn] // our end of it
	awake     atomic.Bool                  // a byte is on its way through it
	stopping  atomic.Bool
	isServing atomic.Bool
	tickDue   atomic.Bool
	retryDue  atomic.Bool
	tickTimer *time.Timer
	// Owned by the loop.
	controlled evio.Conn // the loop's end of control
	fds        []int32   // by slot; -1: none
	slots      []uint32  // by descriptor
	writer     socketWriter
	retries    map[uint32]retry
	retryTimer *time.Timer
	retryAt    time.Time // when the timer fires; zero: not set
	current    retry     // of the connection being tried again
	progress   bool      // its socket took something
}

// retry is when a socket that was full is tried again.
type retry struct {
	at    time.Time
	delay time.Duration
}

const (
	minRetry = 2 * time.Millisecond
	maxRetry = time.Second
	// retryGrid is what longer delays are rounded up to: each firing of the
	// timer looks at all that wait.
	retryGrid = 50 * time.Millisecond
)

func newEvio(o Options) *evioEngine {
	return &evioEngine{listen: slices.Clone(o.Listen), keepAlive: o.KeepAlive, log: o.Logger, retries: map[uint32]retry{}}
}

func (e *evioEngine) run(h engineHandler, up func([]net.Addr)) error {
	e.handler, e.up = h, up
	e.tickTimer = time.AfterFunc(time.Hour, e.tick)
	defer e.tickTimer.Stop()
	e.tickTimer.Reset(tickEvery)
	e.retryTimer = time.AfterFunc(time.Hour, func() { e.retryDue.Store(true); e.wake() })
	defer e.retryTimer.Stop()
	for pause := minRestart; ; pause = min(2*pause, maxRestart) {
		err := e.serve()
		switch {
		case e.stopping.Load():
			return nil
		case e.up != nil: // it never served
			return err
		case err == nil:
			err = errors.New("accept failed, most likely for want of descriptors")
			pause = minRestart
		}
		// Every connection was closed and is counted.
		e.log.Error("evio ended, its connections are closed, it is started again", "err", err)
		time.Sleep(pause)
	}
}

// minRestart and maxRestart are between the end of evio and its next start.
const (
	minRestart = 100 * time.Millisecond
	maxRestart = 5 * time.Second
)

// serve runs evio until it ends.
func (e *evioEngine) serve() error {
	dir, err := os.MkdirTemp("", "halley-")
	if err != nil {
		return fmt.Errorf("make a directory for the control socket: %w", err)
	}
	defer os.RemoveAll(dir)
	socket := filepath.Join(dir, "control")
	var dialErr error
	events := evio.Events{
		NumLoops: 1,
		Serving: func(server evio.Server) evio.Action {
			addrs := server.Addrs[:len(e.listen)]
			for i, addr := range addrs {
				e.listen[i] = addr.String() // the same port, should evio be started again
			}
			e.addrs, e.began = addrs, time.Now()
			if dialErr = errors.Join(e.openControl(socket), spareFiles()); dialErr != nil {
				return evio.Shutdown
			}
			return evio.None
		},
		Opened: e.opened,
		Closed: e.closed,
		Data:   e.data,
	}
	addrs := make([]string, 0, len(e.listen)+1)
	for _, addr := range e.listen {
		addrs = append(addrs, "tcp://"+addr)
	}
	err = evio.Serve(events, append(addrs, "unix://"+socket)...)
	e.isServing.Store(false)
	if c := e.control.Swap(nil); c != nil {
		c.Close()
	}
	e.controlled = nil
	if err = errors.Join(err, dialErr); err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	return nil
}

// openControl connects our end of control.
func (e *evioEngine) openControl(socket string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return fmt.Errorf("connect the control socket: %w", err)
	}
	os.RemoveAll(filepath.Dir(socket)) // it is connected: nobody else shall be, and nothing shall be left by a kill
	e.awake.Store(true)
	e.control.Store(c)
	_, err = c.Write(wakeByte) // there may be work since before it was there
	return err
}

// settleTime is before which evio is not told to end: a loop that ends before
// Serve waits for it is waited for for ever.
const settleTime = 100 * time.Millisecond

// spareFiles tells whether there are descriptors for what evio opens next: it
// panics without them, and then waits for ever.
func spareFiles() error {
	var files [16]*os.File
	var err error
	for i := range files {
		if files[i], err = os.Open(os.DevNull); err != nil {
			break
		}
	}
	for _, f := range files {
		f.Close() // of nil: an error, no more
	}
	return err
}

// serving says whether clients are being accepted. Any goroutine may call it.
func (e *evioEngine) serving() bool { return e.isServing.Load() }

// wakeByte is what goes through control; its value says nothing.
var wakeByte = []byte{0}

func (e *evioEngine) wake() {
	if c := e.control.Load(); c != nil && !e.awake.Swap(true) {
		_, _ = c.Write(wakeByte) // it fails only when the loop is gone
	}
}

func (e *evioEngine) stop() {
	e.stopping.Store(true)
	e.wake()
}

func (e *evioEngine) tick() {
	e.tickDue.Store(true)
	e.wake()
	if !e.stopping.Load() {
		e.tickTimer.Reset(tickEvery)
	}
}

func (e *evioEngine) opened(c evio.Conn) ([]byte, evio.Options, evio.Action) {
	options := evio.Options{ReuseInputBuffer: true}
	if c.AddrIndex() == len(e.listen) {
		return nil, options, e.openedControl(c)
	}
	slot, ok := e.handler.onAccept()
	if !ok {
		return nil, options, evio.Close
	}
	fd := descriptor(c)
	e.bind(slot, fd)
	setSocketOptions(fd, e.keepAlive)
	return nil, options, evio.None
}

// openedControl takes our own connection; anyone else's is closed.
func (e *evioEngine) openedControl(c evio.Conn) evio.Action {
	if e.controlled != nil {
		return evio.Close
	}
	e.bind(none, descriptor(c))
	e.controlled = c
	return evio.None
}

// descriptor reads the connection's file descriptor, which evio keeps to itself.
func descriptor(c evio.Conn) int {
	return int(reflect.ValueOf(c).Elem().FieldByName("fd").Int())
}

// bind notes which descriptor a slot has.
func (e *evioEngine) bind(slot uint32, fd int) {
	for len(e.slots) <= fd {
		e.slots = append(e.slots, none)
	}
	e.slots[fd] = slot
	if slot == none {
		return
	}
	for len(e.fds) <= int(slot) {
		e.fds = append(e.fds, -1)
	}
	e.fds[slot] = int32(fd)
}

func (e *evioEngine) data(c evio.Conn, in []byte) ([]byte, evio.Action) {
	if c == e.controlled {
		return nil, e.woken()
	}
	if slot := e.slots[descriptor(c)]; slot != none {
		e.handler.onRead(slot, in)
	}
	return nil, evio.None
}

// woken does what the loop was woken for. What comes after awake is cleared
// wakes it again.
func (e *evioEngine) woken() evio.Action {
	e.awake.Store(false)
	if e.stopping.Load() {
		if early := settleTime - time.Since(e.began); early > 0 {
			time.AfterFunc(early, e.wake)
			return evio.None
		}
		return evio.Shutdown
	}
	if !e.isServing.Swap(true) && e.up != nil {
		e.up(e.addrs)
		e.up = nil
	}
	if e.tickDue.Swap(false) {
		e.handler.onTick()
	}
	if e.retryDue.Swap(false) {
		e.retryWrites()
	}
	e.handler.onWake()
	return evio.None
}

// closed is called by evio when the descriptor is closed already.
func (e *evioEngine) closed(c evio.Conn, err error) evio.Action {
	fd := descriptor(c)
	if fd >= len(e.slots) || e.slots[fd] == none {
		return evio.None
	}
	slot := e.slots[fd]
	e.slots[fd], e.fds[slot] = none, -1
	delete(e.retries, slot)
	e.handler.onClosed(slot, err)
	return evio.None
}

func (e *evioEngine) write(slot uint32, bufs [][]byte) (int, error) {
	n, err := e.writer.write(int(e.fds[slot]), bufs)
	if n > 0 {
		e.progress = true
	}
	return n, err
}

// notifyWritable arranges for another try: soon if the socket took something
// at the last one, ever later if it did not.
func (e *evioEngine) notifyWritable(slot uint32) {
	delay := minRetry
	if e.current.delay > 0 && !e.progress {
		delay = min(2*e.current.delay, maxRetry)
	}
	at := time.Now().Add(delay)
	if delay >= retryGrid/2 {
		at = at.Truncate(retryGrid).Add(retryGrid)
	}
	e.retries[slot] = retry{at, delay}
	e.setRetryTimer(at)
}

func (e *evioEngine) setRetryTimer(at time.Time) {
	if e.retryAt.IsZero() || at.Before(e.retryAt) {
		e.retryAt = at
		e.retryTimer.Reset(time.Until(at))
	}
}

func (e *evioEngine) retryWrites() {
	e.retryAt = time.Time{}
	now := time.Now()
	next := time.Time{}
	for slot, r := range e.retries {
		if r.at.After(now) {
			if next.IsZero() || r.at.Before(next) {
				next = r.at
			}
			continue
		}
		delete(e.retries, slot)
		e.current, e.progress = r, false
		e.handler.onWritable(slot)
	}
	e.current = retry{}
	if !next.IsZero() {
		e.setRetryTimer(next)
	}
}

func (e *evioEngine) descriptor(slot uint32) int { return int(e.fds[slot]) }

// detach and attach are for several loops, and evio has one.
func (e *evioEngine) detach(uint32) int { panic("httpd: evio has one loop") }

func (e *evioEngine) attach(uint32, int) error { panic("httpd: evio has one loop") }

func (e *evioEngine) closeWrite(slot uint32) {
	_ = unix.Shutdown(int(e.fds[slot]), unix.SHUT_WR) // the connection may be gone already: then evio finds its end
}

func (e *evioEngine) close(slot uint32, reset bool) {
	fd := int(e.fds[slot])
	delete(e.retries, slot)
	if reset { // with no time to linger close sends a reset and frees what is buffered
		_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	}
	_ = unix.Shutdown(fd, unix.SHUT_RDWR)
}
