package doctor

import (
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

// machine is a root folder with what Read reads: the files of a virtual machine
// with Linux 6.18, two CPUs, 24 GiB and control groups of version 1. changes are
// other contents; "" takes a file away.
func machine(changes map[string]string) fstest.MapFS {
	root := fstest.MapFS{}
	files := map[string]string{
		"proc/sys/kernel/osrelease":                       "6.18.44\n",
		"proc/sys/fs/nr_open":                             "1048576\n",
		"proc/sys/fs/file-max":                            "2466190\n",
		"proc/sys/fs/file-nr":                             "20516\t0\t2466190\n",
		"proc/sys/fs/epoll/max_user_watches":              "5491556\n",
		"proc/sys/net/core/somaxconn":                     "4096\n",
		"proc/sys/net/ipv4/tcp_syncookies":                "1\n",
		"proc/sys/net/ipv4/tcp_max_syn_backlog":           "2048\n",
		"proc/sys/net/ipv4/tcp_mem":                       "287901\t383870\t575802\n",
		"proc/sys/net/ipv4/tcp_rmem":                      "4096\t131072\t33554432\n",
		"proc/sys/net/ipv4/tcp_wmem":                      "4096\t16384\t4194304\n",
		"proc/sys/net/ipv4/ip_local_port_range":           "32768\t60999\n",
		"proc/sys/net/netfilter/nf_conntrack_max":         "262144\n",
		"proc/sys/net/netfilter/nf_conntrack_count":       "0\n",
		"proc/sys/net/netfilter/nf_conntrack_buckets":     "262144\n",
		"proc/meminfo":                                    "MemTotal:       24684100 kB\nMemFree:        22128388 kB\nMemAvailable:   24058164 kB\nBuffers:           56700 kB\n",
		"proc/self/limits":                                "Limit                     Soft Limit           Hard Limit           Units     \nMax processes             96365                96365                processes \nMax open files            1024                 20000                files     \nMax locked memory         8388608              8388608              bytes     \n",
		"proc/self/status":                                "Name:\thalley\nCpus_allowed:\t3\nCpus_allowed_list:\t0-1\n",
		"proc/self/net/sockstat":                          "sockets: used 20038\nTCP: inuse 20014 orphan 0 tw 2 alloc 20017 mem 20\nUDP: inuse 0 mem 0\n",
		"proc/self/cgroup":                                "9:name=systemd:/\n4:memory:/process_api/c7f3\n2:cpuacct:/\n1:cpu:/\n0::/\n",
		"proc/self/mountinfo":                             "22 27 0:21 / /proc rw,relatime - proc proc rw\n32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu\n35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n",
		"sys/fs/cgroup/memory/memory.limit_in_bytes":      "9223372036854771712\n",
		"sys/fs/cgroup/memory/memory.usage_in_bytes":      "2500000000\n",
		"sys/fs/cgroup/memory/process_api/c7f3/tasks":     "1\n",
		"sys/fs/cgroup/cpu/cpu.cfs_quota_us":              "-1\n",
		"sys/fs/cgroup/cpu/cpu.cfs_period_us":             "100000\n",
		"sys/fs/cgroup/unified/cgroup.procs":              "1\n",
		"proc/321/limits":                                 "Max open files            5000                 20000                files     \n",
		"proc/321/status":                                 "Cpus_allowed_list:\t1\n",
		"proc/321/net/sockstat":                           "TCP: inuse 7 orphan 0 tw 0 alloc 9 mem 0\n",
		"proc/321/fd/0":                                   "x",
		"proc/321/fd/1":                                   "x",
		"proc/321/fd/2":                                   "x",
		"sys/fs/cgroup/memory/process_api/memory.unknown": "x",
	}
	for name, content := range changes {
		files[name] = content
	}
	for name, content := range files {
		if content != "" {
			root[name] = &fstest.MapFile{Data: []byte(content)}
		}
	}
	return root
}

func read(t *testing.T, changes map[string]string) Facts {
	t.Helper()
	f, err := Read(machine(changes), 0)
	if err != nil {
		t.Fatal(err)
	}
	f.PageSize = 4096 // not from a file
	return f
}

func values(v ...uint64) Setting { return Setting{Values: v} }

func TestRead(t *testing.T) {
	want := Facts{
		Kernel: "6.18.44",
		Sysctl: map[string]Setting{
			"fs.nr_open":                         values(1048576),
			"fs.file-max":                        values(2466190),
			"fs.epoll.max_user_watches":          values(5491556),
			"net.core.somaxconn":                 values(4096),
			"net.ipv4.tcp_syncookies":            values(1),
			"net.ipv4.tcp_max_syn_backlog":       values(2048),
			"net.ipv4.tcp_mem":                   values(287901, 383870, 575802),
			"net.ipv4.tcp_rmem":                  values(4096, 131072, 33554432),
			"net.ipv4.tcp_wmem":                  values(4096, 16384, 4194304),
			"net.ipv4.ip_local_port_range":       values(32768, 60999),
			"net.netfilter.nf_conntrack_max":     values(262144),
			"net.netfilter.nf_conntrack_count":   values(0),
			"net.netfilter.nf_conntrack_buckets": values(262144),
		},
		SoftFiles: values(1024), HardFiles: values(20000), UsedFiles: values(20516, 0, 2466190),
		TCPSockets: values(20014),
		MemTotal:   values(24684100 << 10), MemAvailable: values(24058164 << 10),
		CgroupRoom: NoLimit, RootLimit: 9223372036854771712,
		CPUs: values(2), PageSize: 4096,
	}
	if diff := cmp.Diff(want, read(t, nil)); diff != "" {
		t.Error(diff)
	}
}

func TestRead_Process(t *testing.T) {
	root := machine(nil)
	for name, to := range map[string]string{"proc/self/ns/net": "net:[1]", "proc/321/ns/net": "net:[2]"} {
		root[name] = &fstest.MapFile{Data: []byte(to), Mode: fs.ModeSymlink}
	}
	f, err := Read(root, 321)
	if err != nil {
		t.Fatal(err)
	}
	if f.SoftFiles.first() != 5000 || f.OpenFiles != 3 || f.CPUs.first() != 1 || f.TCPSockets.first() != 7 || !f.OtherNetwork {
		t.Errorf("%+v", f)
	}
	if _, err := Read(root, 322); !errors.Is(err, ErrNoProcess) {
		t.Errorf("%v, want ErrNoProcess", err)
	}
}

func TestRead_NoProc(t *testing.T) {
	if _, err := Read(fstest.MapFS{}, 0); err == nil || !strings.Contains(err.Error(), "mount /proc") {
		t.Errorf("%v", err)
	}
}

// TestRead_OddFiles: what cannot be understood is told, and nothing else suffers.
func TestRead_OddFiles(t *testing.T) {
	sysctl := func(key string) func(Facts) Setting { return func(f Facts) Setting { return f.Sysctl[key] } }
	for _, c := range []struct {
		file, content string
		get           func(Facts) Setting
		want          Setting
	}{
		{"proc/sys/net/ipv4/tcp_mem", "", sysctl("net.ipv4.tcp_mem"), Setting{Missing: "not there"}},
		{"proc/sys/net/ipv4/tcp_mem", "1 2\n", sysctl("net.ipv4.tcp_mem"), Setting{Missing: "has 2 fields instead of 3"}},
		{"proc/sys/net/ipv4/tcp_mem", "1 2 x\n", sysctl("net.ipv4.tcp_mem"), Setting{Missing: `"x" is no number`}},
		{"proc/sys/fs/nr_open", "\n", sysctl("fs.nr_open"), Setting{Missing: "has 0 fields instead of 1"}},
		{"proc/sys/fs/nr_open", "-1\n", sysctl("fs.nr_open"), Setting{Missing: `"-1" is no number`}},
		{"proc/sys/fs/nr_open", "99999999999999999999\n", sysctl("fs.nr_open"), Setting{Missing: `"99999999999999999999" is no number`}},
		{"proc/sys/fs/file-max", "9223372036854775807\n", sysctl("fs.file-max"), values(9223372036854775807)},
		{"proc/meminfo", "MemTotal: 1 kB\n", func(f Facts) Setting { return f.MemAvailable }, Setting{Missing: "proc/meminfo has no MemAvailable"}},
		{"proc/meminfo", "MemAvailable:\n", func(f Facts) Setting { return f.MemAvailable }, Setting{Missing: "proc/meminfo has no MemAvailable"}},
		{"proc/meminfo", "MemAvailable: 18446744073709551615 kB\n", func(f Facts) Setting { return f.MemAvailable }, Setting{Missing: `"18446744073709551615" is no number`}},
		{"proc/self/limits", "Max open files   unlimited  unlimited files\n", func(f Facts) Setting { return f.HardFiles }, values(NoLimit)},
		{"proc/self/limits", "Max open files   1024\n", func(f Facts) Setting { return f.HardFiles }, Setting{Missing: "proc/self/limits has no Max open files"}},
		{"proc/self/limits", "Max open files   a b files\n", func(f Facts) Setting { return f.HardFiles }, Setting{Missing: `"b" is no number`}},
		{"proc/self/limits", "", func(f Facts) Setting { return f.HardFiles }, Setting{Missing: "not there"}},
		{"proc/self/status", "Cpus_allowed_list:\t0-3,8,10-11\n", func(f Facts) Setting { return f.CPUs }, values(7)},
		{"proc/self/status", "Cpus_allowed_list:\t3-0\n", func(f Facts) Setting { return f.CPUs }, Setting{Missing: `"3-0" is no list of CPUs`}},
		{"proc/self/status", "Cpus_allowed_list:\n", func(f Facts) Setting { return f.CPUs }, Setting{Missing: `"" is no list of CPUs`}},
		{"proc/self/status", "Name: x\n", func(f Facts) Setting { return f.CPUs }, Setting{Missing: "proc/self/status has no Cpus_allowed_list"}},
		{"proc/self/mountinfo", "- \n1 2 -\n", func(f Facts) Setting { return values(f.CgroupRoom) }, values(NoLimit)},
		{"proc/self/cgroup", ":::\n\nx\n", func(f Facts) Setting { return values(f.CgroupRoom) }, values(NoLimit)},
	} {
		if diff := cmp.Diff(c.want, c.get(read(t, map[string]string{c.file: c.content}))); diff != "" {
			t.Errorf("%s %q:\n%s", c.file, c.content, diff)
		}
	}
}

// refuse denies one file.
type refuse struct {
	fs.FS
	name string
}

func (r refuse) Open(name string) (fs.File, error) {
	if name == r.name {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrPermission}
	}
	return r.FS.Open(name)
}

