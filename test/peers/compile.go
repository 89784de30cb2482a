package peers

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// warnings are those that the C peers compile without.
var warnings = []string{"-O2", "-g", "-Wall", "-Wextra"}

// compiler is a C compiler, or what is missing.
func compiler(peer string) (string, error) {
	for _, cc := range []string{os.Getenv("CC"), "gcc", "cc", "clang"} {
		if path, err := exec.LookPath(cc); cc != "" && err == nil {
			return path, nil
		}
	}
	return "", &Missing{Peer: peer, What: "a C compiler", Packages: []string{"gcc", "libc6-dev"}}
}

// compileC builds a program of one file in cfg.Dir and returns its path. libs follow
// the source. What the system's libraries are too old for is missing here; with
// HALLEY_PEERS_CFLAGS, for who works on the program, it is an ordinary error.
func compileC(ctx context.Context, cfg *Config, name, source string, libs ...string) (string, error) {
	cc, err := compiler(name)
	if err != nil {
		return "", err
	}
	src, bin := filepath.Join(cfg.Dir, name+".c"), filepath.Join(cfg.Dir, name)
	if err := os.WriteFile(src, []byte(source), 0o644); err != nil {
		return "", err
	}
	flags := strings.Fields(os.Getenv("HALLEY_PEERS_CFLAGS"))
	args := append(append([]string{}, warnings...), flags...)
	args = append(append(args, "-o", bin, src), libs...)
	out, err := run(ctx, cc, args...)
	switch {
	case err == nil:
		return bin, nil
	case ctx.Err() == nil && len(flags) == 0:
		return "", &Missing{Peer: name, What: "a system that it compiles on: " + complaint(out, err)}
	}
	return "", fmt.Errorf("build %s: %w", name, err)
}

// complaint is the line of a compiler's output that says what is wrong.
func complaint(output string, err error) string {
	first, _, _ := strings.Cut(output, "\n")
	if first == "" {
		return err.Error()
	}
	for line := range strings.Lines(output) {
		if strings.Contains(line, "error: ") || strings.Contains(line, "undefined reference") {
			return strings.TrimSpace(line)
		}
	}
	return first
}

// hasHeader says whether the compiler finds a header.
func hasHeader(ctx context.Context, cc, header string, flags ...string) bool {
	_, err := preprocess(ctx, cc, "#include <"+header+">\n", flags...)
	return err == nil
}

// macro is the text of a string that a header defines.
func macro(ctx context.Context, cc, header, name string) string {
	out, _ := preprocess(ctx, cc, "#include <"+header+">\n"+name+"\n")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	return strings.Trim(lines[len(lines)-1], `"`)
}

func preprocess(ctx context.Context, cc, source string, flags ...string) (string, error) {
	cmd := exec.CommandContext(ctx, cc, append(flags, "-E", "-P", "-x", "c", "-")...)
	cmd.Stdin = strings.NewReader(source)
	out, err := cmd.Output()
	return string(out), err
}

func ccVersion(ctx context.Context) string {
	cc, err := compiler("")
	if err != nil {
		return ""
	}
	out, _ := run(ctx, cc, "-dumpfullversion")
	return filepath.Base(cc) + " " + out
}
