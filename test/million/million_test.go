//go:build linux

package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestParseOptions(t *testing.T) {
	for _, c := range []struct {
		args string
		want string // of the error; "": none
	}{
		{"", ""},
		{"--connections 1 --rate 0.5 --messages 0 --patience 1s", ""},
		{"--connections 1095704", ""},
		{"--connections 1095705", "must be from 1 to 1095704"},
		{"--connections 0", "--connections 0 must be from 1"},
		{"--connections x", "invalid value"},
		{"--rate -1", "--rate -1 must be 0 or more"},
		{"--messages -1", "--messages -1 must be 0 or more"},
		{"--patience 1ms", "--patience 1ms must be 1s or more"},
		{"x", `run takes no argument, got "x"`},
	} {
		_, err := parseOptions(strings.Fields(c.args))
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.args, err, c.want)
		}
	}
}

// TestCheckLimits_AllAtOnce: each limit that is too low comes with its remedy.
func TestCheckLimits_AllAtOnce(t *testing.T) {
	err := checkLimits(options{connections: 1 << 40})
	for _, want := range []string{"ulimit -n", "fs.file-max", "fs.epoll.max_user_watches", "available memory", "halley doctor"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in %v", want, err)
		}
	}
}

// TestInitramfs has the archive unpacked by cpio.
func TestInitramfs(t *testing.T) {
	if _, err := exec.LookPath("cpio"); err != nil {
		t.Skip("cpio is not installed")
	}
	dir := t.TempDir()
	file, archive := filepath.Join(dir, "file"), filepath.Join(dir, "archive")
	for size := range 5 { // each padding
		want := strings.Repeat("x", size)
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := writeInitramfs(archive, []string{"/lib/deep/name=" + file, "bin/other=" + file}); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"lib/deep/name", "bin/other"} {
			cpio := exec.Command("cpio", "-i", "--quiet", "--to-stdout", name)
			cpio.Stdin, _ = os.Open(archive)
			if got, err := cpio.Output(); err != nil || string(got) != want {
				t.Errorf("%s: %q, %v, want %q", name, got, err, want)
			}
		}
	}
	if err := writeInitramfs(archive, []string{"no-name"}); err == nil {
		t.Error("an argument without = was taken")
	}
}

func TestMeasure(t *testing.T) {
	p, err := measureProcess(os.Getpid())
	if err != nil || p.Resident < 1<<20 {
		t.Errorf("%+v, %v", p, err)
	}
	k, err := measureKernel()
	if err != nil || k.Used <= 0 || k.Slab <= 0 || k.Available <= 0 {
		t.Errorf("%+v, %v", k, err)
	}
	if pages, ok := field("TCP: inuse 5 orphan 0 tw 1 alloc 7 mem 3", "TCP:", "mem"); !ok || pages != 3 {
		t.Errorf("%d, %v", pages, ok)
	}
	if counters := netCounters(); counters["OutSegs"] == 0 && counters["InSegs"] == 0 && counters["ActiveOpens"] == 0 {
		t.Errorf("no counters of TCP: %v", counters)
	}
	if busySeconds() <= 0 {
		t.Error("the processors have never worked")
	}
	if text := slabGrowth(map[string]int64{"a": 1}, map[string]int64{"a": 1, "TCP": 5000}, 10); !strings.Contains(text, "500.0") || strings.Contains(text, "\na ") {
		t.Error(text)
	}
}

func TestReport(t *testing.T) {
	m := &million{}
	m.report("   12.0s  {100, 3, 250, 12345}")
	if m.last.open != 100 || m.last.chunks != 250 || m.changed.IsZero() {
		t.Errorf("%+v", m.last)
	}
	before := m.changed
	for _, line := range []string{"", "messages     100000 with numbers: 0 missing", "   13.0s  {100, 3, 250, 12345}"} {
		if m.report(line); m.last.open != 100 || m.changed != before {
			t.Errorf("%q: %+v", line, m.last)
		}
	}
}
