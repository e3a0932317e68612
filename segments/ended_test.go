package segments

import (
	"context"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// fickle is a context that ends when it is asked for the last time but some.
type fickle struct {
	context.Context
	asked atomic.Int64
	last  int64 // question from which on it has ended
}

func (f *fickle) Err() error {
	if f.asked.Add(1) >= f.last {
		return context.Canceled
	}
	return nil
}

// TestCallersThatGoWhileAnAnswerIsPutTogether are noticed: nobody works on an answer
// of a hundred thousand rows that there is no reader for.
func TestCallersThatGoWhileAnAnswerIsPutTogether(t *testing.T) {
	const rows, queries = 1000, 100
	var vectors []float32
	for i := range int64(queries) {
		vectors = append(vectors, vectorOf(i, 3)...)
	}
	search := func(r *rig, ctx context.Context, k int, group *Grouping) error {
		_, err := r.coll.Search(ctx, &SearchRequest{FieldID: vectorField, Vectors: vectors, NQ: queries, TopK: k, Metric: index.L2, Group: group})
		return err
	}
	cases := []struct {
		name     string
		segments int
		asks     int64 // of the context, at least
		read     func(r *rig, ctx context.Context) error
	}{
		{"one segment", 1, queries, func(r *rig, ctx context.Context) error { return search(r, ctx, rows, nil) }},
		{"two segments, in which keys may be twice", 2, queries, func(r *rig, ctx context.Context) error { return search(r, ctx, rows, nil) }},
		{"groups", 1, queries, func(r *rig, ctx context.Context) error { return search(r, ctx, 3, &Grouping{FieldID: colorField}) }},
		{"full groups", 2, 2 * queries, func(r *rig, ctx context.Context) error {
			return search(r, ctx, 3, &Grouping{FieldID: colorField, Size: 4, Strict: true})
		}},
		{"several searches", 1, 3 * queries, func(r *rig, ctx context.Context) error {
			one := SubSearch{FieldID: vectorField, Vectors: vectors, TopK: rows, Metric: index.L2}
			_, err := r.coll.HybridSearch(ctx, &HybridRequest{Searches: []SubSearch{one, one}, NQ: queries, TopK: rows, Ranker: Ranker{RRF: 60}})
			return err
		}},
		{"aggregates", 4, 32, func(r *rig, ctx context.Context) error {
			q := &QueryRequest{GroupBy: []int64{idField}, Aggregates: []Aggregate{{Func: Count}}}
			_, err := r.coll.Query(ctx, q, func(*schema.Batch, uint64) error { return nil })
			return err
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, rigOptions{})
			per := rows / c.segments
			if c.name == "aggregates" {
				per = 2 * blockRows
			}
			for i := range c.segments {
				r.insert(int64(i+1), seq(int64(i*per), int64((i+1)*per))...)
			}
			patient := &fickle{Context: t.Context(), last: 1 << 40}
			must(t, c.read(r, patient))
			asked := patient.asked.Load()
			if asked < c.asks {
				t.Fatalf("the context was asked %d times, want %d at least", asked, c.asks)
			}
			for _, last := range slices.Compact([]int64{asked - c.asks/2, asked - 1, asked}) {
				if err := c.read(r, &fickle{Context: t.Context(), last: last}); !errors.Is(err, context.Canceled) {
					t.Errorf("the caller left at question %d of %d: %v", last, asked, err)
				}
			}
		})
	}
}
