package segments

import (
	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// fieldVectors is what reads ask of a vector field of a segment: of growingVectors, of
// sealedVectors, or of nullVectors. The methods are those of searcher and rowReader.
type fieldVectors interface {
	flagged
	nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error)
	distances(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch, see visit) error
	scans(q *nearestQuery) bool
	toScan(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) (vectors, *bitset.Set, bool)
	gather(dst *schema.Column, rows []uint32)
}

// nullVectors are those of a field that came to the collection after the segment was
// written, or began: all null. They are found by no search and have no distance.
type nullVectors struct{}

func (nullVectors) nearest(_ *nearestQuery, _ int, _ *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	sc.work.note(wayNulls, 0, 0)
	return nil, nil
}

func (nullVectors) distances(_ *nearestQuery, _ int, _ *bitset.Set, sc *scratch, _ visit) error {
	sc.work.note(wayNulls, 0, 0)
	return nil
}

func (nullVectors) scans(*nearestQuery) bool { return true }

func (nullVectors) toScan(*nearestQuery, int, *bitset.Set, *scratch) (vectors, *bitset.Set, bool) {
	return vectors{}, nil, false
}

func (nullVectors) gather(dst *schema.Column, rows []uint32) {
	f := schema.Field{ID: dst.FieldID, Type: dst.Type, Dim: dst.Dim, Nullable: true}
	if nulls, err := schema.NullColumn(f, len(rows)); err == nil {
		dst.AppendRange(nulls, 0, len(rows))
	}
}
