// Package memlog writes down what memory a process takes over time, as the
// articles' memory log did, and draws it.
//
// A log line has the date, seconds since 1970, resident KB, KB of kernel memory in
// TCP's buffers, and open descriptors:
//
//	2026-11-21T05:04:41Z 1795237481 52396 1544 10021
package memlog
