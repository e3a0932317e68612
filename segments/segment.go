package segments

import (
	"context"
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// Position is where in the queue, in the queue's own terms; segments only keep it.
type Position struct {
	ID        string // opaque
	Timestamp uint64 // hybrid
}

// Meta says what a segment is. It never changes.
type Meta struct {
	ID           int64
	CollectionID int64
	PartitionID  int64
	VChannel     string
}

// segment is what a read needs of a segment; Growing and Sealed are the two kinds.
// No two rows of one key are visible at any timestamp: a newer row hides the
// older ones of its segment as a delete would.
type segment interface {
	rowReader
	searcher
	Meta() Meta
	// applyDeletes hides the rows of keys that are older than their delete.
	// Calls are made one after the other.
	applyDeletes(d *DeleteBatch)
	// bytes is the memory of this process in use.
	bytes() int64
	// describe fills in what people want to know.
	describe(st *SegmentStatus)
	// close gives memory and files back; no reader is left.
	close() error
}

// rowReader reads rows by their number.
type rowReader interface {
	// visible is the number of rows, a prefix, with a timestamp <= ts.
	visible(ts uint64) int
	// hidden is what deletes hide, frozen at the moment of the call.
	hidden() *deleteState
	// timestamp is the insert timestamp of a row.
	timestamp(row uint32) uint64
	// key is the primary key of a row: the number or the text, by the field's type.
	key(row uint32) (int64, string)
	// keyOrder lists the rows of a set in order of their keys, those in the span.
	keyOrder(rows *bitset.Set, in span) []uint32
	// lookup calls found with the newest of the first n rows of each key, for those
	// that have one; hidden rows are rows too.
	lookup(keys *schema.Column, n int, found func(i int, row uint32))
	// gather appends the values of dst's field in the given rows to dst; nulls if
	// the segment does not have the field.
	gather(dst *schema.Column, rows []uint32)
}

// searcher finds rows by what is in them.
type searcher interface {
	counter
	scanner
	// rulesOut returns what tells that no row matches; "" = some may.
	rulesOut(m *match) string
	// filter sets out to the rows among the first n that match, and says whether these were
	// remembered, so that no column was read.
	filter(ctx context.Context, m *match, n int, out *bitset.Set) (known bool, err error)
	// nearest finds the nearest of the first n rows that are in allowed (nil =
	// all). The result is valid until sc is used again.
	nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error)
	// distances computes the distance of every one of the first n rows that is in
	// allowed (nil = all).
	distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error
	// scans reports whether nearest looks at every row for q.
	scans(q *nearestQuery) bool
}

// holder counts the views that hold a segment. The one that lets go last closes it.
type holder struct {
	segment
	refs    atomic.Int64
	growing bool
	serial  uint64       // no other holder of this run has it
	task    string       // name of a search's task
	faults  atomic.Int64 // panics so far
	used    atomic.Int64 // when it was last read, in nanoseconds since 1970
	poison  atomic.Pointer[string]
}

// quarantined returns why the segment is not to be read any more, or "".
func (h *holder) quarantined() string {
	if s := h.poison.Load(); s != nil {
		return *s
	}
	return ""
}

// hide applies deletes. A segment that cannot take one would show rows that are
// gone, so it is not read any more.
func (s *Set) hide(h *holder, d *DeleteBatch) {
	if err := guard("apply deletes", func() error { h.applyDeletes(d); return nil }); err != nil {
		s.quarantine(h, err)
	}
}
