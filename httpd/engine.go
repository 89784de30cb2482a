package httpd

import (
	"net"
	"time"
)

// tickEvery is how often an engine calls onTick, more or less.
const tickEvery = 100 * time.Millisecond

// engine drives the sockets of one loop. A connection is known to both by its
// slot. All methods but wake run on the loop's goroutine, which is the one
// that run occupies.
type engine interface {
	// run listens, tells up the addresses (in the order of Options.Listen) and
	// serves until stop. It returns an error if it cannot listen.
	run(h engineHandler, up func([]net.Addr)) error
	// serving says whether clients are being accepted. Any goroutine may call it.
	serving() bool
	// wake makes the loop call onWake soon. Any goroutine may call it.
	wake()
	// write gives the socket as much of bufs, one after the other, as it takes
	// at once. What it did not take is the caller's to keep; 0 with no error
	// means that it is full.
	write(slot uint32, bufs [][]byte) (int, error)
	// notifyWritable asks for one onWritable when the socket may take more.
	notifyWritable(slot uint32)
	// closeWrite tells the client that nothing follows; what it sends is still read.
	closeWrite(slot uint32)
	// close ends the connection, with a reset instead of an orderly end if
	// told so. onClosed follows.
	close(slot uint32, reset bool)
	// detach gives a connection's socket away without closing it; attach takes one
	// that another loop has given away.
	detach(slot uint32) (fd int)
	attach(slot uint32, fd int) error
	// descriptor is a connection's socket, to ask the system about it.
	descriptor(slot uint32) (fd int)
	// stop makes run return; connections still open are closed first.
	stop()
}

// engineHandler is what an engine tells its loop.
type engineHandler interface {
	// onAccept is told of a new connection and returns its slot; ok false: close it.
	onAccept() (slot uint32, ok bool)
	// onRead has bytes from the client, valid during the call.
	onRead(slot uint32, data []byte)
	onWritable(slot uint32)
	// onClosed is the last that is heard of a connection. err nil: the client closed.
	onClosed(slot uint32, err error)
	// onAcceptFailed is told why nobody could be accepted, and returns what a client
	// may be told instead.
	onAcceptFailed(err error) (answer []byte)
	onWake()
	onTick()
}
