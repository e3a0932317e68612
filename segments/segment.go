package segments

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/expr"
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
type segment interface {
	rowReader
	searcher
	Meta() Meta
	// uniqueKeys reports whether no key is in the segment twice.
	uniqueKeys() bool
	// bytes is the memory of this process in use.
	bytes() int64
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
	// keyOrder sorts rows in place by key, rows of the same key newest first.
	keyOrder(rows []uint32) []uint32
	// gather appends the values of dst's field in the given rows to dst.
	gather(dst *schema.Column, rows []uint32)
}

// searcher finds rows by what is in them.
type searcher interface {
	// filter sets out to the rows among the first n that match.
	filter(p *expr.Plan, n int, out *bitset.Set) error
	// nearest finds the nearest of the first n rows that are in allowed (nil = all).
	nearest(q nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error)
}

// holder counts the views that hold a segment. The one that lets go last closes it.
type holder struct {
	segment
	refs    atomic.Int64
	growing bool
	faults  atomic.Int64 // panics and corrupt reads so far
	poison  atomic.Pointer[string]
}

// quarantined returns why the segment is not to be read any more, or "".
func (h *holder) quarantined() string {
	if s := h.poison.Load(); s != nil {
		return *s
	}
	return ""
}
