package doctor

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"halley/httpd"
)

// MaxConnections is what one Halley can have at most: httpd's maxSlots.
const MaxConnections = 1 << 26

// What one connection costs. Change them here when they are measured anew.
const (
	// residentBytes is Halley's memory for an idle connection: with evio, which takes
	// the most, its structures, slot and user, at 15,000 (docs/architecture.md).
	residentBytes = 900
	// kernelBytes is the kernel's for one end of an idle connection: socket,
	// file, inode, epoll's entry. Measured on Linux 6.18 (docs/tuning.md). It is
	// in slabs, of which tcp_mem knows nothing.
	kernelBytes = 4950
	// conntrackBytes is for an entry of the firewall's table: 256 in its slab on
	// Linux 6.18, and what it carries.
	conntrackBytes = 320
	// pendingFactor: memory that holds pending bytes can be twice as much
	// (docs/operations.md).
	pendingFactor = 2
	// pendingShare is the part of memory that --max-pending-total is by default.
	pendingShare = 4
)

// Verdict says whether a value is enough.
type Verdict string

// The verdicts. Only TooLow is a reason to change something; a Note is to be
// known, and what it means for this machine a human must say.
const (
	OK      Verdict = "ok"
	TooLow  Verdict = "too low"
	Unknown Verdict = "unknown"
	Note    Verdict = "note"
)

// Finding is one value and what is to be said of it.
type Finding struct {
	Name    string  `json:"name"`
	Now     string  `json:"now"`
	Need    string  `json:"need"`
	Verdict Verdict `json:"verdict"`
	Why     string  `json:"why"`
	Mend    string  `json:"mend,omitempty"` // what to type, if it is too low
	// Set is the value for /etc/sysctl.d, where Name is a key: what is needed,
	// never lower than what is.
	Set string `json:"set,omitempty"`
}

// reserve is what httpd keeps from the connections (httpd/limits.go). A test
// compares them.
func reserve(files uint64) uint64 { return min(max(128, files/16), 1024) }

// Files is how many descriptors Halley must have for n connections.
func Files(n int) uint64 {
	files := uint64(n) + reserve(uint64(n)) // it is no less for more files
	for files-reserve(files) < uint64(n) {
		files++
	}
	return files
}

// backlog is how many clients may wait to be accepted: a sixteenth of all, when
// they come back at once; at least the kernel's default since Linux 5.4, at
// most two or three seconds' worth of accepting.
func backlog(n int) uint64 { return min(max(4096, uint64(n)/16), 65535) }

// Judge compares what is with what n connections need.
func Judge(f Facts, n int) []Finding {
	j := &judge{f: f, n: uint64(n), files: Files(n), backlog: backlog(n)}
	// What a running Halley has is taken already.
	j.missing = j.n - min(j.n, f.OpenFiles)
	j.descriptors()
	j.accepting()
	j.buffers()
	j.conntrack()
	j.ports()
	j.memory()
	j.processors()
	return j.findings
}

// Low are the findings that are too low.
func Low(findings []Finding) []Finding {
	return slices.DeleteFunc(slices.Clone(findings), func(f Finding) bool { return f.Verdict != TooLow })
}

type judge struct {
	f        Facts
	n        uint64
	missing  uint64 // connections beyond those that there are
	files    uint64
	backlog  uint64
	findings []Finding
}

func (j *judge) add(f Finding) { j.findings = append(j.findings, f) }

// sysctl judges a setting of one number.
func (j *judge) sysctl(key string, need uint64, why string) {
	s := j.f.Sysctl[key]
	j.key(key, s, []uint64{need}, s.ok() && s.first() >= need, why)
}

// key judges a setting. need has as many numbers as it.
func (j *judge) key(key string, now Setting, need []uint64, enough bool, why string) {
	set := slices.Clone(need)
	for i := range now.Values {
		set[i] = max(set[i], now.Values[i])
	}
	f := Finding{Name: key, Now: now.String(), Need: join(need), Verdict: OK, Why: why, Set: join(set)}
	switch {
	case !now.ok():
		f.Verdict = Unknown
	case !enough:
		f.Verdict = TooLow
		f.Mend = fmt.Sprintf("sysctl -w %s=%s", key, f.Set)
		if len(set) > 1 {
			f.Mend = fmt.Sprintf("sysctl -w %s='%s'", key, f.Set)
		}
	}
	j.add(f)
}

