package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// The Elixir script of the documentation, run as it says.
func TestElixir(t *testing.T) {
	if _, err := exec.LookPath("elixir"); err != nil {
		t.Skip("elixir is not installed") // in CI, too: nothing but this test needs it
	}
	for name, uid := range map[string]struct{ text, inspected string }{
		"integer": {"123", "123"},
		"binary":  {"alice", `"alice"`},
	} {
		t.Run(name, func(t *testing.T) { testElixir(t, uid.text, uid.inspected) })
	}
}

func testElixir(t *testing.T, uid, inspected string) {
	h := startHalley(t, halleyOptions{})
	s := h.open(uid)
	out := startElixir(t, "../erlang/examples/client.exs", h.name, uid)
	s.want("to the uid\n", "an iolist\n", "to the pid\n", "with a tag\n")
	for _, line := range []string{"handed to 1", "browsers 1", "info " + inspected + " chunked pending 0"} {
		eventually(t, line, func() bool { return out.log.count(line) == 1 })
	}
	s.conn.Close()
	select {
	case err := <-out.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(patience):
		t.Fatal("the script does not end")
	}
	if out.log.count("gone :normal") != 1 {
		t.Error("no DOWN, or another reason")
	}
}

// script is a running Elixir script; ended gives how it has ended.
type script struct {
	log   *logBuffer
	ended chan error
}

func startElixir(t *testing.T, file string, args ...string) script {
	t.Helper()
	home := t.TempDir()
	if err := os.WriteFile(filepath.Join(home, ".erlang.cookie"), []byte(testCookie), 0o400); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("elixir", append([]string{"--sname", uniqueName("ex") + "@localhost", "--erl", "-start_epmd false", file}, args...)...)
	cmd.Env = cleanEnv(fmt.Sprintf("ERL_EPMD_PORT=%d", epmd.use(t)), "HOME="+home, "ERL_CRASH_DUMP=/dev/null")
	dieWithUs(cmd)
	s := script{log: new(logBuffer), ended: make(chan error, 1)}
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.ended <- cmd.Wait() }()
	t.Cleanup(func() {
		cmd.Process.Kill()
		if t.Failed() {
			t.Logf("elixir printed:\n%s", s.log)
		}
	})
	return s
}
