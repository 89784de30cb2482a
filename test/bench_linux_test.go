package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// scripts/bench, small: that it measures, not what.
func TestBench(t *testing.T) {
	need(t, "erlc", "gcc")
	tables := filepath.Join(t.TempDir(), "tables.md")
	bench := exec.Command("../scripts/bench", "--rounds", "2", "--only", "halley,ceiling", "--connections", "200", "--more", "0",
		"--messages", "2000", "--hold", "300ms", "--step", "20ms", "--markdown", tables)
	bench.Env = cleanEnv("HALLEY_BENCH_SETUP=no")
	dieWithUs(bench)
	out, err := bench.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "Medians of 2 rounds; × is the ratio to halley.") {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(tables)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"| resident per idle connection, 200 |", "| connects per second |", "| unicast flat out: messages per second |",
		"| at 5000/s: p50 |", "| one message to 200: the last has it |", "| 1000 clients stalled: memory |"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("no %q in\n%s", line, text)
		}
	}
	if strings.Contains(string(out), "round 1:") || strings.Contains(string(out), "round 2:") {
		t.Errorf("figures are missing:\n%s", out)
	}
}

func TestBench_Mistakes(t *testing.T) {
	for _, c := range []struct{ args, want string }{
		{"--only nobody", `--only "nobody" is none of halley, halley-evio, ceiling`},
		{"--rounds 0", "--rounds"},
		{"--from /does/not/exist", "/does/not/exist"},
	} {
		bench := exec.Command("../scripts/bench", strings.Fields(c.args)...)
		bench.Env = cleanEnv("HALLEY_BENCH_SETUP=no")
		dieWithUs(bench)
		if out, err := bench.CombinedOutput(); err == nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s: %v\n%s", c.args, err, out)
		}
	}
}
