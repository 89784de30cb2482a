package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// halley flood, against a real Halley.

// floodCommand are the arguments of a flood of h.
func floodCommand(t *testing.T, h *halley, args ...string) command {
	return command{args: append([]string{"flood", "--url", "http://" + h.addr + "/test/{uid}", "--rate", "0",
		"--cookie-file", cookieFile(t, testCookie), "--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t))}, args...)}
}

func TestFlood_PublishesAndChecks(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	for name, args := range map[string][]string{
		"one-process":     {"--processes", "1"},
		"three-processes": {"--processes", "3"},
		"from-addresses":  {"--processes", "2", "--from", "127.0.0.1-127.0.0.3"},
		"zipf":            {"--publish-uids", "zipf"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "summary.json")
			floodCommand(t, h, append(args, "--connections", "301", "--uids", "1-100", "--barrier", "--hold", "1s",
				"--publish", h.name, "--publish-rate", "5000", "--json", file)...).wants(t, 0, "301 opened, 301 streams, 0 failed", "latency")
			var got struct {
				Streams, Messages, Expected, Sent, Missing, Doubled, OutOfOrder uint64
				LatencyMicros                                                   map[string]int64
			}
			text, err := os.ReadFile(file)
			if err == nil {
				err = json.Unmarshal(text, &got)
			}
			if err != nil {
				t.Fatal(err)
			}
			// Each uid has three connections, the first one has four.
			if got.Streams != 301 || got.Sent < 2500 || got.Messages != got.Expected || got.Messages < 3*got.Sent || got.Messages > 4*got.Sent ||
				got.LatencyMicros["p50"] == 0 {
				t.Errorf("%s", text)
			}
		})
	}
}

// background starts a command whose output is kept.
func background(t *testing.T, c command) (*exec.Cmd, *logBuffer) {
	t.Helper()
	out := new(logBuffer)
	cmd := exec.Command(halleyBin, c.args...)
	cmd.Env = cleanEnv("HOME=" + t.TempDir())
	cmd.Stdout, cmd.Stderr = out, out
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd, out
}

func TestFlood_EndsWithItsSummary(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	for name, c := range map[string]struct {
		processes int
		end       func(flood *exec.Cmd)
		code      int
		want      string
	}{
		"ctrl-c":          {1, func(f *exec.Cmd) { f.Process.Signal(syscall.SIGINT) }, 0, "100 opened, 100 streams, 0 failed, 0 ended cleanly, 0 broke"},
		"ctrl-c-children": {2, func(f *exec.Cmd) { f.Process.Signal(syscall.SIGINT) }, 0, "100 opened, 100 streams, 0 failed, 0 ended cleanly, 0 broke"},
		"child-killed": {2, func(f *exec.Cmd) { syscall.Kill(children(t, f.Process.Pid)[0], syscall.SIGKILL) }, 1,
			"it ended early"},
	} {
		t.Run(name, func(t *testing.T) {
			flood, out := background(t, floodCommand(t, h, "--connections", "100", "--hold", "0", "--report", "100ms",
				"--processes", strconv.Itoa(c.processes)))
			eventually(t, "all are open", func() bool { return out.count("{100, 0, 100,") > 0 })
			kids := children(t, flood.Process.Pid)
			c.end(flood)
			flood.Wait()
			if code := flood.ProcessState.ExitCode(); code != c.code || out.count(c.want) != 1 {
				t.Errorf("exit status %d, want %d and %q\n%s", code, c.code, c.want, out)
			}
			for _, pid := range kids {
				within(t, time.Second, "its children have ended", func() bool { return syscall.Kill(pid, 0) != nil })
			}
		})
	}
}

// children are the processes that a process has started.
func children(t *testing.T, pid int) []int {
	t.Helper()
	var pids []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // any thread may have started one
	for _, file := range tasks {
		text, _ := os.ReadFile(file)
		for _, field := range bytes.Fields(text) {
			n, err := strconv.Atoi(string(field))
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, n)
		}
	}
	if len(pids) == 0 && len(tasks) == 0 {
		t.Fatalf("process %d has ended", pid)
	}
	return pids
}

func TestFlood_ServerIsKilled(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	flood, out := background(t, floodCommand(t, h, "--connections", "100", "--hold", "0", "--report", "100ms"))
	eventually(t, "all are open", func() bool { return out.count("{100, 0, 100,") > 0 })
	h.kill()
	flood.Wait()
	if code := flood.ProcessState.ExitCode(); code != 1 || out.count("100 streams broke") != 1 {
		t.Errorf("exit status %d\n%s", code, out)
	}
}

func TestFlood_DrainedStreamsEndCleanly(t *testing.T) {
	h := startHalley(t, halleyOptions{args: []string{"--drain", "500ms"}})
	flood, out := background(t, floodCommand(t, h, "--connections", "100", "--hold", "0", "--report", "100ms"))
	eventually(t, "all are open", func() bool { return out.count("{100, 0, 100,") > 0 })
	h.signal(syscall.SIGTERM)
	flood.Wait()
	if code := flood.ProcessState.ExitCode(); code != 0 || out.count("100 ended cleanly, 0 broke") != 1 {
		t.Errorf("exit status %d\n%s", code, out)
	}
	h.wantExit(0, patience)
}

