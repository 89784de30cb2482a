package httpd

import (
	"testing"

	"pgregory.net/rapid"
)

// A table behaves as a map from uids to slots, whatever is done to it.
func TestUIDTable_IsAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const slots = 300
		conns := make([]conn, slots)
		var table uidTable
		model := map[uint64]uint32{}
		uids := rapid.SliceOfN(rapid.Uint64Range(1, 1<<63-1), 1, 40).Draw(t, "uids")
		for range rapid.IntRange(1, 400).Draw(t, "steps") {
			uid := rapid.SampledFrom(uids).Draw(t, "uid")
			slot, present := model[uid]
			if rapid.Bool().Draw(t, "add") {
				if !present { // a slot of its own
					slot = uint32(len(model))
					for _, used := range model {
						slot = max(slot, used+1)
					}
					if slot >= slots {
						continue
					}
				}
				conns[slot].uid = uid
				table.set(conns, slot)
				model[uid] = slot
			} else if present {
				table.remove(conns, uid)
				delete(model, uid)
			}
			for _, uid := range uids {
				want, ok := model[uid]
				if !ok {
					want = none
				}
				if got := table.find(conns, uid); got != want {
					t.Fatalf("uid %d: slot %d, want %d", uid, got, want)
				}
			}
			if table.n != len(model) {
				t.Fatalf("%d uids, want %d", table.n, len(model))
			}
		}
	})
}

// Many uids: all are found, shards grow, and shrink again.
func TestUIDTable_GrowsAndShrinks(t *testing.T) {
	const n = 200_000
	conns := make([]conn, n)
	var table uidTable
	cells := func() (sum int) {
		for i := range table.shards {
			sum += len(table.shards[i].cells)
		}
		return sum
	}
	for slot := range uint32(n) {
		conns[slot].uid = uint64(slot) + 1
		table.set(conns, slot)
	}
	if got := cells(); got < n || got > 4*n {
		t.Errorf("%d cells for %d uids", got, n)
	}
	for slot := range uint32(n) {
		if got := table.find(conns, uint64(slot)+1); got != slot {
			t.Fatalf("uid %d: slot %d", slot+1, got)
		}
		if slot%100 != 0 {
			table.remove(conns, uint64(slot)+1)
		}
	}
	if got := cells(); table.n != n/100 || got > n/4 {
		t.Errorf("%d cells for %d uids", got, table.n)
	}
}
