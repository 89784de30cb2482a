//go:build !linux

package httpd

import "time"

// DefaultEngine is what drives the sockets unless told otherwise.
const DefaultEngine = EngineEvio

// Engines are those that this system has.
var Engines = []EngineName{EngineEvio}

func newEpoll(*front, int, time.Duration, int) (engine, error) { panic("httpd: epoll is Linux's") }

// smallPages is for Linux, which may make pages of 2 MiB.
func smallPages([]byte) {}
