package memlog

import (
	"errors"
	"fmt"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestTake(t *testing.T) {
	s, err := Take([]int{os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if s.ResidentKB < 1000 || s.Open < 3 || time.Since(s.Time) > time.Minute {
		t.Errorf("%+v", s)
	}
	more := make([]*os.File, 20)
	for i := range more {
		if more[i], err = os.Open(os.DevNull); err != nil {
			t.Fatal(err)
		}
		defer more[i].Close()
	}
	if s2, err := Take([]int{os.Getpid()}); err != nil || s2.Open != s.Open+20 {
		t.Errorf("%d open, %v, want %d", s2.Open, err, s.Open+20)
	}
	if two, err := Take([]int{os.Getpid(), os.Getpid()}); err != nil || two.ResidentKB < s.ResidentKB*3/2 {
		t.Errorf("two processes: %+v, %v", two, err)
	}
}

func TestTake_ProcessThatEnded(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	cmd.Wait()
	if _, err := Take([]int{cmd.Process.Pid}); !errors.Is(err, ErrGone) {
		t.Errorf("%v, want ErrGone", err)
	}
}

func TestRead(t *testing.T) {
	want := []Sample{{time.Unix(1795237481, 0), 52396, 1544, 10021}, {time.Unix(1795237541, 0), 52400, 0, 10021}}
	log := "# a comment\n\n"
	for _, s := range want {
		log += s.String() + "\n"
	}
	if !strings.Contains(log, "2026-11-21T05:04:41Z 1795237481 52396 1544 10021\n") {
		t.Errorf("%q", log)
	}
	got, err := Read(strings.NewReader(log))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for in, want := range map[string]string{
		"a b\n":                  "line 1: 2 fields",
		"\nx 1 2 3 many\n":       `line 2: field 5, "many", is no count`,
		"x 1 -2 3 4\n":           "field 3",
		"x 1 2 3 4 5 too many\n": "8 fields",
	} {
		if _, err := Read(strings.NewReader(in)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestPlot(t *testing.T) {
	var samples []Sample
	for i := range 100 {
		samples = append(samples, Sample{time.Unix(int64(1795237481+60*i), 0), int64(20000 + 900*i), int64(50 * i), int64(100 * i)})
	}
	dir := t.TempDir()
	for _, name := range []string{"out.png", "out.svg"} {
		file := filepath.Join(dir, name)
		if err := Plot(samples, "a test", file); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if name == "out.png" {
			if img, err := png.Decode(f); err != nil || img.Bounds().Dx() < 500 {
				t.Errorf("%v, %v", img.Bounds(), err)
			}
		}
	}
	svg, _ := os.ReadFile(filepath.Join(dir, "out.svg"))
	for _, want := range []string{"a test", "memory (MB)", "minutes since 2026-11-21 05:04:41 UTC", "open files"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the picture has no %q", want)
		}
	}
	if err := Plot(samples[:1], "x", filepath.Join(dir, "one.png")); err == nil {
		t.Error("one sample was drawn")
	}
	if err := Plot(samples, "x", filepath.Join(dir, "out.xyz")); err == nil {
		t.Error("an unknown format was taken")
	}
}

func TestRoundUp(t *testing.T) {
	for v, want := range map[float64]float64{1: 2, 0.9: 1, 95: 100, 96: 200, 1000: 2000, 2300: 2500, 4000: 5000, 4900: 10000} {
		if got := roundUp(v); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%v: %v, want %v", v, got, want)
		}
	}
}
