package doctor

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func find(t *testing.T, findings []Finding, name string) Finding {
	t.Helper()
	for _, f := range findings {
		if f.Name == name {
			return f
		}
	}
	t.Fatalf("no finding %q in %v", name, findings)
	return Finding{}
}

// different are the verdicts that are not OK.
func different(findings []Finding) map[string]Verdict {
	verdicts := map[string]Verdict{}
	for _, f := range findings {
		if f.Verdict != OK {
			verdicts[f.Name] = f.Verdict
		}
	}
	return verdicts
}

func TestJudge(t *testing.T) {
	const hard, memory, slow = "open files, hard limit", "memory", "memory, slow clients"
	for _, c := range []struct {
		name    string
		n       int
		changes map[string]string
		want    map[string]Verdict // beside tcp_wmem's, which is always a note
	}{
		{"a thousand", 1000, nil, nil},
		{"a million", 1000000, nil, map[string]Verdict{
			hard: TooLow, "net.core.somaxconn": TooLow, "net.ipv4.tcp_mem": TooLow,
			"net.ipv4.ip_local_port_range": Note, "net.netfilter.nf_conntrack_max": Note,
		}},
		{"a million, all mended", 1000000, map[string]string{
			"proc/self/limits":                          "Max open files 1024 1001024 files",
			"proc/sys/net/core/somaxconn":               "62500",
			"proc/sys/net/ipv4/tcp_mem":                 "500000 666667 1000000",
			"proc/sys/net/netfilter/nf_conntrack_max":   "1000007",
			"proc/sys/net/netfilter/nf_conntrack_count": "7",
		}, map[string]Verdict{"net.ipv4.ip_local_port_range": Note}},
		{"one descriptor short", 1000000, map[string]string{
			"proc/self/limits":                   "Max open files 1001023 1001023 files",
			"proc/sys/net/core/somaxconn":        "62500",
			"proc/sys/net/ipv4/tcp_mem":          "500000 666667 1000000",
			"proc/sys/fs/nr_open":                "1001023",
			"proc/sys/fs/file-max":               "1021539",
			"proc/sys/fs/epoll/max_user_watches": "1001023",
		}, map[string]Verdict{
			hard: TooLow, "fs.nr_open": TooLow, "fs.file-max": TooLow, "fs.epoll.max_user_watches": TooLow,
			"net.ipv4.ip_local_port_range": Note, "net.netfilter.nf_conntrack_max": Note,
		}},
		{"a firewall that tracks", 300000, map[string]string{
			"proc/self/limits":                            "Max open files unlimited unlimited files",
			"proc/sys/net/core/somaxconn":                 "65535",
			"proc/sys/net/netfilter/nf_conntrack_count":   "20000",
			"proc/sys/net/netfilter/nf_conntrack_buckets": "65536",
		}, map[string]Verdict{
			"net.netfilter.nf_conntrack_max": TooLow, "net.netfilter.nf_conntrack_buckets": TooLow, "net.ipv4.ip_local_port_range": Note,
		}},
		{"a firewall whose count cannot be read", 300000, map[string]string{
			"proc/self/limits":                          "Max open files unlimited unlimited files",
			"proc/sys/net/core/somaxconn":               "65535",
			"proc/sys/net/netfilter/nf_conntrack_count": "",
		}, map[string]Verdict{"net.netfilter.nf_conntrack_max": TooLow, "net.ipv4.ip_local_port_range": Note}},
		{"in a container", 1000, map[string]string{
			"proc/sys/net/ipv4/tcp_mem":                   "",
			"proc/sys/fs/epoll/max_user_watches":          "",
			"proc/sys/net/netfilter/nf_conntrack_max":     "",
			"proc/sys/net/netfilter/nf_conntrack_count":   "",
			"proc/sys/net/netfilter/nf_conntrack_buckets": "",
		}, map[string]Verdict{"net.ipv4.tcp_mem": Unknown, "fs.epoll.max_user_watches": Unknown}},
		{"nothing to read", 1000, map[string]string{
			"proc/self/limits": "", "proc/self/status": "", "proc/meminfo": "", "proc/sys/fs/nr_open": "x", "proc/sys/fs/file-max": "x",
			"proc/sys/fs/epoll/max_user_watches": "x", "proc/sys/net/core/somaxconn": "x", "proc/sys/net/ipv4/tcp_syncookies": "x",
			"proc/sys/net/ipv4/tcp_max_syn_backlog": "x", "proc/sys/net/ipv4/tcp_mem": "x", "proc/sys/net/ipv4/tcp_rmem": "x",
			"proc/sys/net/ipv4/tcp_wmem": "x", "proc/sys/net/ipv4/ip_local_port_range": "x", "proc/sys/net/netfilter/nf_conntrack_max": "x",
			"proc/sys/net/netfilter/nf_conntrack_buckets": "x",
		}, map[string]Verdict{
			hard: Unknown, "fs.nr_open": Unknown, "fs.file-max": Unknown, "fs.epoll.max_user_watches": Unknown, "net.core.somaxconn": Unknown,
			"net.ipv4.tcp_syncookies": Unknown, "net.ipv4.tcp_max_syn_backlog": Unknown, "net.ipv4.tcp_mem": Unknown, "net.ipv4.tcp_rmem": Unknown,
			"net.ipv4.tcp_wmem": Unknown, "net.ipv4.ip_local_port_range": Unknown, "net.netfilter.nf_conntrack_max": Unknown,
			"net.netfilter.nf_conntrack_buckets": Unknown, memory: Unknown, "CPUs": Unknown,
		}},
		{"no cookies", 1000, map[string]string{"proc/sys/net/ipv4/tcp_syncookies": "0"},
			map[string]Verdict{"net.ipv4.tcp_syncookies": TooLow, "net.ipv4.tcp_max_syn_backlog": TooLow}},
		{"no cookies, a long queue", 1000, map[string]string{"proc/sys/net/ipv4/tcp_syncookies": "0", "proc/sys/net/ipv4/tcp_max_syn_backlog": "5462"},
			map[string]Verdict{"net.ipv4.tcp_syncookies": TooLow}},
		{"cookies for all", 1000, map[string]string{"proc/sys/net/ipv4/tcp_syncookies": "2"}, map[string]Verdict{"net.ipv4.tcp_syncookies": Note}},
		{"little memory", 10000, map[string]string{"proc/meminfo": "MemTotal: 200000 kB\nMemAvailable: 90000 kB\n"}, map[string]Verdict{memory: TooLow}},
		{"memory for clients that read", 10000, map[string]string{"proc/meminfo": "MemTotal: 400000 kB\nMemAvailable: 200000 kB\n"},
			map[string]Verdict{slow: TooLow}},
		{"a small container", 10000, map[string]string{
			"sys/fs/cgroup/memory/process_api/c7f3/memory.limit_in_bytes": "99459999",
			"sys/fs/cgroup/memory/process_api/c7f3/memory.usage_in_bytes": "0",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":                          "50000",
		}, map[string]Verdict{memory: TooLow, "CPUs": TooLow}},
		{"more than the default of serve", 2000000, map[string]string{
			"proc/self/limits":            "Max open files 2001024 2001024 files",
			"proc/sys/fs/nr_open":         "2001024",
			"proc/sys/net/core/somaxconn": "65535",
			"proc/sys/net/ipv4/tcp_mem":   "1 1 2000000",
		}, map[string]Verdict{"--max-connections": Note, "net.ipv4.ip_local_port_range": Note,
			"net.netfilter.nf_conntrack_max": Note, "net.netfilter.nf_conntrack_buckets": Note, slow: TooLow}},
	} {
		t.Run(c.name, func(t *testing.T) {
			findings := Judge(read(t, c.changes), c.n)
			want := map[string]Verdict{"net.ipv4.tcp_wmem": Note}
			for name, verdict := range c.want {
				want[name] = verdict
			}
			if diff := cmp.Diff(want, different(findings)); diff != "" {
				t.Error(diff)
			}
			for _, f := range findings {
				if f.Now == "" || f.Need == "" || f.Why == "" || (f.Mend != "") != (f.Verdict == TooLow) {
					t.Errorf("%+v", f)
				}
			}
		})
	}
}

