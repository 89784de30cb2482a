package flood

import "bytes"

// stream reads one response: the head, then chunks (RFC 9112, section 7.1), in
// pieces of any size. It keeps numbers only, never bytes.
type stream struct {
	state  state
	code   uint16 // status
	digits uint8  // of the number that is being read
	left   uint32 // bytes of the chunk still to come
	number uint64 // being read
	seq    uint64 // of the message being read
	last   uint64 // sequence number of the message before; 0: none
}

type state uint8

const (
	stateStatus    state = iota // "HTTP/1.1 200": up to the end of the code
	stateLine                   // within a line of the head
	stateLineLF                 // CR was read
	stateEmpty                  // at the start of a line
	stateEmptyLF                // at the start of a line, CR was read
	stateSize                   // the size of a chunk, hexadecimal
	stateSizeLF                 // CR was read
	stateSeq                    // first number of a message
	stateSent                   // second number
	stateRest                   // the rest of a message
	stateAfter                  // CR after a chunk
	stateAfterLF                // LF
	stateTrailer                // CR LF after the last chunk
	stateTrailerLF              //
	stateEnd                    // the stream has ended cleanly
	stateAnswer                 // an answer that is no stream; its body is not looked at
	stateBroken                 // not HTTP, or not in chunks
)

// statusBytes is the length of "HTTP/1.1 200".
const statusBytes = 12

// maxChunkDigits keeps a chunk's size within 32 bits.
const maxChunkDigits = 8

// feed reads b. now is when it came, in microseconds. What it finds is counted
// in st.
func (s *stream) feed(b []byte, now int64, st *Stats) {
	for len(b) > 0 && s.state < stateEnd {
		switch {
		case s.state < stateSize:
			b = s.head(b, st)
		case s.state >= stateSeq && s.state <= stateRest:
			b = s.body(b, now, st)
		default:
			s.frame(b[0], st)
			b = b[1:]
		}
	}
	if len(b) > 0 && s.state == stateEnd {
		s.state = stateBroken // bytes behind the end
	}
}

// head reads some of the response head, of which only the status counts: a
// stream of HTTP/1.1 comes in chunks, or it breaks.
func (s *stream) head(b []byte, st *Stats) []byte {
	switch s.state {
	case stateStatus:
		const shape = "HTTP/1.1 "
		c := b[0]
		switch i := int(s.digits); {
		case i < len(shape) && c == shape[i]:
		case i >= len(shape) && c >= '0' && c <= '9':
			s.code = s.code*10 + uint16(c-'0')
		default:
			s.state = stateBroken
			return b
		}
		if s.digits++; s.digits == statusBytes {
			s.state, s.digits = stateLine, 0
		}
		return b[1:]
	case stateLine:
		i := bytes.IndexByte(b, '\n')
		if i < 0 {
			return nil
		}
		s.state = stateEmpty
		return b[i+1:]
	}
	switch { // at the start of a line
	case b[0] == '\r' && s.state == stateEmpty:
		s.state = stateEmptyLF
	case b[0] == '\n':
		s.state = stateSize
		if st.Answers[int(s.code)]++; s.code != 200 {
			s.state = stateAnswer
			return nil
		}
		st.Streams++
	default:
		s.state = stateLine
	}
	return b[1:]
}

// frame reads one byte that is not of a message.
func (s *stream) frame(c byte, st *Stats) {
	switch s.state {
	case stateSize:
		digit, ok := hexDigit(c)
		switch {
		case ok && s.digits < maxChunkDigits:
			s.number = s.number<<4 | uint64(digit)
			s.digits++
		case c == '\r' && s.digits > 0:
			s.state = stateSizeLF
		default:
			s.state = stateBroken
		}
	case stateSizeLF:
		s.expect(c, '\n', stateSeq)
		if s.left = uint32(s.number); s.left == 0 && s.state == stateSeq {
			s.state = stateTrailer
		}
		s.number, s.digits = 0, 0
	case stateAfter:
		s.expect(c, '\r', stateAfterLF)
	case stateAfterLF:
		s.expect(c, '\n', stateSize)
		if s.state == stateSize {
			st.Chunks++
		}
	case stateTrailer:
		s.expect(c, '\r', stateTrailerLF)
	case stateTrailerLF:
		s.expect(c, '\n', stateEnd)
	}
}

func (s *stream) expect(c, want byte, next state) {
	if s.state = next; c != want {
		s.state = stateBroken
	}
}

func hexDigit(c byte) (byte, bool) {
	switch {
	case c >= '0' && c <= '9':
		return c - '0', true
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10, true
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10, true
	}
	return 0, false
}

// body reads some of a message.
func (s *stream) body(b []byte, now int64, st *Stats) []byte {
	n := min(len(b), int(s.left))
	piece := b[:n]
	for i := 0; i < len(piece) && s.state != stateRest; i++ {
		s.numbers(piece[i], now, st)
	}
	if s.left -= uint32(n); s.left == 0 {
		if s.state == stateSent && s.digits > 0 { // it ends with its second number
			s.message(now, st)
		} else if s.state != stateRest {
			st.Unnumbered++
		}
		s.state, s.number, s.digits = stateAfter, 0, 0
	}
	return b[n:]
}

// maxNumberDigits keeps a number within 64 bits.
const maxNumberDigits = 18

// numbers reads one byte of the two numbers that begin a message.
func (s *stream) numbers(c byte, now int64, st *Stats) {
	switch {
	case c >= '0' && c <= '9' && s.digits < maxNumberDigits:
		s.number = s.number*10 + uint64(c-'0')
		s.digits++
		return
	case c == ' ' && s.digits > 0 && s.state == stateSeq:
		s.seq, s.state = s.number, stateSent
	case (c == ' ' || c == '\n') && s.digits > 0 && s.state == stateSent:
		s.message(now, st)
		s.state = stateRest
	default:
		st.Unnumbered++
		s.state = stateRest
	}
	s.number, s.digits = 0, 0
}

// message checks the message whose numbers were read: seq, and number for when
// it was sent.
func (s *stream) message(now int64, st *Stats) {
	st.Messages++
	st.Latency.RecordValue(max(0, now-int64(s.number)))
	switch {
	case s.seq == 0: // one that is in no order
		return
	case s.last == 0 || s.seq == s.last+1: // the first one seen may have any number
	case s.seq == s.last:
		st.Doubled++
	case s.seq < s.last:
		st.OutOfOrder++
		return // what is behind does not move the mark
	default:
		st.Missing += s.seq - s.last - 1
	}
	s.last = s.seq
}
