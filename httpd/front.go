package httpd

import (
	"errors"
	"fmt"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// front is the listening sockets, which all loops of the epoll engine share: each
// client is accepted by whichever comes first.
type front struct {
	listen []string
	once   sync.Once
	// Set once.
	fds   []int
	addrs []net.Addr
	err   error
}

// open listens, when the first loop asks. prepare is told of each socket: what it
// sets, the accepted ones inherit.
func (f *front) open(prepare func(fd int)) ([]net.Addr, error) {
	f.once.Do(func() {
		for _, addr := range f.listen {
			fd, bound, err := listenOn(addr)
			if err != nil {
				f.err = fmt.Errorf("--listen: %w", err)
				return
			}
			prepare(fd)
			f.fds, f.addrs = append(f.fds, fd), append(f.addrs, bound)
		}
	})
	return f.addrs, f.err
}

// listenOn returns a listening socket that does not block. package net makes it: it
// knows names, both families, and the system's longest queue.
func listenOn(addr string) (int, net.Addr, error) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return -1, nil, err
	}
	defer l.Close()
	conn, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		return -1, nil, err
	}
	fd := -1
	dupErr := conn.Control(func(own uintptr) {
		fd, err = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0)
	})
	if err = errors.Join(dupErr, err); err != nil {
		return -1, nil, fmt.Errorf("keep the socket of %s: %w", addr, err)
	}
	return fd, l.Addr(), nil
}

// close is called when no loop runs any more.
func (f *front) close() {
	for _, fd := range f.fds {
		unix.Close(fd)
	}
	f.fds = nil
}
