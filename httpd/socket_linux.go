package httpd

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// setSocketOptions turns Nagle's algorithm off, and TCP's own questions on: an
// idle client that is gone is found within keepAlive and three answers not
// given; one that owes an acknowledgement, or has taken nothing, for twice
// keepAlive is reset by the system. A socket that takes none of these is closed
// by its client, and soon known as such.
func setSocketOptions(fd int, keepAlive time.Duration) {
	unix.CloseOnExec(fd) // evio does not, and an epmd that we start would keep it open
	idle := max(1, int(keepAlive/time.Second))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, idle)
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, idle/3))
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPCNT, 3)
	setUserTimeout(fd, keepAlive)
}

// setUserTimeout is the one of them that a socket does not inherit from its listener.
func setUserTimeout(fd int, keepAlive time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 2*max(1000, int(keepAlive/time.Millisecond)))
}

// bytesGiven is how many bytes a socket was given to send: those that were sent for the first
// time and those that wait. Kernels before 4.19 do not tell; a stream has sent some.
func bytesGiven(fd int) (n uint64, known bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.Bytes_sent == 0 {
		return 0, false
	}
	return info.Bytes_sent - info.Bytes_retrans + uint64(info.Notsent_bytes), true
}

// socketWriter writes to sockets; it keeps the room for the system call's
// arguments.
type socketWriter struct {
	iov []unix.Iovec
	msg unix.Msghdr
}

// write writes as much of bufs as the socket takes at once.
func (w *socketWriter) write(fd int, bufs [][]byte) (int, error) {
	for {
		n, err := w.writev(fd, bufs)
		switch err {
		case 0:
			return n, nil
		case unix.EINTR:
		case unix.EAGAIN:
			return 0, nil
		default:
			return 0, err
		}
	}
}

// maxUnseen is how many bytes may be written without Go's scheduler hearing of it: some
// 100 microseconds, for which the loop's processor cannot be had by others.
const maxUnseen = 256 << 10

// writev makes one system call, which never waits. It is send(2), which knows that it has
// a socket; write(2) goes a longer way to find that.
func (w *socketWriter) writev(fd int, bufs [][]byte) (int, unix.Errno) {
	if len(bufs) == 1 {
		return sendBytes(fd, bufs[0])
	}
	w.iov = w.iov[:0]
	total := 0
	for _, b := range bufs {
		v := unix.Iovec{Base: &b[0]}
		v.SetLen(len(b))
		w.iov = append(w.iov, v)
		total += len(b)
	}
	w.msg.Iov = &w.iov[0]
	w.msg.SetIovlen(len(w.iov))
	n, err := sendPieces(fd, &w.msg, total)
	clear(w.iov) // they point into a feed's block
	return n, err
}

const sendFlags = unix.MSG_DONTWAIT | unix.MSG_NOSIGNAL

func sendBytes(fd int, b []byte) (int, unix.Errno) {
	if len(b) > maxUnseen {
		n, _, err := unix.Syscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), sendFlags, 0, 0)
		return int(n), err
	}
	n, _, err := unix.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), sendFlags, 0, 0)
	return int(n), err
}

func sendPieces(fd int, msg *unix.Msghdr, bytes int) (int, unix.Errno) {
	if bytes > maxUnseen {
		n, _, err := unix.Syscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(msg)), sendFlags)
		return int(n), err
	}
	n, _, err := unix.RawSyscall(unix.SYS_SENDMSG, uintptr(fd), uintptr(unsafe.Pointer(msg)), sendFlags)
	return int(n), err
}
