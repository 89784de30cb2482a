package httpd

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// This file is how the epoll engine takes clients in, and what it does when the
// system has no room for them.

// accepts is what a loop needs for that.
type accepts struct {
	// spare is a descriptor that is kept for the moment when there is no other: given
	// up, it lets a client be accepted, told, and closed.
	spare  int
	paused bool
	resume time.Time
	pause  time.Duration // the last one; doubles while it goes on
}

const (
	minPause = tickEvery // the loop looks at its ticks whether it is over
	maxPause = 2 * time.Second
	// maxRefusals are told in one go, without descriptors, that there is no room.
	maxRefusals = 64
)

func (a *accepts) begin() (err error) {
	if a.spare, err = unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("open a spare descriptor: %w", err)
	}
	return nil
}

func (a *accepts) end() { unix.Close(a.spare) }

// listen registers the listening sockets, which all loops share: whoever comes first
// gets the client.
func (e *epollEngine) listen() error {
	for i, fd := range e.front.fds {
		mark := uint32(listenerMark | i)
		ev := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(mark)}
		if err := unix.EpollCtl(e.epoll, unix.EPOLL_CTL_ADD, fd, &ev); err != nil && err != unix.EEXIST { // a pause ended for some
			return fmt.Errorf("epoll_ctl of the listener: %w", err)
		}
	}
	return nil
}

// accept takes some of the clients that wait.
func (e *epollEngine) accept(listener int) {
	for range maxAccepts {
		fd, errno := accept4(listener)
		switch errno {
		case 0:
			e.accepts.pause = 0
			e.admit(fd)
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			e.acceptFailed(listener, errno)
			return
		default: // EINTR, ECONNABORTED, and what accept(2) says of the network's errors: the next one
		}
	}
}

func accept4(listener int) (int, unix.Errno) {
	fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(listener), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int(fd), errno
}

// admit gives a new client its slot.
func (e *epollEngine) admit(fd int) {
	slot, ok := e.handler.onAccept()
	if !ok {
		unix.Close(fd)
		return
	}
	setUserTimeout(fd, e.keepAlive)
	if err := e.attach(slot, fd); err != nil { // no memory, or fs.epoll.max_user_watches
		e.handler.onAcceptFailed(err)
		e.drop(slot, err)
	}
}

// acceptFailed tells some of those who wait that there is no room, and then lets
// the others wait a while: trying on would only burn the processor. Connected clients
// notice nothing.
func (e *epollEngine) acceptFailed(listener int, errno unix.Errno) {
	a := &e.accepts
	answer := e.handler.onAcceptFailed(fmt.Errorf("accept: %w", errno))
	if errno == unix.EMFILE || errno == unix.ENFILE {
		for range maxRefusals {
			unix.Close(a.spare)
			fd, errno := accept4(listener)
			if errno == 0 {
				_, _ = unix.Write(fd, answer) // best effort: a fresh socket has room
				_, _ = unix.Read(fd, e.buf)   // what is unread would turn the close into a reset
				unix.Close(fd)
			}
			if err := a.begin(); err != nil || errno != 0 {
				break
			}
		}
	}
	for _, fd := range e.front.fds {
		_ = unix.EpollCtl(e.epoll, unix.EPOLL_CTL_DEL, fd, nil)
	}
	a.pause = min(max(2*a.pause, minPause), maxPause)
	a.paused, a.resume = true, time.Now().Add(a.pause)
}

// resumeAccepts ends a pause that is over.
func (e *epollEngine) resumeAccepts() {
	a := &e.accepts
	if !a.paused || time.Now().Before(a.resume) {
		return
	}
	if err := e.listen(); err != nil {
		e.handler.onAcceptFailed(err)
		a.resume = time.Now().Add(maxPause)
		return
	}
	a.paused = false
}
