//go:build !linux

package peers

import "syscall"

func ownGroup() *syscall.SysProcAttr { return nil }

func terminate(int) {}

func killGroup(int) {}

const supported = false
