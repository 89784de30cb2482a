package peers

import "syscall"

// ownGroup keeps a terminal's signals from a peer, and ends it with us.
func ownGroup() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// terminate asks the peer's first process to end.
func terminate(pid int) { syscall.Kill(pid, syscall.SIGTERM) }

// killGroup kills what is left of a peer's group.
func killGroup(pid int) { syscall.Kill(-pid, syscall.SIGKILL) }

// supported says whether the peers run on this system.
const supported = true
