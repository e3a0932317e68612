package index

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// heaps are rows of which each ten are near to one another, and all others about equally far.
func heaps(n, dim int) []float32 {
	const of = 10
	r, base := rng(31), make([]float32, 0, n*dim)
	middle := make([]float32, dim)
	for row := range n {
		if row%of == 0 {
			for i := range middle {
				middle[i] = float32(r.NormFloat64())
			}
		}
		for _, x := range middle {
			base = append(base, x+0.1*float32(r.NormFloat64()))
		}
	}
	return base
}

// strays is how many rows of level 0 a walk of little effort for them does not come by.
func strays(g *sqGraph) (n int) {
	var s Scratch
	for row := range uint32(g.rows) {
		if g.level(row) > 0 || g.list(row, 0)[0] == 0 {
			continue
		}
		s.begin(g.m0 + 1)
		q := g.prepare(g.vector(row), &s)
		near, d := g.descend(&q, 0, &s)
		w := &s.walk
		w.begin(g, q, near, d, strayEffort, 0)
		found := false
		for !found && w.next(g) {
			found = slices.Contains(w.ids[:w.n], row)
			w.score(g)
		}
		if !found {
			n++
		}
	}
	return n
}

func TestRowsOfHeapsAreFoundByShortWalks(t *testing.T) {
	const n, dim = 6000, 48
	g, _ := buildCodes(t, L2, dim, heaps(n, dim))
	if got := strays(g); got > n/100 { // 361 if none was linked
		t.Errorf("short walks do not find %d of %d rows", got, n)
	}
}

func TestRowsAreLedToByThoseTheyLeadToWhereTheseHaveRoom(t *testing.T) {
	const n, dim = 5000, 24
	g, _ := buildCodes(t, L2, dim, clustered(rng(32), n, dim))
	led := make([]int, n)
	for _, link := range g.links0 {
		if link > 0 {
			led[link-1]++
		}
	}
	few := 0
	for row := range uint32(n) {
		if led[row] >= ledLeast {
			continue
		}
		few++
		for _, link := range g.list(row, 0) {
			if link == 0 {
				break
			}
			if to := g.list(link-1, 0); to[len(to)-1] == 0 && !slices.Contains(to, row+1) {
				t.Fatalf("%d rows lead to row %d; row %d, which it leads to, has room and does not", led[row], row, link-1)
			}
		}
	}
	if few == n {
		t.Error("no row is led to by enough others")
	}
}

func TestLinkingStraysStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	g, _ := buildCodes(t, L2, 24, clustered(rng(33), 5000, 24))
	b := &sqBuilder{g: g, keep: g.m0}
	for row := range uint32(g.rows) {
		b.order = append(b.order, row)
	}
	if err := b.linkStrays(ctx, 2); err == nil {
		t.Error("rows were linked though the build was cancelled")
	}
}

func TestFineCodesOfWholeNumbersLoseNothing(t *testing.T) {
	for _, test := range []struct {
		dim    int
		values int // 0 up to it
	}{{64, 255}, {192, 255}, {192, 1}, {447, 1000}, {448, 255}, {16, 10_000}} {
		const rows = 200
		r, base := rng(uint64(test.dim)), make([]float32, rows*test.dim)
		for i := range base {
			base[i] = float32(r.IntN(test.values + 1))
		}
		sp, f := fineOf(t, L2, test.dim, base)
		lost := 0.0
		for row := range uint32(rows) {
			step, bias := f.tail(row)
			square := 0.0
			for i, x := range sp.vector(row) {
				off := float64(x) - float64(f.mean[i])
				square += off * off
				steps := off / float64(step)
				lost = max(lost, math.Abs(steps-math.Round(steps)))
			}
			if off := math.Abs(square - float64(bias)); off > 1e-6*square {
				t.Fatalf("%d values up to %d: row %d: its square is %v, by its codes %v", test.dim, test.values, row, square, bias)
			}
		}
		if lost != 0 {
			t.Errorf("%d values up to %d: rounding takes %.3g of a step", test.dim, test.values, lost)
		}
	}
}

func TestMeansOfOtherThanWholeNumbersStay(t *testing.T) {
	const rows, dim = 50, 64
	base := clustered(rng(34), rows, dim)
	c := &coder{kern: vec.Detect(), metric: L2, dim: dim, head: dim, wide: dim, stride: vec.SQ8Stride(dim), mean: make([]float32, dim)}
	c.findMean(sampled{base: base, dim: dim})
	for i, got := range c.mean {
		sum := 0.0
		for row := range rows {
			sum += float64(base[row*dim+i])
		}
		if want := float32(sum / rows); got != want {
			t.Fatalf("mean %d is %v, want %v", i, got, want)
		}
	}
}
