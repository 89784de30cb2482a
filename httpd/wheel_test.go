package httpd

import (
	"maps"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWheel_LikeAMap checks the wheel against a map of times: none is over early, none
// is forgotten, each is over once.
func TestWheel_LikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, w := testSlots(t, 16), newWheel()
		for range 16 {
			s.take()
		}
		model, now := map[uint32]time.Duration{}, time.Duration(0) // slot → when it is over
		slot := rapid.Uint32Range(0, 15)
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0, 1:
				i := slot.Draw(t, "slot")
				after := time.Duration(rapid.Int64Range(0, int64(2*wheelSpan)).Draw(t, "after"))
				w.set(s.conns, i, now, after)
				model[i] = now + min(after, wheelSpan)
			case 2:
				i := slot.Draw(t, "slot")
				w.unset(s.conns, i)
				delete(model, i)
			case 3: // seldom a stall that is longer than the wheel
				now += time.Duration(rapid.Int64Range(0, int64(3*wheelSpan/2)).Draw(t, "pass"))
				for {
					i, ok := w.expired(s.conns, now)
					if !ok {
						break
					}
					if at, is := model[i]; !is || at > now {
						t.Fatalf("%d is over at %s, want %s (%v)", i, now, at, is)
					}
					delete(model, i)
				}
				for _, i := range slices.Sorted(maps.Keys(model)) {
					if late := now - model[i]; late > 2*tickEvery {
						t.Fatalf("%d should have been over %s ago", i, late)
					}
				}
			}
		}
	})
}
