package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ticksPerSecond is the unit of /proc/PID/stat, USER_HZ: 100 on every Linux that Go runs on.
const ticksPerSecond = 100

// cpuSeconds is the processor time that processes have used, user and system (proc_pid_stat(5)).
func cpuSeconds(pids []int) (float64, error) {
	total := 0.0
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		_, rest, _ := strings.Cut(string(text), ") ") // the name may have spaces
		fields := strings.Fields(rest)
		if len(fields) < 13 {
			return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
		}
		for _, f := range fields[11:13] {
			n, err := strconv.Atoi(f)
			if err != nil {
				return 0, err
			}
			total += float64(n) / ticksPerSecond
		}
	}
	return total, nil
}

// residentBytes is VmRSS of the processes, added up.
func residentBytes(pids []int) (float64, error) {
	total := 0.0
	for _, pid := range pids {
		kb, err := kilobytes(fmt.Sprintf("/proc/%d/status", pid), "VmRSS:")
		if err != nil {
			return 0, err
		}
		total += kb * 1024
	}
	return total, nil
}

// kernelBytes is what the kernel has in use for its objects and TCP's buffers: the
// whole machine's, so only differences say something.
func kernelBytes() (float64, error) {
	slab, err := kilobytes("/proc/meminfo", "Slab:")
	if err != nil {
		return 0, err
	}
	text, err := os.ReadFile("/proc/net/sockstat")
	if err != nil {
		return 0, err
	}
	_, mem, _ := strings.Cut(string(text), "TCP: ")
	_, mem, _ = strings.Cut(mem, " mem ")
	mem, _, _ = strings.Cut(mem, "\n")
	pages, err := strconv.Atoi(mem)
	if err != nil {
		return 0, fmt.Errorf("/proc/net/sockstat: %w", err)
	}
	return slab*1024 + float64(pages*os.Getpagesize()), nil
}

// kilobytes reads a line "Key:  123 kB".
func kilobytes(file, key string) (float64, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if fields := strings.Fields(lines.Text()); len(fields) > 1 && fields[0] == key {
			return strconv.ParseFloat(fields[1], 64)
		}
	}
	return 0, fmt.Errorf("%s has no %s", file, key)
}

// machine describes what the figures were measured on.
func machine() string {
	memory, _ := kilobytes("/proc/meminfo", "MemTotal:")
	var uts unix.Utsname
	unix.Uname(&uts)
	release, _, _ := strings.Cut(unix.ByteSliceToString(uts.Release[:]), "-")
	return fmt.Sprintf("%d cores (%s), %.0f GiB, Linux %s, %s, %s", runtime.NumCPU(), cpuModel(), memory/(1<<20),
		release, osName(), time.Now().UTC().Format("2006-01-02"))
}

func cpuModel() string { return lineAfter("/proc/cpuinfo", "model name", ":") }

func osName() string { return strings.Trim(lineAfter("/etc/os-release", "PRETTY_NAME", "="), `"`) }

// lineAfter is what follows a separator in the first line that begins with key.
func lineAfter(file, key, separator string) string {
	text, _ := os.ReadFile(file)
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, key) {
			_, value, _ := strings.Cut(line, separator)
			return strings.TrimSpace(value)
		}
	}
	return "unknown " + key
}
