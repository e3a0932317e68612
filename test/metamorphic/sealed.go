package main

import (
	"math"
	"slices"
)

// A read with ignore_growing sees what is served as sealed. What was stored before
// everything was loaded is; what was written later may be sealed by now, or not.

// surelySealed lists those of some rows that a read with ignore_growing must see.
func (a *asking) surelySealed(rows []*row) (out []*row) {
	for _, x := range rows {
		if x.from <= a.m.sealed {
			out = append(out, x)
		}
	}
	return out
}

// whole reports whether the read sees all of these rows, and not only some.
func (a *asking) whole(rows []*row) bool {
	return !a.Sealed || len(a.surelySealed(rows)) == len(rows)
}

// compareSealed compares rows of which some may be growing. Limits leave some out too.
func (a *asking) compareSealed(got []shown, want []*row, outputs []string) error {
	if err := a.compareSome(got, want, outputs); err != nil {
		return err
	}
	if a.K > 0 || a.Offset > 0 {
		return nil
	}
	have := shownKeys(got)
	for _, x := range a.surelySealed(want) {
		if !slices.Contains(have, a.m.keyOf(x)) {
			return a.differs("%v: row %v was stored by operation %d and is not among the sealed ones: got keys %v", &a.q, a.m.keyOf(x), a.m.sealed, have)
		}
	}
	return nil
}

// compareSealedHits: of the rows that are surely sealed, those nearer than the last hit are there.
func (f *found) compareSealedHits(all []scored, hits []shown, scores []float32) error {
	if !f.Sealed || !f.v.exact() || f.Form == formSample || f.Offset > 0 {
		return nil
	}
	last := math.Inf(pick(f.v.falling(), 1, -1))
	if len(hits) == f.K {
		last = float64(scores[len(scores)-1])
	}
	have := shownKeys(hits)
	for _, s := range all {
		near := f.v.better(s.score, last) && math.Abs(s.score-last) > 2*f.slack(s.score)
		if near && s.from <= f.m.sealed && !slices.Contains(have, f.m.keyOf(s.row)) {
			return f.differs("%v: row %v, with %v, was stored by operation %d and is not among the hits: %v", f, f.m.keyOf(s.row), s.score, f.m.sealed, have)
		}
	}
	return nil
}
