package httpd

import (
	"time"

	"golang.org/x/sys/unix"
)

// setSocketOptions turns Nagle's algorithm off, and TCP's own questions on: an
// idle client that is gone is found within keepAlive and three answers not
// given, one that owes an acknowledgement within twice keepAlive. A socket
// that takes none of these is closed by its client, and soon known as such.
func setSocketOptions(fd int, keepAlive time.Duration) {
	idle := max(1, int(keepAlive/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, idle/3))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2*idle*1000)
}

// writeSocket writes as much of bufs as the socket takes at once.
func writeSocket(fd int, bufs [][]byte) (int, error) {
	for {
		var n int
		var err error
		if len(bufs) == 1 {
			n, err = unix.Write(fd, bufs[0])
		} else {
			n, err = unix.Writev(fd, bufs)
		}
		switch err {
		case nil:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}
