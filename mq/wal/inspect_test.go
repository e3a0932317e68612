package wal

import (
	"fmt"
	"slices"
)

// Abandoned names the WALs that were closed but did not stop in time, with what
// still runs of each.
func (m *Manager) Abandoned() []string {
	m.mu.Lock()
	m.pruneLocked()
	ws := slices.Clone(m.mu.abandoned)
	m.mu.Unlock()
	names := make([]string, 0, len(ws))
	for _, w := range ws {
		names = append(names, fmt.Sprintf("wal %s term %d: %q", w.PChannel(), w.Term(), w.Running()))
	}
	return names
}

// Quarantined returns the messages that recovery passed over, the latest 128 at most.
func (w *WAL) Quarantined() []Quarantine {
	w.progress.mu.Lock()
	defer w.progress.mu.Unlock()
	return slices.Clone(w.progress.mu.quarantine)
}
