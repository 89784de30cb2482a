package doctor

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"halley/httpd"
)

func TestTable(t *testing.T) {
	f := read(t, map[string]string{"proc/sys/net/ipv4/tcp_rmem": ""})
	var out strings.Builder
	if err := Table(&out, f, 1000000, Judge(f, 1000000)); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(out.String(), "\n")
	column := strings.Index(lines[2], "now")
	for _, line := range lines[3:18] {
		if len(line) <= column || line[column-1] != ' ' || line[column] == ' ' {
			t.Errorf("not aligned: %q", line)
		}
	}
	for _, want := range []string{
		"What 1000000 connections need, Linux 6.18.44, 2 CPUs, 23.5 GiB of memory\n",
		"1 could not be read",
		"\n  open files, hard limit: LimitNOFILE=1001024",
		"\n  sysctl -w net.core.somaxconn=62500\n",
		"halley doctor --connections 1000000 --sysctl",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
	out.Reset()
	if err := Table(&out, f, 10, Judge(f, 10)); err != nil || !strings.Contains(out.String(), "Nothing is too low for 10 connections.\n") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestJSON(t *testing.T) {
	f := read(t, nil)
	for n, enough := range map[int]bool{1000: true, 1000000: false} {
		var out strings.Builder
		if err := JSON(&out, f, n, Judge(f, n)); err != nil {
			t.Fatal(err)
		}
		var got struct {
			Connections int
			Enough      bool
			Findings    []Finding
		}
		if err := json.Unmarshal([]byte(out.String()), &got); err != nil {
			t.Fatal(err)
		}
		if got.Connections != n || got.Enough != enough {
			t.Errorf("%d: %+v", n, got)
		}
		if diff := cmp.Diff(Judge(f, n), got.Findings); diff != "" {
			t.Error(diff)
		}
	}
}

// TestSysctl_IsEnoughAndNeverLower puts the file's values into the machine that
// it is for.
func TestSysctl_IsEnoughAndNeverLower(t *testing.T) {
	before := read(t, map[string]string{
		"proc/sys/net/netfilter/nf_conntrack_count": "1000", "proc/sys/net/ipv4/tcp_syncookies": "0",
		"proc/sys/fs/nr_open": "65536", "proc/sys/fs/epoll/max_user_watches": "100000", "proc/sys/fs/file-max": "",
	})
	var out strings.Builder
	if err := Sysctl(&out, 1000000, Judge(before, 1000000)); err != nil {
		t.Fatal(err)
	}
	changes := map[string]string{"proc/self/limits": "Max open files 1001024 1001024 files"}
	settings := regexp.MustCompile(`(?m)^-?([a-z0-9._-]+) = ([0-9 ]+)$`).FindAllStringSubmatch(out.String(), -1)
	for _, m := range settings {
		changes["proc/sys/"+strings.ReplaceAll(m[1], ".", "/")] = m[2]
		now := before.Sysctl[m[1]].Values
		for i, field := range strings.Fields(m[2]) {
			if v, err := strconv.ParseUint(field, 10, 64); err != nil || v < now[i] {
				t.Errorf("%s: %s, was %d", m[1], m[2], now[i])
			}
		}
	}
	if len(settings) != 8 {
		t.Errorf("%d settings in:\n%s", len(settings), out.String())
	}
	if low := Low(Judge(read(t, changes), 1000000)); len(low) > 0 {
		t.Errorf("still too low: %+v", low)
	}
	// What is not known is not set, and neither is what only a human can judge.
	for _, want := range []string{"\n# fs.file-max = ", "not known (not there)", "\n# net.ipv4.ip_local_port_range = 1024 65535\n", "\n-net.netfilter.nf_conntrack_max = 1001000\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in:\n%s", want, out.String())
		}
	}
}

func TestUnit(t *testing.T) {
	f := read(t, nil)
	for n, want := range map[int][]string{
		1000000: {"\nLimitNOFILE=1001024\n", "\n#MemoryMax=", "--drain 10s\n"},
		2000000: {"\nLimitNOFILE=2001024\n", "--drain 10s \\\n    --max-connections 2000000\n"},
	} {
		var out strings.Builder
		if err := Unit(&out, f, n); err != nil {
			t.Fatal(err)
		}
		for _, want := range want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%d: no %q in:\n%s", n, want, out.String())
			}
		}
		if strings.Contains(out.String(), "%!") {
			t.Errorf("a wrong format:\n%s", out.String())
		}
		m := regexp.MustCompile(`(?m)^TimeoutStopSec=(\d+)$`).FindStringSubmatch(out.String())
		if seconds, _ := strconv.Atoi(m[1]); float64(seconds) < httpd.DefaultOptions().Drain.Seconds()+10 {
			t.Errorf("%s is no longer than --drain", m[0])
		}
		verifyUnit(t, out.String())
	}
}

// verifyUnit asks systemd, where there is one.
func verifyUnit(t *testing.T, unit string) {
	t.Helper()
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("not verified:", err)
		return
	}
	file := filepath.Join(t.TempDir(), "halley.service")
	unit = strings.ReplaceAll(unit, "/usr/local/bin/halley serve", "/bin/true serve")
	unit = strings.Replace(unit, "\n#MemoryMax", "\nMemoryMax", 1)
	if err := os.WriteFile(file, []byte(unit), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "halley.service:") { // a line of the file
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}
