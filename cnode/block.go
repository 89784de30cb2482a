package cnode

import "sync/atomic"

const (
	blockBytes = 256 << 10 // of an ordinary block; several hundred small packets
	freeBlocks = 16        // kept for reuse, per node
)

// block is memory that one reader appends to and never rewrites while anyone else
// may read it. refs counts the reader and each Flush whose done is outstanding.
type block struct {
	// set once
	release func() // drops one reference; made once, so that a Flush allocates nothing
	pool    *blockPool
	// owned by the reader
	buf  []byte
	from int // first byte not yet decoded
	to   int // first free byte
	// any goroutine
	refs atomic.Int32
}

// blockPool keeps a bounded number of ordinary blocks that nobody uses.
type blockPool struct {
	free chan *block
}

func newBlockPool() *blockPool {
	return &blockPool{free: make(chan *block, freeBlocks)}
}

// take gives an empty block of at least size bytes, with one reference.
func (p *blockPool) take(size int) *block {
	if size <= blockBytes {
		size = blockBytes
		select {
		case b := <-p.free:
			b.from, b.to = 0, 0
			b.refs.Store(1)
			return b
		default:
		}
	}
	b := &block{pool: p, buf: make([]byte, size)}
	b.refs.Store(1)
	b.release = b.drop
	return b
}

func (b *block) retain() { b.refs.Add(1) }

// drop gives one reference back. Large blocks go to the garbage collector.
func (b *block) drop() {
	if b.refs.Add(-1) != 0 || len(b.buf) != blockBytes {
		return
	}
	select {
	case b.pool.free <- b:
	default:
	}
}

// alone is true if no Flush is outstanding. Only the reader retains, so it stays so.
func (b *block) alone() bool { return b.refs.Load() == 1 }
