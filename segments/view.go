package segments

import (
	"cmp"
	"slices"
	"sync"
)

// view is an immutable list of segments. refs counts its Snapshots, plus one
// while it is the current view; it is guarded by Collection.mu.
type view struct {
	refs     int
	segments []*holder // ascending by id
}

func (v *view) find(id int64) (*holder, bool) {
	i, ok := slices.BinarySearchFunc(v.segments, id, func(h *holder, id int64) int { return cmp.Compare(h.Meta().ID, id) })
	if !ok {
		return nil, false
	}
	return v.segments[i], true
}

// Snapshot is a set of segments that does not change and is not closed while it
// is held. Release it once.
type Snapshot struct {
	coll *Collection
	view *view
	once sync.Once
}

// Acquire returns the segments that are searchable now. The lock covers a
// pointer and a counter.
func (c *Collection) Acquire() *Snapshot {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := new(Snapshot)
	c.acquireLocked(s)
	return s
}

func (c *Collection) acquireLocked(s *Snapshot) {
	c.mu.view.refs++
	s.coll, s.view = c, c.mu.view
}

// Release lets go of the snapshot; releasing twice is harmless.
func (s *Snapshot) Release() { s.once.Do(func() { s.coll.letGo(s.view) }) }

func (c *Collection) letGo(v *view) {
	c.mu.Lock()
	v.refs--
	last := v.refs == 0
	c.mu.Unlock()
	if last {
		for _, h := range v.segments {
			c.set.unref(h)
		}
	}
}

// swap publishes a view without the segments of drop and with those of add, in
// one step. An added segment replaces one of the same id. Callers that add hold
// Channel.mu.
func (c *Collection) swap(add []*holder, drop func(*holder) bool) {
	c.mu.Lock()
	old := c.mu.view
	next := &view{refs: 1}
	for _, h := range old.segments {
		replaced := slices.ContainsFunc(add, func(a *holder) bool { return a.Meta().ID == h.Meta().ID })
		if !replaced && (drop == nil || !drop(h)) {
			next.segments = append(next.segments, h)
		}
	}
	if len(add) == 0 && len(next.segments) == len(old.segments) {
		c.mu.Unlock()
		return // nothing changes
	}
	next.segments = append(next.segments, add...)
	slices.SortFunc(next.segments, func(a, b *holder) int { return cmp.Compare(a.Meta().ID, b.Meta().ID) })
	for _, h := range next.segments {
		h.refs.Add(1)
	}
	c.mu.view = next
	c.mu.Unlock()
	c.letGo(old)
	c.set.changed()
}
