package segments

import (
	"context"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// sabotaged is a segment with a hook in front of what reads data.
type sabotaged struct {
	segment
	hook func(segment)
}

func (s *sabotaged) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	s.hook(s.segment)
	return s.segment.nearest(q, n, allowed, sc)
}

func (s *sabotaged) filter(ctx context.Context, m *match, n int, out *bitset.Set) (bool, error) {
	s.hook(s.segment)
	return s.segment.filter(ctx, m, n, out)
}

func (s *sabotaged) gather(dst *schema.Column, rows []uint32) {
	s.hook(s.segment)
	s.segment.gather(dst, rows)
}

func (s *sabotaged) applyDeletes(d *DeleteBatch) {
	s.hook(s.segment)
	s.segment.applyDeletes(d)
}

// holderOf returns the holder of a segment in the view.
func (r *rig) holderOf(id int64) *holder {
	r.t.Helper()
	snap := r.coll.Acquire()
	defer snap.Release()
	h, ok := snap.view.find(id)
	if !ok {
		r.t.Fatalf("no segment %d", id)
	}
	return h
}

func (r *rig) sealed(id int64) *Sealed {
	r.t.Helper()
	h := r.holderOf(id)
	if s, ok := h.segment.(*sabotaged); ok {
		return s.segment.(*Sealed)
	}
	return h.segment.(*Sealed)
}

// sabotage puts a hook in front of a segment; nobody may be reading.
func (r *rig) sabotage(id int64, hook func(segment)) {
	r.t.Helper()
	h := r.holderOf(id)
	if s, ok := h.segment.(*sabotaged); ok {
		h.segment = s.segment
	}
	if hook != nil {
		h.segment = &sabotaged{h.segment, hook}
	}
}
