package peers

import (
	"context"
	"fmt"
	"os"
	"strings"
)

// erlang evaluates an expression in an Erlang that is no node, and returns what it
// has printed.
func erlang(ctx context.Context, expression string) (string, error) {
	return run(ctx, "erl", "-noshell", "-eval", "try "+expression+", halt() catch _:_ -> halt(1) end.")
}

// nodeName is a peer's node: its own name, so that peers can run side by side.
func nodeName(peer string, cfg *Config) string {
	return strings.ReplaceAll(peer, "-", "_") + "_bench@" + cfg.Host
}

func epmdVariable(cfg *Config) string { return fmt.Sprintf("ERL_EPMD_PORT=%d", cfg.Epmd) }

// erlangEnv is our environment without what would change Erlang.
func erlangEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ERL_") {
			env = append(env, v)
		}
	}
	return env
}
