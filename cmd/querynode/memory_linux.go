package main

import (
	"os"
	"strconv"
	"strings"
)

// anonymousMemory is the memory of this process that the kernel cannot take back:
// what is mapped from files is not in it. 0 = unknown.
func anonymousMemory() int64 {
	raw, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	return anonymousIn(string(raw))
}

// anonymousIn reads it from the text of a status file.
func anonymousIn(status string) int64 {
	for line := range strings.Lines(status) {
		text, ok := strings.CutPrefix(line, "RssAnon:")
		if !ok {
			continue
		}
		kb, err := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(text), "kB")), 10, 64)
		if err != nil || kb < 0 || kb > 1<<50 {
			return 0
		}
		return kb << 10
	}
	return 0
}
