package test

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nginx is the reverse proxy of docs/migrating.md, with the example's configuration but
// for its ports.
type nginx struct {
	t      *testing.T
	bin    string
	dir    string
	addr   string
	master int
}

func startNginx(t *testing.T, mochiweb, halley string) *nginx {
	t.Helper()
	n := &nginx{t: t, bin: findNginx(t), dir: nginxDir(t), addr: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	text, err := os.ReadFile(cometDir + "/nginx.conf")
	if err != nil {
		t.Fatal(err)
	}
	conf := string(text)
	for example, ours := range map[string]string{"127.0.0.1:8080": n.addr, "127.0.0.1:8100": mochiweb, "127.0.0.1:8000": halley} {
		if strings.Count(conf, example) != 1 {
			t.Fatalf("%s is %d times in nginx.conf", example, strings.Count(conf, example))
		}
		conf = strings.Replace(conf, example, ours, 1)
	}
	n.write("nginx.conf", conf)
	n.write("moved", "")
	n.start()
	return n
}

// nginxDir is a folder that workers can enter: of root's nginx they are another user's.
func nginxDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "halley-nginx-")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

func findNginx(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"nginx", "/usr/sbin/nginx"} { // Debian's is not in every PATH
		if bin, err := exec.LookPath(name); err == nil {
			return bin
		}
	}
	need(t, "nginx")
	return ""
}

func (n *nginx) write(name, text string) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.dir, name), []byte(text), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

func (n *nginx) command(args ...string) *exec.Cmd {
	return exec.Command(n.bin, append([]string{"-p", n.dir, "-c", "nginx.conf", "-e", "error.log"}, args...)...)
}

func (n *nginx) start() {
	n.t.Helper()
	cmd := n.command("-g", "daemon off;")
	cmd.Env = cleanEnv()
	// Not SIGKILL, as for others: the workers would stay.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		n.t.Fatal(err)
	}
	n.master = cmd.Process.Pid
	n.t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
		if text, _ := os.ReadFile(filepath.Join(n.dir, "error.log")); n.t.Failed() {
			n.t.Logf("nginx printed:\n%s", text)
		}
	})
	eventually(n.t, "nginx answers", func() bool { return n.front("/test/1") != "" })
}

// move writes the file `moved` and has nginx read it; it returns when only those workers
// accept that have read it.
func (n *nginx) move(lines ...string) {
	n.t.Helper()
	n.write("moved", strings.Join(append(lines, ""), "\n"))
	old := n.workers()
	if out, err := n.command("-s", "reload").CombinedOutput(); err != nil {
		n.t.Fatalf("nginx -s reload: %v\n%s", err, out)
	}
	eventually(n.t, "new workers", func() bool {
		accepting := 0
		for pid, ending := range n.workers() {
			if _, isOld := old[pid]; isOld && !ending {
				return false
			} else if !ending {
				accepting++
			}
		}
		return accepting > 0
	})
}

// workers are the pids of the workers, and whether they only serve the rest of their
// streams: they say so in the list of processes.
func (n *nginx) workers() map[int]bool {
	n.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", n.master, n.master))
	if err != nil {
		n.t.Fatal(err)
	}
	workers := map[int]bool{}
	for _, field := range strings.Fields(string(text)) {
		pid, err := strconv.Atoi(field)
		if err != nil {
			n.t.Fatal(err)
		}
		title, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && strings.Contains(string(title), "worker process") { // else it has just begun, or ended
			workers[pid] = strings.Contains(string(title), "shutting down")
		}
	}
	return workers
}

// front is who serves a URL now, as the configuration's X-Front says; "" without an answer.
func (n *nginx) front(path string) string {
	req, err := http.NewRequest("HEAD", "http://"+n.addr+path, nil)
	if err != nil {
		n.t.Fatal(err)
	}
	req.Close = true
	resp, err := adminClient.Do(req)
	if err != nil {
		return ""
	}
	resp.Body.Close()
	return resp.Header.Get("X-Front")
}
