//go:build linux

package main

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// The machine's serial ports: the kernel's messages go to the first, lines of
// progress and at last "@exit STATUS" to the second, the results as a tar.gz to
// the third.
const (
	progressPort = "/dev/ttyS1"
	resultsPort  = "/dev/ttyS2"
)

// asInit is process 1 of the virtual machine: it makes a Linux of what the kernel
// gives, does the run, sends the results and turns the machine off.
func asInit(args []string) {
	status := 0
	progress := io.WriteCloser(os.Stdout)
	err := prepare()
	if err == nil {
		var port io.WriteCloser
		if port, err = openPort(progressPort); err == nil {
			progress = port
			err = runAndSend(args, progress)
		}
	}
	if err != nil {
		fmt.Fprintln(progress, "million:", err)
		status = exitFailure
		if errors.Is(err, errUsage) {
			status = exitUsage
		}
	}
	fmt.Fprintf(progress, "@exit %d\n", status)
	progress.Close()
	syscall.Sync()
	syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

func runAndSend(args []string, progress io.Writer) error {
	o, err := parseOptions(args)
	if err != nil {
		return err
	}
	if err := checkLimits(o); err != nil {
		return err
	}
	err = run(context.Background(), o, progress)
	return errors.Join(err, sendResults(o.out))
}

// sendResults writes a folder to the results' port.
func sendResults(dir string) error {
	port, err := openPort(resultsPort)
	if err != nil {
		return err
	}
	packed := gzip.NewWriter(port)
	archive := tar.NewWriter(packed)
	err = errors.Join(archive.AddFS(os.DirFS(dir)), archive.Close(), packed.Close())
	if closing := port.Close(); !errors.Is(closing, syscall.EINTR) { // the port is closed all the same: close(2)
		err = errors.Join(err, closing)
	}
	if err != nil {
		return fmt.Errorf("send the results: %w", err)
	}
	return nil
}

// prepare mounts what programs expect, raises the limits and brings loopback up.
func prepare() error {
	for _, m := range []struct{ kind, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}} {
		if err := syscall.Mount(m.kind, m.dir, m.kind, 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m.dir, err)
		}
	}
	for _, p := range []struct{ name, value string }{
		{"fs/nr_open", fmt.Sprint(openFiles)},
		{"fs/file-max", fmt.Sprint(4 * openFiles)},
		{"fs/epoll/max_user_watches", fmt.Sprint(4 * openFiles)},
		// A burst of connections waits, it is not turned away.
		{"net/core/somaxconn", "65535"},
		{"net/ipv4/tcp_max_syn_backlog", "65535"},
		{"net/core/netdev_max_backlog", fmt.Sprint(backlog)},
	} {
		if err := os.WriteFile("/proc/sys/"+p.name, []byte(p.value), 0); err != nil {
			return fmt.Errorf("set a kernel parameter: %w", err)
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: openFiles, Max: openFiles}); err != nil {
		return fmt.Errorf("raise the limit of open files: %w", err)
	}
	if err := syscall.Sethostname([]byte("million")); err != nil {
		return fmt.Errorf("set the host's name: %w", err)
	}
	os.Setenv("HOME", "/tmp")
	os.Setenv("PATH", "/bin")
	return loopbackUp()
}

const openFiles = 2 << 20

// loopbackUp brings lo up, whose addresses are then all of 127.0.0.0/8.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("socket: %w", err)
	}
	defer unix.Close(fd)
	ifreq, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	ifreq.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, ifreq); err != nil {
		return fmt.Errorf("bring lo up: %w", err)
	}
	return nil
}

// port is a serial port that passes bytes as they are.
type port struct{ *os.File }

func openPort(name string) (io.WriteCloser, error) {
	f, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return nil, err
	}
	attributes, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err == nil {
		attributes.Oflag &^= unix.OPOST
		err = unix.IoctlSetTermios(int(f.Fd()), unix.TCSETS, attributes)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: set it up: %w", name, err)
	}
	return port{f}, nil
}

// Close waits until everything has left.
func (p port) Close() error {
	return errors.Join(unix.IoctlSetInt(int(p.Fd()), unix.TCSBRK, 1), p.File.Close())
}
