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

// minReserve is the sum of what can be taken at the same time beside the
// connections: overflowSlots for clients that are told there is no room,
// maxAdmin, 64 unfinished handshakes of Erlang nodes, and some for those that
// are connected, for listeners and logs. Without it a stranger's idle sockets on
// another port could make the front's accept fail.
const minReserve = overflowSlots + maxAdmin + 64 + 32

// reserve is how many descriptors are kept from the connections.
func reserve(files uint64) uint64 {
	return min(max(minReserve, files/16), 1024)
}

// capacity is how many connections there may be.
func capacity(slots int, files uint64) int {
	if files <= reserve(files) {
		return 0
	}
	return int(min(uint64(slots), files-reserve(files), math.MaxInt32))
}
