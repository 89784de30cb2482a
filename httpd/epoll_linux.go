package httpd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// epollEngine drives one loop with an epoll instance of its own.
//
// The loop never sleeps in a system call: it asks epoll without waiting, works on
// what there is, and parks its goroutine when there is nothing, in Go's own poller,
// which watches the epoll instance as it does any file. So two things wake it: an event of
// a socket, and wake, for its mailbox, which moves the file's read deadline and needs no
// system call. A message from the reader of a node to the loop crosses no thread if both
// run on one processor.
//
// Readiness is level-triggered. A socket is registered for reading; writing is
// asked for after a short write only.
type epollEngine struct {
	// Set once.
	front     *front
	keepAlive time.Duration
	core      int // that the loop is tied to; -1: none
	handler   engineHandler
	epoll     int
	file      *os.File // the epoll instance, as Go's poller sees it
	// Written by anyone.
	signal    atomic.Bool // there is work
	asleep    atomic.Bool // the loop is parked, or just about to be
	stopping  atomic.Bool
	isServing atomic.Bool
	// Owned by the loop.
	nextTick time.Time
	room     mapped[sock]
	socks    []sock // by slot: all of room
	gone     []gone // closed; onClosed is to be called
	events   []unix.EpollEvent
	buf      []byte
	writer   socketWriter
	accepts  accepts
	asked    bool // notifyWritable was called during the onWritable under way
}

// sock is a connection's socket. gen is raised whenever the slot gets another one,
// and rides in the event beside the slot: an event of the one before misses.
type sock struct {
	used int32 // 1 + descriptor; 0: none
	gen  uint32
}

// fd is -1, with which every system call fails, when there is none: a client may be gone
// before the handler has heard of it.
func (s sock) fd() int { return int(s.used) - 1 }

type gone struct {
	slot uint32
	err  error
}

const (
	maxEvents = 512
	// maxAccepts, in one turn, keeps connected clients from waiting for new ones.
	maxAccepts = 128
	readBytes  = 64 << 10
	// listenerMark in the slot of an event: it is the listener of that index.
	listenerMark = 1 << 31
)

func newEpoll(f *front, slots int, keepAlive time.Duration, core int) (*epollEngine, error) {
	room, err := newMapped[sock](slots)
	if err != nil {
		return nil, fmt.Errorf("sockets: %w", err)
	}
	return &epollEngine{
		front:     f,
		keepAlive: keepAlive,
		core:      core,
		room:      room,
		socks:     room.all,
		events:    make([]unix.EpollEvent, maxEvents),
		buf:       make([]byte, readBytes),
	}, nil
}

func (e *epollEngine) run(h engineHandler, up func([]net.Addr)) error {
	e.handler = h
	defer e.room.free()
	if e.core >= 0 {
		if err := pin(e.core); err != nil {
			return err
		}
	}
	addrs, err := e.front.open(func(fd int) { setSocketOptions(fd, e.keepAlive) })
	if err != nil {
		return err
	}
	if e.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	if err := unix.SetNonblock(e.epoll, true); err != nil { // else Go's poller would not take it
		unix.Close(e.epoll)
		return fmt.Errorf("epoll instance: %w", err)
	}
	e.file = os.NewFile(uintptr(e.epoll), "epoll")
	defer e.file.Close()
	if err := errors.Join(e.accepts.begin(), e.listen()); err != nil {
		return err
	}
	defer e.accepts.end()
	e.isServing.Store(true)
	up(addrs)
	err = e.serve()
	e.isServing.Store(false)
	e.closeAll(err)
	return err
}

// pin ties the goroutine to a thread, and the thread to a core. Both end together: the
// thread is not unlocked.
func pin(core int) error {
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(core)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("--pin: core %d: %w", core, err)
	}
	return nil
}

// serve is the loop, until stop. Each round ends with a tick or a wake.
func (e *epollEngine) serve() error {
	conn, err := e.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("epoll instance: %w", err)
	}
	turns := e.turns // once: each method value is an allocation
	e.nextTick = time.Now().Add(tickEvery)
	for {
		e.tickIfDue()
		if err := e.file.SetReadDeadline(e.nextTick); err != nil {
			return fmt.Errorf("epoll instance: %w", err)
		}
		// Read parks when turns returns false, and calls it again on an event.
		if err := conn.Read(turns); err == nil {
			return nil
		} else if !errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("wait for events: %w", err)
		}
	}
}

// turns takes turns while there is work. Each looks at the sockets and the mailbox once.
func (e *epollEngine) turns(uintptr) (stopped bool) {
	e.asleep.Store(false)
	for {
		e.signal.Store(false) // first: what is looked at before it could come unseen
		if e.stopping.Load() {
			return true
		}
		n := e.poll()
		e.handler.onWake()
		e.bury()
		e.tickIfDue()
		if n > 0 || e.signal.Load() {
			continue
		}
		e.asleep.Store(true)
		if !e.signal.Load() {
			return false
		}
		e.asleep.Store(false) // it came in between
	}
}

func (e *epollEngine) tickIfDue() {
	now := time.Now()
	if now.Before(e.nextTick) {
		return
	}
	e.nextTick = now.Add(tickEvery)
	e.resumeAccepts()
	e.handler.onTick()
	e.bury()
}

