//go:build linux

package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"
)

// writeInitramfs packs this program as /init and the files, each given as
// NAME=FILE, into an archive as the kernel's initramfs wants it: cpio's "newc"
// (Documentation/driver-api/early-userspace/buffer-format.rst).
func writeInitramfs(out string, files []string) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	f, err := os.Create(out)
	if err != nil {
		return err
	}
	defer f.Close()
	a := &archive{w: bufio.NewWriter(f), has: map[string]bool{}}
	for _, dir := range []string{"dev", "proc", "sys", "tmp", "run", "etc"} {
		a.dir(dir)
	}
	a.entry("dev/console", modeCharDevice|0o600, 5, 1, nil)
	a.entry("etc/hosts", modeFile|0o644, 0, 0, []byte("127.0.0.1 localhost\n"))
	for _, file := range append([]string{"init=" + self}, files...) {
		name, source, ok := strings.Cut(file, "=")
		if !ok {
			return fmt.Errorf("%w: %q must be NAME=FILE", errUsage, file)
		}
		text, err := os.ReadFile(source)
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, "/")
		a.dir(path.Dir(name))
		a.entry(name, modeFile|0o755, 0, 0, text)
	}
	a.entry("TRAILER!!!", 0, 0, 0, nil)
	return errors.Join(a.err, a.w.Flush(), f.Close())
}

// Kinds of file in a mode (inode(7)).
const (
	modeFile       = 0o100000
	modeDir        = 0o040000
	modeCharDevice = 0o020000
)

// archive writes cpio entries; err is the first that failed.
type archive struct {
	w   *bufio.Writer
	ino int
	has map[string]bool
	err error
}

// dir writes a directory and those above it, once.
func (a *archive) dir(name string) {
	if name == "." || a.has[name] {
		return
	}
	a.dir(path.Dir(name))
	a.entry(name, modeDir|0o755, 0, 0, nil)
}

func (a *archive) entry(name string, mode, major, minor int, data []byte) {
	if a.err != nil || a.has[name] {
		return
	}
	a.has[name] = true
	a.ino++
	// magic, then: inode, mode, uid, gid, links, mtime, size, device, device of
	// the node, length of the name with its end, checksum
	head := "070701"
	for _, n := range []int{a.ino, mode, 0, 0, 1, 0, len(data), 0, 0, major, minor, len(name) + 1, 0} {
		head += fmt.Sprintf("%08x", n)
	}
	a.padded([]byte(head + name + "\x00"))
	a.padded(data)
}

// padded writes data and zeros up to a multiple of four bytes.
func (a *archive) padded(data []byte) {
	if a.err == nil {
		_, a.err = a.w.Write(data)
	}
	if a.err == nil {
		_, a.err = io.WriteString(a.w, "\x00\x00\x00"[:-len(data)&3])
	}
}
