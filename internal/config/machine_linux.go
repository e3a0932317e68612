package config

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// machineMemory is the memory that this process may use: the least limit of its
// cgroup and the groups above, or what the machine has.
func machineMemory() int64 { return memoryAt("/") }

// memoryAt reads the files below root, which tests replace.
func memoryAt(root string) int64 {
	least := hostMemory(filepath.Join(root, "proc/meminfo"))
	for _, f := range cgroupFiles(root) {
		if n, ok := readLimit(f); ok && n < least {
			least = n
		}
	}
	return least
}

// cgroupFiles lists where limits of this process may stand, in both versions.
func cgroupFiles(root string) []string {
	base := filepath.Join(root, "sys/fs/cgroup")
	files := []string{filepath.Join(base, "memory.max"), filepath.Join(base, "memory/memory.limit_in_bytes")}
	raw, err := os.ReadFile(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return files
	}
	for line := range strings.Lines(string(raw)) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		folder, name := base, "memory.max"
		switch parts[1] {
		case "":
		case "memory":
			folder, name = filepath.Join(base, "memory"), "memory.limit_in_bytes"
		default:
			continue
		}
		for p := filepath.Clean("/" + parts[2]); p != "/"; p = filepath.Dir(p) {
			files = append(files, filepath.Join(folder, p, name))
		}
	}
	return files
}

// readLimit reads a limit; "max" and the huge number of version 1 are none.
func readLimit(path string) (int64, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseInt(string(bytes.TrimSpace(raw)), 10, 64)
	return n, err == nil && n > 0 && n < 1<<60
}

func hostMemory(path string) int64 {
	f, err := os.Open(path)
	if err != nil {
		return fallbackMemory
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		fields := strings.Fields(s.Text())
		if len(fields) >= 2 && fields[0] == "MemTotal:" {
			if kb, err := strconv.ParseInt(fields[1], 10, 64); err == nil && kb > 0 && kb < 1<<50 {
				return kb << 10
			}
		}
	}
	return fallbackMemory
}
