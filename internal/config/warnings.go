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
			about(c.Memory.Limit), about(memory), about(usual))
	case c.Memory.Limit > c.Memory.GoLimit:
		add("memory.limit: %s is more than memory.go_limit, %s, and cannot be used up: want less, about five sixths of it", c.Memory.Limit, c.Memory.GoLimit)
	}
	if c.Memory.GoLimit > memory {
		add("memory.go_limit: %s is more than the %s that the cgroup or the machine has: the kernel will kill the node before garbage is collected for want of memory; leave it out, for %s",
			about(c.Memory.GoLimit), about(memory), about(Bytes(processMemory(int64(memory)))))
	}
	return all
}

// about is a size as people say it.
func about(b Bytes) string {
	const gib, mib = 1 << 30, 1 << 20
	switch {
	case b%gib == 0:
		return b.String()
	case b > gib:
		return fmt.Sprintf("%.1fGiB", float64(b)/gib)
	case b > mib:
		return fmt.Sprintf("%.0fMiB", float64(b)/mib)
	}
	return b.String()
}
