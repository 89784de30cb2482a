package httpd

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// TestVanishedClient takes the cable from a client in a network namespace of its
// own: neither FIN nor RST reaches us, and TCP finds out by asking, or by what
// was never acknowledged.
func TestVanishedClient(t *testing.T) {
	for _, owed := range []bool{false, true} {
		t.Run(fmt.Sprintf("owed=%v", owed), func(t *testing.T) {
			address := cable(t)
			s := testServer(t, func(o *Options) {
				o.Listen = []string{address + ":0"}
				o.KeepAlive = time.Second
			})
			curl := exec.Command("ip", "netns", "exec", cableNS(), "curl", "-sN", "http://"+s.testAddr()+"/test/1")
			if err := curl.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { curl.Process.Kill(); curl.Wait() }()
			watching := newEndings()
			s.Observe(watching)
			eventually(t, "the client is connected", func() bool { return s.Stats().Connections == 1 })
			f := s.NewFeed()
			f.Watch(numberOf(t, s, "1"))
			flush(f)
			run(t, "ip", "link", "set", cableEnd(), "down")
			if owed {
				send(s.NewFeed(), 1, "nobody acknowledges this")
			}
			eventually(t, "the client is noticed to be gone", func() bool { return s.Stats().Closed["idle"] == 1 })
			if watching.count("idle") != 1 {
				t.Errorf("told %v", watching.all)
			}
		})
	}
}

func cableNS() string  { return fmt.Sprintf("halley%d", os.Getpid()) }
func cableEnd() string { return fmt.Sprintf("hly%d", os.Getpid()) }

// cable makes a network namespace and a pair of interfaces into it, and returns
// the address on our side.
func cable(t *testing.T) string {
	t.Helper()
	for _, tool := range []string{"ip", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			missing(t, tool+" is not installed")
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("network namespaces take root")
	}
	if out, err := exec.Command("ip", "netns", "add", cableNS()).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %s", out)
	}
	t.Cleanup(func() { exec.Command("ip", "netns", "del", cableNS()).Run() })
	run(t, "ip", "link", "add", cableEnd(), "type", "veth", "peer", "name", "cable0", "netns", cableNS())
	t.Cleanup(func() { exec.Command("ip", "link", "del", cableEnd()).Run() })
	run(t, "ip", "addr", "add", "198.18.77.1/30", "dev", cableEnd())
	run(t, "ip", "link", "set", cableEnd(), "up")
	run(t, "ip", "-n", cableNS(), "addr", "add", "198.18.77.2/30", "dev", "cable0")
	run(t, "ip", "-n", cableNS(), "link", "set", "cable0", "up")
	return "198.18.77.1"
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, out)
	}
}

// missing skips a test, or fails it where all tools must be there.
func missing(t *testing.T, why string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatal(why)
	}
	t.Skip(why)
}
