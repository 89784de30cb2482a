package cnode

import (
	"slices"
	"sync"
)

// registry knows who is connected and who is about to be. Its mutex protects all of
// it and makes each step of a peer from dialling to connected one step for all.
//
// Several sockets may be in a handshake under one name, because anyone can send a
// name; the first that proves the cookie takes it. So a client without the cookie
// cannot hold a name. When both sides dial, the greater node name keeps its own
// attempt: OTP erl_dist_protocol, Distribution Handshake.
type registry struct {
	own     string // our node name
	mu      sync.Mutex
	peers   map[string]*peerState
	changed chan struct{} // closed and replaced at each change
	closed  bool          // Stop has begun: no more connections
}

type peerState struct {
	dialling bool  // our own attempt is under way
	taken    bool  // a proven attempt is becoming the connection
	conn     *conn // nil: not connected
	before   bool  // was connected before
}

func newRegistry(own string) *registry {
	return &registry{own: own, peers: make(map[string]*peerState), changed: make(chan struct{})}
}

// state needs mu.
func (r *registry) state(peer string) *peerState {
	s := r.peers[peer]
	if s == nil {
		s = new(peerState)
		r.peers[peer] = s
	}
	return s
}

// announce needs mu. It also forgets names that nobody uses, so that refused clients
// leave nothing behind.
func (r *registry) announce(peer string) {
	if s := r.peers[peer]; s != nil && !s.dialling && !s.taken && s.conn == nil && !s.before {
		delete(r.peers, peer)
	}
	close(r.changed)
	r.changed = make(chan struct{})
}

// greet is the status for a node that introduces itself.
func (r *registry) greet(peer string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[peer]
	switch {
	case r.closed || s != nil && s.taken:
		return "nok"
	case s == nil:
		return "ok"
	case s.conn != nil:
		return "alive"
	case s.dialling && r.own > peer:
		return "nok"
	case s.dialling:
		return "ok_simultaneous"
	}
	return "ok"
}

// dial claims peer for our own attempt. Not claimed: changed tells when to look
// again, and conn is the connection if there is one.
func (r *registry) dial(peer string) (claimed bool, c *conn, changed <-chan struct{}, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false, nil, nil, errStopping
	}
	s := r.state(peer)
	if s.conn != nil || s.taken || s.dialling {
		return false, s.conn, r.changed, nil
	}
	s.dialling = true
	return true, nil, nil, nil
}

// dialled gives our own attempt's claim back.
func (r *registry) dialled(peer string) {
	r.mu.Lock()
	r.state(peer).dialling = false
	r.announce(peer)
	r.mu.Unlock()
}

// take claims peer for an attempt that has proven the cookie; old is the connection
// that it replaces, which must have ended before connect.
func (r *registry) take(peer string, replace bool) (old *conn, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state(peer)
	switch {
	case r.closed:
		return nil, errStopping
	case s.taken, s.conn != nil && !replace:
		return nil, errHaveOne
	}
	s.taken = true
	return s.conn, nil
}

// drop gives the claim of take back.
func (r *registry) drop(peer string) {
	r.mu.Lock()
	r.state(peer).taken = false
	r.announce(peer)
	r.mu.Unlock()
}

// connect makes a claim the connection; again is true if there was one before.
func (r *registry) connect(c *conn) (again bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false, errStopping
	}
	s := r.state(c.peer)
	again = s.before
	s.taken, s.conn, s.before = false, c, true
	r.announce(c.peer)
	return again, nil
}

// disconnect forgets an ended connection.
func (r *registry) disconnect(c *conn) {
	r.mu.Lock()
	if s := r.state(c.peer); s.conn == c {
		s.conn = nil
	}
	r.announce(c.peer)
	r.mu.Unlock()
}

// close ends taking connections and gives those there are.
func (r *registry) close() (conns []*conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = true
	for _, s := range r.peers {
		if s.conn != nil {
			conns = append(conns, s.conn)
		}
	}
	return conns
}

// watch gives the connection to peer, if there is one, and what tells of a change.
func (r *registry) watch(peer string) (*conn, <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.peers[peer]; s != nil {
		return s.conn, r.changed
	}
	return nil, r.changed
}

func (r *registry) conn(peer string) *conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s := r.peers[peer]; s != nil {
		return s.conn
	}
	return nil
}

// connected is true also while a proven attempt is becoming the connection.
func (r *registry) connected(peer string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.peers[peer]
	return s != nil && (s.conn != nil || s.taken)
}

func (r *registry) names() (names []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, s := range r.peers {
		if s.conn != nil {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
