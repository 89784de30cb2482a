package httpd

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"net/url"
	"strconv"
	"strings"
)

// path is the stream's URL: a uid stands between prefix and suffix.
type path struct{ prefix, suffix string }

const uidMark = "{uid}"

// parsePath reads --path. {uid} must be a whole segment, so that a uid can
// hold anything but a slash without being mistaken for the rest.
func parsePath(s string) (path, error) {
	prefix, suffix, found := strings.Cut(s, uidMark)
	switch {
	case !strings.HasPrefix(s, "/"):
		return path{}, errors.New("must begin with a slash, as /test/{uid}")
	case !found || strings.Contains(suffix, uidMark):
		return path{}, errors.New("must have {uid} once, as /test/{uid}")
	case !strings.HasSuffix(prefix, "/") || (suffix != "" && suffix[0] != '/'):
		return path{}, errors.New("must have {uid} as a whole segment, as /test/{uid} or /user/{uid}/events")
	case strings.ContainsAny(s, "?# "):
		return path{}, errors.New("must be a path without query, fragment or space")
	}
	for _, piece := range []string{prefix, suffix} {
		if u, err := url.Parse(piece); err != nil || u.EscapedPath() != piece {
			return path{}, errors.New("must be percent-encoded as in a request, as /%C3%BCber/{uid}")
		}
	}
	return path{prefix, suffix}, nil
}

// uid returns the segment that names the uid, percent-decoded.
func (p path) uid(escaped string) (string, bool) {
	rest, ok := strings.CutPrefix(escaped, p.prefix)
	if !ok {
		return "", false
	}
	segment, ok := strings.CutSuffix(rest, p.suffix)
	if !ok || segment == "" || strings.Contains(segment, "/") {
		return "", false
	}
	name, err := url.PathUnescape(segment)
	return name, err == nil && len(name) <= maxNameBytes
}

// example is a URL that works, for the answer to one that does not.
func (p path) example() string { return p.prefix + "123" + p.suffix }

// headEnd returns the length of the request head in b, the empty line
// included, or 0 if it is not complete. Lines may end in LF alone (RFC 9112,
// section 2.2).
func headEnd(b []byte) int {
	for i := 0; ; {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n + 1
		switch {
		case i < len(b) && b[i] == '\n':
			return i + 1
		case i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n':
			return i + 2
		}
	}
}

// headReader reads request heads, one at a time: a kilobyte less for the collector each.
type headReader struct {
	head   bytes.Reader
	buffer *bufio.Reader
}

func newHeadReader() *headReader {
	r := &headReader{}
	r.buffer = bufio.NewReaderSize(&r.head, 1024)
	return r
}

func (r *headReader) read(head []byte) (*http.Request, error) {
	r.head.Reset(head)
	r.buffer.Reset(&r.head)
	return http.ReadRequest(r.buffer)
}

// route decides what a request head gets: a stream for uid, a POST to it, or an answer.
func (s *Server) route(r *headReader, head []byte) (req *http.Request, uid string, answer *answer) {
	req, err := r.read(head)
	if err != nil {
		return nil, "", answerText(http.StatusBadRequest, "", "bad request: "+plain(err))
	}
	switch {
	case req.ProtoMajor != 1:
		return req, "", answerText(http.StatusHTTPVersionNotSupported, "", "HTTP/1.1 and HTTP/1.0 are spoken here")
	case req.ProtoAtLeast(1, 1) && req.Host == "":
		return req, "", answerText(http.StatusBadRequest, "", "bad request: no Host header (RFC 9112, section 3.2)")
	}
	uid, ok := s.path.uid(req.URL.EscapedPath())
	if !ok {
		return req, "", s.unknownUID
	}
	if !s.serves(req.Method) {
		return req, "", s.badMethod
	}
	id, isInteger := parseInteger([]byte(uid))
	switch {
	case !isInteger && s.opts.UIDs == UIDsInteger:
		return req, "", s.unknownUID
	case isInteger && s.opts.MaxUID > 0 && id > s.opts.MaxUID:
		return req, "", s.uidTooHigh
	}
	return req, uid, nil
}

func (s *Server) serves(method string) bool {
	return method == http.MethodGet || method == http.MethodHead || method == http.MethodPost && s.opts.Inbox != nil
}

// plain is an error of net/http's parser without what the client sent.
func plain(err error) string {
	text := err.Error()
	if i := strings.IndexAny(text, "\"'"); i > 0 {
		text = strings.TrimRight(text[:i], " :")
	}
	return text
}

// answers that depend on the options alone.
func (s *Server) makeAnswers() {
	s.unknownUID = answerText(http.StatusNotFound, "", "User id not found, try "+s.path.example()+" instead")
	methods := []string{http.MethodGet, http.MethodHead}
	if s.opts.Inbox != nil {
		methods = append(methods, http.MethodPost)
	}
	s.badMethod = answerText(http.StatusMethodNotAllowed, "Allow: "+strings.Join(methods, ", ")+"\r\n",
		"the methods served here are "+strings.Join(methods, ", "))
	s.uidTooHigh = answerText(http.StatusServiceUnavailable, "", "Max uid allowed is "+strconv.FormatInt(s.opts.MaxUID, 10))
	s.uidTooHigh.phrase = "We ran out of numbers"
	s.full = answerText(http.StatusServiceUnavailable, "Retry-After: 10\r\n", "no room for another connection, try again later")
	s.shutting = answerText(http.StatusServiceUnavailable, "Retry-After: 2\r\n", "shutting down, try again later")
	s.makeInboxAnswers()
	s.headTooLarge = answerText(http.StatusRequestHeaderFieldsTooLarge, "",
		"the request head may have "+strconv.Itoa(s.opts.MaxHeadBytes)+" bytes")
	s.uriTooLong = answerText(http.StatusRequestURITooLong, "",
		"the request head may have "+strconv.Itoa(s.opts.MaxHeadBytes)+" bytes")
	s.tooLate = answerText(http.StatusRequestTimeout, "", "no complete request within "+s.opts.HeadTimeout.String())
}
