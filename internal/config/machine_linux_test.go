package config

import (
	"os"
	"path/filepath"
	"testing"
)

func TestMemoryOfTheMachine(t *testing.T) {
	for _, c := range []struct {
		why   string
		files map[string]string
		want  int64
	}{
		{"nothing can be read", nil, fallbackMemory},
		{"no cgroup", map[string]string{"proc/meminfo": "Foo: 1 kB\nMemTotal:  8388608 kB\n"}, 8 << 30},
		{"garbage", map[string]string{"proc/meminfo": "MemTotal: lots\n", "sys/fs/cgroup/memory.max": "?"}, fallbackMemory},
		{"a container, version 2", map[string]string{"proc/meminfo": "MemTotal: 8388608 kB\n", "sys/fs/cgroup/memory.max": "1073741824\n"}, 1 << 30},
		{"no limit", map[string]string{"proc/meminfo": "MemTotal: 8388608 kB\n", "sys/fs/cgroup/memory.max": "max\n"}, 8 << 30},
		{"a limit above, version 2", map[string]string{
			"proc/meminfo": "MemTotal: 8388608 kB\n", "proc/self/cgroup": "0::/a/b\n",
			"sys/fs/cgroup/a/b/memory.max": "max\n", "sys/fs/cgroup/a/memory.max": "2147483648\n"}, 2 << 30},
		{"version 1", map[string]string{
			"proc/meminfo": "MemTotal: 8388608 kB\n", "proc/self/cgroup": "4:cpu,cpuacct:/x\n3:memory:/docker/1\njunk\n",
			"sys/fs/cgroup/memory/memory.limit_in_bytes":          "9223372036854771712",
			"sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes": "536870912"}, 512 << 20},
		{"a path that climbs out", map[string]string{"proc/meminfo": "MemTotal: 8388608 kB\n", "proc/self/cgroup": "0::/../../..\n"}, 8 << 30},
	} {
		root := t.TempDir()
		for name, text := range c.files {
			path := filepath.Join(root, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if got := memoryAt(root); got != c.want {
			t.Errorf("%s: %d, want %d", c.why, got, c.want)
		}
	}
}
