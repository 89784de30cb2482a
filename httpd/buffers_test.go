package httpd

import (
	"testing"

	"pgregory.net/rapid"
)

// A buffer has room for what it was asked for, nobody else has it, and little is kept.
func TestBuffers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var b buffers
		out := map[*byte][]byte{} // by their first byte
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "take") {
				size := rapid.IntRange(1, 400<<10).Draw(t, "size")
				buf := b.take(size)
				if len(buf) != 0 || cap(buf) < size || cap(buf) > max(2*size, minBuffer) {
					t.Fatalf("%d bytes: %d of %d", size, len(buf), cap(buf))
				}
				if first := &buf[:1][0]; out[first] != nil {
					t.Fatal("given out twice")
				} else {
					out[first] = buf
				}
				continue
			}
			for first, buf := range out {
				b.put(append(buf, 1))
				delete(out, first)
				break
			}
		}
		b.put(nil)
		for class, free := range b.free {
			kept := 0
			for _, buf := range free {
				kept += cap(buf)
			}
			if kept > keepPerSize {
				t.Fatalf("class %d keeps %d bytes", class, kept)
			}
		}
	})
}

// Frames of clients that have caught up come from what others have given back.
func TestPendings_GiveBack(t *testing.T) {
	var ps pendings
	fill := func() {
		var in []uint32
		for slot := range uint32(2000) {
			i := ps.take(slot)
			in = append(in, i)
			p := ps.all[i]
			ps.begin(p, 30000, 0)
			p.buf = append(p.buf, make([]byte, 30000)...)
			ps.bytes += 30000
		}
		for _, i := range in {
			ps.put(i)
		}
	}
	fill()
	if ps.bytes != 0 || len(ps.all) != 0 || len(ps.free) != 0 {
		t.Errorf("%d bytes, %d pendings, %d free are left of a wave", ps.bytes, len(ps.all), len(ps.free))
	}
	again := testing.AllocsPerRun(10, func() {
		i := ps.take(1)
		p := ps.all[i]
		ps.begin(p, 30000, 0)
		ps.put(i)
	})
	if again > 0 {
		t.Errorf("%g allocations for a client that is slow again", again)
	}
}
