package httpd

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// mapped is an array outside Go's heap: its pages become resident when they are
// first used, and the collector neither reads it nor sets its pace by its size. T
// must have no pointers.
type mapped[T any] struct {
	all []T
	raw []byte
}

// newMapped returns an array of n zero values.
func newMapped[T any](n int) (mapped[T], error) {
	size := n * int(unsafe.Sizeof(*new(T)))
	raw, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return mapped[T]{}, fmt.Errorf("map %d bytes: %w", size, err)
	}
	smallPages(raw)
	return mapped[T]{unsafe.Slice((*T)(unsafe.Pointer(&raw[0])), n), raw}, nil
}

// free unmaps it; nobody may hold a piece of it.
func (m *mapped[T]) free() {
	_ = unix.Munmap(m.raw) // it is mapped: this cannot fail
	*m = mapped[T]{}
}
