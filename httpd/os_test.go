package httpd

import (
	"net"
	"sync"
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

// unconnected returns a socket made before descriptors run out.
func unconnected(t *testing.T) int {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func connectTo(t *testing.T, fd int, addr net.Addr) {
	a := &unix.SockaddrInet4{Port: addr.(*net.TCPAddr).Port, Addr: [4]byte(addr.(*net.TCPAddr).IP.To4())}
	if err := unix.Connect(fd, a); err != nil {
		t.Fatal(err)
	}
}

// noMoreFiles makes the next descriptor fail until restore is called.
func noMoreFiles(t *testing.T) (restore func()) {
	var old unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &old); err != nil {
		t.Fatal(err)
	}
	next, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	low := old
	assign(&low.Cur, next)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() { unix.Setrlimit(unix.RLIMIT_NOFILE, &old) })
	t.Cleanup(restore)
	return restore
}

// assign is = for a field whose type is not the same on all systems.
func assign[T int64 | uint64](field *T, v int) { *field = T(v) }
