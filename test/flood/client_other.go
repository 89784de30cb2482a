//go:build !linux

package flood

import (
	"context"
	"errors"
)

// Events are what a run tells while it goes on.
type Events struct {
	Connected func()
	Report    func(*Stats)
	Progress  func(*Stats)
}

var errLinux = errors.New("flood needs Linux's epoll")

// Run needs Linux.
func Run(context.Context, Options, Events) (*Stats, error) { return nil, errLinux }

// FileRoom needs Linux.
func FileRoom() (int, error) { return 0, errLinux }
