package index

import (
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// Filters that leave a tenth and half of the rows: so many that they are walked.
func TestAFilteredWalkFindsTheNearestAllowedRows(t *testing.T) {
	const n, dim, ef = 12_000, 6, 12
	base := clustered(rng(21), n, dim)
	for i := range n {
		if i%2 == 1 && i%3 == 0 { // some are copies of rows that the filter may not leave
			copy(base[i*dim:(i+1)*dim], base[(i-1)*dim:i*dim])
		}
	}
	g, _ := buildCodes(t, L2, dim, base)
	g.lists = nil // as in images from before they were
	f := newFlat(t, dim, L2, base)
	for name, keep := range map[string]func(row int) bool{
		"a tenth": func(row int) bool { return row%10 == 3 },
		"odd":     func(row int) bool { return row%2 == 1 },
		"far":     func(row int) bool { return base[row*dim] > base[0] },
	} {
		allowed := bitset.New(n)
		for row := range n {
			if keep(row) {
				allowed.Add(row)
			}
		}
		if c := allowed.Count(); g.scanFiltered(c, ef) {
			t.Fatalf("%s: %d rows are scanned", name, c)
		}
		wantRecall(t, g, f, base[:400*dim], Query{K: 5, Effort: ef, Allowed: allowed}, 0.9)
		var s Scratch
		g.Search(base[:dim], &Query{K: 5, Effort: ef, Allowed: allowed}, &s)
		if st := s.Stats(); st.Distances == 0 || st.Hops == 0 {
			t.Errorf("%s: %+v: want a walk", name, st)
		}
	}
}
