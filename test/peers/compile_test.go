package peers

import (
	"errors"
	"os"
	"strings"
	"testing"
)

// TestCompileC_TooOld: a function that the system does not have leaves the peer out,
// and the compiler says which.
func TestCompileC_TooOld(t *testing.T) {
	if _, err := compiler("x"); err != nil {
		t.Skip(err)
	}
	const source = "int epoll_pwait9(void);\nint main(void) {\n    return epoll_pwait9();\n}\n"
	t.Setenv("HALLEY_PEERS_CFLAGS", "")
	_, err := compileC(t.Context(), &Config{Dir: t.TempDir()}, "x", source)
	missing := new(Missing)
	if !errors.As(err, &missing) || missing.Peer != "x" || !strings.Contains(missing.What, "epoll_pwait9") || strings.Contains(missing.What, "\n") {
		t.Errorf("%#v", err)
	}
	// Who works on it is told everything.
	t.Setenv("HALLEY_PEERS_CFLAGS", "-g")
	if _, err := compileC(t.Context(), &Config{Dir: t.TempDir()}, "x", source); err == nil || errors.As(err, &missing) {
		t.Errorf("%#v", err)
	}
}

// TestErlang_LeavesNothing: an expression that ends Erlang leaves no dump.
func TestErlang_LeavesNothing(t *testing.T) {
	t.Chdir(t.TempDir())
	if _, err := erlang(t.Context(), "this is no expression"); err == nil {
		t.Error("no error")
	}
	if left, err := os.ReadDir("."); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}
