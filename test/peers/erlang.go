package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// erlang evaluates an expression in an Erlang that is no node, and returns what it
// has printed. It leaves no dump in the caller's folder.
func erlang(ctx context.Context, expression string) (string, error) {
	cmd := exec.CommandContext(ctx, "erl", "-noshell", "-eval", "try "+expression+", halt() catch _:_ -> halt(1) end.")
	cmd.Env = append(erlangEnv(), "ERL_CRASH_DUMP=/dev/null")
	out, err := cmd.Output()
	return strings.TrimSpace(string(out)), err
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