// TestJudge_Mends compares whole findings.
func TestJudge_Mends(t *testing.T) {
	findings := Judge(read(t, map[string]string{"proc/sys/net/ipv4/tcp_mem": "600000 610000 620000"}), 1000000)
	for _, want := range []Finding{
		{Name: "open files, hard limit", Now: "20000", Need: "1001024", Verdict: TooLow,
			Why:  "one for each connection, and 1024 that Halley keeps for itself",
			Mend: "LimitNOFILE=1001024 in the unit, or as root ulimit -Hn 1001024; then start halley anew"},
		{Name: "net.core.somaxconn", Now: "4096", Need: "62500", Verdict: TooLow,
			Why:  "clients that wait to be accepted; halley reads it when it starts",
			Mend: "sysctl -w net.core.somaxconn=62500", Set: "62500"},
		// No number becomes lower.
		{Name: "net.ipv4.tcp_mem", Now: "600000 610000 620000", Need: "500000 666667 1000000", Verdict: TooLow,
			Why:  "pages of 4 KiB for data in sockets: one each, when all have a message on its way",
			Mend: "sysctl -w net.ipv4.tcp_mem='600000 666667 1000000'", Set: "600000 666667 1000000"},
		{Name: "fs.nr_open", Now: "1048576", Need: "1001024", Verdict: OK, Set: "1048576",
			Why: "the highest limit of open files that a process may be given"},
		{Name: "net.ipv4.ip_local_port_range", Now: "32768 60999", Need: "-", Verdict: Note, Set: "1024 65535",
			Why: "for clients and proxies on this machine only: 28232 ports, so 36 source addresses to one address of Halley's"},
	} {
		if diff := cmp.Diff(want, find(t, findings, want.Name)); diff != "" {
			t.Error(diff)
		}
	}
}

