package httpd

import "golang.org/x/sys/unix"

// DefaultEngine is what drives the sockets unless told otherwise.
const DefaultEngine = EngineEpoll

// Engines are those that this system has.
var Engines = []EngineName{EngineEpoll, EngineEvio}

// smallPages keeps a mapping from being made of huge pages, of which one touched
// slot would take 2 MiB.
func smallPages(raw []byte) { _ = unix.Madvise(raw, unix.MADV_NOHUGEPAGE) }