// poll handles the events that there are and returns their number.
func (e *epollEngine) poll() int {
	n, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(e.epoll), uintptr(unsafe.Pointer(&e.events[0])), maxEvents, 0, 0, 0)
	if errno != 0 { // EINTR
		return 0
	}
	for i := range e.events[:n] {
		ev := &e.events[i]
		slot := uint32(ev.Fd)
		if slot&listenerMark != 0 {
			e.accept(e.front.fds[slot&^listenerMark])
			continue
		}
		if s := e.socks[slot]; s.used == 0 || s.gen != uint32(ev.Pad) {
			continue // closed, or given away, since epoll told
		}
		if ev.Events&unix.EPOLLOUT != 0 {
			e.writable(slot)
		}
		if ev.Events&^unix.EPOLLOUT != 0 {
			e.read(slot)
		}
	}
	e.bury()
	return int(n)
}

// read takes what a client sends. The truth is what read(2) says: an event is a hint.
func (e *epollEngine) read(slot uint32) {
	fd := e.socks[slot].fd()
	if fd < 0 {
		return
	}
	n, _, errno := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&e.buf[0])), readBytes)
	switch {
	case errno == unix.EAGAIN || errno == unix.EINTR:
	case errno != 0:
		e.drop(slot, errno)
	case n == 0:
		e.drop(slot, nil)
	default:
		e.handler.onRead(slot, e.buf[:n])
	}
}

func (e *epollEngine) writable(slot uint32) {
	e.asked = false
	e.handler.onWritable(slot)
	if !e.asked {
		_ = e.control(unix.EPOLL_CTL_MOD, slot, unix.EPOLLIN) // it is registered, or gone
	}
}

// control registers a socket with epoll, or changes what it is registered for.
func (e *epollEngine) control(op int, slot uint32, events uint32) error {
	s := e.socks[slot]
	ev := unix.EpollEvent{Events: events, Fd: int32(slot), Pad: int32(s.gen)}
	_, _, errno := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(e.epoll), uintptr(op), uintptr(s.fd()), uintptr(unsafe.Pointer(&ev)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

func (e *epollEngine) serving() bool { return e.isServing.Load() }

func (e *epollEngine) wake() {
	e.signal.Store(true)
	if e.asleep.CompareAndSwap(true, false) {
		_ = e.file.SetReadDeadline(longAgo) // the file is closed: the loop has ended
	}
}

// longAgo is a deadline that is over.
var longAgo = time.Unix(1, 0)

func (e *epollEngine) stop() {
	e.stopping.Store(true)
	e.wake()
}

func (e *epollEngine) write(slot uint32, bufs [][]byte) (int, error) {
	return e.writer.write(e.socks[slot].fd(), bufs)
}

func (e *epollEngine) notifyWritable(slot uint32) {
	e.asked = true
	_ = e.control(unix.EPOLL_CTL_MOD, slot, unix.EPOLLIN|unix.EPOLLOUT) // it is registered, or gone
}

func (e *epollEngine) closeWrite(slot uint32) {
	_ = unix.Shutdown(e.socks[slot].fd(), unix.SHUT_WR) // the client may be gone: read will tell
}

func (e *epollEngine) close(slot uint32, reset bool) {
	if reset { // with no time to linger close sends a reset and frees what is buffered
		_ = unix.SetsockoptLinger(e.socks[slot].fd(), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 0})
	}
	e.drop(slot, nil)
}

// drop closes a socket, which takes it from epoll too. The handler hears of it
// once, when it is not in the middle of something.
func (e *epollEngine) drop(slot uint32, err error) {
	if e.socks[slot].used == 0 {
		return // it was gone already
	}
	unix.Close(e.socks[slot].fd())
	e.socks[slot].used = 0
	e.gone = append(e.gone, gone{slot, err})
}

// bury tells the handler of the sockets that are gone.
func (e *epollEngine) bury() {
	for i := 0; i < len(e.gone); i++ {
		e.handler.onClosed(e.gone[i].slot, e.gone[i].err)
	}
	if e.gone = e.gone[:0]; cap(e.gone) > maxKeptGone {
		e.gone = nil // a wave of ends does not stay in memory
	}
}

const maxKeptGone = 4096

// closeAll closes what is still open when the loop ends; err is nil if it was told to.
func (e *epollEngine) closeAll(err error) {
	for slot := range e.socks {
		e.drop(uint32(slot), err)
	}
	e.bury()
}

// attach gives a slot its socket.
func (e *epollEngine) attach(slot uint32, fd int) error {
	s := &e.socks[slot]
	s.used, s.gen = int32(fd)+1, s.gen+1
	if err := e.control(unix.EPOLL_CTL_ADD, slot, unix.EPOLLIN); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

func (e *epollEngine) descriptor(slot uint32) int { return e.socks[slot].fd() }

// detach gives a slot's socket away: another loop attaches it.
func (e *epollEngine) detach(slot uint32) int {
	fd := e.socks[slot].fd()
	_ = e.control(unix.EPOLL_CTL_DEL, slot, 0)
	e.socks[slot].used = 0
	return fd
}
