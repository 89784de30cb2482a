//go:build !linux

package httpd

// memoryBytes is what the budgets reckon with where the system is not asked.
func memoryBytes() uint64 { return 4 << 30 }
