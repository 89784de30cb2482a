package peers

import (
	"context"
	"embed"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
)

//go:embed mochiweb/*.erl
var mochiwebSources embed.FS

// startMochiweb starts the articles' front, and its router as they have it: each
// message is a call of a gen_server.
func startMochiweb(ctx context.Context, cfg Config) (*Peer, error) {
	return newMochiweb(ctx, &cfg, "mochiweb", "call")
}

// startMochiwebETS starts it with the lookup in the process that gets the message.
func startMochiwebETS(ctx context.Context, cfg Config) (*Peer, error) {
	return newMochiweb(ctx, &cfg, "mochiweb-ets", "table")
}

func newMochiweb(ctx context.Context, cfg *Config, name, lookup string) (*Peer, error) {
	if !supported {
		return nil, &Missing{Peer: name, What: "Linux"}
	}
	host, port, err := splitAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	ip := net.ParseIP(host).To4()
	if ip == nil {
		return nil, fmt.Errorf("%s: %s is no IPv4 address", name, host)
	}
	version, err := findMochiweb(ctx, name)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(cfg.Dir, name)
	if err := compileErlang(ctx, dir, mochiwebSources); err != nil {
		return nil, err
	}
	if err := writeCookie(dir, cfg.Cookie); err != nil {
		return nil, err
	}
	p := &Peer{Name: name, Version: version}
	node := nodeName(name, cfg)
	cmd := command("erl", nameFlag(node), node, "-noinput", "-pa", dir, "-start_epmd", "false",
		"+K", "true", // the articles'; Erlang has no other way any more
		"+P", strconv.Itoa(max(minProcesses, 2*cfg.connections())),
		"+Q", strconv.Itoa(max(minPorts, 2*cfg.connections())),
		"-eval", fmt.Sprintf("comet:start(%s, {%d,%d,%d,%d}, %s, %d).", lookup, ip[0], ip[1], ip[2], ip[3], port, cfg.connections()+spareFiles))
	cmd.Env = append(erlangEnv(), "HOME="+dir, epmdVariable(cfg), "ERL_CRASH_DUMP=/dev/null")
	_, out, err := p.launch(ctx, cfg, cmd, func(line string) bool { return line == "ready" })
	if err != nil {
		return nil, err
	}
	p.relay(out)
	p.Dest.Erlang = &Erlang{Name: "httpd", Node: node, Lists: true}
	return p, nil
}

// Erlang's own limits, which are enough for many.
const (
	minProcesses = 262144
	minPorts     = 65536
)

func findMochiweb(ctx context.Context, name string) (version string, err error) {
	missing := &Missing{Peer: name, What: "Erlang with mochiweb", Packages: []string{"erlang-base", "erlang-mochiweb"}}
	if _, err := exec.LookPath("erlc"); err != nil {
		return "", missing
	}
	out, err := erlang(ctx, `ok = application:load(mochiweb), {ok, V} = application:get_key(mochiweb, vsn), `+
		`io:format("mochiweb ~ts, Erlang/OTP ~ts", [V, erlang:system_info(otp_release)])`)
	if err != nil {
		return "", missing
	}
	return out, nil
}

// compileErlang compiles all sources of a file system into dir.
func compileErlang(ctx context.Context, dir string, sources embed.FS) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	args := []string{"-Werror", "-o", dir}
	entries, err := sources.ReadDir("mochiweb")
	if err != nil {
		return err
	}
	for _, e := range entries {
		text, err := sources.ReadFile("mochiweb/" + e.Name())
		if err != nil {
			return err
		}
		file := filepath.Join(dir, e.Name())
		if err := os.WriteFile(file, text, 0o644); err != nil {
			return err
		}
		args = append(args, file)
	}
	_, err = run(ctx, "erlc", args...)
	return err
}

// writeCookie puts the cookie where an Erlang with this home looks for it: a command
// line can be read by everybody.
func writeCookie(home, cookie string) error {
	file := filepath.Join(home, ".erlang.cookie")
	if err := os.Remove(file); err != nil && !os.IsNotExist(err) {
		return err
	}
	return os.WriteFile(file, []byte(cookie), 0o400)
}

// nameFlag is -name for a host with a dot.
func nameFlag(node string) string {
	if _, host, _ := strings.Cut(node, "@"); strings.ContainsAny(host, ".:") {
		return "-name"
	}
	return "-sname"
}
