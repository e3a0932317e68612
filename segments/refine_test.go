package segments

import (
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/index"
)

// TestRefinedScoresAreThoseOfAScan, bit by bit, where an index alone gives others.
func TestRefinedScoresAreThoseOfAScan(t *testing.T) {
	const wide = benchDim
	for _, metric := range []index.Metric{index.L2, index.IP, index.Cosine} {
		for _, kind := range []index.Kind{index.KindHNSWSQ, index.KindIVFSQ8, index.KindScaNN} {
			t.Run(string(kind)+"/"+metric.String(), func(t *testing.T) {
				s := items()
				s.Fields[3].Dim = wide
				rows := benchRows(s, 1, 4096/slower)
				of := func(kind index.Kind) *rig {
					r := newRig(t, rigOptions{schema: s, index: VectorIndex{Type: string(kind), Metric: metric}})
					at := r.tick()
					must(t, r.ch.ApplyRows(Rows{SegmentID: 1, PartitionID: 7, Batch: rows}, at))
					r.ch.Advance(at)
					r.handOff(1)
					return r
				}
				r, flat := of(kind), of(index.KindFlat)
				vectors := slices.Clone(rows.Columns[3].Float[:20*wide])
				for i := range vectors {
					vectors[i] += float32(i%7) * 0.1
				}
				ask := func(r *rig, nq int, refine float32) *SearchResult {
					return r.found(SearchRequest{Vectors: vectors[:nq*wide], NQ: nq, TopK: 10, Effort: Effort{EF: 200, Lists: 4000, Refine: refine}})
				}
				scan, one, codes := ask(flat, 1, 0), ask(r, 1, 2), ask(r, 1, 0)
				if !slices.Equal(one.Keys.Int, scan.Keys.Int) || !slices.Equal(one.Scores, scan.Scores) {
					t.Errorf("refined %v, a scan %v", one.Scores, scan.Scores)
				}
				if slices.Equal(codes.Scores, scan.Scores) {
					t.Error("the index alone has exact scores: it is not asked for others")
				}
				all := ask(r, 20, 2)
				if !slices.Equal(all.Keys.Int[:10], one.Keys.Int) || !slices.Equal(all.Scores[:10], one.Scores) {
					t.Errorf("in a batch %v, alone %v", all.Scores[:10], one.Scores)
				}
			})
		}
	}
}
