package doctor

import (
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
)

// readCgroups finds the process's control groups, of version 1 or 2, and takes
// the lowest limit of each group and those it is in. A group that cannot be seen
// from here limits nothing.
func (f *Facts) readCgroups(root fs.FS, cgroup, mountinfo string) {
	f.CgroupRoom, f.RootLimit = NoLimit, NoLimit
	groups, _ := text(root, cgroup)
	mounts, _ := text(root, mountinfo)
	for _, dir := range groupDirs(groups, mounts, "memory") {
		f.CgroupRoom = min(f.CgroupRoom,
			room(root, dir, "memory.max", "memory.current", "inactive_file "),
			room(root, dir, "memory.high", "memory.current", "inactive_file "),
			room(root, dir, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "))
	}
	for _, dir := range groupDirs(groups, mounts, "cpu") {
		f.takeQuota(quota(root, dir))
	}
	// The two files that httpd reads, and no other, so that the findings agree
	// with what serve does.
	for _, name := range []string{"sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		if s := numbers(root, name, 1); s.ok() {
			f.RootLimit = min(f.RootLimit, s.first())
		}
	}
}

// groupDirs are the folders of the process's group for a controller and of the
// groups above it, as far as they are mounted. groups is /proc/PID/cgroup
// (cgroups(7)), mounts /proc/self/mountinfo.
func groupDirs(groups, mounts, controller string) []string {
	var dirs []string
	for line := range strings.Lines(groups) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 || strings.HasPrefix(parts[2], "/..") { // outside of this namespace
			continue
		}
		v2 := parts[0] == "0" && parts[1] == ""
		if !v2 && !slices.Contains(strings.Split(parts[1], ","), controller) {
			continue
		}
		for mount := range strings.Lines(mounts) {
			dirs = append(dirs, mountedDirs(mount, parts[2], controller, v2)...)
		}
	}
	return dirs
}

// mountedDirs are the folders of one line of mountinfo: ID, parent, device,
// root, mount point, options, "-", type, source, options.
func mountedDirs(mount, group, controller string, v2 bool) []string {
	front, back, _ := strings.Cut(mount, " - ")
	at, kind := strings.Fields(front), strings.Fields(back)
	if len(at) < 5 || len(kind) < 3 {
		return nil
	}
	right := kind[0] == "cgroup2"
	if !v2 {
		right = kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), controller)
	}
	if !right {
		return nil
	}
	// In a container the mount's root can be the container's own group, which
	// /proc/PID/cgroup names too, or names /.
	inside := group
	if at[3] != "/" {
		inside = strings.TrimPrefix(group, at[3])
	}
	point := strings.TrimPrefix(path.Clean(at[4]), "/")
	dir := path.Join(point, inside)
	var dirs []string
	for strings.HasPrefix(dir, point) && dir != "." {
		dirs = append(dirs, dir)
		if dir == point {
			break
		}
		dir = path.Dir(dir)
	}
	return dirs
}

// room is what a group may still take. Pages of files that are not in use are
// given back before anything is refused.
func room(root fs.FS, dir, limitFile, usedFile, inactive string) uint64 {
	limit := numbers(root, dir+"/"+limitFile, 1)
	if !limit.ok() || limit.first() >= 1<<60 { // version 1 has no word for no limit, but a huge number
		return NoLimit
	}
	used := numbers(root, dir+"/"+usedFile, 1).first()
	used -= min(used, field(root, dir+"/memory.stat", inactive, 1).first())
	return limit.first() - min(limit.first(), used)
}

// quota is how many CPUs' worth of time a group gets, 0 for no limit.
func quota(root fs.FS, dir string) float64 {
	content, _ := text(root, dir+"/cpu.max")
	if content == "" {
		q, _ := text(root, dir+"/cpu.cfs_quota_us")
		p, _ := text(root, dir+"/cpu.cfs_period_us")
		content = q + " " + p
	}
	q, p, _ := strings.Cut(content, " ")
	quota, err1 := strconv.ParseFloat(q, 64)
	period, err2 := strconv.ParseFloat(p, 64)
	if err1 != nil || err2 != nil || quota <= 0 || period <= 0 { // max, -1, or not there
		return 0
	}
	return quota / period
}

func (f *Facts) takeQuota(q float64) {
	if q > 0 && (f.CPUQuota == 0 || q < f.CPUQuota) {
		f.CPUQuota = q
	}
}
