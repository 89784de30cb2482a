package peers

import (
	"context"
	"fmt"
	"strings"
)

// erlang evaluates an expression in an Erlang that is no node, and returns what it
// has printed.
func erlang(ctx context.Context, expression string) (string, error) {
	return run(ctx, "erl", "-noshell", "-eval", expression+", halt().")
}

// nodeName is a peer's node: its own name, so that peers can run side by side.
func nodeName(peer string, cfg *Config) string {
	return strings.ReplaceAll(peer, "-", "_") + "_bench@" + cfg.Host
}

func epmdVariable(cfg *Config) string { return fmt.Sprintf("ERL_EPMD_PORT=%d", cfg.Epmd) }
