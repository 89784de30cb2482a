package httpd

import (
	"strconv"
	"strings"
)

// maxNameBytes is the longest binary uid.
const maxNameBytes = 255

// parseInteger reads the decimal spelling of an integer uid: 1 to 2^63-1
// without sign or leading zero. Anything else is a binary uid.
func parseInteger(b []byte) (int64, bool) {
	const maxDigits = 19 // of 2^63-1
	if len(b) == 0 || len(b) > maxDigits || b[0] == '0' {
		return 0, false
	}
	var n uint64
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + uint64(c-'0') // 19 digits fit 64 bits
	}
	if n > 1<<63-1 {
		return 0, false
	}
	return int64(n), true
}

// users finds the connections of a uid. Integer uids go through a table without
// pointers, which the collector does not read; binary ones have an entry each.
type users struct {
	ints  uidTable
	names map[string]uint32 // binary uid → index into named
	named []namedUser
	free  []uint32 // unused entries of named
}

type namedUser struct {
	name  string
	first uint32 // its newest connection's slot
}

func newUsers() users {
	return users{names: map[string]uint32{}}
}

// find returns the newest connection of a uid, or none; name nil means the
// integer id. A binary that spells an integer is that integer.
func (u *users) find(conns []conn, id int64, name []byte) uint32 {
	if name != nil {
		n, ok := parseInteger(name)
		if !ok {
			i, ok := u.names[string(name)]
			if !ok {
				return none
			}
			return u.named[i].first
		}
		id = n
	}
	return u.ints.find(conns, uint64(id))
}

// add makes slot the newest connection of the uid that name spells.
func (u *users) add(conns []conn, slot uint32, name string) {
	c := &conns[slot]
	first := none
	if id, ok := parseInteger([]byte(name)); ok {
		first = u.ints.find(conns, uint64(id))
		c.uid = uint64(id)
		u.ints.set(conns, slot)
	} else {
		i, ok := u.names[name]
		if !ok {
			i = u.newName(name)
		}
		c.uid, c.named = uint64(i), true
		first = u.named[i].first
		u.named[i].first = slot
	}
	c.next, c.prev = first, none
	if first != none {
		conns[first].prev = slot
	}
}

// newName keeps a copy: name is a piece of a request line of up to MaxHeadBytes.
func (u *users) newName(name string) uint32 {
	name = strings.Clone(name)
	var i uint32
	if n := len(u.free); n > 0 {
		i, u.free = u.free[n-1], u.free[:n-1]
	} else {
		i = uint32(len(u.named))
		u.named = append(u.named, namedUser{})
	}
	u.named[i] = namedUser{name: name, first: none}
	u.names[name] = i
	return i
}

// remove takes a connection out of its uid's list.
func (u *users) remove(conns []conn, slot uint32) {
	c := &conns[slot]
	if c.next != none {
		conns[c.next].prev = c.prev
	}
	switch {
	case c.prev != none:
		conns[c.prev].next = c.next
	case c.named:
		if u.named[c.uid].first = c.next; c.next == none {
			delete(u.names, u.named[c.uid].name)
			u.named[c.uid].name = ""
			u.free = append(u.free, uint32(c.uid))
		}
	case c.next == none:
		u.ints.remove(conns, c.uid)
	default:
		u.ints.set(conns, c.next)
	}
	c.next, c.prev = none, none
}

// spell returns the uid of a connection as the URL has it.
func (u *users) spell(c *conn) string {
	if c.named {
		return u.named[c.uid].name
	}
	return strconv.FormatUint(c.uid, 10)
}

// count is how many uids have a connection.
func (u *users) count() int { return u.ints.n + len(u.names) }
