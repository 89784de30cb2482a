package httpd

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func cpuTime(t *testing.T) time.Duration {
	var usage unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &usage); err != nil {
		t.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// serverSocket finds the descriptor of this process whose peer is addr.
func serverSocket(t *testing.T, addr net.Addr) int {
	for fd := range 1000 {
		if peer, err := unix.Getpeername(fd); err == nil {
			if in4, ok := peer.(*unix.SockaddrInet4); ok && in4.Port == addr.(*net.TCPAddr).Port {
				return fd
			}
		}
	}
	t.Fatalf("no socket with peer %v", addr)
	return -1
}

func noDelay(t *testing.T, fd int) bool {
	v, err := unix.GetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY)
	if err != nil {
		t.Fatal(err)
	}
	return v != 0
}
