package segments

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// BenchmarkSearchBeside is a search of one vector in 100,000 sealed rows of 128 values, and what
// growing rows beside them add: none, and 10,000 like the sealed ones, or far from them.
func BenchmarkSearchBeside(b *testing.B) {
	c := served(b, 1, 100_000, VectorIndex{Type: "HNSW_SQ", Metric: index.L2})
	queries := benchQueries(256)
	search := func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			at := i % 256 * benchDim
			q := SearchRequest{
				FieldID: vectorField, Vectors: queries[at : at+benchDim], NQ: 1, TopK: 10, Metric: index.L2,
				Effort: Effort{EF: 22},
			}
			_, err := c.Search(b.Context(), &q)
			must(b, err)
		}
	}
	b.Run("none", search)
	at := uint64(2000)
	for segment, kind := range []string{"far", "near"} {
		ch, _ := c.Channel("v")
		growing := int64(1000 + segment)
		for number := range int64(100) {
			at++
			must(b, ch.ApplyRows(Rows{SegmentID: growing, Batch: besideRows(c.Info().Schema, number, kind == "near")}, Position{Timestamp: at}))
			ch.Advance(Position{Timestamp: at})
		}
		waitForLists(b, c, growing)
		b.Run(kind, search)
		ch.Forget(growing)
	}
}

// besideRows are 100 rows like those of benchRows, or rows that lie anywhere.
func besideRows(s *schema.Schema, number int64, near bool) *schema.Batch {
	rows := benchRows(s, 1<<20+number, 100)
	if rnd := rand.New(rand.NewPCG(5, uint64(number))); !near {
		for i := range rows.Columns[3].Float {
			rows.Columns[3].Float[i] = float32(3 * rnd.NormFloat64())
		}
	}
	return rows
}

// waitForLists waits until all but a few rows of a growing segment are in lists.
func waitForLists(b *testing.B, c *Collection, segment int64) {
	snap := c.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		if g, ok := h.segment.(*Growing); ok && g.meta.ID == segment {
			for g.wantsLists(listsAfter) {
				runtime.Gosched()
			}
			return
		}
	}
	b.Fatalf("no segment %d", segment)
}
