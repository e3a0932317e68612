package index

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// groups makes rows in so many groups, of which some are near one another.
func groups(r *rand.Rand, n, dim, count int) []float32 {
	centres := make([]float32, count*dim)
	for i := range centres {
		centres[i] = 1.5 * float32(r.NormFloat64())
		if i >= dim && i/dim%4 != 0 {
			centres[i] = centres[i-dim] + 0.7*float32(r.NormFloat64())
		}
	}
	rows := make([]float32, n*dim)
	for i := range n {
		from := centres[r.IntN(count)*dim:]
		for d := range dim {
			rows[i*dim+d] = from[d] + float32(r.NormFloat64())
		}
	}
	return rows
}

// TestRowsNearOneAnotherAreFoundByDefault: nobody who sends a filter knows whether the rows that it allows
// are near a query or far from it, and how many lists they are in.
func TestRowsNearOneAnotherAreFoundByDefault(t *testing.T) {
	const dim, n, queries, k = 24, 40_000, 150, 10
	all := groups(rng(95), n+queries, dim, 300)
	base, asked := all[:n*dim], all[n*dim:]
	f := newFlat(t, dim, L2, base)
	for _, m := range []Metric{L2, Cosine} {
		if m == Cosine {
			f = newFlat(t, dim, m, base)
		}
		kernels := vec.Detect()
		x, err := buildIVF(context.Background(), Spec{Kind: KindScaNN, Metric: m, Dim: dim}, base, BuildOptions{Workers: 2, Kernels: &kernels})
		if err != nil {
			t.Fatal(err)
		}
		for name, set := range map[string]*bitset.Set{
			"a fourth around one row":      around(f, n/4),
			"a tenth around one row":       around(f, n/10),
			"one of 30 around one row":     around(f, n/30),
			"one of 100 around one row":    around(f, n/100),
			"a tenth, anywhere":            filterOf(n, func(row int) bool { return row%10 == 3 }),
			"one of 30, anywhere":          filterOf(n, func(row int) bool { return row%30 == 3 }),
			"a tenth in a dozen of places": inPlaces(f, n/10, 12),
		} {
			for _, q := range []Query{{K: k, Allowed: set}, {K: k, Recall: 0.95, Allowed: set}, {K: k, Recall: 0.99, Allowed: set}} {
				least := 0.95
				if q.Recall == 0.99 {
					least = 0.97
				}
				t.Run(fmt.Sprintf("%s/%s/wanted %g", m, name, q.Recall), func(t *testing.T) {
					fresh, known := found(t, x, f, asked, &q)
					if fresh < least*queries || known < least*queries {
						t.Errorf("recall %.3f where the filter is new, %.3f where it was met before", fresh/queries, known/queries)
					}
				})
			}
		}
	}
}

// TestRowsThatComeByTurnsAreFound: whoever writes row after row to so many places in turn makes rows of a
// kind come at a distance that a sample of them must not have.
func TestRowsThatComeByTurnsAreFound(t *testing.T) {
	const dim, n, queries, k = 24, 40_000, 60, 10
	for _, turns := range []int{16, 17, 24} {
		r := rng(uint64(turns))
		centres := make([]float32, turns*dim)
		for i := range centres {
			centres[i] = 3 * float32(r.NormFloat64())
		}
		all := make([]float32, (n+queries)*dim)
		for i := range all {
			all[i] = centres[i/dim%turns*dim+i%dim] + float32(r.NormFloat64())
		}
		base, asked := all[:n*dim], all[n*dim:]
		x, f := buildIVFFor(t, KindScaNN, L2, dim, 0, base), newFlat(t, dim, L2, base)
		for _, rows := range []int{2048, 4096, 8192} {
			set := filterOf(n, func(row int) bool { return row/rows == 1 })
			var s, exact Scratch
			found := 0.0
			for v := range slices.Chunk(asked, dim) {
				x.Forget()
				found += recall(x.Search(v, &Query{K: k, Allowed: set}, &s), f.Search(v, k, set, &exact))
			}
			if found < 0.95*queries {
				t.Errorf("%d kinds by turns, %d rows allowed: recall %.3f", turns, rows, found/queries)
			}
		}
	}
}

// inPlaces are about n rows, those nearest to each of some rows.
func inPlaces(f *Flat, n, places int) *bitset.Set {
	var s Scratch
	set := bitset.New(f.Len())
	for i := range places {
		for _, r := range f.Search(f.vector(uint32(i*f.Len()/places)), n/places, nil, &s) {
			set.Add(int(r.Row))
		}
	}
	return set
}

