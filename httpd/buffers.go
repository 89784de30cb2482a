package httpd

import "math/bits"

// buffers are a loop's memory for pending bytes, in sizes that double: what one client has
// done with the next one uses. A bounded number of each size is kept; the rest goes to the
// collector, and so a wave of clients that do not read leaves nothing behind.
type buffers struct {
	free [numSizes][][]byte // by size class
}

const (
	minBuffer = 1 << 10
	numSizes  = 8 // up to 128 KiB: --max-pending's default and a message
	// keepPerSize is how many bytes of a size are kept unused.
	keepPerSize = 1 << 20
)

// sizeClass is the smallest class that holds size bytes; numSizes and more: none does.
func sizeClass(size int) int {
	return bits.Len(uint(max(size, minBuffer)-1) / minBuffer)
}

// take returns an empty buffer with room for size bytes.
func (b *buffers) take(size int) []byte {
	class := sizeClass(size)
	if class >= numSizes {
		return make([]byte, 0, size+size/4) // it may grow on
	}
	free := &b.free[class]
	if n := len(*free); n > 0 {
		buf := (*free)[n-1]
		(*free)[n-1] = nil
		*free = (*free)[:n-1]
		return buf
	}
	return make([]byte, 0, minBuffer<<class)
}

// put takes a buffer back.
func (b *buffers) put(buf []byte) {
	class := sizeClass(cap(buf))
	if cap(buf) == 0 || class >= numSizes || cap(buf) != minBuffer<<class {
		return
	}
	if free := &b.free[class]; (len(*free)+1)*cap(buf) <= keepPerSize {
		*free = append(*free, buf[:0])
	}
}
