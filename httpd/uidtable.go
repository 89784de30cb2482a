package httpd

import "math/bits"

// uidTable finds the newest connection of an integer uid: a hash table of slot
// numbers, 4 bytes a cell, whose keys are read from the slots themselves. It is cut
// into shards that grow and shrink alone, so that no change of size takes long.
// All uids in it have a connection.
type uidTable struct {
	shards [uidShards]uidShard
	n      int
}

// uidShard is an open-addressed table with linear probing.
type uidShard struct {
	cells []uint32 // 1 + slot; 0: empty. As many as a power of two
	used  int
}

const (
	uidShards     = 256
	minCells      = 4
	maxLoadEighth = 6 // a shard grows when more than so many eighths of it are used
)

// uidHash is a folded multiplication. It shares no bits with Server.owner: the uids
// of one loop spread over all shards.
func uidHash(uid uint64) uint64 {
	hi, lo := bits.Mul64(uid^0xa0761d6478bd642f, 0xe7037ed1a0b428db)
	return hi ^ lo
}

func (t *uidTable) shard(hash uint64) *uidShard { return &t.shards[hash%uidShards] }

// seek returns the cell of uid, or the empty one where it belongs. The shard has cells.
func (s *uidShard) seek(conns []conn, uid, hash uint64) int {
	mask := len(s.cells) - 1
	for i := int(hash/uidShards) & mask; ; i = (i + 1) & mask {
		if c := s.cells[i]; c == 0 || conns[c-1].uid == uid {
			return i
		}
	}
}

// find returns the newest connection of uid, or none.
func (t *uidTable) find(conns []conn, uid uint64) uint32 {
	hash := uidHash(uid)
	s := t.shard(hash)
	if s.used == 0 {
		return none
	}
	return s.cells[s.seek(conns, uid, hash)] - 1 // none + 1 is 0: an empty cell
}

// set makes slot, whose uid is set, the newest connection of its uid.
func (t *uidTable) set(conns []conn, slot uint32) {
	uid := conns[slot].uid
	hash := uidHash(uid)
	s := t.shard(hash)
	if 8*(s.used+1) > maxLoadEighth*len(s.cells) {
		s.resize(conns, max(minCells, 2*len(s.cells)))
	}
	i := s.seek(conns, uid, hash)
	if s.cells[i] == 0 {
		s.used++
		t.n++
	}
	s.cells[i] = 1 + slot
}

// remove forgets a uid that is there.
func (t *uidTable) remove(conns []conn, uid uint64) {
	hash := uidHash(uid)
	s := t.shard(hash)
	s.empty(conns, s.seek(conns, uid, hash))
	s.used--
	t.n--
	if len(s.cells) > minCells && 8*s.used < len(s.cells) {
		s.resize(conns, len(s.cells)/2)
	}
}

// empty takes a cell out and moves those behind it up, as far as they belong there.
func (s *uidShard) empty(conns []conn, i int) {
	mask := len(s.cells) - 1
	for j := (i + 1) & mask; s.cells[j] != 0; j = (j + 1) & mask {
		home := int(uidHash(conns[s.cells[j]-1].uid)/uidShards) & mask
		if (j-home)&mask >= (j-i)&mask {
			s.cells[i] = s.cells[j]
			i = j
		}
	}
	s.cells[i] = 0
}

func (s *uidShard) resize(conns []conn, n int) {
	old := s.cells
	s.cells = make([]uint32, n)
	for _, c := range old {
		if c != 0 {
			uid := conns[c-1].uid
			s.cells[s.seek(conns, uid, uidHash(uid))] = c
		}
	}
}