// TestHowCrowdedListsAre tells rows that are anywhere from such that are near one another, by all of
// them and by a sample.
func TestHowCrowdedListsAre(t *testing.T) {
	const dim, n = 24, 40_000
	base := groups(rng(96), n, dim, 300)
	x, f := buildIVFFor(t, KindIVFSQ8, L2, dim, 1000, base), newFlat(t, dim, L2, base)
	var s Scratch
	near := around(f, n/4)
	mixed := filterOf(n, func(row int) bool { return row < n/2 && row%60 == 1 || row >= n/2 && near.Has(row) })
	for _, c := range []struct {
		name        string
		allowed     *bitset.Set
		least, most float64
	}{
		{"all", allOf(n), 0.9, 1.1},
		{"half", filterOf(n, func(row int) bool { return row%2 == 1 }), 0.9, 1.1},
		{"one of 20", filterOf(n, func(row int) bool { return row%20 == 1 }), 0.9, 1.1},
		{"half around one row", around(f, n/2), 1.5, 2},
		{"one of 20 around one row", around(f, n/20), 4, 20},
		{"few in front, many around one row behind", mixed, 1.5, 20},
		{"no row", bitset.New(n), 1, 1},
		{"one row", filterOf(n, func(row int) bool { return row == 77 }), 1, 1},
	} {
		words := c.allowed.Words()
		of := x.listOf(new(Scratch))
		all, some := x.mark(words, never).crowd, x.crowdBySample(x.sampleLists(words, of, &s), of, &s)
		if all < c.least || all > c.most {
			t.Errorf("%s: crowded %.2f, want %g to %g", c.name, all, c.least, c.most)
		}
		if some < 0.5*all || some > 1.6*all {
			t.Errorf("%s: crowded %.2f by a sample, %.2f by all", c.name, some, all)
		}
	}
}

// TestListsOfAllowedRowsAreComparedByShortCodes where their centres' other codes are large and a search reads few
// lists: they tell those near the query from the others, and what they confuse is made up for.
func TestListsOfAllowedRowsAreComparedByShortCodes(t *testing.T) {
	const dim, n, lists, queries, k = 128, 12_600, 4_200, 40, 10
	all := groups(rng(98), n+queries, dim, 300)
	base, asked := all[:n*dim], all[n*dim:]
	x, f := buildIVFFor(t, KindScaNN, L2, dim, lists, base), newFlat(t, dim, L2, base)
	x.effort = min(x.effort, lists/shortFew)
	if !x.byShort() {
		t.Fatalf("short codes of %d centres are not asked: the others take %d bytes", lists, len(x.lists.codes.panels))
	}
	set := filterOf(n, func(row int) bool { return row%3 == 1 })
	var s, exact Scratch
	found, missed := 0.0, 0
	for v := range slices.Chunk(asked, dim) {
		s.begin(0)
		x.normalise(v, &s)
		near := x.listDistances(&s)
		square := x.kern.Dot(v, v) // is in none of them
		for l, d := range near {
			own := x.kern.L2(v, x.lists.vectors[l*dim:][:dim])
			if math.Abs(float64(d+square-own)) > 0.2*float64(own) {
				missed++
			}
		}
		q := Query{K: k, Allowed: set}
		p := x.plan(&q, &s)
		p.of, p.target, p.marks = x.listOf(new(Scratch)), n/30, nil
		x.fine.prepare(v, &s.fine)
		x.readAllowed(v, &p, &s)
		x.refined(v, &p, &s)
		rows := x.ranked(v, &p, &s)
		wantSorted(t, rows, set)
		found += recall(rows, f.Search(v, k, set, &exact))
	}
	if found < 0.9*queries || missed > queries*lists/100 {
		t.Errorf("recall %.3f, %d distances of %d are far off", found/queries, missed, queries*lists)
	}
}

// TestTheCategoryOfAQueryIsFound: a filter that allows the category which a query is of, alone or with some others, has it amid rows that
// are as hard to tell apart as they are without a filter, and as many lists are to be read.
func TestTheCategoryOfAQueryIsFound(t *testing.T) {
	const dim, n, queries, categories, own = 24, 60_000, 100, 30, 3
	r := rng(71)
	centres := make([]float32, categories*dim)
	for i := range centres {
		centres[i] = 3 * float32(r.NormFloat64())
	}
	of := func(category int) []float32 {
		v := slices.Clone(centres[category*dim:][:dim])
		for d := range v {
			v[d] += float32(r.NormFloat64())
		}
		return v
	}
	var base, asked []float32
	for i := range n {
		base = append(base, of(i%categories)...)
	}
	for range queries {
		asked = append(asked, of(own)...)
	}
	f := newFlat(t, dim, L2, base)
	for _, kind := range []Kind{KindScaNN, KindIVFSQ8} {
		x := buildIVFFor(t, kind, L2, dim, 0, base)
		for _, others := range []float64{0, 0.02, 0.05} {
			set := filterOf(n, func(row int) bool { return row%categories == own || r.Float64() < others })
			for _, q := range []Query{{K: 10, Allowed: set}, {K: 10, Recall: 0.95, Allowed: set}, {K: 50, Allowed: set}} {
				t.Run(fmt.Sprintf("%s/and %g of the others/%d wanted at %g", kind, others, q.K, q.Recall), func(t *testing.T) {
					fresh, known := found(t, x, f, asked, &q)
					if least := 0.95 * queries; fresh < least || known < least {
						t.Errorf("recall %.3f, %.3f where the filter is known", fresh/queries, known/queries)
					}
				})
			}
		}
	}
}