func (j *judge) descriptors() {
	// Go raises the soft limit to the hard one when a process starts, so of one
	// that is running the soft one counts.
	limit, name := j.f.HardFiles, "open files, hard limit"
	if j.f.PID != 0 {
		limit, name = j.f.SoftFiles, fmt.Sprintf("open files of process %d", j.f.PID)
	}
	f := Finding{Name: name, Now: limit.String(), Need: join([]uint64{j.files}), Verdict: OK,
		Why: fmt.Sprintf("one for each connection, and %d that Halley keeps for itself", j.files-j.n)}
	switch {
	case !limit.ok():
		f.Verdict = Unknown
	case limit.first() == NoLimit:
		f.Now = "unlimited"
	case limit.first() < j.files:
		f.Verdict = TooLow
		f.Mend = fmt.Sprintf("LimitNOFILE=%d in the unit, or as root ulimit -Hn %[1]d; then start halley anew", j.files)
	}
	j.add(f)
	if n := uint64(httpd.DefaultMaxConnections); j.n > n {
		j.add(Finding{Name: "--max-connections", Now: fmt.Sprint(n), Need: fmt.Sprint(j.n), Verdict: Note,
			Why: fmt.Sprintf("the default of halley serve: give it --max-connections %d", j.n)})
	}
	j.sysctl("fs.nr_open", j.files, "the highest limit of open files that a process may be given")
	used := j.f.UsedFiles.first()
	j.sysctl("fs.file-max", used+j.files-min(j.files, j.f.OpenFiles),
		fmt.Sprintf("open files of the whole machine, %d now; root is exempt", used))
	j.sysctl("fs.epoll.max_user_watches", j.files, "sockets that one user's processes may watch with epoll")
}

func (j *judge) accepting() {
	j.sysctl("net.core.somaxconn", j.backlog, "clients that wait to be accepted; halley reads it when it starts")
	cookies := j.f.Sysctl["net.ipv4.tcp_syncookies"]
	f := Finding{Name: "net.ipv4.tcp_syncookies", Now: cookies.String(), Need: "1", Verdict: OK, Set: "1",
		Why: "what exceeds the queue of half-open connections is served without one"}
	switch {
	case !cookies.ok():
		f.Verdict = Unknown
	case cookies.first() == 0:
		f.Verdict, f.Mend = TooLow, "sysctl -w net.ipv4.tcp_syncookies=1"
		f.Why = "clients beyond the queue of half-open connections are dropped"
	case cookies.first() > 1:
		f.Verdict, f.Set = Note, cookies.String()
		f.Why = "cookies for every client, a test setting of the kernel's: 1 sends them when the queue is full"
	}
	j.add(f)
	key := "net.ipv4.tcp_max_syn_backlog"
	syn := j.f.Sysctl[key]
	if cookies.ok() && cookies.first() > 0 && syn.ok() {
		j.add(Finding{Name: key, Now: syn.String(), Need: "-", Verdict: OK,
			Why: "counts only where tcp_syncookies is 0; else somaxconn is the bound"})
		return
	}
	// The last quarter is for clients that the kernel knows.
	j.sysctl(key, (j.backlog*4+2)/3, "half-open connections of a listener, where tcp_syncookies is 0")
}

// buffers judges what the kernel may hold in TCP's queues. A socket with anything
// in its queue holds a page at least, one with nothing holds none.
func (j *judge) buffers() {
	mem := j.f.Sysctl["net.ipv4.tcp_mem"]
	pages := (j.n*4096 + j.f.PageSize - 1) / j.f.PageSize
	// The kernel's own proportions: 3/4, 1 and 3/2 of the same number.
	need := []uint64{pages / 2, (pages*2 + 2) / 3, pages}
	j.key("net.ipv4.tcp_mem", mem, need, mem.ok() && mem.last() >= pages,
		fmt.Sprintf("pages of %s for data in sockets: one each, when all have a message on its way", bytes(j.f.PageSize)))
	bound := "net.ipv4.tcp_mem"
	if mem.ok() {
		bound += ", " + bytes(mem.last()*j.f.PageSize)
	}
	wmem := j.f.Sysctl["net.ipv4.tcp_wmem"]
	f := Finding{Name: "net.ipv4.tcp_wmem", Now: wmem.String(), Need: "-", Verdict: Note,
		Why: fmt.Sprintf("a client that does not read can hold %s; the bound of all is %s", bytes(wmem.last()), bound)}
	if !wmem.ok() {
		f.Verdict, f.Why = Unknown, "data for clients that do not read; the bound of all is "+bound
	}
	j.add(f)
	rmem := j.f.Sysctl["net.ipv4.tcp_rmem"]
	f = Finding{Name: "net.ipv4.tcp_rmem", Now: rmem.String(), Need: "-", Verdict: OK,
		Why: "data that Halley has not read: it reads at once, little is ever there"}
	if !rmem.ok() {
		f.Verdict = Unknown
	}
	j.add(f)
}

// conntrack judges the firewall's table, if the kernel has one loaded.
func (j *judge) conntrack() {
	limit, used := j.f.Sysctl["net.netfilter.nf_conntrack_max"], j.f.Sysctl["net.netfilter.nf_conntrack_count"]
	if !limit.ok() && limit.Missing == "not there" {
		return
	}
	need := used.first() + j.missing
	before := len(j.findings)
	j.sysctl("net.netfilter.nf_conntrack_max", need, "entries of the firewall's table; when it is full, packets are dropped")
	buckets := j.f.Sysctl["net.netfilter.nf_conntrack_buckets"]
	j.key("net.netfilter.nf_conntrack_buckets", buckets, []uint64{(need + 3) / 4}, buckets.first() >= (need+3)/4,
		"its hash table: at most 8 entries to look through on average")
	if j.tracks() {
		return
	}
	for i := range j.findings[before:] {
		f := &j.findings[before+i]
		if f.Verdict == TooLow {
			f.Verdict, f.Mend = Note, ""
			f.Why += "; no rule uses it now"
		}
	}
}

