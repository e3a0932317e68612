//go:build unix

package main

import (
	"syscall"
	"time"
)

// cpuTime is the processor time of the process since its start; 0 = not known.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
