package httpd

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unsafe"

	"pgregory.net/rapid"
)

func TestConn_Size(t *testing.T) {
	if size := unsafe.Sizeof(conn{}); size > 64 {
		t.Errorf("a slot has %d bytes, at most 64 are allowed", size)
	}
	for f := range reflect.TypeFor[conn]().Fields() {
		switch f.Type.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface:
			t.Errorf("field %s is a %s: the collector would read the whole array", f.Name, f.Type.Kind())
		}
	}
}

func TestSlots_ReuseRaisesGeneration(t *testing.T) {
	s := testSlots(t, 2)
	a, _ := s.take()
	b, _ := s.take()
	if _, ok := s.take(); ok {
		t.Fatal("a third of two slots was given out")
	}
	gen := s.conns[a].gen
	s.put(a)
	again, ok := s.take()
	if !ok || again != a || again == b {
		t.Fatalf("slot %d, want the freed %d", again, a)
	}
	if s.conns[again].gen != gen+1 {
		t.Errorf("generation %d, want %d", s.conns[again].gen, gen+1)
	}
	if s.used != 2 {
		t.Errorf("used %d, want 2", s.used)
	}
}

func TestParseInteger(t *testing.T) {
	for _, c := range []struct {
		in   string
		want int64
		ok   bool
	}{
		{"1", 1, true}, {"123", 123, true}, {"9223372036854775807", 1<<63 - 1, true},
		{"", 0, false}, {"0", 0, false}, {"01", 0, false}, {"-1", 0, false}, {"+1", 0, false}, {" 1", 0, false},
		{"1x", 0, false}, {"9223372036854775808", 0, false}, {"9999999999999999999", 0, false},
		{"18446744073709551617", 0, false}, {"١", 0, false},
	} {
		if got, ok := parseInteger([]byte(c.in)); got != c.want || ok != c.ok {
			t.Errorf("%q: %d, %v, want %d, %v", c.in, got, ok, c.want, c.ok)
		}
	}
}

// TestUsers_LikeAMap checks the table against plain maps of slices.
func TestUsers_LikeAMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, u := testSlots(t, 64), newUsers()
		model := map[string][]uint32{} // newest first
		uids := []string{"1", "2", "9223372036854775807", "alice", "01", "0", "bob"}
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			uid := rapid.SampledFrom(uids).Draw(t, "uid")
			if list := model[uid]; rapid.Bool().Draw(t, "remove") && len(list) > 0 {
				i := rapid.IntRange(0, len(list)-1).Draw(t, "which")
				u.remove(s.conns, list[i])
				s.put(list[i])
				model[uid] = append(list[:i:i], list[i+1:]...)
				if len(model[uid]) == 0 {
					delete(model, uid)
				}
			} else if slot, ok := s.take(); ok {
				u.add(s.conns, slot, uid)
				model[uid] = append([]uint32{slot}, list...)
				if got := u.spell(&s.conns[slot]); got != uid {
					t.Fatalf("spelled %q, want %q", got, uid)
				}
			}
			if u.count() != len(model) {
				t.Fatalf("%d users, want %d", u.count(), len(model))
			}
			for _, uid := range uids {
				var got []uint32
				for slot := u.find(s.conns, 0, []byte(uid)); slot != none; slot = s.conns[slot].next {
					got = append(got, slot)
				}
				if fmt.Sprint(got) != fmt.Sprint(model[uid]) {
					t.Fatalf("%s: %v, want %v", uid, got, model[uid])
				}
			}
		}
	})
}

func TestUsers_IntegerAndItsSpellingAreOne(t *testing.T) {
	s, u := testSlots(t, 1), newUsers()
	slot, _ := s.take()
	u.add(s.conns, slot, "123")
	if u.find(s.conns, 123, nil) != slot || u.find(s.conns, 0, []byte("123")) != slot {
		t.Error("123 and <<\"123\">> are not the same uid")
	}
	if u.find(s.conns, 0, []byte("0123")) != none {
		t.Error("0123 found 123")
	}
}

// testSlots are n slots, given back at the end.
func testSlots(t interface {
	Fatal(...any)
	Cleanup(func())
}, n int) slots {
	s, err := newSlots(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.room.free)
	return s
}

// TestUsers_KeepNoRequestLine: a uid is a piece of the line that it came in.
func TestUsers_KeepNoRequestLine(t *testing.T) {
	line := "/test/alice?" + strings.Repeat("x", 4000)
	name, u := line[6:11], newUsers()
	conns := make([]conn, 1)
	u.add(conns, 0, name)
	if unsafe.StringData(u.named[0].name) == unsafe.StringData(name) {
		t.Error("the line is kept with the uid")
	}
	for kept := range u.names {
		if unsafe.StringData(kept) == unsafe.StringData(name) {
			t.Error("the line is kept with the key")
		}
	}
}
