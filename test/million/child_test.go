//go:build linux

package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// shell starts a child that ends by its own only after a minute, and waits until it
// has said a line.
func shell(t *testing.T, before string) *child {
	t.Helper()
	c, err := startChild(filepath.Join(t.TempDir(), "log"), true, "sh", "-c", before+"echo last words >&2; echo ready; exec sleep 60")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.kill)
	if line := <-c.lines; line != "ready" {
		t.Fatalf("%q", line)
	}
	return c
}

// TestFailure_Killed: who was killed by us does not want for memory.
func TestFailure_Killed(t *testing.T) {
	const memory = "for want of memory"
	c := shell(t, "trap '' TERM; ")
	c.stop(10 * time.Millisecond)
	if text := c.failure().Error(); strings.Contains(text, memory) || !strings.Contains(text, "did not end when asked to") {
		t.Error(text)
	}
	c = shell(t, "")
	syscall.Kill(c.pid(), syscall.SIGKILL)
	<-c.ended
	if text := c.failure().Error(); !strings.Contains(text, memory) || !strings.Contains(text, "last words") {
		t.Error(text)
	}
}

// TestStartChild_EndsWithUs kills a process that has started a child.
func TestStartChild_EndsWithUs(t *testing.T) {
	if os.Getenv("MILLION_TEST_PARENT") != "" {
		c, err := startChild(os.DevNull, false, "sleep", "60")
		if err != nil {
			t.Fatal(err)
		}
		fmt.Println("child", c.pid())
		<-c.ended
		return
	}
	us := exec.Command(os.Args[0], "-test.run=^TestStartChild_EndsWithUs$")
	us.Env = append(os.Environ(), "MILLION_TEST_PARENT=1")
	out, err := us.StdoutPipe()
	if err == nil {
		err = us.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var pid int
	line, err := lines.ReadString('\n')
	if _, scanned := fmt.Sscanf(line, "child %d", &pid); err != nil || scanned != nil {
		t.Fatalf("%q, %v", line, err)
	}
	us.Process.Kill()
	io.Copy(io.Discard, lines)
	us.Wait()
	stat := fmt.Sprintf("/proc/%d/stat", pid)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(stat)
		if err != nil || strings.Contains(string(text), ") Z ") { // nobody waits for orphans in some containers
			return
		}
		if time.Now().After(end) {
			syscall.Kill(pid, syscall.SIGKILL)
			t.Fatalf("the child is left: %s", text)
		}
	}
}
