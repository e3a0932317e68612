package index

import "testing"

// TestReadsAreThoseOfTheIndex: a search that looks at everything reads all that
// there is, once.
func TestReadsAreThoseOfTheIndex(t *testing.T) {
	const n, dim, searches = 3000, 24, 7
	base := clustered(rng(5), n+searches, dim)
	base, queries := base[:n*dim], base[n*dim:]
	for _, kind := range kinds[:len(kinds)-1] {
		t.Run(string(kind), func(t *testing.T) {
			x := reopened(t, build(t, Spec{Kind: kind, Metric: L2, Dim: dim, EfConstruction: 40}, base), base)
			reads := func(effort int) map[string]Reads {
				var s Scratch
				var total Stats
				for i := range searches {
					x.Search(queries[i*dim:][:dim], &Query{K: 10, Effort: effort}, &s)
					total.Add(s.Stats())
				}
				got := map[string]Reads{}
				for _, r := range ReadsOf(x, searches, total) {
					if r.Count <= 0 || r.Size <= 0 || int64(r.Size) > r.Area {
						t.Errorf("effort %d: %+v", effort, r)
					}
					got[r.What] = r
				}
				return got
			}
			few, all := reads(30), reads(n)
			switch kind {
			case KindFlat:
				if r := all["vectors"]; r.Count != n*searches || r.Size != 4*dim || r.Area != 4*n*dim {
					t.Errorf("%+v", r)
				}
			case KindHNSW:
				if few["vectors"].Size != 4*dim || few["vectors"].Count < 10*searches || few["vectors"].Count >= few["codes"].Count {
					t.Errorf("ranked by %+v", few)
				}
				fallthrough
			case KindHNSWSQ:
				g := x.(*sqGraph)
				if few["codes"].Size != g.code.stride || few["codes"].Count >= n*searches || all["codes"].Count < n*searches || few["links"].Size != 4*g.m0 {
					t.Errorf("%+v, all: %+v", few, all)
				}
			case KindIVFFlat:
				if all["vectors"].Count != n*searches || few["vectors"].Count >= n*searches {
					t.Errorf("%+v, all: %+v", few, all)
				}
			default:
				lists := x.(*ivf).lists.n
				if r := all["lists"]; r.Count != lists*searches || int64(r.Size)*int64(lists) > r.Area || int64(r.Size+1)*int64(lists) <= r.Area {
					t.Errorf("all lists are %+v", r)
				}
				if r := all["centres"]; r.Count != searches || few["lists"].Count >= lists*searches {
					t.Errorf("%+v, all: %+v", few, all)
				}
			}
			if f := few["fine codes"]; (kind == KindHNSWSQ || kind == KindScaNN || kind == KindIVFSQ8) && (f.Count < 10*searches || f.Size != fineStride(dim, fineBits(dim))) {
				t.Errorf("ranked by %+v", f)
			}
		})
	}
}

// TestRowsTooNearForCodesAreReadAsVectors, and counted.
func TestRowsTooNearForCodesAreReadAsVectors(t *testing.T) {
	const n, dim = 3000, 24
	base := clustered(rng(5), n, dim)
	for _, kind := range []Kind{KindHNSWSQ, KindScaNN} {
		x := reopened(t, build(t, Spec{Kind: kind, Metric: L2, Dim: dim, EfConstruction: 40}, base), base)
		var s Scratch
		x.Search(base[7*dim:][:dim], &Query{K: 1, Effort: 100}, &s)
		if st := s.Stats(); st.Exact < 1 || st.Exact > st.Ranked {
			t.Errorf("%s: %+v", kind, st)
		}
	}
}
