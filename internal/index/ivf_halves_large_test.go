package index

import (
	"math"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// TestQueriesThatAreTooLargeAreNotComparedByHalves, be it they or what their distances have in common.
func TestQueriesThatAreTooLargeAreNotComparedByHalves(t *testing.T) {
	p := plan{k: 10, halves: new(vec.HalfRows)}
	for _, c := range []struct {
		square, add float64
		good        bool
	}{{1, -1, true}, {halfMost, -halfMost, true}, {2 * halfMost, 1, false}, {1, 2 * halfMost, false}, {1, -2 * halfMost, false},
		{math.NaN(), 1, false}, {1, math.NaN(), false}, {math.Inf(1), 1, false}} {
		q := fineQuery{square: c.square, add: c.add}
		if got := p.halvesFor(&q) != nil; got != c.good {
			t.Errorf("a square of %v and %v in common: compared by halves: %v", c.square, c.add, got)
		}
	}
}

// TestStepsThatAreTooLargeHaveNoHalves: by IP the bias of a row says nothing of how long it is.
func TestStepsThatAreTooLargeHaveNoHalves(t *testing.T) {
	const dim, n = 80, 3000
	base := gauss(107, n, dim)
	for i := range base {
		base[i] *= 1e15
	}
	x := buildIVFFor(t, KindScaNN, IP, dim, 30, base)
	if of := allHalves(x); of != nil {
		t.Error("rows of lengths of 1e16 have codes of half a byte")
	}
	if x.kern.HalfFast() && (x.halves.of.Load() == nil || sizeOf(x) != 0) {
		t.Errorf("it is not known that they have none, or %d bytes are kept", sizeOf(x))
	}
}

// TestARoughDistanceIsNotToldByCodes: a single value makes up nearly all of a row and of the query, so that what rounding takes from each of the
// others is much beside the distance.
func TestARoughDistanceIsNotToldByCodes(t *testing.T) {
	const dim, n, near = 128, 600, 60 // of 12 bits
	base := gauss(108, n, dim)
	for row := range n {
		at := base[row*dim:][:dim]
		for d := range at {
			at[d] *= 0.04
		}
		at[row/near] += 100 // the first rows are near to one another
	}
	sp, f := fineOf(t, L2, dim, base)
	query := base[:dim]
	var s Scratch
	f.prepare(query, &s.fine)
	ids := make([]uint32, near-1)
	for i := range ids {
		ids[i] = uint32(i + 1)
	}
	got, want := make([]float32, len(ids)), make([]float32, len(ids))
	f.refine(sp, query, sp.scale(query), ids, got, &s)
	sp.byID(query, sp.scale(query), ids, want)
	for i := range ids {
		if d := float64(want[i]); d < nearFloat*s.fine.square {
			t.Fatalf("row %d is at %v of a square of %v: too near for any code", ids[i], d, s.fine.square)
		}
		if off := math.Abs(float64(got[i] - want[i])); off > 1e-5*float64(want[i]) { // as by several at a time
			t.Errorf("row %d is at %v, exactly %v", ids[i], got[i], want[i])
		}
	}
	if s.stats.Exact != len(ids) {
		t.Errorf("%d of %d rows were told by their vectors", s.stats.Exact, len(ids))
	}
}
