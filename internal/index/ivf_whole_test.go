package index

import (
	"fmt"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

func TestRowsOfAKnownFilterAreFoundByWholeCodes(t *testing.T) {
	const n, queries = 24_000, 60
	for _, c := range []struct {
		metric Metric
		dim    int
		rows   func(dim int) []float32
	}{
		{L2, 23, func(dim int) []float32 { return groups(rng(71), n+queries, dim, 200) }},
		{IP, 24, func(dim int) []float32 { return groups(rng(72), n+queries, dim, 200) }},
		{Cosine, 32, func(dim int) []float32 { return groups(rng(73), n+queries, dim, 200) }},
		{L2, 64, func(dim int) []float32 { return shallow(rng(74), n+queries, dim, 9, 0.01) }}, // codes are of some directions
	} {
		all := c.rows(c.dim)
		base, vectors := all[:n*c.dim], all[n*c.dim:]
		x, f := buildIVFFor(t, KindScaNN, c.metric, c.dim, 600, base), newFlat(t, c.dim, c.metric, base)
		for name, set := range map[string]*bitset.Set{
			"one of 9":           filterOf(n, func(row int) bool { return row%9 == 3 }),
			"a tenth around one": around(f, n/10),
		} {
			t.Run(fmt.Sprintf("%s/%d/%s", c.metric, c.dim, name), func(t *testing.T) {
				x.Forget()
				var s, exact Scratch
				for _, k := range []int{10, 40} {
					q := &Query{K: k, Allowed: set}
					if m := learn(t, x, vectors[:c.dim], q, &s); m.whole == nil || len(m.whole.at) != set.Count() {
						t.Fatalf("whole codes of %d rows: %+v", set.Count(), m.whole)
					}
					found, ranked := 0.0, 0
					for v := range slices.Chunk(vectors, c.dim) {
						rows := x.Search(v, q, &s)
						ranked += s.Stats().Ranked
						wantSorted(t, rows, set)
						found += recall(rows, f.Search(v, k, set, &exact))
					}
					batch := 0.0
					x.SearchBatch(vectors, q, &s, func(i int, rows []Neighbor) {
						wantSorted(t, rows, set)
						batch += recall(rows, f.Search(vectors[i*c.dim:][:c.dim], k, set, &exact))
					})
					if batch < 0.95*queries {
						t.Errorf("of the %d nearest %.3f are found by a batch", k, batch/queries)
					}
					least := &Query{K: k, Effort: 1, Allowed: set}
					if rows := x.Search(vectors[:c.dim], least, &s); len(rows) != k || s.Stats().Scanned {
						t.Errorf("the least effort finds %d rows of %d, scanned: %v", len(rows), k, s.Stats().Scanned)
					}
					if found < 0.95*queries || ranked > queries*set.Count()/4 {
						t.Errorf("of the %d nearest %.3f are found by ranking %d of %d rows", k, found/queries, ranked/queries, set.Count())
					}
				}
			})
		}
	}
}

func TestWholeCodesStandForTheRows(t *testing.T) {
	const dim, n = 21, 20_000
	x := buildIVFFor(t, KindScaNN, L2, dim, 600, groups(rng(75), n, dim, 100))
	set := filterOf(n, func(row int) bool { return row%8 == 5 })
	w := x.mark(slices.Clone(set.Words()), never).whole
	if w == nil {
		t.Fatal("no whole codes")
	}
	pq, short := x.lists.short.pq, newPQEncoder(x.lists.short.pq, L2)
	code, best, v, zero := make([]byte, pq.parts), make([]byte, pq.parts), make([]float32, dim), make([]float32, dim)
	var off, least float64
	for i, at := range w.at {
		if !set.Has(int(x.ids[at])) {
			t.Fatalf("row %d has a code", x.ids[at])
		}
		for p := range code {
			lane := i % vec.FastScanBlock
			code[p] = w.blocks[i/vec.FastScanBlock*x.lists.short.blockBytes()+p/4*vec.FastScanQuad+lane%16*4+p%4] >> (lane / 16 * 4) & 15
		}
		x.bytes.decode(v, int(at)/vec.PanelRows, int(at)%vec.PanelRows)
		short.encode(best, v, v, zero)
		square := float32(0)
		for p := range code {
			points := pq.points[p*pqDims*pqCodes:]
			a, b := pq.part(v, p)
			distance := func(c byte) float64 {
				dx, dy := a-points[c], b-points[pqCodes+int(c)]
				return float64(dx*dx + dy*dy)
			}
			off, least = off+distance(code[p]), least+distance(best[p])
			square += points[code[p]]*points[code[p]] + points[pqCodes+int(code[p])]*points[pqCodes+int(code[p])]
		}
		if d := square - w.bias[i]; d > 1e-3*square || d < -1e-3*square {
			t.Fatalf("row %d: bias %v, its code has the square %v", x.ids[at], w.bias[i], square)
		}
	}
	if off > 1.05*least {
		t.Errorf("codes are off by %.0f, the nearest points by %.0f", off, least)
	}
}

func TestCodesThatTellNothingAreNotRead(t *testing.T) {
	const dim, n = 20, 20_000
	base := groups(rng(76), n, dim, 100)
	x := buildIVFFor(t, KindScaNN, L2, dim, 600, base)
	set := filterOf(n, func(row int) bool { return row%8 == 5 })
	clear(x.lists.short.pq.points) // all rows have the same code
	m := x.mark(slices.Clone(set.Words()), never)
	if m.whole != nil || m.packed == nil {
		t.Errorf("whole codes: %v, packed: %v", m.whole != nil, m.packed != nil)
	}
	for selected, want := range map[int]bool{marksLeast - 1: false, marksLeast: true, n / packMost: true, n/packMost + 1: false} {
		if x.wholes(selected) != want {
			t.Errorf("%d rows have whole codes: %v", selected, !want)
		}
	}
}
