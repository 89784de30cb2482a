package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
)

// dieWithUs keeps a process from outliving a test run that was killed.
func dieWithUs(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} }

// residentKiB is the VmRSS of a process.
func residentKiB(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), "VmRSS:"); ok {
			var n int
			if _, err := fmt.Sscanf(rest, "%d kB", &n); err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// What others can see of the process has no cookie, however it was given.
func TestCLI_CookieIsHidden(t *testing.T) {
	for name, o := range map[string]halleyOptions{
		"flag":     {args: []string{"--cookie", testCookie}},
		"inline":   {args: []string{"--cookie=" + testCookie}},
		"variable": {env: []string{"HALLEY_COOKIE=" + testCookie}},
	} {
		t.Run(name, func(t *testing.T) {
			h := startHalley(t, o)
			for _, file := range []string{"cmdline", "environ"} {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", h.cmd.Process.Pid, file))
				if err != nil || len(text) == 0 || strings.Contains(string(text), testCookie) {
					t.Errorf("%s: %v, %q", file, err, text)
				}
			}
			e := startErl(t, erlOptions{}) // and it is the right one
			e.want("pong", "net_adm:ping('%s')", h.name)
		})
	}
}

// Nothing is left in the file system by a kill.
func TestFault_KillLeavesNoFiles(t *testing.T) {
	dir := t.TempDir()
	h := startHalley(t, halleyOptions{env: []string{"TMPDIR=" + dir}})
	h.open("1")
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
