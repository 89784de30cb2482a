package peers

import (
	"context"
	_ "embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"text/template"
)

//go:embed nchan/nginx.conf
var nginxConf string

var nginxTemplate = template.Must(template.New("nginx.conf").Parse(nginxConf))

var nchanPackages = []string{"nginx-light", "libnginx-mod-nchan", "libnginx-mod-http-headers-more-filter"}

// startNchan starts nginx with one worker: two processes.
func startNchan(ctx context.Context, cfg Config) (*Peer, error) {
	const name = "nchan"
	if !supported {
		return nil, &Missing{Peer: name, What: "Linux"}
	}
	nginx, modules, err := findNginx(ctx, name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cfg.Dir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	conf := filepath.Join(dir, "nginx.conf")
	if err := writeNginxConf(conf, modules, &cfg); err != nil {
		return nil, err
	}
	p := &Peer{Name: name, Version: nchanVersion(ctx, nginx)}
	// nginx says nothing when it is ready, but it answers.
	_, out, err := p.launch(ctx, &cfg, command(nginx, "-e", "stderr", "-p", dir, "-c", conf), nil)
	if err != nil {
		return nil, err
	}
	p.relay(out)
	master := p.PIDs[0]
	err = p.until(ctx, func() bool {
		workers := children(master)
		p.PIDs = append([]int{master}, workers...)
		return len(workers) == 1 && answers(cfg.Addr)
	})
	if err != nil {
		p.Stop()
		return nil, err
	}
	p.Dest.Publish = "http://" + cfg.Addr + "/pub/{uid}"
	return p, nil
}

func writeNginxConf(file, modules string, cfg *Config) error {
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return nginxTemplate.Execute(f, map[string]any{
		"Modules":     modules,
		"Root":        os.Geteuid() == 0,
		"Connections": cfg.connections(),
		"Slots":       (cfg.connections() + spareFiles) * 9 / 8,
		"Addr":        cfg.Addr,
	})
}

var modulesPath = regexp.MustCompile(`--modules-path=(\S+)`)

func findNginx(ctx context.Context, name string) (nginx, modules string, err error) {
	if nginx, err = exec.LookPath("nginx"); err != nil {
		if nginx, err = exec.LookPath("/usr/sbin/nginx"); err != nil {
			return "", "", &Missing{Peer: name, What: "nginx", Packages: nchanPackages}
		}
	}
	built, err := run(ctx, nginx, "-V")
	if err != nil {
		return "", "", err
	}
	if m := modulesPath.FindStringSubmatch(built); m != nil {
		modules = m[1]
	}
	for _, module := range []string{"ngx_nchan_module.so", "ngx_http_headers_more_filter_module.so"} {
		if _, err := os.Stat(filepath.Join(modules, module)); err != nil {
			return "", "", &Missing{Peer: name, What: "nginx's module " + module, Packages: nchanPackages}
		}
	}
	return nginx, modules, nil
}

func nchanVersion(ctx context.Context, nginx string) string {
	version, _ := run(ctx, nginx, "-v")
	_, version, _ = strings.Cut(version, "nginx/")
	return fmt.Sprintf("nginx %s, nchan %s", version, packageVersion(ctx, "libnginx-mod-nchan"))
}

// packageVersion is what Debian says; "?" elsewhere.
func packageVersion(ctx context.Context, name string) string {
	out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Version}", name).Output()
	if err != nil {
		return "?"
	}
	version := string(out)
	if _, rest, found := strings.Cut(version, ":"); found { // the epoch
		version = rest
	}
	version, _, _ = strings.Cut(version, "+dfsg")
	version, _, _ = strings.Cut(version, "-")
	return version
}

// children are the processes that a process has started.
func children(pid int) []int {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	var pids []int
	for _, field := range strings.Fields(string(text)) {
		if n, err := strconv.Atoi(field); err == nil {
			pids = append(pids, n)
		}
	}
	return pids
}

func answers(addr string) bool {
	c, err := net.Dial("tcp", addr)
	if err == nil {
		c.Close()
	}
	return err == nil
}
