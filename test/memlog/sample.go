package memlog

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"
)

// Sample is one line of a log.
type Sample struct {
	Time       time.Time
	ResidentKB int64 // of the processes together
	SocketKB   int64 // TCP's buffers, of the whole machine: the kernel keeps one count, for all namespaces
	Open       int64 // descriptors of the processes: connections, and a few more
}

// ErrGone says that a process has ended.
var ErrGone = errors.New("no such process")

// Take reads the present figures of the processes from /proc.
func Take(pids []int) (Sample, error) {
	s := Sample{Time: time.Now()}
	for _, pid := range pids {
		rss, err := statusKB(pid, "VmRSS:")
		if err != nil {
			return s, err
		}
		open, err := descriptors(pid)
		if err != nil {
			return s, err
		}
		s.ResidentKB += rss
		s.Open += open
	}
	var err error
	s.SocketKB, err = socketKB(pids[0])
	return s, err
}

// statusKB reads a line of /proc/PID/status (proc(5)).
func statusKB(pid int, key string) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, gone(pid, err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("process %d: %w", pid, ErrGone) // one that has ended but was not waited for has no memory
}

func gone(pid int, err error) error {
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) && pid <= 0 {
		return fmt.Errorf("process %d: %w", pid, ErrGone)
	}
	return err
}

// descriptors counts a process's open files. Since Linux 6.2 the size of the
// folder is their number; before, it must be listed.
func descriptors(pid int) (int64, error) {
	name := fmt.Sprintf("/proc/%d/fd", pid)
	info, err := os.Stat(name)
	if err != nil {
		return 0, gone(pid, err)
	}
	if n := info.Size(); n > 0 {
		return n, nil
	}
	entries, err := os.ReadDir(name)
	return int64(len(entries)), gone(pid, err)
}

// socketKB reads the memory of TCP's buffers from the line "TCP: ... mem PAGES"
// of sockstat.
func socketKB(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/sockstat", pid))
	if err != nil {
		return 0, gone(pid, err)
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		for i := 1; len(fields) > 0 && fields[0] == "TCP:" && i+1 < len(fields); i += 2 {
			if fields[i] == "mem" {
				pages, err := strconv.ParseInt(fields[i+1], 10, 64)
				return pages * int64(os.Getpagesize()) / 1024, err
			}
		}
	}
	return 0, nil
}

// String is the sample as a line of a log.
func (s Sample) String() string {
	return fmt.Sprintf("%s %d %d %d %d", s.Time.UTC().Format(time.RFC3339), s.Time.Unix(), s.ResidentKB, s.SocketKB, s.Open)
}

// Parse reads a line of a log.
func Parse(line string) (Sample, error) {
	fields := strings.Fields(line)
	if len(fields) != 5 {
		return Sample{}, fmt.Errorf("%d fields, must be 5: date, seconds, resident KB, socket KB, open files", len(fields))
	}
	var n [4]int64
	for i := range n {
		var err error
		if n[i], err = strconv.ParseInt(fields[i+1], 10, 64); err != nil || n[i] < 0 {
			return Sample{}, fmt.Errorf("field %d, %q, is no count", i+2, fields[i+1])
		}
	}
	return Sample{Time: time.Unix(n[0], 0), ResidentKB: n[1], SocketKB: n[2], Open: n[3]}, nil
}

// Read reads a whole log. Empty lines and those that begin with # are left out.
func Read(r io.Reader) ([]Sample, error) {
	var samples []Sample
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || line[0] == '#' {
			continue
		}
		s, err := Parse(line)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		samples = append(samples, s)
	}
	return samples, lines.Err()
}
