package embedded

import (
	"os"
	"strings"
)

// unknownBoot stands for a machine that does not tell its runs apart.
const unknownBoot = "unknown"

// bootID tells this run of the machine from others: what a process has written is there
// for as long as the machine runs, synced or not.
func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if id := strings.TrimSpace(string(b)); err == nil && id != "" {
		return id
	}
	return unknownBoot
}

// risk is what the meta files say while there is a producer.
func (t *topic) risk() string {
	if t.o.Sync == SyncAlways {
		return ""
	}
	return t.o.boot
}

// tellUnsynced says that acknowledged messages may be gone: they were not synced, and the
// machine went down, or nobody knows. A process that was killed has lost none.
func (t *topic) tellUnsynced() {
	was := t.meta.Unsynced
	if was == "" || was == t.o.boot && was != unknownBoot {
		return
	}
	t.stats.unsyncedEnds.Add(1)
	t.log.Warn("the machine went down while messages were acknowledged before they were on the disk (queue.sync interval or none): what came after the end that is left is gone",
		"topic", t.name, "last", position(max(t.next, 1)-1, t.lastTS).String())
}