func TestRead_Denied(t *testing.T) {
	f, err := Read(refuse{machine(nil), "proc/sys/net/core/somaxconn"}, 0)
	if err != nil || f.Sysctl["net.core.somaxconn"].Missing != "permission denied" {
		t.Errorf("%v, %v", f.Sysctl["net.core.somaxconn"], err)
	}
}

func TestRead_Cgroups(t *testing.T) {
	const v2 = "30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n"
	for _, c := range []struct {
		name    string
		changes map[string]string
		room    uint64
		quota   float64
	}{
		{"v1, limit of a group above", map[string]string{
			"sys/fs/cgroup/memory/process_api/memory.limit_in_bytes": "1000000",
			"sys/fs/cgroup/memory/process_api/memory.usage_in_bytes": "400000",
			"sys/fs/cgroup/memory/process_api/memory.stat":           "inactive_file 1\ntotal_inactive_file 100000\n",
			"sys/fs/cgroup/cpu/cpu.cfs_quota_us":                     "150000",
		}, 700000, 1.5},
		{"v1, in a container: the mount's root is the group", map[string]string{
			"proc/self/cgroup":                           "4:memory:/docker/abc\n",
			"proc/self/mountinfo":                        "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000",
		}, 0, 0}, // it uses 2,500,000,000
		{"v2, unit's limit", map[string]string{
			"proc/self/cgroup":                                       "0::/system.slice/halley.service\n",
			"proc/self/mountinfo":                                    v2,
			"sys/fs/cgroup/system.slice/memory.max":                  "max\n",
			"sys/fs/cgroup/system.slice/halley.service/memory.max":   "3000000\n",
			"sys/fs/cgroup/system.slice/halley.service/memory.high":  "2000000\n",
			"sys/fs/cgroup/system.slice/halley.service/memory.stat":  "anon 5\nactive_file 9\ninactive_file 50\n",
			"sys/fs/cgroup/system.slice/halley.service/cpu.max":      "max 100000\n",
			"sys/fs/cgroup/system.slice/cpu.max":                     "50000 100000\n",
			"sys/fs/cgroup/system.slice/halley.service/memory.swap":  "1\n",
			"sys/fs/cgroup/system.slice/halley.service/memory.other": "",
		}, 2000000, 0.5},
		{"v2, namespace of its own", map[string]string{
			"proc/self/cgroup":             "0::/\n",
			"proc/self/mountinfo":          v2,
			"sys/fs/cgroup/memory.max":     "536870912\n",
			"sys/fs/cgroup/memory.current": "536870913\n",
			"sys/fs/cgroup/cpu.max":        "-1 100000\n",
		}, 0, 0},
		{"v2, group outside of the namespace", map[string]string{
			"proc/self/cgroup":         "0::/../other\n",
			"proc/self/mountinfo":      v2,
			"sys/fs/cgroup/memory.max": "536870912\n",
		}, NoLimit, 0},
		{"none", map[string]string{"proc/self/cgroup": "", "proc/self/mountinfo": ""}, NoLimit, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if f := read(t, c.changes); f.CgroupRoom != c.room || f.CPUQuota != c.quota {
				t.Errorf("room %d, quota %v, want %d, %v", f.CgroupRoom, f.CPUQuota, c.room, c.quota)
			}
		})
	}
}

// TestRead_ThisMachine: all that every Linux has is read.
func TestRead_ThisMachine(t *testing.T) {
	if _, err := os.Stat("/proc/self/limits"); err != nil {
		t.Skip("needs Linux:", err)
	}
	for _, pid := range []int{0, os.Getpid()} {
		f, err := Read(os.DirFS("/"), pid)
		if err != nil {
			t.Fatal(err)
		}
		for name, s := range map[string]Setting{
			"soft limit": f.SoftFiles, "hard limit": f.HardFiles, "used files": f.UsedFiles, "memory": f.MemAvailable, "CPUs": f.CPUs,
			"fs.nr_open": f.Sysctl["fs.nr_open"], "net.core.somaxconn": f.Sysctl["net.core.somaxconn"], "net.ipv4.tcp_wmem": f.Sysctl["net.ipv4.tcp_wmem"],
		} {
			if s.first() == 0 {
				t.Errorf("PID %d: %s: %v", pid, name, s)
			}
		}
		if (f.OpenFiles > 0) != (pid != 0) || f.OtherNetwork {
			t.Errorf("PID %d: %d open, other network %v", pid, f.OpenFiles, f.OtherNetwork)
		}
	}
}
