package index

import (
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

func TestAFilterThatIsNewAndAllowsFewRowsIsSearchedByRows(t *testing.T) {
	const dim, n, lists, queries = 16, 30000, 300, 60
	base, asked := clustered(rng(91), n, dim), clustered(rng(92), queries, dim)
	for _, m := range []Metric{L2, Cosine} {
		x, f := buildIVFFor(t, KindScaNN, m, dim, lists, base), newFlat(t, dim, m, base)
		var s, exact Scratch
		near := bitset.New(n)
		for _, r := range f.Search(base[:dim], n/30, nil, &exact) {
			near.Add(int(r.Row))
		}
		for _, c := range []struct {
			name    string
			allowed *bitset.Set
			least   float64 // most queries are far from all rows around one
		}{
			{"one of 30", filterOf(n, func(row int) bool { return row%30 == 7 }), 0.95},
			{"around one row", near, 0.8},
		} {
			x.marks = nil // each search meets it for the first time
			sum := 0.0
			for i := range queries {
				v, q := asked[i*dim:][:dim], &Query{K: 10, Effort: 4, Allowed: c.allowed}
				rows := x.Search(v, q, &s)
				wantSorted(t, rows, c.allowed)
				sum += recall(rows, f.Search(v, q.K, c.allowed, &exact))
				if st := s.Stats(); st.Scanned || st.Codes > 0 {
					t.Fatalf("%s, %s: %+v", m, c.name, st)
				}
			}
			if sum < c.least*queries {
				t.Errorf("%s, %s: recall %.3f", m, c.name, sum/queries)
			}
		}
	}
}

// TestATenthOfTheRowsIsReadByRowsWhereTheyAreAnywhere: a block of a list's codes then has three of them, or four; where they are
// near one another some blocks have many, and where more are allowed all have. Lists are long here, so that few are read: to put all
// allowed rows to theirs would take longer.
func TestATenthOfTheRowsIsReadByRowsWhereTheyAreAnywhere(t *testing.T) {
	const dim, n, lists, queries = 16, 30000, 60, 60
	base, asked := clustered(rng(93), n, dim), clustered(rng(94), queries, dim)
	x, f := buildIVFFor(t, KindScaNN, L2, dim, lists, base), newFlat(t, dim, L2, base)
	for name, c := range map[string]struct {
		allowed *bitset.Set
		byRows  bool
	}{
		"a tenth, anywhere":       {filterOf(n, func(row int) bool { return row%10 == 7 }), true},
		"a sixth, anywhere":       {filterOf(n, func(row int) bool { return row%6 == 5 }), false},
		"a tenth, around one row": {around(f, n/10), false},
	} {
		var s, exact Scratch
		q, sum := &Query{K: 10, Effort: 4, Allowed: c.allowed}, 0.0
		for v := range slices.Chunk(asked, dim) {
			x.marks = newFilterCache[marks](marksKept) // each search meets it for the first time
			few := x.plan(q, &s).few
			x.marks = newFilterCache[marks](marksKept)
			found := x.Search(v, q, &s)
			wantSorted(t, found, c.allowed)
			sum += recall(found, f.Search(v, q.K, c.allowed, &exact))
			if st := s.Stats(); st.Scanned || c.byRows != (st.Hops > 0 && st.Codes == 0) || c.byRows != few {
				t.Fatalf("%s: %+v", name, st)
			}
		}
		if sum < 0.9*queries {
			t.Errorf("%s: recall %.3f", name, sum/queries)
		}
	}
}

func TestFiltersAreToldApartByABit(t *testing.T) {
	c := newFilterCache[marks](1)
	a, b, short := make([]uint64, 4000), make([]uint64, 4000), make([]uint64, 4000)
	b[hashEach*5] = 1
	large := make([]uint64, 2*hashEach*hashSome)
	other := slices.Clone(large)
	other[hashEach*(hashSome+3)] = 1
	if c.hash(large) == c.hash(other) || c.hash(large) != c.hash(slices.Clone(large)) {
		t.Error("large filters that differ are one, or one is two")
	}
	if c.hash(a) == c.hash(b) || c.hash(a) == c.hash(short[:hashEach]) || c.hash(a) != c.hash(short) {
		t.Error("filters that differ are one, or one is two")
	}
}
