package doctor

import (
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"halley/httpd"
)

const filesEnv = "HALLEY_TEST_FILES"

// TestFiles_AgreesWithServe starts a Halley with exactly so many descriptors, in
// a process of its own whose limit is lowered, and with one less.
func TestFiles_AgreesWithServe(t *testing.T) {
	if text := os.Getenv(filesEnv); text != "" {
		printCapacity(t, text)
		return
	}
	for _, n := range []int{1, 1000, 1920, 1921, 5000} {
		for less := range 2 {
			files := Files(n) - uint64(less)
			cmd := exec.Command(os.Args[0], "-test.run=^TestFiles_AgreesWithServe$")
			cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", filesEnv, files))
			out, err := cmd.CombinedOutput()
			want := fmt.Sprintf("connections=%d ", n-less)
			if n == less {
				want = "leaves no room for connections"
			}
			if !strings.Contains(string(out), want) {
				t.Errorf("%d descriptors: %v, want %q in:\n%s", files, err, want, out)
			}
		}
	}
}

func printCapacity(t *testing.T, text string) {
	files, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: files, Max: files}); err != nil {
		t.Fatal(err)
	}
	o := httpd.DefaultOptions()
	o.Logger = slog.New(slog.NewTextHandler(os.Stdout, nil))
	if _, err := httpd.New(o); err != nil {
		fmt.Println(err)
	}
}
