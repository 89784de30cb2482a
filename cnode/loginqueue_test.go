package cnode

import (
	"slices"
	"strings"
	"testing"
)

// The queue against a model.
func TestLoginQueue(t *testing.T) {
	waiting := make(map[uint64]bool)
	waits := func(conn uint64) bool { return waiting[conn] }
	var q loginQueue
	var model []uint64
	next, popped := uint64(1), 0
	for step := range 200000 {
		switch {
		case step%7 < 4:
			name := []byte(nil)
			if next%3 == 0 {
				name = []byte(strings.Repeat("n", int(next%255)+1))
			}
			q.push(next, int64(next)<<20, name)
			waiting[next] = true
			model = append(model, next)
			next++
		case step%7 < 6 && len(model) > 0: // one of them ends
			i := step * 31 % len(model)
			delete(waiting, model[i])
			model = slices.Delete(model, i, i+1)
			q.remove(waits)
		default:
			conn, uid, ok := q.pop(waits)
			if ok != (len(model) > 0) || ok && conn != model[0] {
				t.Fatalf("step %d: %d, %t", step, conn, ok)
			}
			if !ok {
				continue
			}
			if id, name, ok := uidOf(uid); !ok || name == nil && id != int64(conn)<<20 || name != nil && len(name) != int(conn%255)+1 {
				t.Fatalf("step %d: uid of %d: %d, %q", step, conn, id, name)
			}
			delete(waiting, conn)
			model = model[1:]
			popped++
		}
		if q.n != len(model) || q.held > 2*q.n+prunedFrom || q.n == 0 && q.held != 0 {
			t.Fatalf("step %d: %d wait, %d are held, want %d", step, q.n, q.held, len(model))
		}
	}
	if popped < 10000 {
		t.Errorf("%d popped", popped)
	}
}
