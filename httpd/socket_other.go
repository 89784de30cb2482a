//go:build unix && !linux

package httpd

import (
	"time"

	"golang.org/x/sys/unix"
)

// setSocketOptions turns Nagle's algorithm off and keep-alive, with the
// system's times, on.
func setSocketOptions(fd int, _ time.Duration) {
	unix.CloseOnExec(fd) // evio does not, and an epmd that we start would keep it open
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
}

// bytesGiven is told by Linux only.
func bytesGiven(int) (n uint64, known bool) { return 0, false }

// socketWriter writes to sockets.
type socketWriter struct{}

// write writes as much of bufs as the socket takes at once.
func (*socketWriter) write(fd int, bufs [][]byte) (int, error) {
	total := 0
	for _, b := range bufs {
		for len(b) > 0 {
			n, err := unix.Write(fd, b)
			if err == unix.EINTR {
				continue
			}
			if err == unix.EAGAIN {
				return total, nil
			}
			if err != nil {
				return total, err
			}
			total += n
			b = b[n:]
		}
	}
	return total, nil
}
