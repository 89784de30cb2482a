package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strconv"
	"strings"
)

// Setting is what a file of /proc says: one number or several.
type Setting struct {
	Values  []uint64
	Missing string // why there are none
}

func (s Setting) ok() bool { return len(s.Values) > 0 }

// first is the first number, 0 if there is none.
func (s Setting) first() uint64 {
	if !s.ok() {
		return 0
	}
	return s.Values[0]
}

// last is the last number: the maximum of minimum, default, maximum.
func (s Setting) last() uint64 {
	if !s.ok() {
		return 0
	}
	return s.Values[len(s.Values)-1]
}

func (s Setting) String() string {
	if !s.ok() {
		return s.Missing
	}
	return join(s.Values)
}

func join(values []uint64) string {
	text := make([]string, len(values))
	for i, v := range values {
		text[i] = strconv.FormatUint(v, 10)
	}
	return strings.Join(text, " ")
}

// NoLimit is the value of a limit that there is not.
const NoLimit = math.MaxUint64

// Facts are what Judge judges. Bytes, unless a name says otherwise.
type Facts struct {
	Kernel string // its release
	PID    int    // the process that was asked about, 0: this one
	// Sysctl has the keys of the table sysctls.
	Sysctl map[string]Setting
	// SoftFiles and HardFiles are the process's limits of descriptors, and
	// OpenFiles what it has, which is read for a PID only.
	SoftFiles Setting
	HardFiles Setting
	OpenFiles uint64
	UsedFiles Setting // fs.file-nr: of all processes
	// TCPSockets are in use in the network namespace, OtherNetwork says that the
	// process is in another one, whose settings are not those of Sysctl.
	TCPSockets   Setting
	OtherNetwork bool
	MemTotal     Setting
	MemAvailable Setting
	// CgroupRoom is what the process's control groups still let it take, and
	// RootLimit the limit that `halley serve` sees when it chooses
	// --max-pending-total. NoLimit: none.
	CgroupRoom uint64
	RootLimit  uint64
	CPUs       Setting // that the process may run on
	CPUQuota   float64 // CPUs' worth of time that its control groups allow; 0: no limit
	PageSize   uint64
}

// sysctls are the kernel's settings that matter, and how many numbers each has.
var sysctls = map[string]int{
	"fs.nr_open":                         1,
	"fs.file-max":                        1,
	"fs.epoll.max_user_watches":          1,
	"net.core.somaxconn":                 1,
	"net.ipv4.tcp_syncookies":            1,
	"net.ipv4.tcp_max_syn_backlog":       1,
	"net.ipv4.tcp_mem":                   3,
	"net.ipv4.tcp_rmem":                  3,
	"net.ipv4.tcp_wmem":                  3,
	"net.ipv4.ip_local_port_range":       2,
	"net.netfilter.nf_conntrack_max":     1,
	"net.netfilter.nf_conntrack_count":   1,
	"net.netfilter.nf_conntrack_buckets": 1,
}

// ErrNoProcess says that there is no process with the PID.
var ErrNoProcess = errors.New("no such process")

// Read collects the facts of the machine whose root folder is root and of a
// process, 0 for this one. What cannot be read is told in its Setting; an error is
// returned only if there is no such process, or no /proc.
func Read(root fs.FS, pid int) (Facts, error) {
	self := "proc/self/"
	proc := self
	if pid != 0 {
		proc = fmt.Sprintf("proc/%d/", pid)
		if _, err := fs.Stat(root, proc+"limits"); errors.Is(err, fs.ErrNotExist) {
			return Facts{}, fmt.Errorf("process %d: %w", pid, ErrNoProcess)
		}
	}
	if _, err := fs.Stat(root, "proc/sys"); err != nil {
		return Facts{}, fmt.Errorf("read the kernel's settings: %w; mount /proc", err)
	}
	f := Facts{PID: pid, Sysctl: map[string]Setting{}, PageSize: uint64(os.Getpagesize())}
	f.Kernel, _ = text(root, "proc/sys/kernel/osrelease")
	for key, count := range sysctls {
		f.Sysctl[key] = numbers(root, "proc/sys/"+strings.ReplaceAll(key, ".", "/"), count)
	}
	f.UsedFiles = numbers(root, "proc/sys/fs/file-nr", 3)
	f.SoftFiles, f.HardFiles = fileLimits(root, proc+"limits")
	f.MemTotal = field(root, "proc/meminfo", "MemTotal:", 1024)
	f.MemAvailable = field(root, "proc/meminfo", "MemAvailable:", 1024)
	f.TCPSockets = field(root, proc+"net/sockstat", "TCP: inuse", 1)
	f.CPUs = cpus(root, proc+"status")
	if pid != 0 {
		entries, _ := fs.ReadDir(root, proc+"fd") // without the right to, it counts as none
		f.OpenFiles = uint64(len(entries))
		mine, err1 := fs.ReadLink(root, self+"ns/net")
		its, err2 := fs.ReadLink(root, proc+"ns/net")
		f.OtherNetwork = err1 == nil && err2 == nil && mine != its
	}
	f.readCgroups(root, proc+"cgroup", self+"mountinfo")
	return f, nil
}