func TestFlood_StalledAreClosedOthersAreNot(t *testing.T) {
	h := startHalley(t, halleyOptions{args: []string{"--max-pending", "4KiB"}})
	_, out := floodCommand(t, h, "--connections", "100", "--uids", "1-100", "--stall", "1%", "--publish", h.name,
		"--publish-rate", "20000", "--publish-bytes", "1000", "--barrier", "--hold", "3s").run(t)
	if !strings.Contains(out, "0 missing, 0 doubled, 0 out of order") {
		t.Error(out)
	}
}

func TestFlood_Mistakes(t *testing.T) {
	h := startHalley(t, halleyOptions{args: []string{"--max-uid", "10"}})
	closed := "127.0.0.1:" + strconv.Itoa(freePort(t))
	silent := silentServer(t)
	for name, c := range map[string]struct {
		args []string
		code int
		want string
	}{
		"nobody-there":       {[]string{"--url", "http://" + closed + "/{uid}", "--connections", "30"}, 1, "connect to " + closed},
		"no-answer":          {[]string{"--url", "http://" + silent + "/{uid}", "--connections", "5", "--hold", "1s"}, 1, "5 connections failed"},
		"refused":            {[]string{"--connections", "20", "--uids", "1-20", "--hold", "1s"}, 1, "10 got another answer than 200"},
		"no-such-node":       {[]string{"--publish", "nobody@localhost", "--connections", "10"}, 1, "nobody@localhost"},
		"no-uid":             {[]string{"--url", "http://" + h.addr + "/test/1"}, 2, "{uid}"},
		"no-such-host":       {[]string{"--url", "http://no-such-host.invalid/{uid}"}, 2, "no-such-host.invalid"},
		"range-upside-down":  {[]string{"--uids", "9-1"}, 2, "--uids"},
		"from-no-address":    {[]string{"--from", "here"}, 2, `--from: "here"`},
		"from-foreign":       {[]string{"--from", "192.0.2.1", "--connections", "10"}, 1, "--from"},
		"too-few-addresses":  {[]string{"--from", "127.0.0.1", "--connections", "100000"}, 2, "2 addresses are needed"},
		"no-connections":     {[]string{"--connections", "0"}, 2, "--connections 0"},
		"negative-processes": {[]string{"--processes", "-1"}, 2, "--processes -1"},
		"more-processes":     {[]string{"--processes", "5", "--connections", "4"}, 2, "--processes 5"},
		"descriptors":        {[]string{"--processes", "1", "--connections", "100000000"}, 1, "--processes"},
		"stall":              {[]string{"--stall", "200%"}, 2, "--stall"},
		"publish-rate":       {[]string{"--publish", h.name, "--publish-rate", "0"}, 2, "--publish-rate 0"},
		"publish-uids":       {[]string{"--publish", h.name, "--publish-uids", "some"}, 2, "--publish-uids"},
		"publish-after":      {[]string{"--publish", h.name, "--hold", "2s", "--publish-after", "3s"}, 2, "--publish-after 3s"},
		"publish-after-less": {[]string{"--publish", h.name, "--publish-after", "-3s"}, 2, "--publish-after -3s"},
		"publish-count": {[]string{"--publish", h.name, "--connections", "10", "--hold", "1s", "--barrier", "--publish-count", "1000",
			"--publish-rate", "100"}, 1, "--publish-count 1000"},
		"json": {[]string{"--connections", "1", "--hold", "1ms", "--json", "/does/not/exist"}, 1, "/does/not/exist"},
	} {
		t.Run(name, func(t *testing.T) { floodCommand(t, h, c.args...).wants(t, c.code, c.want) })
	}
}

// silentServer accepts, and closes after a moment without an answer.
func silentServer(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			time.AfterFunc(100*time.Millisecond, func() { c.Close() })
		}
	}()
	return ln.Addr().String()
}

// A number of messages ends the run when they have arrived, long before --hold.
func TestFlood_PublishCount(t *testing.T) {
	h := startHalley(t, halleyOptions{})
	summary := filepath.Join(t.TempDir(), "summary.json")
	start := time.Now()
	command{args: []string{"flood", "--epmd", fmt.Sprintf("127.0.0.1:%d", epmd.use(t)), "--cookie-file", cookieFile(t, testCookie),
		"--url", "http://" + h.addr + "/test/{uid}", "--connections", "20", "--uids", "1-10", "--barrier", "--hold", "10m", "--json", summary,
		"--publish", h.name, "--publish-count", "2345", "--publish-rate", "5000", "--publish-after", "1s"}}.wants(t, 0)
	if took := time.Since(start); took < time.Second || took > patience {
		t.Errorf("it took %v", took)
	}
	text, err := os.ReadFile(summary)
	if err != nil {
		t.Fatal(err)
	}
	var st struct{ Sent, Expected, Messages uint64 }
	if err := json.Unmarshal(text, &st); err != nil {
		t.Fatal(err)
	}
	if st.Sent != 2345 || st.Expected != 2*2345 || st.Messages != 2*2345 { // two connections a uid
		t.Errorf("%+v", st)
	}
}
