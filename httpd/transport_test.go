package httpd

import (
	"bytes"
	"fmt"
	"io"
	"net/http/httputil"
	"testing"

	"pgregory.net/rapid"
)

// TestFrame_LikeTheNaiveOne compares with fmt, and with the reader of net/http.
func TestFrame_LikeTheNaiveOne(t *testing.T) {
	for _, n := range []int{1, 2, 9, 10, 15, 16, 17, 255, 256, 257, 4095, 4096, 65535, 65536, 1 << 20, 16 << 20} {
		body := bytes.Repeat([]byte{'x'}, n)
		got := appendFrameHead(nil, transportChunked, n)
		if len(got) > maxChunkHead {
			t.Errorf("%d: head of %d bytes", n, len(got))
		}
		got = append(append(got, body...), frameTail(transportChunked)...)
		if want := fmt.Sprintf("%x\r\n%s\r\n", n, body); string(got) != want {
			t.Errorf("%d: wrong frame", n)
		}
		if frameSize(transportChunked, n) != len(got) {
			t.Errorf("%d: frameSize %d, want %d", n, frameSize(transportChunked, n), len(got))
		}
		back, err := io.ReadAll(httputil.NewChunkedReader(bytes.NewReader(append(got, lastChunk...))))
		if err != nil || !bytes.Equal(back, body) {
			t.Errorf("%d: read back %d bytes, %v", n, len(back), err)
		}
		if frameSize(transportIdentity, n) != n {
			t.Errorf("identity %d: frameSize %d", n, frameSize(transportIdentity, n))
		}
	}
}

func take(ps *pendings) *pending {
	i := ps.take(5)
	return ps.all[i]
}

// TestPending_LikeAList checks sizes and bytes against a list of frames.
func TestPending_LikeAList(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var ps pendings
		p := take(&ps)
		var frames [][]byte // what is left of each
		var isMessage []bool
		next := byte(0)
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "add") {
				frame := bytes.Repeat([]byte{next}, rapid.IntRange(1, 3000).Draw(t, "size"))
				next++
				message := rapid.Bool().Draw(t, "message")
				mark := uint32(noMessage)
				if message {
					mark = 0
				}
				ps.begin(p, len(frame), mark)
				p.buf = append(p.buf, frame...)
				frames, isMessage = append(frames, frame), append(isMessage, message)
				continue
			}
			n := rapid.IntRange(0, p.bytes()).Draw(t, "took")
			taken := append([]byte(nil), p.buf[p.sent:p.sent+n]...)
			written := 0
			for left := n; left > 0; {
				k := min(left, len(frames[0]))
				if !bytes.Equal(taken[:k], frames[0][:k]) {
					t.Fatal("bytes out of order")
				}
				taken, frames[0], left = taken[k:], frames[0][k:], left-k
				if len(frames[0]) == 0 {
					if isMessage[0] {
						written++
					}
					frames, isMessage = frames[1:], isMessage[1:]
				}
			}
			if got := p.took(n); got != written {
				t.Fatalf("%d messages written, want %d", got, written)
			}
			messages := 0
			for _, m := range isMessage {
				if m {
					messages++
				}
			}
			if p.messages() != messages {
				t.Fatalf("%d messages wait, want %d", p.messages(), messages)
			}
		}
	})
}
