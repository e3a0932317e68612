//go:build !linux

package main

import "time"

// busyTime is the processor time that everybody has used on this machine; 0 = not known.
func busyTime() time.Duration { return 0 }

// residentBytes is the memory of this process that is in RAM; 0 = not known.
func residentBytes() int64 { return 0 }
