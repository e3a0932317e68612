package index

import (
	"sync"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// tenth allows one row of ten.
func tenth(n, from int) *bitset.Set {
	allowed := bitset.New(n)
	for row := from; row < n; row += 10 {
		allowed.Add(row)
	}
	return allowed
}

func TestAFilterOfAGraphThatIsUsedAgainIsKnown(t *testing.T) {
	const n, dim = 12_000, 8
	base := clustered(rng(46), n+40, dim)
	base, queries := base[:n*dim], base[n*dim:]
	g, _ := buildCodes(t, L2, dim, base)
	f := newFlat(t, dim, L2, base)
	q := Query{K: 10, Effort: 20, Allowed: filterOf(n, func(row int) bool { return row%3 == 0 })}
	wantRecall(t, g, f, queries, q, 0.93)
	if g.filters.find(q.Allowed.Words()) == nil {
		t.Fatal("a filter that was used again and again is not known")
	}
	var s Scratch
	g.Search(queries[:dim], &q, &s)
	if st := s.Stats(); st.Scanned || st.Lists == 0 {
		t.Errorf("%+v: want lists", st)
	}
	// The same filter with other rows is another one.
	for i := range 20 {
		v := queries[i*dim:][:dim]
		for range 3 {
			for _, got := range g.Search(v, &q, &s) {
				q.Allowed.Remove(int(got.Row))
			}
			wantSorted(t, g.Search(v, &q, &s), q.Allowed)
		}
	}
	wantRecall(t, g, f, queries, q, 0.93)
}

func TestFiltersThatTakeTurnsAreSearchedWith(t *testing.T) {
	const n, dim, workers = 12_000, 8, 4
	base := clustered(rng(47), n+12, dim)
	base, queries := base[:n*dim], base[n*dim:]
	g, _ := buildCodes(t, L2, dim, base)
	f := newFlat(t, dim, L2, base)
	var all sync.WaitGroup
	for w := range workers {
		all.Add(1)
		go func() {
			defer all.Done()
			var s, exact Scratch
			for i := range 120 {
				q := Query{K: 10, Effort: 30, Allowed: tenth(n, (i+w)%(knownKept+2))}
				v := queries[i%12*dim:][:dim]
				if r := recall(g.Search(v, &q, &s), f.Search(v, q.K, q.Allowed, &exact)); r < 0.7 {
					t.Errorf("worker %d, search %d: recall %v", w, i, r)
				}
			}
		}()
	}
	all.Wait()
}
