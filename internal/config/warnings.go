package config

import "fmt"

// Warnings lists what is allowed and will hardly go well here. Call it after
// EnsureDefaults.
func (c *Config) Warnings() []string { return c.warningsFor(Bytes(machineMemory())) }

// warningsFor is Warnings where a process may have so much memory.
func (c *Config) warningsFor(memory Bytes) []string {
	var all []string
	add := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	usual := memory / 4 * 3
	switch {
	case c.Memory.Limit > memory:
		add("memory.limit: %s is more than the %s that the cgroup or the machine has: the kernel will kill the node before it refuses anything; leave it out, for %s",
			c.Memory.Limit, memory, usual)
	case c.Memory.Limit > c.Memory.GoLimit:
		add("memory.limit: %s is more than memory.go_limit, %s, and cannot be used up: want less, about five sixths of it", c.Memory.Limit, c.Memory.GoLimit)
	}
	if c.Memory.GoLimit > memory {
		add("memory.go_limit: %s is more than the %s that the cgroup or the machine has: the kernel will kill the node before garbage is collected for want of memory; leave it out, for %s",
			c.Memory.GoLimit, memory, Bytes(processMemory(int64(memory))))
	}
	return all
}
