package httpd

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"
)

// raiseOpenFiles raises the soft limit of open files to the hard one and
// returns it.
func raiseOpenFiles() (uint64, error) {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("read the limit of open files: %w", err)
	}
	if limit.Cur < limit.Max {
		raised := limit
		raised.Cur = raised.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &raised); err == nil {
			limit = raised
		}
	}
	return uint64(limit.Cur), nil
}

// reserve is how many descriptors are kept from the connections: for clients
// that are told there is no room, Erlang nodes, the admin address, logs.
func reserve(files uint64) uint64 {
	return min(max(2*overflowSlots, files/16), 1024)
}

// capacity is how many connections there may be.
func capacity(slots int, files uint64) int {
	if files <= reserve(files) {
		return 0
	}
	return int(min(uint64(slots), files-reserve(files), math.MaxInt32))
}
