package httpd

// transport is how a message is framed for a client.
type transport uint8

const (
	transportChunked  transport = iota // HTTP/1.1 chunks, RFC 9112 section 7.1
	transportIdentity                  // HTTP/1.0: the bytes as they are, until the close
)

var transportNames = [...]string{"chunked", "identity"}

func (t transport) String() string { return transportNames[t] }

// maxChunkHead is the longest chunk head: 8 hex digits and CRLF.
const maxChunkHead = 10

// maxMessage is the largest message a frame's size can tell (pending.go keeps
// sizes in 31 bits).
const maxMessage = 1 << 30

var crlf = []byte("\r\n")

// lastChunk ends a chunked stream; it has no trailer section.
var lastChunk = []byte("0\r\n\r\n")

// frameSize is what a message of n > 0 bytes takes on the wire.
func frameSize(t transport, n int) int {
	if t == transportIdentity {
		return n
	}
	digits := 1
	for v := n >> 4; v > 0; v >>= 4 {
		digits++
	}
	return digits + len("\r\n") + n + len("\r\n")
}

// appendFrameHead appends what stands before a message of n > 0 bytes. A
// chunk of 0 bytes would end the stream: an empty message is never framed.
func appendFrameHead(dst []byte, t transport, n int) []byte {
	if t == transportIdentity {
		return dst
	}
	const hex = "0123456789abcdef"
	shift := 0
	for v := n >> 4; v > 0; v >>= 4 {
		shift += 4
	}
	for ; shift >= 0; shift -= 4 {
		dst = append(dst, hex[n>>shift&15])
	}
	return append(dst, '\r', '\n')
}

// frameTail is what stands after a message.
func frameTail(t transport) []byte {
	if t == transportIdentity {
		return nil
	}
	return crlf
}

// streamEnd is what ends a stream cleanly.
func streamEnd(t transport) []byte {
	if t == transportIdentity {
		return nil
	}
	return lastChunk
}