func TestJudge_LargePages(t *testing.T) {
	f := read(t, nil)
	f.PageSize = 64 << 10
	if got := find(t, Judge(f, 1000000), "net.ipv4.tcp_mem"); got.Verdict != OK || got.Need != "31250 41667 62500" {
		t.Errorf("%+v", got)
	}
}

// TestJudge_RunningProcess: its soft limit counts, and what it has is not needed
// once more.
func TestJudge_RunningProcess(t *testing.T) {
	f, err := Read(machine(nil), 321)
	if err != nil {
		t.Fatal(err)
	}
	f.OpenFiles = 4000
	findings := Judge(f, 10000)
	if got := find(t, findings, "open files of process 321"); got.Now != "5000" || got.Verdict != TooLow {
		t.Errorf("%+v", got)
	}
	if got, want := find(t, findings, "fs.file-max").Need, join([]uint64{20516 + Files(10000) - 4000}); got != want {
		t.Errorf("file-max: %s, want %s", got, want)
	}
	if got, want := find(t, findings, "memory").Need, bytes(6000*(900+4950+4096)); got != want {
		t.Errorf("memory: %s, want %s", got, want)
	}
	f.OtherNetwork = true
	if got := find(t, Judge(f, 10000), "network namespace"); got.Verdict != Note || !strings.Contains(got.Why, "-t 321") {
		t.Errorf("%+v", got)
	}
}

// TestJudge_SlowClients: with the --max-pending-total that is proposed all fits.
func TestJudge_SlowClients(t *testing.T) {
	f := read(t, map[string]string{"proc/meminfo": "MemTotal: 400000 kB\nMemAvailable: 200000 kB\n"})
	got := find(t, Judge(f, 10000), "memory, slow clients")
	// 204,800,000 bytes less 10,000 * 9,946, halved: 50.2 MiB.
	if got.Mend != "halley serve --max-pending-total 50MiB" {
		t.Errorf("%+v", got)
	}
}

func TestFiles(t *testing.T) {
	for n, want := range map[int]uint64{1: 129, 1000: 1128, 1920: 2048, 1921: 2049, 10000: 10666, 15360: 16383, 15361: 16385, 1000000: 1001024} {
		if got := Files(n); got != want {
			t.Errorf("%d connections: %d, want %d", n, got, want)
		}
	}
	for n := range 40000 {
		if f := Files(n); f-reserve(f) < uint64(n) || n > 0 && f-1-reserve(f-1) >= uint64(n) {
			t.Fatalf("%d connections: %d is not the least", n, f)
		}
	}
}

func TestBytes(t *testing.T) {
	for n, want := range map[uint64]string{0: "0 B", 1023: "1023 B", 1024: "1 KiB", 1536: "1.5 KiB", 1 << 20: "1 MiB", 24684100 << 10: "23.5 GiB", 5 << 40: "5 TiB"} {
		if got := bytes(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}
