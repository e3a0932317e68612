package segments

import (
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// TestAnEarlierMomentOfASegmentWithNullVectors: a search at a moment at which a
// segment had fewer rows passes over those to come and over null vectors alike.
func TestAnEarlierMomentOfASegmentWithNullVectors(t *testing.T) {
	sc := items()
	sc.Fields[3].Nullable = true
	for _, typ := range []string{"FLAT", "HNSW"} {
		r := newRig(t, rigOptions{schema: sc, index: VectorIndex{Type: typ, Metric: index.L2}})
		const each = 70
		var moments []uint64
		for i := range int64(4) {
			b := r.batch(seq(i*each, (i+1)*each), 0)
			v := b.Columns[slices.IndexFunc(sc.Fields, func(f schema.Field) bool { return f.ID == vectorField })]
			for k := range each {
				v.Valid = append(v.Valid, k%2 == 0)
			}
			at := r.tick()
			must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: b}, at))
			r.ch.Advance(at)
			moments = append(moments, at.Timestamp)
		}
		check := func(state string) {
			t.Helper()
			for i, at := range moments {
				res := r.found(SearchRequest{Read: Read{ReadTimestamp: at}, Vectors: vectorOf(1, 0), TopK: 4 * each})
				if n := len(res.Keys.Int); n != (i+1)*each/2 {
					t.Errorf("%s, %s: %d rows after %d batches, want %d", typ, state, n, i+1, (i+1)*each/2)
				}
			}
		}
		check("growing")
		r.handOff(1)
		check("sealed")
	}
}

// TestWhatTheCatalogSaidEarlier is not taken for what it says now.
func TestWhatTheCatalogSaidEarlier(t *testing.T) {
	r := newRig(t, rigOptions{})
	early, late := r.info(), r.info()
	early.Version, late.Version = 1, 2
	late.Indexes = map[int64]VectorIndex{vectorField: {Type: "FLAT", Metric: index.IP}}
	r.coll.Update(late)
	r.coll.Update(early)
	if got := r.coll.Info().Indexes[vectorField].Metric; got != index.IP {
		t.Errorf("the metric is %s again", got)
	}
}
