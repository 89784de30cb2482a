package cnode

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
)

const (
	lengthBytes = 4        // before each packet, OTP erl_dist_protocol; a length of 0 is a tick
	minRead     = 16 << 10 // less free space is not worth a system call
)

var (
	errTooLarge = errors.New("packet larger than --max-packet: send less at a time, or raise it")
	errSilent   = errors.New("nothing came, not even ticks: the peer is frozen or cut off, or its net_ticktime is not ours (--net-ticktime)")
)

// read runs until the socket ends or a packet is beyond use. Each read appends to
// the block, its complete packets are decoded in place, and the Feed gets them in
// one Flush.
func (c *conn) read() error {
	b := c.n.blocks.take(blockBytes)
	defer func() { b.drop() }()
	for {
		b = c.room(b)
		if err := c.sock.SetReadDeadline(time.Now().Add(c.silence)); err != nil {
			return err
		}
		n, err := c.sock.Read(b.buf[b.to:])
		if n > 0 {
			b.to += n
			c.n.counters.bytesIn.Add(int64(n))
			if err := c.decode(b); err != nil {
				return err
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.ending.Load() {
			return errSilent
		}
		if err != nil {
			return err
		}
	}
}

// decode uses the complete packets of b. What came before a bad packet is delivered.
func (c *conn) decode(b *block) error {
	packets := int64(0)
	var err error
	c.block = b
	for err == nil && b.to-b.from >= lengthBytes {
		n := int(binary.BigEndian.Uint32(b.buf[b.from:]))
		if n > c.n.o.MaxPacket {
			err = fmt.Errorf("%w (%d bytes)", errTooLarge, n)
			break
		}
		if b.to-b.from-lengthBytes < n {
			break
		}
		p := b.buf[b.from+lengthBytes : b.from+lengthBytes+n]
		b.from += lengthBytes + n
		if n > 0 {
			packets++
			err = c.packet(p)
		}
	}
	c.n.counters.packetsIn.Add(packets)
	c.flush()
	return err
}

// flush hands the Feed what it has been told since the last Flush.
func (c *conn) flush() {
	if c.fed {
		c.fed = false
		c.block.retain()
		c.feed.Flush(c.block.release)
	}
}

// room gives a block to read on into, with the incomplete packet of b at its start
// if it is another. Its size follows the bytes that have come, never the length that
// a packet claims.
func (c *conn) room(b *block) *block {
	tail := b.to - b.from
	need := minRead
	if tail >= lengthBytes {
		need = lengthBytes + int(binary.BigEndian.Uint32(b.buf[b.from:])) - tail
	}
	free := len(b.buf) - b.to
	if free >= minRead || free >= need {
		return b
	}
	if b.alone() && tail <= len(b.buf)/2 && len(b.buf) == blockBytes {
		copy(b.buf, b.buf[b.from:b.to])
		b.from, b.to = 0, tail
		return b
	}
	size := max(blockBytes, min(2*tail, tail+need))
	larger := c.n.blocks.take(size)
	larger.to = copy(larger.buf, b.buf[b.from:b.to])
	b.drop()
	return larger
}
