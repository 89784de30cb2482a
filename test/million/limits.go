//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

const (
	// addresses are 127.0.0.1 and those behind it; each has the ports from 1024.
	addresses = 17
	// maxConnections leaves some ports to listeners.
	maxConnections = addresses*(65536-1024) - 1000
	// fileReserve is more than halley serve and halley flood want beside their
	// connections.
	fileReserve = 1100
	// pairBytes is what both ends of a connection take in the kernel and in both
	// processes, generously; ownBytes what everything takes without connections.
	pairBytes = 12 << 10
	ownBytes  = 768 << 20
)

// backlog is how many packets loopback may have on their way. Timers of some tens
// of seconds fire in steps of two seconds (the kernel's timer wheel is coarse), so
// that all connections opened within two seconds send their keep-alive probes at
// once. What the backlog does not hold is dropped, unseen by TCP; after four such
// drops in 90 s Halley's sockets are reset, with nobody at fault.
const backlog = 1 << 20

// checkLimits tells every limit that is too low, with the remedy.
func checkLimits(o options) error {
	var errs []error
	short := func(what string, has, need int64, remedy string) {
		if has < need {
			errs = append(errs, fmt.Errorf("%s: %d, but %d connections need %d: %s", what, has, o.connections, need, remedy))
		}
	}
	files := int64(o.connections + fileReserve)
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("read the limit of open files: %w", err)
	}
	short("open files a process may have", int64(min(limit.Max, 1<<40)), files,
		fmt.Sprintf("as root: sysctl -w fs.nr_open=%d; ulimit -n %d", max(files, 1<<20), files))
	short("open files of the system (fs.file-max)", sysctl("fs/file-max"), 2*files, fmt.Sprintf("as root: sysctl -w fs.file-max=%d", 4*files))
	short("sockets that a user may watch (fs.epoll.max_user_watches)", sysctl("fs/epoll/max_user_watches"), 2*files,
		fmt.Sprintf("as root: sysctl -w fs.epoll.max_user_watches=%d", 4*files))
	short("packets that loopback may hold (net.core.netdev_max_backlog)", sysctl("net/core/netdev_max_backlog"), int64(min(o.connections/2, 50000)),
		fmt.Sprintf("as root: sysctl -w net.core.netdev_max_backlog=%d", backlog))
	memory, err := readKB("/proc/meminfo")
	if err != nil {
		return err
	}
	short("available memory in KiB", memory["MemAvailable"], (ownBytes+int64(o.connections)*pairBytes)>>10, "take fewer connections, or give the machine more (--memory)")
	if len(errs) > 0 {
		errs = append(errs, errors.New("halley doctor tells more about this machine's limits; without --here none of them matters"))
	}
	return errors.Join(errs...)
}

// sysctl is a kernel parameter; one that this kernel does not have limits nothing.
func sysctl(name string) int64 {
	text, err := os.ReadFile("/proc/sys/" + name)
	if err != nil {
		return 1 << 62
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil { // more than 63 bits
		return 1 << 62
	}
	return n
}