// tracks says whether the firewall's table is in use: it is loaded without being
// used where no rule asks for it.
func (j *judge) tracks() bool {
	count := j.f.Sysctl["net.netfilter.nf_conntrack_count"]
	return count.first() > 0 || !count.ok() && j.f.Sysctl["net.netfilter.nf_conntrack_max"].ok()
}

func (j *judge) ports() {
	key := "net.ipv4.ip_local_port_range"
	s := j.f.Sysctl[key]
	f := Finding{Name: key, Now: s.String(), Need: "-", Verdict: Unknown,
		Why: "source ports of clients and proxies on this machine; not of clients elsewhere"}
	if s.ok() && s.last() >= s.first() {
		ports := s.last() - s.first() + 1
		f.Verdict = OK
		if j.n > ports {
			f.Verdict, f.Set = Note, fmt.Sprintf("%d %d", min(s.first(), 1024), max(s.last(), 65535))
			f.Why = fmt.Sprintf("for clients and proxies on this machine only: %d ports, so %d source addresses to one address of Halley's",
				ports, (j.n+ports-1)/ports)
		}
	}
	j.add(f)
}

// each is what a connection needs: Halley's and the kernel's memory for an idle
// one, a page for a message on its way, and the firewall's entry.
func (j *judge) each() uint64 {
	each := uint64(residentBytes + kernelBytes + 4096)
	if j.tracks() {
		each += conntrackBytes
	}
	return each
}

func (j *judge) memory() {
	available := j.f.MemAvailable.first()
	from, mend := "the machine has it available", "more memory"
	if j.f.CgroupRoom < available || !j.f.MemAvailable.ok() && j.f.CgroupRoom != NoLimit {
		available = j.f.CgroupRoom
		from, mend = "the process's control group has room for it", "a higher MemoryMax= or container limit"
	}
	need := j.missing * j.each()
	f := Finding{Name: "memory", Now: bytes(available), Need: bytes(need), Verdict: OK,
		Why: fmt.Sprintf("%d bytes for each connection, %d of them while it is idle; %s", j.each(), j.each()-4096, from)}
	slow := Finding{Name: "memory, slow clients", Now: f.Now, Verdict: OK}
	total := min(j.f.MemTotal.first(), j.f.RootLimit)
	slow.Need = bytes(need + pendingFactor*total/pendingShare)
	slow.Why = fmt.Sprintf("and twice --max-pending-total, by default %s here", bytes(total/pendingShare))
	switch {
	case !j.f.MemAvailable.ok() && j.f.CgroupRoom == NoLimit:
		f.Now, f.Verdict = j.f.MemAvailable.Missing, Unknown
		slow.Now, slow.Verdict = f.Now, Unknown
	case available < need:
		f.Verdict = TooLow
		f.Mend = fmt.Sprintf("%s, or at most %d connections", mend, available/j.each()+j.n-j.missing)
		slow.Verdict = "" // nothing to be said before that is mended
	case available < need+pendingFactor*total/pendingShare:
		slow.Verdict = TooLow
		slow.Mend = fmt.Sprintf("halley serve --max-pending-total %dMiB", max(1, (available-need)/pendingFactor>>20))
	}
	j.add(f)
	if j.f.MemTotal.ok() && slow.Verdict != "" {
		j.add(slow)
	}
}

func (j *judge) processors() {
	f := Finding{Name: "CPUs", Now: j.f.CPUs.String(), Need: "1", Verdict: OK,
		Why: "halley serve has a loop for each; the kernel needs as much again"}
	switch {
	case j.f.CPUQuota > 0 && j.f.CPUQuota < 1:
		f.Now, f.Verdict = fmt.Sprintf("%.2g", j.f.CPUQuota), TooLow
		f.Why = "the control group halts all of Halley when its time is used up"
		f.Mend = "a CPU limit of 1 or more: CPUQuota=100%, docker run --cpus 1"
	case j.f.CPUQuota > 0 && j.f.CPUQuota < float64(j.f.CPUs.first()):
		f.Now = fmt.Sprintf("%.3g", j.f.CPUQuota)
	case !j.f.CPUs.ok():
		f.Verdict = Unknown
	}
	j.add(f)
	if j.f.OtherNetwork {
		j.add(Finding{Name: "network namespace", Now: "another", Need: "-", Verdict: Note,
			Why: fmt.Sprintf("the net settings are not those of the process: nsenter -n -t %d halley doctor reads those", j.f.PID)})
	}
}

// bytes is a size for humans.
func bytes(n uint64) string {
	for _, unit := range []struct {
		name  string
		bytes uint64
	}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if n >= unit.bytes {
			v := float64(n) / float64(unit.bytes)
			return strings.TrimSuffix(fmt.Sprintf("%.1f", math.Floor(v*10)/10), ".0") + " " + unit.name
		}
	}
	return fmt.Sprintf("%d B", n)
}