// found sums up what is found of what is nearest to the queries, with a filter that was never met, and with it once it is used again
// and again.
func found(t *testing.T, x *ivf, f *Flat, asked []float32, q *Query) (fresh, known float64) {
	var s, exact Scratch
	for _, sum := range []*float64{&fresh, &known} {
		for v := range slices.Chunk(asked, f.dim) {
			if sum == &fresh {
				x.marks.forget()
				for i := range x.marks.seen { // as if it had never been met
					x.marks.seen[i].Store(0)
				}
			}
			rows := x.Search(v, q, &s)
			wantSorted(t, rows, q.Allowed)
			*sum += recall(rows, f.Search(v, q.K, q.Allowed, &exact))
		}
	}
	return fresh, known
}

// TestASampleThatIsWrongLeavesTheDistancesOfLists as they were, for what is asked for all rows after it goes by these.
func TestASampleThatIsWrongLeavesTheDistancesOfLists(t *testing.T) {
	const dim, n, lists = 24, 12_000, 300
	base := groups(rng(99), n, dim, 40)
	x := buildIVFFor(t, KindScaNN, L2, dim, lists, base)
	set := filterOf(n, func(row int) bool { return row%9 == 1 })
	var s, alone Scratch
	for i := range 20 {
		q := Query{K: 10, Allowed: set}
		p := x.plan(&q, &s)
		p.of, p.target = x.listOf(&s), 200
		x.normalise(base[i*dim:][:dim], &s)
		near := x.listDistances(&s)
		before := slices.Clone(near)
		rows := slices.Clone(x.allRows(&p, &s))
		x.rowsNear(rows, near, &p, &s)
		if !slices.Equal(near, before) {
			t.Fatalf("row %d: the distances of lists are others once rows were drawn", i)
		}
		if got, want := x.rowsNearest(rows, near, &p, &s), x.rowsNearest(rows, before, &p, &alone); !slices.Equal(got, want) {
			t.Fatalf("row %d: %d rows are nearest by all distances, %d were before", i, len(got), len(want))
		}
	}
}

// TestTheListsOfRowsAreKeptWithinMemory and made by one search while others go on.
func TestTheListsOfRowsAreKeptWithinMemory(t *testing.T) {
	const dim, n, lists, workers, plenty = 16, 12_000, 300, 4, 1 << 30
	base := clustered(rng(97), n, dim)
	x := buildIVFFor(t, KindScaNN, L2, dim, lists, base)
	var a allowance
	x.LearnWithin(&a)
	if x.listOf(new(Scratch)) != nil {
		t.Fatal("the list of each row is kept, though there is no memory for it")
	}
	a.left.Store(plenty)
	of := x.listOf(new(Scratch))
	if of == nil || plenty-a.left.Load() != 2*n {
		t.Fatalf("%d bytes were asked for, want %d", plenty-a.left.Load(), 2*n)
	}
	for l := range lists {
		for _, row := range x.ids[x.first[l]*vec.PanelRows : x.first[l+1]*vec.PanelRows] {
			if row != noRow && int(of.list[row]) != l {
				t.Fatalf("row %d is in list %d, not %d", row, l, of.list[row])
			}
		}
	}
	done := make(chan error)
	for w := range workers {
		go func() {
			var s Scratch
			for i := range 300 {
				set := filterOf(n, func(row int) bool { return row%30 == (w*300+i)%29 }) // new to it
				for _, r := range x.Search(base[i*dim:][:dim], &Query{K: 10, Allowed: set}, &s) {
					if !set.Has(int(r.Row)) {
						done <- fmt.Errorf("row %d is not allowed", r.Row)
						return
					}
				}
			}
			done <- nil
		}()
	}
	for left := workers; left > 0; {
		x.Forget()
		select {
		case err := <-done:
			if left--; err != nil {
				t.Error(err)
			}
		default:
		}
	}
	x.Forget()
	if sizeOf(x) != 0 || a.left.Load() != plenty {
		t.Errorf("%d bytes are left, %d not given back", sizeOf(x), plenty-a.left.Load())
	}
}

// TestASetThatReachesPastTheRows finds none there.
func TestASetThatReachesPastTheRows(t *testing.T) {
	const dim, n = 16, 9_990
	base := clustered(rng(98), n, dim)
	x := buildIVFFor(t, KindScaNN, L2, dim, 300, base)
	var s Scratch
	for _, step := range []int{3, 40, 900} {
		set := filterOf(n+200, func(row int) bool { return row%step == 0 || row >= n })
		for i := range 20 {
			for _, r := range x.Search(base[i*dim:][:dim], &Query{K: 10, Allowed: set}, &s) {
				if int(r.Row) >= n || !set.Has(int(r.Row)) {
					t.Fatalf("one of %d: row %d of %d", step, r.Row, n)
				}
			}
		}
	}
}
