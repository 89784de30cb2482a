package peers

import (
	"context"
	_ "embed"
	"fmt"
	"path/filepath"
)

//go:embed cnode/cnode.c
var cnodeSource string

// startCNode starts the C node in the article's shape, a wake for each message.
func startCNode(ctx context.Context, cfg Config) (*Peer, error) {
	return newCNode(ctx, &cfg, "cnode")
}

// startCNodeQueue starts it with a queue and one wake for all that is in it.
func startCNodeQueue(ctx context.Context, cfg Config) (*Peer, error) {
	return newCNode(ctx, &cfg, "cnode-queue", "-q")
}

func newCNode(ctx context.Context, cfg *Config, name string, args ...string) (*Peer, error) {
	if !supported {
		return nil, &Missing{Peer: name, What: "Linux"}
	}
	host, port, err := splitAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	ei, err := libraries(ctx, name)
	if err != nil {
		return nil, err
	}
	bin, err := compileC(ctx, cfg, name, cnodeSource, "-I"+filepath.Join(ei, "include"), "-L"+filepath.Join(ei, "lib"),
		"-levent_extra", "-levent_core", "-lei", "-lpthread")
	if err != nil {
		return nil, err
	}
	p := &Peer{Name: name, Version: cnodeVersion(ctx, ei)}
	node := nodeName(name, cfg)
	cmd := command(bin, append(args, node, host, port)...)
	cmd.Env = append(cmd.Environ(), "CNODE_COOKIE="+cfg.Cookie, epmdVariable(cfg))
	_, out, err := p.launch(ctx, cfg, cmd, func(line string) bool { return line == "ready" })
	if err != nil {
		return nil, err
	}
	p.relay(out)
	p.Dest.Erlang = &Erlang{Name: "httpd", Node: node, Single: true}
	return p, nil
}

// libraries returns where erl_interface is, or what is missing of all that a C node
// is built from.
func libraries(ctx context.Context, name string) (ei string, err error) {
	cc, err := compiler(name)
	if err != nil {
		return "", err
	}
	if !hasHeader(ctx, cc, "event2/http.h") {
		return "", &Missing{Peer: name, What: "libevent", Packages: []string{"libevent-dev"}}
	}
	missing := &Missing{Peer: name, What: "Erlang's erl_interface", Packages: []string{"erlang-dev", "erlang-base"}}
	ei, err = erlang(ctx, `io:format("~ts",[code:lib_dir(erl_interface)])`)
	if err != nil || !hasHeader(ctx, cc, "ei.h", "-I"+filepath.Join(ei, "include")) {
		return "", missing
	}
	return ei, nil
}

func cnodeVersion(ctx context.Context, ei string) string {
	version := "?"
	if cc, err := compiler(""); err == nil {
		version = macro(ctx, cc, "event2/event.h", "LIBEVENT_VERSION")
	}
	return fmt.Sprintf("libevent %s, %s", version, filepath.Base(ei))
}
