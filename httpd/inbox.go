package httpd

import (
	"net/http"
	"strconv"
	"strings"
)

// This file is what clients send: a POST to the stream's URL, whose body goes to
// Options.Inbox. The loop that accepted it reads the head, the one that owns the uid
// the body.

// inboxResult is what became of a message that a client has sent. The names are those of
// the label `result` of halley_inbox_messages_total.
type inboxResult uint8

const (
	inboxAccepted inboxResult = iota
	inboxRefused              // nobody could take it, or too many were coming in
	inboxTooLarge             // for --max-inbox
	numInboxResults
)

var inboxResultNames = [numInboxResults]string{"accepted", "refused", "too_large"}

func (r inboxResult) String() string { return inboxResultNames[r] }

// inboxAnswers are those to a POST. Anyone else's page may send one, as it may to any URL;
// without a header that allows it, which Halley does not send, it cannot read the answer.
type inboxAnswers struct {
	accepted, notTaken, noLength, bodyTooLarge *answer
}

func (s *Server) makeInboxAnswers() {
	s.accepted = &answer{code: http.StatusAccepted, phrase: http.StatusText(http.StatusAccepted)}
	s.notTaken = answerText(http.StatusServiceUnavailable, "Retry-After: 2\r\n", "nobody can take a message now, try again later")
	s.noLength = answerText(http.StatusLengthRequired, "", "a POST must have a Content-Length")
	s.bodyTooLarge = answerText(http.StatusRequestEntityTooLarge, "", "a message may have "+strconv.Itoa(s.opts.MaxInboxBytes)+" bytes")
}

// post is a POST whose body has not come whole.
type post struct {
	uid     string
	length  int    // of the body
	body    []byte // what has come of it
	expects bool   // the client waits to be told to send it (RFC 9110, section 10.1.1)
}

// posts are a loop's, by slot. Their bodies are bounded together: a client needs to
// send them for as long as it likes within HeadTimeout, so there can be many.
type posts struct {
	all      map[uint32]*post
	bytes    int
	maxBytes int
}

// maxPostsBytes is what the incomplete bodies of a loop may have together, if the longest
// one allowed does not have more.
const maxPostsBytes = 16 << 20

func newPosts(longest int) posts {
	return posts{all: map[uint32]*post{}, maxBytes: max(maxPostsBytes, longest)}
}

// add keeps a POST with what has come of it.
func (ps *posts) add(slot uint32, p *post) {
	ps.all[slot] = p
	ps.bytes += len(p.body)
}

// extend adds a piece, which must not be too long for the body; false: there is no room.
func (ps *posts) extend(p *post, piece []byte) bool {
	if ps.bytes+len(piece) > ps.maxBytes {
		return false
	}
	p.body = append(p.body, piece...)
	ps.bytes += len(piece)
	return true
}

func (ps *posts) remove(slot uint32) {
	if p, ok := ps.all[slot]; ok {
		ps.bytes -= len(p.body)
		delete(ps.all, slot)
	}
}

// takePost begins a POST with its head; extra is what came behind that.
func (l *loop) takePost(slot uint32, req *http.Request, uid string, extra []byte) {
	length := req.ContentLength
	switch {
	case len(req.TransferEncoding) > 0, len(req.Header["Content-Length"]) == 0:
		l.answer(slot, l.server.noLength, false, reasonAnswered)
		l.ignore(slot, len(extra))
		return
	case length > int64(l.server.opts.MaxInboxBytes):
		l.count.inbox[inboxTooLarge].add(1)
		l.answer(slot, l.server.bodyTooLarge, false, reasonAnswered)
		l.ignore(slot, len(extra))
		return
	}
	p := &post{uid: strings.Clone(uid), length: int(length), expects: req.ProtoAtLeast(1, 1) && expectsContinue(req)}
	body := extra[:min(len(extra), p.length)]
	if owner := l.server.ownerOf(uid); owner != l.index {
		p.body = append(p.body, body...) // it is in a buffer of this loop
		l.move(slot, l.server.loops[owner], opening{uid: uid, extra: len(extra) - len(body), post: p})
		return
	}
	l.beginPost(slot, p, body)
	l.ignore(slot, len(extra)-len(body))
}

func expectsContinue(req *http.Request) bool {
	return strings.EqualFold(req.Header.Get("Expect"), "100-continue")
}

// continueAnswer asks for the body. It is no answer that is counted.
var continueAnswer = []byte("HTTP/1.1 100 Continue\r\n\r\n")

// beginPost goes on with a POST, of whose body some has come, on the loop that owns its uid.
func (l *loop) beginPost(slot uint32, p *post, body []byte) {
	if len(body) == p.length {
		l.finishPost(slot, p.uid, body)
		return
	}
	p.body = nil
	l.slots.conns[slot].state = stateBody
	l.posts.add(slot, p)
	l.wheel.set(l.slots.conns, slot, l.now(), l.server.opts.HeadTimeout)
	switch {
	case len(body) > 0:
		l.readBody(slot, body)
	case p.expects:
		l.send(slot, continueAnswer)
	}
}

// readBody takes a piece of a POST's body.
func (l *loop) readBody(slot uint32, data []byte) {
	p := l.posts.all[slot]
	piece := data[:min(len(data), p.length-len(p.body))]
	switch {
	case !l.posts.extend(p, piece):
		l.refusePost(slot)
	case len(p.body) == p.length:
		l.finishPost(slot, p.uid, p.body)
	}
	l.ignore(slot, len(data)-len(piece))
}

// finishPost hands a body over.
func (l *loop) finishPost(slot uint32, uid string, body []byte) {
	id, isInteger := parseInteger([]byte(uid))
	var name []byte
	if !isInteger {
		name = []byte(uid)
	}
	var conn uint64
	if newest := l.users.find(l.slots.conns, id, name); newest != none {
		conn = l.number(newest)
	}
	if !l.server.opts.Inbox(id, name, conn, body) {
		l.refusePost(slot)
		return
	}
	l.count.inbox[inboxAccepted].add(1)
	l.answer(slot, l.server.accepted, false, reasonAnswered)
}

// refusePost tells a client to come again.
func (l *loop) refusePost(slot uint32) {
	l.count.inbox[inboxRefused].add(1)
	l.answer(slot, l.server.notTaken, false, reasonAnswered)
}
