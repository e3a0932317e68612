//go:build !unix

package main

import "time"

// cpuTime is the processor time of the process since its start; 0 = not known.
func cpuTime() time.Duration { return 0 }
