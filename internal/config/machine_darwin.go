package config

import "golang.org/x/sys/unix"

// machineMemory is the memory of the machine.
func machineMemory() int64 {
	if n, err := unix.SysctlUint64("hw.memsize"); err == nil && n > 0 && n < 1<<60 {
		return int64(n)
	}
	return fallbackMemory
}