// text is a file's content without the space around it, and why there is none.
func text(root fs.FS, name string) (content, missing string) {
	raw, err := fs.ReadFile(root, name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", "not there"
	case errors.Is(err, fs.ErrPermission):
		return "", "permission denied"
	case err != nil:
		return "", err.Error()
	}
	return strings.TrimSpace(string(raw)), ""
}

// numbers reads a file of count numbers.
func numbers(root fs.FS, name string, count int) Setting {
	content, missing := text(root, name)
	if missing != "" {
		return Setting{Missing: missing}
	}
	fields := strings.Fields(content)
	if len(fields) != count {
		return Setting{Missing: fmt.Sprintf("has %d fields instead of %d", len(fields), count)}
	}
	var s Setting
	for _, field := range fields {
		n, err := strconv.ParseUint(field, 10, 64)
		if err != nil {
			return Setting{Missing: fmt.Sprintf("%.20q is no number", field)}
		}
		s.Values = append(s.Values, n)
	}
	return s
}

// field reads the number behind a prefix of a line, times unit.
func field(root fs.FS, name, prefix string, unit uint64) Setting {
	content, missing := text(root, name)
	if missing != "" {
		return Setting{Missing: missing}
	}
	for line := range strings.Lines(content) {
		rest, ok := strings.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			break
		}
		n, err := strconv.ParseUint(fields[0], 10, 64)
		if err != nil || n > math.MaxUint64/unit {
			return Setting{Missing: fmt.Sprintf("%.20q is no number", fields[0])}
		}
		return Setting{Values: []uint64{n * unit}}
	}
	return Setting{Missing: fmt.Sprintf("%s has no %s", name, strings.TrimSuffix(prefix, ":"))}
}

// fileLimits reads a process's limits (proc_pid_limits(5)).
func fileLimits(root fs.FS, name string) (soft, hard Setting) {
	const prefix = "Max open files"
	content, missing := text(root, name)
	if missing != "" {
		return Setting{Missing: missing}, Setting{Missing: missing}
	}
	for line := range strings.Lines(content) {
		rest, ok := strings.CutPrefix(line, prefix)
		if fields := strings.Fields(rest); ok && len(fields) >= 2 {
			return limit(fields[0]), limit(fields[1])
		}
	}
	none := Setting{Missing: name + " has no " + prefix}
	return none, none
}

func limit(field string) Setting {
	if field == "unlimited" {
		return Setting{Values: []uint64{NoLimit}}
	}
	n, err := strconv.ParseUint(field, 10, 64)
	if err != nil {
		return Setting{Missing: fmt.Sprintf("%.20q is no number", field)}
	}
	return Setting{Values: []uint64{n}}
}

// cpus counts a list such as 0-3,8.
func cpus(root fs.FS, name string) Setting {
	const prefix = "Cpus_allowed_list:"
	content, missing := text(root, name)
	if missing != "" {
		return Setting{Missing: missing}
	}
	for line := range strings.Lines(content) {
		list, ok := strings.CutPrefix(line, prefix)
		if !ok {
			continue
		}
		var count uint64
		for piece := range strings.SplitSeq(strings.TrimSpace(list), ",") {
			low, high, isRange := strings.Cut(piece, "-")
			if !isRange {
				high = low
			}
			a, err1 := strconv.ParseUint(low, 10, 16)
			b, err2 := strconv.ParseUint(high, 10, 16)
			if err1 != nil || err2 != nil || b < a {
				return Setting{Missing: fmt.Sprintf("%.20q is no list of CPUs", piece)}
			}
			count += b - a + 1
		}
		return Setting{Values: []uint64{count}}
	}
	return Setting{Missing: name + " has no " + strings.TrimSuffix(prefix, ":")}
}
