//go:build linux

package main

import (
	"bytes"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestMedian(t *testing.T) {
	for _, c := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 3}, 3}, {[]float64{4, 1, 2, 3}, 2.5}} {
		if got := median(c.values); got != c.want {
			t.Errorf("%v: %v, want %v", c.values, got, c.want)
		}
	}
}

func testReport() *report {
	return &report{
		Machine: "a machine", Rounds: 3,
		Plan: plan{Connections: 100, More: 50, Fixed: 5000, Hold: time.Second, Deaf: 20000, Stalled: 10},
		Results: []*result{
			{Name: "absent", Absent: "it needs something"},
			{Name: "first", Rounds: []figures{{"rss": 100, "flat_rate": 5}, {"rss": 300, "flat_rate": 6}, {"rss": 200}}},
			{Name: "second", Rounds: []figures{{"rss": 500}}, Notes: []string{"round 1: flat out: it broke"}},
		},
	}
}

func TestReport_Text(t *testing.T) {
	var b bytes.Buffer
	testReport().text(&b)
	got := strings.Join(strings.Fields(b.String()), " ")
	for _, want := range []string{
		"unit first second",
		"resident per idle connection, 100 B 200 500 ×2.50",
		"messages per second /s 6 –", // 5.5, rounded to even
		"Medians of 3 rounds; × is the ratio to first.",
		"absent was left out: it needs something",
		"second: round 1: flat out: it broke",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in\n%s", want, b.String())
		}
	}
	if strings.Contains(got, "connects per second") {
		t.Errorf("a line that nobody has a figure for:\n%s", b.String())
	}
}

func TestReport_SavesAndComesBack(t *testing.T) {
	dir := t.TempDir()
	file, tables, plots := filepath.Join(dir, "r.json"), filepath.Join(dir, "r.md"), filepath.Join(dir, "plots")
	if err := saveAll(outputs{file, tables, plots}); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(file)
	if err != nil {
		t.Fatal(err)
	}
	var want, got bytes.Buffer
	testReport().markdown(&want)
	again.markdown(&got)
	if got.String() != want.String() {
		t.Errorf("%s\nwant\n%s", got.String(), want.String())
	}
	text, err := os.ReadFile(tables)
	if err != nil || !bytes.Contains(text, []byte("| resident per idle connection, 100 | B | 200 | 500 ×2.50 |")) ||
		!bytes.Contains(text, []byte("| 100–300 |")) {
		t.Errorf("%v\n%s", err, text)
	}
	for _, p := range pictures(again.Plan) {
		f, err := os.Open(filepath.Join(plots, p.file+".png"))
		if err != nil {
			t.Error(err)
			continue
		}
		defer f.Close()
		if size, err := png.DecodeConfig(f); err != nil || size.Width < 500 || size.Height < 200 {
			t.Errorf("%s: %+v, %v", p.file, size, err)
		}
	}
}

func saveAll(o outputs) error {
	if err := o.prepare(); err != nil {
		return err
	}
	return testReport().save(o)
}
