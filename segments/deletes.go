package segments

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
)

// hiddenRow says that a row is hidden from reads at timestamps >= ts.
type hiddenRow struct {
	ts  uint64
	row uint32
}

// deletes are the rows of one segment that deletes hide, each with the first
// timestamp that does. Readers load an immutable state; writers replace it.
//
// A row that a newer one of the same key follows in its segment is here as well:
// a read that sees both takes the newer.
type deletes struct {
	mu     sync.Mutex // serialises writers
	rows   int        // rows that hidden ranges over; guarded by mu
	state  atomic.Pointer[deleteState]
	memory *Reservation // nil = not accounted
}

// deleteState is immutable. entries are sorted by ts; hidden has exactly their rows.
type deleteState struct {
	entries []hiddenRow
	hidden  *bitset.Set
}

func newDeletes(rows int, memory *Reservation) *deletes {
	d := &deletes{rows: rows, memory: memory}
	d.state.Store(&deleteState{})
	return d
}

// grow makes room for rows; called by the writer before it hides later ones.
func (d *deletes) grow(rows int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.rows = max(d.rows, rows)
}

// apply hides rows. A row that is hidden already keeps the smaller timestamp.
// It sorts hide in place.
func (d *deletes) apply(hide []hiddenRow) {
	if len(hide) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	old := d.state.Load()
	next := &deleteState{hidden: bitset.New(d.rows)}
	if old.hidden != nil {
		copy(next.hidden.Words(), old.hidden.Words())
	}
	slices.SortStableFunc(hide, func(x, y hiddenRow) int { return cmp.Compare(x.ts, y.ts) })
	if hide[0].ts >= old.newest() {
		// The usual case: deletes come in queue order. Appending past the length
		// that older states know is invisible to their readers.
		next.entries = old.entries
		for _, h := range hide {
			if !next.hidden.Has(int(h.row)) {
				next.hidden.Add(int(h.row))
				next.entries = append(next.entries, h)
			}
		}
	} else {
		next.entries = mergeHidden(old.entries, hide, next.hidden)
	}
	d.state.Store(next)
	d.memory.Commit(next.bytes())
}

// mergeHidden merges two lists sorted by timestamp and keeps the first entry of each row.
func mergeHidden(a, b []hiddenRow, hidden *bitset.Set) []hiddenRow {
	all := append(append(make([]hiddenRow, 0, len(a)+len(b)), a...), b...)
	slices.SortStableFunc(all, func(x, y hiddenRow) int { return cmp.Compare(x.ts, y.ts) })
	seen := make(map[uint32]bool, len(all))
	out := all[:0]
	for _, h := range all {
		if !seen[h.row] {
			seen[h.row] = true
			hidden.Add(int(h.row))
			out = append(out, h)
		}
	}
	return out
}

// hide removes from allowed, a set over the first allowed.Len() rows, those that
// are hidden at timestamp ts.
func (s *deleteState) hide(allowed *bitset.Set, ts uint64) {
	n := len(s.entries)
	if n == 0 {
		return
	}
	if s.entries[n-1].ts <= ts {
		aw, hw := allowed.Words(), s.hidden.Words()
		for i := range min(len(aw), len(hw)) {
			aw[i] &^= hw[i]
		}
		return
	}
	for _, h := range s.entries {
		if h.ts > ts {
			break
		}
		if int(h.row) < allowed.Len() {
			allowed.Remove(int(h.row))
		}
	}
}

// any reports whether the state hides a row at timestamp ts.
func (s *deleteState) any(ts uint64) bool {
	return len(s.entries) > 0 && s.entries[0].ts <= ts
}

// bytes is the memory of the state.
func (s *deleteState) bytes() int64 {
	n := 16 * int64(cap(s.entries))
	if s.hidden != nil {
		n += 8 * int64(len(s.hidden.Words()))
	}
	return n
}

// hides reports whether the state hides a row from every later read.
func (s *deleteState) hides(row uint32) bool {
	return s.hidden != nil && int(row) < s.hidden.Len() && s.hidden.Has(int(row))
}

// newest is the latest timestamp of a delete in the state.
func (s *deleteState) newest() uint64 {
	if n := len(s.entries); n > 0 {
		return s.entries[n-1].ts
	}
	return 0
}
