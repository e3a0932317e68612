package index

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// countsOf are rows of counts, most of which are 0: what is counted changes little from one row to the next, and half of the values are never
// anything, every second one.
func countsOf(seed uint64, n, dim int) []float32 {
	r := rng(seed)
	base, now := make([]float32, n*dim), make([]float32, dim)
	for row := range n {
		if row%500 == 0 {
			clear(now)
			for range 8 {
				now[2*r.IntN(dim/2)] += 1500
			}
		}
		for range 12 { // one count goes from a value that has some to another
			from, to := 2*r.IntN(dim/2), 2*r.IntN(dim/2)
			if r.IntN(2) == 0 {
				to = from ^ 2
			}
			if n := min(now[from], float32(1+r.IntN(3))); to < dim {
				now[from], now[to] = now[from]-n, now[to]+n
			}
		}
		copy(base[row*dim:], now)
	}
	return base
}

// TestCountsAreCodedByThoseThatDiffer: what lies between two rows of counts is little beside what they are, and turned codes do not tell it.
// Values that hardly differ are left out of records in place of that.
func TestCountsAreCodedByThoseThatDiffer(t *testing.T) {
	const n, dim = 12_000, 200
	base := countsOf(91, n, dim)
	kernels := vec.Detect()
	o := BuildOptions{Kernels: &kernels, Workers: 2}
	b, err := buildKind(t.Context(), Spec{Kind: KindHNSWSQ, Metric: L2, Dim: dim}, base, o, "")
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	g := b.Searcher().(*sqGraph)
	if g.code.basis == nil || g.code.basis.picks == nil || g.code.stride >= vec.SQ8Stride(dim) || !strings.Contains(b.Info().Why, "that differ most") {
		t.Fatalf("records of %d bytes: %s", g.code.stride, b.Info().Why)
	}
	for _, d := range g.code.basis.picks[:dim/2] {
		if d%2 != 0 {
			t.Errorf("value %d, which is 0 in all rows, is kept before others", d)
		}
	}
	f, queries := newFlat(t, dim, L2, base), base[:100*dim]
	wantRecall(t, g, f, queries, Query{K: 10, Effort: 60}, 0.97)

	var image bytes.Buffer
	if _, err := b.WriteTo(&image); err != nil {
		t.Fatal(err)
	}
	opened, err := openSQ(alignedCopy(image.Bytes()), base)
	if err != nil {
		t.Fatal(err)
	}
	if len(opened.code.basis.picks) != g.code.head {
		t.Errorf("an opened graph picks %d values of %d", len(opened.code.basis.picks), g.code.head)
	}
	wantRecall(t, opened, f, queries, Query{K: 10, Effort: 60}, 0.97)
}

// TestPickedValuesAreWhatTurningMakesOfThem: a build that does not know of picks turns by the same directions.
func TestPickedValuesAreWhatTurningMakesOfThem(t *testing.T) {
	const n, dim = 500, 96
	kernels := vec.Detect()
	base := countsOf(92, n, dim)
	c := &coder{kern: kernels, metric: L2, dim: dim, head: 40, wide: 40, stride: vec.SQ8Line, mean: make([]float32, dim)}
	all := &coder{kern: kernels, metric: L2, dim: dim, head: dim, wide: dim, stride: vec.SQ8Stride(dim), mean: c.mean}
	c.basis = all.mostVaried(sample(base, dim, n), c.head)
	if len(c.basis.picks) != c.head {
		t.Fatalf("%d of %d values are picked", len(c.basis.picks), c.head)
	}
	if p := c.basis.prefix(7); len(p.picks) != 7 {
		t.Errorf("%d of the first 7 are picked", len(p.picks))
	}
	plain := *c
	turning := *c.basis
	turning.picks = nil
	plain.basis = &turning
	w, x := c.newCoded(), plain.newCoded()
	for row := range n {
		v := base[row*dim:][:dim]
		c.turn(v, w)
		plain.turn(v, x)
		for i, want := range w.head {
			if math.Abs(float64(x.head[i]-want)) > 1e-3*float64(kernels.Norm(v)) {
				t.Fatalf("row %d, value %d: %v picked, %v turned", row, i, want, x.head[i])
			}
		}
	}
	other := newBasis([]float32{1, 0, 0, 0.6, 0.8, 0}, 3)
	if other.picks != nil {
		t.Errorf("a direction between values is one value: %v", other.picks)
	}
}

// TestCodesReachFartherWhereThatFindsMore: of values that are 0 mostly and large rarely, what is far from the mean tells rows apart.
func TestCodesReachFartherWhereThatFindsMore(t *testing.T) {
	const n, dim = 6000, 48
	r := rng(93)
	base := make([]float32, n*dim)
	for row := range n {
		for range 3 {
			base[row*dim+r.IntN(dim)] = float32(50 * math.Exp(1.5*r.NormFloat64()))
		}
	}
	kernels := vec.Detect()
	rows := sample(base, dim, trainRows)
	c := &coder{kern: kernels, metric: L2, dim: dim, head: dim, wide: dim, stride: vec.SQ8Stride(dim), mean: make([]float32, dim)}
	c.findMean(rows)
	known := c.nearest(rows)
	usual := *c
	before := usual.train(rows).finds(rows, known)
	far, found, err := c.reaching(t.Context(), rows, known)
	if err != nil {
		t.Fatal(err)
	}
	if found <= before+0.01 || far.finds(rows, known) != found {
		t.Errorf("codes that reach farther find %v, others %v", found, before)
	}
	if far.step[0] <= usual.step[0] {
		t.Errorf("a step of %v where they reach farther, %v before", far.step[0], usual.step[0])
	}
}
