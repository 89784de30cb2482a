package httpd

import (
	"html"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// answer is a whole response that is no stream. The connection ends after it.
type answer struct {
	code   int
	phrase string
	extra  string // header lines, each with CRLF
	body   string
}

func answerText(code int, extra, body string) *answer {
	return &answer{code: code, phrase: http.StatusText(code), extra: extra, body: body + "\n"}
}

// append writes the answer; to HEAD it goes without its body.
func (a *answer) append(dst []byte, date []byte, head bool) []byte {
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(a.code), 10)
	dst = append(dst, ' ')
	dst = append(dst, a.phrase...)
	dst = append(dst, "\r\nServer: halley\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\nConnection: close\r\n"...)
	dst = append(dst, a.extra...)
	dst = append(dst, date...)
	dst = append(dst, "Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(a.body)), 10)
	dst = append(dst, "\r\n\r\n"...)
	if head {
		return dst
	}
	return append(dst, a.body...)
}

// streamHead begins every stream. no-store keeps caches, and X-Accel-Buffering
// nginx, from holding it back; nosniff keeps a browser from guessing at what
// Erlang sends.
const streamHead = " 200 OK\r\n" +
	"Server: halley\r\n" +
	"Content-Type: text/html; charset=utf-8\r\n" +
	"Cache-Control: no-store\r\n" +
	"X-Accel-Buffering: no\r\n" +
	"X-Content-Type-Options: nosniff\r\n" +
	"Connection: close\r\n"

// appendStreamHead appends a stream's response head. A stream has no length:
// HTTP/1.1 sends it in chunks, HTTP/1.0 until the close. No request follows it
// (RFC 9112, section 9.6).
func appendStreamHead(dst []byte, t transport, date []byte) []byte {
	dst = append(dst, "HTTP/1.1"...)
	dst = append(dst, streamHead...)
	dst = append(dst, date...)
	if t == transportChunked {
		dst = append(dst, "Transfer-Encoding: chunked\r\n"...)
	}
	return append(dst, "\r\n"...)
}

// appendDate appends the Date header (RFC 9110, section 6.6.1).
func appendDate(dst []byte, now time.Time) []byte {
	dst = append(dst, "Date: "...)
	dst = now.UTC().AppendFormat(dst, http.TimeFormat)
	return append(dst, "\r\n"...)
}

// welcome is the template of a stream's first chunk, cut at its marks.
type welcome []string

func parseWelcome(template string) welcome {
	var w welcome
	for template != "" {
		i := strings.IndexByte(template, '{')
		switch {
		case i < 0:
			return append(w, template)
		case strings.HasPrefix(template[i:], "{url}"), strings.HasPrefix(template[i:], "{uid}"):
			if i > 0 {
				w = append(w, template[:i])
			}
			w = append(w, template[i:i+5])
			template = template[i+5:]
		default:
			w = append(w, template[:i+1])
			template = template[i+1:]
		}
	}
	return w
}

// text fills the template in. What the client sent is escaped: the stream is
// HTML, and a link must not bring script into it.
func (w welcome) text(url, uid string) string {
	var b strings.Builder
	for _, piece := range w {
		switch piece {
		case "{url}":
			b.WriteString(html.EscapeString(url))
		case "{uid}":
			b.WriteString(html.EscapeString(uid))
		default:
			b.WriteString(piece)
		}
	}
	return b.String()
}
