package index

import (
	"fmt"
	"math"
	"slices"
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// learn searches with a filter until it is known.
func learn(t *testing.T, x *ivf, vector []float32, q *Query, s *Scratch) *marks {
	t.Helper()
	for range 2*filtersPause + x.n/marksRows {
		x.Search(vector, q, s)
		if m := x.marks.find(q.Allowed.Words()); m != nil {
			return m
		}
	}
	t.Fatal("a filter that is used again and again is not known")
	return nil
}

// around are the n rows nearest to the first one.
func around(f *Flat, n int) *bitset.Set {
	var s Scratch
	set := bitset.New(f.Len())
	for _, r := range f.Search(f.vector(0), n, nil, &s) {
		set.Add(int(r.Row))
	}
	return set
}

func TestAFilterThatIsUsedAgainIsKnown(t *testing.T) {
	const dim, n, queries = 20, 17_000, 40
	all := clustered(rng(51), n+queries, dim)
	base, vectors := all[:n*dim], all[n*dim:]
	for _, c := range []struct {
		kind   Kind
		metric Metric
		lists  int
	}{{KindScaNN, L2, 600}, {KindScaNN, IP, 300}, {KindIVFSQ8, Cosine, 300}} {
		x := buildIVFFor(t, c.kind, c.metric, dim, c.lists, base)
		f := newFlat(t, dim, c.metric, base)
		for name, set := range map[string]*bitset.Set{
			"one of 8":           filterOf(n, func(row int) bool { return row%8 == 3 }),
			"half":               filterOf(n, func(row int) bool { return row%2 == 0 }),
			"a tenth around one": around(f, n/8),
			"half around one":    around(f, n/2),
		} {
			t.Run(fmt.Sprintf("%s/%s/%s", c.kind, c.metric, name), func(t *testing.T) {
				var s, exact Scratch
				q := &Query{K: 10, Effort: 50, Allowed: set}
				m := learn(t, x, vectors[:dim], q, &s)
				if m.selected != set.Count() || (m.packed != nil || m.whole != nil) != (c.kind == KindScaNN && m.selected <= n/packMost) {
					t.Errorf("%d rows of %d are known, packed: %v", m.selected, set.Count(), m.packed != nil)
				}
				// A set with the same rows will do; one that has others is another filter.
				same := bitset.New(n)
				copy(same.Words(), set.Words())
				one := &Query{K: 10, Effort: 50, Allowed: same}
				sum := 0.0
				for v := range slices.Chunk(vectors, dim) {
					rows := slices.Clone(x.Search(v, one, &s))
					wantSorted(t, rows, set)
					sum += recall(rows, f.Search(v, 10, set, &exact))
					nearest := int(rows[0].Row)
					same.Remove(nearest)
					wantSorted(t, x.Search(v, one, &s), same)
					same.Add(nearest)
				}
				if sum < 0.93*queries {
					t.Errorf("recall %.3f", sum/queries)
				}
				sum = 0
				x.SearchBatch(vectors, one, &s, func(i int, rows []Neighbor) {
					wantSorted(t, rows, set)
					sum += recall(rows, f.Search(vectors[i*dim:][:dim], 10, set, &exact))
				})
				if sum < 0.93*queries {
					t.Errorf("recall %.3f in a batch", sum/queries)
				}
			})
		}
	}
}

// TestABatchMeetsItsFilterWithEachQuery where these are searched for one by one: what is new comes to be known within it, and what cannot be
// known is looked up for each.
func TestABatchMeetsItsFilterWithEachQuery(t *testing.T) {
	const dim, n, queries = 24, 24_000, 40
	all := groups(rng(55), n+queries, dim, 60)
	base, vectors := all[:n*dim], all[n*dim:]
	x := buildIVFFor(t, KindScaNN, L2, dim, 600, base)
	f := newFlat(t, dim, L2, base)
	for name, set := range map[string]*bitset.Set{
		"one of 6":        filterOf(n, func(row int) bool { return row%6 == 3 }),
		"one of 11":       filterOf(n, func(row int) bool { return row%11 == 3 }),
		"some around one": around(f, n/11),
	} {
		t.Run(name, func(t *testing.T) {
			var s, alone Scratch
			q := &Query{K: 10, Effort: 4, Allowed: set}
			x.marks.until.Store(math.MaxUint64)
			x.oneByOne(vectors, x.plan(q, &s), q, &s, func(i int, rows []Neighbor) {
				if want := x.Search(vectors[i*dim:][:dim], q, &alone); !slices.Equal(rows, want) {
					t.Errorf("query %d: %v in a batch, %v alone", i, rows, want)
				}
			})
			if x.marks.find(set.Words()) != nil {
				t.Fatal("the filter is known already")
			}
			x.marks.until.Store(0)
			for i := range x.marks.seen { // as if it had never been met
				x.marks.seen[i].Store(0)
			}
			x.oneByOne(vectors, x.plan(q, &s), q, &s, func(int, []Neighbor) {})
			if x.marks.find(set.Words()) == nil {
				t.Error("the filter is not known after a batch")
			}
		})
	}
}

func TestFiltersThatTakeTurnsAreSeldomMarked(t *testing.T) {
	const dim, n, rounds = 16, 4200, 60
	base := clustered(rng(52), n, dim)
	x := buildIVFFor(t, KindScaNN, L2, dim, 40, base)
	var sets []*bitset.Set
	for i := range marksKept + 3 {
		sets = append(sets, filterOf(n, func(row int) bool { return row%5 != i%5 && row > i }))
	}
	var s Scratch
	for range rounds {
		for _, set := range sets {
			x.Search(base[:dim], &Query{K: 5, Allowed: set}, &s)
		}
	}
	if turn := int(x.marks.turn.Load()); turn < marksKept || turn > rounds*len(sets)/filtersPause+1 {
		t.Errorf("%d filters were marked in %d searches with %d", turn, rounds*len(sets), len(sets))
	}
}

func TestPackedCodesAreThoseOfTheRows(t *testing.T) {
	const dim, n = 22, 5000
	base := clustered(rng(53), n, dim)
	x := buildIVFFor(t, KindScaNN, L2, dim, 60, base)
	set := filterOf(n, func(row int) bool { return row%9 == 1 })
	m := x.mark(slices.Clone(set.Words()), never)
	if m.packed == nil || len(m.packed.at) != set.Count() {
		t.Fatalf("%d rows are allowed, %+v packed", set.Count(), m.packed)
	}
	quads := vec.FastScanQuads(x.pq.parts)
	lut := make([]byte, quads*vec.FastScanQuad)
	for i := range x.pq.parts * pqCodes {
		lut[i] = byte(i * 37)
	}
	whole, few := make([]uint32, len(x.ids)), make([]uint32, len(m.packed.bias))
	x.kern.FastScan(x.blocks, quads, lut, whole)
	x.kern.FastScan(m.packed.blocks, quads, lut, few)
	for l := range x.lists.n {
		for i := m.packed.first[l]; i < m.packed.first[l+1]; i++ {
			at := m.packed.at[i]
			if !set.Has(int(x.ids[at])) || at/vec.PanelRows < x.first[l] || at/vec.PanelRows >= x.first[l+1] {
				t.Fatalf("row %d of list %d is packed", x.ids[at], l)
			}
			if few[i] != whole[at] || m.packed.bias[i] != x.pqBias[at] {
				t.Fatalf("code of row %d: sum %d, bias %v, want %d, %v", x.ids[at], few[i], m.packed.bias[i], whole[at], x.pqBias[at])
			}
		}
	}
}

func TestFiltersAreLearntBySearchesSideBySide(t *testing.T) {
	const dim, n = 16, 20_000
	base := clustered(rng(54), n, dim)
	x := buildIVFFor(t, KindScaNN, Cosine, dim, 100, base)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			var s Scratch
			for i := range 200 {
				set := filterOf(n, func(row int) bool { return row%9 == (g+i/50)%6 })
				for _, r := range x.Search(base[i*dim:][:dim], &Query{K: 10, Effort: 5, Allowed: set}, &s) {
					if !set.Has(int(r.Row)) {
						t.Errorf("row %d is not allowed", r.Row)
					}
				}
			}
		})
	}
	wg.Wait()
}
