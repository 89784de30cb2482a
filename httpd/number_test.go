package httpd

import (
	"fmt"
	"math"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestNumbering_FitsOrSaysSo(t *testing.T) {
	for _, c := range []struct {
		connections, loops int
		ok                 bool
	}{
		{1, 1, true}, {DefaultMaxConnections, maxLoops, true}, {maxSlots, 1, true}, {maxSlots, 32, true}, {maxSlots, 33, false},
		{1<<23 - overflowSlots, 512, true}, {1<<23 - overflowSlots + 1, 512, false}, {1<<24 - overflowSlots, 256, true}, {1<<24 - overflowSlots, 257, false},
	} {
		o := DefaultOptions()
		o.MaxConnections, o.Loops, o.Engine = c.connections, min(c.loops, maxLoops), DefaultEngine
		if _, err := newNumbering(c.connections, c.loops); (err == nil) != c.ok {
			t.Errorf("%d slots, %d loops: %v", c.connections, c.loops, err)
		}
		if DefaultEngine == EngineEvio {
			continue
		}
		err := o.Validate()
		if (err == nil) != c.ok {
			t.Errorf("%d slots, %d loops: %v", c.connections, o.Loops, err)
		}
		if err != nil && !(strings.Contains(err.Error(), "--max-connections") && strings.Contains(err.Error(), "--loops")) {
			t.Errorf("the error names no flag to change: %v", err)
		}
	}
}

// TestNumbering_SplitsWhatItMade: for all that fit, and with the last slot and loop.
func TestNumbering_SplitsWhatItMade(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		connections, loops := rapid.IntRange(1, maxSlots).Draw(t, "connections"), rapid.IntRange(1, maxLoops).Draw(t, "loops")
		n, err := newNumbering(connections, loops)
		if err != nil {
			t.Skip(err)
		}
		gen := rapid.Uint32Min(1).Draw(t, "gen")
		loop := rapid.OneOf(rapid.IntRange(0, loops-1), rapid.Just(loops-1)).Draw(t, "loop")
		last := uint32(connections + overflowSlots - 1)
		slot := rapid.OneOf(rapid.Uint32Max(last), rapid.Just(last)).Draw(t, "slot")
		g, l, s := n.split(n.number(gen, loop, slot))
		if g != gen || l != loop || s != slot {
			t.Fatalf("%d, %d, %d became %d, %d, %d", gen, loop, slot, g, l, s)
		}
	})
}

// TestSlots_NumbersAreUnique: slots come and go, some of them near the end of their
// generations. No number is given out twice, none is 0 in its high half, and a slot that is
// used up is retired.
func TestSlots_NumbersAreUnique(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const n = 5
		s := testSlots(t, n)
		for i := range s.conns { // as if they had been used before
			if left := rapid.Uint32Range(0, 6).Draw(t, "generations left"); left < 6 {
				s.conns[i].gen = math.MaxUint32 - left
			}
		}
		given, held := map[string]bool{}, []uint32{}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			if len(held) > 0 && rapid.Bool().Draw(t, "put") {
				i := rapid.IntRange(0, len(held)-1).Draw(t, "which")
				last := s.conns[held[i]].gen == math.MaxUint32
				retired := s.retired
				s.put(held[i])
				if (s.retired > retired) != last {
					t.Fatalf("last generation %v, retired %d and then %d", last, retired, s.retired)
				}
				held = append(held[:i], held[i+1:]...)
				continue
			}
			slot, ok := s.take()
			if !ok {
				if len(held)+s.retired != n {
					t.Fatalf("no slot: %d in use, %d retired of %d", len(held), s.retired, n)
				}
				continue
			}
			name := fmt.Sprint(slot, s.conns[slot].gen)
			if given[name] || s.conns[slot].gen == 0 {
				t.Fatalf("number %s was given out before", name)
			}
			given[name] = true
			if held = append(held, slot); s.used != len(held) {
				t.Fatalf("%d used, want %d", s.used, len(held))
			}
		}
	})
}

// TestSlots_RetiredIsSeen: who comes while a slot is used up gets another one, and it is counted.
func TestSlots_RetiredIsSeen(t *testing.T) {
	l := testLoop(t, nullEngine{}, nil)
	slot := accepted(t, l, "1")
	l.slots.conns[slot].gen = math.MaxUint32
	last := l.number(slot)
	l.onClosed(slot, nil)
	if st := l.server.Stats(); st.SlotsRetired != 1 {
		t.Errorf("%d retired, want 1", st.SlotsRetired)
	}
	if next := accepted(t, l, "1"); next == slot {
		t.Error("the slot was given out again")
	}
	if _, ok := l.find(last); ok {
		t.Error("its last number names a connection")
	}
}
