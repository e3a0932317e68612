package index

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
)

// kinds are all kinds that Build knows by name: each has to pass every test here.
var kinds = []Kind{KindFlat, KindHNSW, KindHNSWSQ, KindIVFFlat, KindIVFSQ8, KindScaNN, KindAuto}

// build has one worker: what that makes is the same each time, whatever else the machine does, and so is what is found in it.
func build(tb testing.TB, spec Spec, base []float32) Built {
	tb.Helper()
	b, err := Build(context.Background(), spec, base, BuildOptions{Workers: 1})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := b.Close(); err != nil {
			tb.Error(err)
		}
	})
	return b
}

// reopened writes an index and opens its image, which starts at a multiple of 64.
func reopened(tb testing.TB, b Built, base []float32) Searcher {
	tb.Helper()
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		tb.Fatal(err)
	}
	info := b.Info()
	if info.Kind == KindFlat {
		if out.Len() != 0 {
			tb.Fatalf("FLAT wrote %d bytes", out.Len())
		}
		return b.Searcher()
	}
	x, err := Open(alignedCopy(out.Bytes()), base)
	if err != nil {
		tb.Fatal(err)
	}
	if got := x.Info(); got.Kind != info.Kind || got.Metric != info.Metric || got.Dim != info.Dim || got.Rows != info.Rows {
		tb.Fatalf("opened %+v, built %+v", got, info)
	}
	return x
}

// everyIndex runs a test on a fresh and on a reopened index of each kind and metric.
func everyIndex(t *testing.T, n, dim int, test func(t *testing.T, x Searcher, f *Flat, queries []float32)) {
	for _, kind := range kinds {
		if raceEnabled && (kind == KindIVFFlat || kind == KindIVFSQ8) {
			continue // SCANN runs the same code and more
		}
		for _, m := range []Metric{L2, IP, Cosine} {
			t.Run(fmt.Sprintf("%s/%s/%d", kind, m, dim), func(t *testing.T) {
				base := clustered(rng(5), n+20, dim)
				base, queries := base[:n*dim], base[n*dim:]
				b := build(t, Spec{Kind: kind, Metric: m, Dim: dim, EfConstruction: 40}, base)
				f := newFlat(t, dim, m, base)
				test(t, b.Searcher(), f, queries)
				test(t, reopened(t, b, base), f, queries)
			})
		}
	}
}

func wantRecall(t *testing.T, x Searcher, f *Flat, queries []float32, q Query, least float64) {
	t.Helper()
	var s, exact Scratch
	sum := 0.0
	for v := range slices.Chunk(queries, f.dim) {
		want := f.Search(v, q.K, q.Allowed, &exact)
		if q.Bounded {
			want = q.within(want)
		}
		got := x.Search(v, &q, &s)
		wantSorted(t, got, q.Allowed)
		if !q.Bounded && len(got) != len(want) {
			t.Fatalf("%d rows, want %d", len(got), len(want))
		}
		for _, g := range got {
			exactly := f.distance(v, g.Row)
			if d := g.Distance - exactly; d > 1e-3+1e-3*max(exactly, -exactly) || -d > 1e-3+1e-3*max(exactly, -exactly) {
				t.Fatalf("row %d at %v: it is at %v", g.Row, g.Distance, exactly)
			}
			if q.Bounded && g.Distance >= q.Radius {
				t.Fatalf("row %d at %v is past the radius %v", g.Row, g.Distance, q.Radius)
			}
		}
		sum += recall(got, want)
	}
	if mean := sum / float64(len(queries)/f.dim); mean < least {
		t.Errorf("recall of %+v is %.3f, want %.3f", q, mean, least)
	}
}

// distance is the exact distance of a row.
func (f *Flat) distance(q []float32, row uint32) float32 {
	out := make([]float32, 1)
	f.byID(q, f.scale(q), []uint32{row}, out)
	return out[0]
}

func TestEveryIndexFindsTheNearest(t *testing.T) {
	for _, dim := range []int{3, 130} {
		everyIndex(t, 3000, dim, func(t *testing.T, x Searcher, f *Flat, queries []float32) {
			wantRecall(t, x, f, queries, Query{K: 10, Effort: 40}, 0.9) // few enough for a walk
			wantRecall(t, x, f, queries, Query{K: 10}, 0.95)
			wantRecall(t, x, f, queries, Query{K: 1}, 0.95)
			wantRecall(t, x, f, queries, Query{K: 200}, 0.95)
		})
	}
}

func TestEveryIndexFilters(t *testing.T) {
	everyIndex(t, 3000, 20, func(t *testing.T, x Searcher, f *Flat, queries []float32) {
		r := rng(8)
		for _, part := range []float64{0.9, 0.5, 0.1, 0.01, 0} {
			random, run := bitset.New(f.Len()), bitset.New(f.Len())
			for row := range f.Len() {
				if r.Float64() < part {
					random.Add(row)
				}
				if float64(row) < part*float64(f.Len()) {
					run.Add(row)
				}
			}
			wantRecall(t, x, f, queries, Query{K: 10, Effort: 40, Allowed: random}, 0.9)
			wantRecall(t, x, f, queries, Query{K: 10, Effort: 40, Allowed: run}, 0.9)
		}
		wantRecall(t, x, f, queries, Query{K: 10, Allowed: &bitset.Set{}}, 1)
	})
}

