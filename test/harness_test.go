package test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	testCookie  = "sesame-4711-cookie"
	otherCookie = "strange-0815-cookie"

	patience = 30 * time.Second // for anything that should come soon, on a busy machine
)

var (
	halleyBin string // the built halley
	workDir   string // temporary files of this run, and of the processes that it starts
	epmd      sharedEPMD
)

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	var err error
	if workDir, err = os.MkdirTemp("", "halley-test-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(workDir)
	defer epmd.stop()
	defer func() {
		if shared != nil {
			shared.kill()
		}
	}()
	if halleyBin = os.Getenv("HALLEY_BIN"); halleyBin == "" {
		halleyBin = filepath.Join(workDir, "halley")
		build := exec.Command("go", "build", "-o", halleyBin, "..")
		build.Stdout, build.Stderr = os.Stderr, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build halley:", err)
			return 1
		}
	}
	return m.Run()
}

// need skips the test where a tool is missing, but not in CI.
func need(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("%s is needed: %v", tool, err)
			}
			t.Skipf("%s is not installed", tool)
		}
	}
}

// eventually waits until cond is true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	within(t, patience, what, cond)
}

func within(t testing.TB, limit time.Duration, what string, cond func() bool) {
	t.Helper()
	for until := time.Now().Add(limit); !cond(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %v: %s", limit, what)
		}
	}
}

var names struct {
	sync.Mutex
	n int
}

// uniqueName keeps tests, and runs of them, apart.
func uniqueName(what string) string {
	names.Lock()
	defer names.Unlock()
	names.n++
	return fmt.Sprintf("%s_%d_%d", what, os.Getpid(), names.n)
}

// cookieFile is a file with a cookie that only its owner may read.
func cookieFile(t *testing.T, cookie string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "cookie")
	if err := os.WriteFile(file, []byte(cookie+"\n"), 0o400); err != nil {
		t.Fatal(err)
	}
	return file
}

// cleanEnv is our environment without what would change Halley or Erlang.
func cleanEnv(more ...string) []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "HALLEY_") && !strings.HasPrefix(v, "ERL_") && !strings.HasPrefix(v, "TMPDIR=") {
			env = append(env, v)
		}
	}
	return append(env, append([]string{"TMPDIR=" + workDir}, more...)...)
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// sharedEPMD is this run's private epmd, started by the first test that needs one.
type sharedEPMD struct {
	mu   sync.Mutex
	cmd  *exec.Cmd
	port int
}

func (e *sharedEPMD) use(t *testing.T) int {
	t.Helper()
	need(t, "epmd", "erl")
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.cmd == nil {
		e.port = freePort(t)
		e.cmd = startEPMD(t, e.port)
	}
	return e.port
}

func (e *sharedEPMD) stop() {
	if e.cmd != nil {
		kill(e.cmd)
	}
}

// startEPMD runs an epmd in the foreground; the caller ends it.
func startEPMD(t *testing.T, port int) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("epmd", "-port", strconv.Itoa(port))
	cmd.Env = cleanEnv()
	dieWithUs(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "epmd answers", func() bool {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return cmd
}

// kill is kill -9.
func kill(cmd *exec.Cmd) {
	cmd.Process.Kill()
	cmd.Wait()
}

// epmdKnows asks an epmd for a name: EPMD protocol, PORT_PLEASE2_REQ.
func epmdKnows(t *testing.T, port int, alive string) bool {
	t.Helper()
	c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		return false
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	c.Write(append(binary.BigEndian.AppendUint16(nil, uint16(1+len(alive))), "z"+alive...))
	var b [2]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		t.Fatalf("epmd: %v", err)
	}
	return b[1] == 0
}
