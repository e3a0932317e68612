package vec

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func TestLinksLeadToRowsInOrOutOfASet(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		rows := 1 + r.IntN(300)
		set := make([]uint64, (rows+63)/64)
		for i := range set {
			set[i] = r.Uint64()
		}
		links := make([]uint32, r.IntN(50))
		for i := range links {
			links[i] = 1 + r.Uint32N(uint32(rows)) // rows are linked to
			if r.IntN(40) == 0 {
				links[i] = uint32(rows) + 1 + r.Uint32()/2 // a damaged file
			}
		}
		if len(links) > 0 && r.IntN(2) == 0 {
			clear(links[r.IntN(len(links)):])
		}
		in := r.IntN(2) == 0
		var want []uint32
		for _, l := range links {
			if row := int(l) - 1; l != 0 && row < rows && (set[row/64]>>(row%64)&1 == 1) == in {
				want = append(want, uint32(row))
			}
		}
		for _, k := range levels(t) {
			got := make([]uint32, len(links)+2)
			got[len(links)] = 77
			n := k.Links(links, rows, set, in, got)
			if !slices.Equal(got[:n], want) || got[len(links)] != 77 {
				t.Fatalf("%s: of %v, %d rows, in %v: %v, want %v", k.Level(), links, rows, in, got[:n], want)
			}
		}
	}
}