func TestEveryIndexSearchesWithinARadius(t *testing.T) {
	everyIndex(t, 3000, 20, func(t *testing.T, x Searcher, f *Flat, queries []float32) {
		var s Scratch
		near := f.Search(queries[:f.dim], 50, nil, &s)[20].Distance
		wantRecall(t, x, f, queries, Query{K: 100, Bounded: true, Radius: near}, 0.93)
	})
}

func TestEveryIndexSearchesABatchAsItSearchesOne(t *testing.T) {
	everyIndex(t, 3000, 20, func(t *testing.T, x Searcher, f *Flat, queries []float32) {
		var s Scratch
		q := &Query{K: 10, Effort: 40}
		answered := make([]int, len(queries)/f.dim)
		got := make([][]Neighbor, len(answered))
		x.SearchBatch(queries, q, &s, func(i int, rows []Neighbor) {
			answered[i]++
			got[i] = slices.Clone(rows)
		})
		for i := range answered {
			if answered[i] != 1 {
				t.Fatalf("query %d was answered %d times", i, answered[i])
			}
			want := x.Search(queries[i*f.dim:][:f.dim], q, &s)
			if recall(got[i], want) < 0.9 || len(got[i]) != len(want) {
				t.Fatalf("query %d: %v in a batch, %v alone", i, got[i], want)
			}
		}
	})
}

func TestBuildRefusesNonsense(t *testing.T) {
	for _, c := range []struct {
		spec  Spec
		class errclass.Class
	}{
		{Spec{Kind: "TREE", Metric: L2, Dim: 4}, errclass.Unimplemented},
		{Spec{Kind: KindHNSW, Metric: 9, Dim: 4}, errclass.Invalid},
		{Spec{Kind: KindHNSW, Metric: L2}, errclass.Invalid},
		{Spec{Kind: KindHNSW, Metric: L2, Dim: 3}, errclass.Invalid},
		{Spec{Kind: KindHNSW, Metric: L2, Dim: 4, M: -1}, errclass.Invalid},
	} {
		if b, err := Build(context.Background(), c.spec, make([]float32, 400), BuildOptions{}); errclass.Of(err) != c.class {
			t.Errorf("%+v: %v, %v: want class %v", c.spec, b, err, c.class)
		}
	}
}

// TestOneWorkerMakesTheSameIndexEachTime, which most tests here go by.
func TestOneWorkerMakesTheSameIndexEachTime(t *testing.T) {
	const n, dim = 3000, 24
	base := clustered(rng(105), n, dim)
	for _, kind := range kinds {
		for _, m := range []Metric{L2, IP, Cosine} {
			var images [2]bytes.Buffer
			for i := range images {
				if _, err := build(t, Spec{Kind: kind, Metric: m, Dim: dim}, base).WriteTo(&images[i]); err != nil {
					t.Fatal(err)
				}
			}
			if !bytes.Equal(images[0].Bytes(), images[1].Bytes()) {
				t.Errorf("%s, %s: the same rows make another index", kind, m)
			}
		}
	}
}

// TestSeveralWorkersMakeAsGoodAnIndex, which is not the same each time.
func TestSeveralWorkersMakeAsGoodAnIndex(t *testing.T) {
	const n, dim, queries = 5000, 24, 100
	all := clustered(rng(106), n+queries, dim)
	base, asked := all[:n*dim], all[n*dim:]
	for _, m := range []Metric{L2, IP, Cosine} {
		f := newFlat(t, dim, m, base)
		for _, kind := range []Kind{KindHNSW, KindHNSWSQ, KindScaNN} {
			for _, workers := range []int{2, 5} {
				b, err := Build(context.Background(), Spec{Kind: kind, Metric: m, Dim: dim}, base, BuildOptions{Workers: workers})
				if err != nil {
					t.Fatal(err)
				}
				wantRecall(t, b.Searcher(), f, asked, Query{K: 10, Effort: 64}, 0.9)
				wantRecall(t, b.Searcher(), f, base[:queries*dim], Query{K: 1, Effort: 64}, 0.9) // rows are reached
				if err := b.Close(); err != nil {
					t.Error(err)
				}
			}
		}
	}
}

func TestABuildCanBeCancelled(t *testing.T) {
	for _, kind := range kinds {
		if kind == KindFlat {
			continue
		}
		for _, workers := range []int{1, 2} {
			ctx, cancel := context.WithCancel(context.Background())
			o := BuildOptions{Workers: workers, Progress: func(done, total int) {
				if done > total/4 {
					cancel()
				}
			}}
			if _, err := Build(ctx, Spec{Kind: kind, Metric: L2, Dim: 8}, clustered(rng(3), 3000, 8), o); !errors.Is(err, context.Canceled) {
				t.Errorf("%s with %d workers: %v", kind, workers, err)
			}
			cancel()
		}
	}
}

func TestOpenRefusesForeignBytes(t *testing.T) {
	for _, b := range [][]byte{nil, []byte("short"), bytes.Repeat([]byte("x"), 4096)} {
		if _, err := Open(b, nil); errclass.Of(err) != errclass.Corrupt {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	}
}
