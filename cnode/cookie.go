package cnode

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// LoadCookie gives the cookie itself if it is set, else the contents of file, else
// those of .erlang.cookie in the home directory. As erl does, it refuses a file that
// others than its owner may touch. No error contains the cookie.
func LoadCookie(cookie, file string) (string, error) {
	if cookie != "" {
		return cookie, checkCookie(cookie)
	}
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find cookie: no home directory: %w; give --cookie or --cookie-file", err)
		}
		file = filepath.Join(home, ".erlang.cookie")
	}

	info, err := os.Stat(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fmt.Errorf("read cookie %s: no such file; copy the cluster's cookie there (chmod 400), or give --cookie or --cookie-file", file)
	case err != nil:
		return "", fmt.Errorf("read cookie %s: %w; give --cookie or --cookie-file", file, err)
	case !info.Mode().IsRegular():
		return "", fmt.Errorf("read cookie %s: not a regular file; give --cookie-file a file", file)
	case info.Mode().Perm()&0o077 != 0:
		return "", fmt.Errorf("read cookie %s: mode %04o lets others than its owner in; run: chmod 400 %s", file, info.Mode().Perm(), file)
	case info.Size() > 4096:
		return "", fmt.Errorf("read cookie %s: %d bytes is no cookie; give --cookie-file the right file", file, info.Size())
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("read cookie %s: %w; run as the file's owner, or give --cookie-file", file, err)
	}
	cookie = strings.TrimRight(string(text), " \t\r\n")
	if err := checkCookie(cookie); err != nil {
		return "", fmt.Errorf("read cookie %s: %w", file, err)
	}
	return cookie, nil
}

// checkCookie refuses what no Erlang node could have as its cookie, an atom.
func checkCookie(cookie string) error {
	if cookie == "" {
		return errors.New("the cookie is empty; use the cluster's, see ~/.erlang.cookie there")
	}
	if len(cookie) > maxAtomBytes {
		return fmt.Errorf("the cookie has %d bytes, at most %d fit", len(cookie), maxAtomBytes)
	}
	for i := range len(cookie) {
		if cookie[i] <= ' ' || cookie[i] == 0x7f {
			return errors.New("the cookie has a space or control character inside; is it the right file?")
		}
	}
	return nil
}
