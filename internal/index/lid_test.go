package index

import (
	"math/rand/v2"
	"strings"
	"testing"
)

func TestTheLocalDimensionIsThatOfTheData(t *testing.T) {
	const n, dim = 6000, 40
	for _, c := range []struct{ directions, least, most int }{{3, 2, 4}, {10, 7, 12}, {40, 17, 40}} {
		r := rand.New(rand.NewPCG(1, 2))
		base := make([]float32, n*dim)
		for i := range n {
			for d := range c.directions {
				base[i*dim+d] = float32(r.NormFloat64())
			}
		}
		if got := localDimension(newFlat(t, dim, L2, base).kern, base, dim, L2); got < float64(c.least) || got > float64(c.most) {
			t.Errorf("%d directions: %.1f", c.directions, got)
		}
	}
	if got := localDimension(newFlat(t, 4, L2, make([]float32, 400)).kern, make([]float32, 400), 4, L2); got != 0 {
		t.Errorf("equal rows: %v", got)
	}
}

func TestAutoIndexSaysWhy(t *testing.T) {
	for _, c := range []struct {
		rows, directions int
		kind             Kind
		why              string
	}{
		{1000, 10, KindFlat, "few rows"},
		{5000, 6, KindHNSWSQ, "local intrinsic dimension"},
		{5000, 60, KindScaNN, "5000 rows of a local intrinsic dimension"},
		{50_000, 6, KindHNSWSQ, "local intrinsic dimension"},
		{50_000, 60, KindScaNN, "local intrinsic dimension"},
	} {
		const dim = 60
		r := rand.New(rand.NewPCG(3, 4))
		base := make([]float32, c.rows*dim)
		for i := range base {
			if i%dim < c.directions {
				base[i] = float32(r.NormFloat64())
			}
		}
		if got, why := Choose(Spec{Kind: KindAuto, Metric: L2, Dim: dim}, base); got.Kind != c.kind || !strings.Contains(why, c.why) {
			t.Errorf("%d rows in %d directions: %s, %s", c.rows, c.directions, got.Kind, why)
		}
	}
}

// TestAutoIndexKeepsToItsMemory: what suits the rows best of what takes no more.
func TestAutoIndexKeepsToItsMemory(t *testing.T) {
	const n, dim = 6000, 64
	base := clustered(rng(97), n, dim)
	for i := range base {
		if i%dim >= 16 { // few directions suit a graph
			base[i] /= 4
		}
	}
	f := newFlat(t, dim, L2, base)
	for _, c := range []struct {
		bytes  int
		recall float32
		kind   Kind
		why    string
	}{
		{0, 0, KindHNSWSQ, "a graph suits"},
		{1000, 0.9, KindHNSWSQ, "a graph suits"},
		{270, 0, KindScaNN, "no more than 270 bytes"},
		{50, 0, KindIVFFlat, "no more than 50 bytes"},
		{2, 0, KindFlat, "no index takes as little as 2 bytes"},
		{0, 1, KindFlat, "all of the nearest"},
		{50, 1, KindFlat, "all of the nearest"},
	} {
		b, err := Build(t.Context(), Spec{Kind: KindAuto, Metric: L2, Dim: dim, RowBytes: c.bytes, Recall: c.recall}, base, BuildOptions{Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		i := b.Info()
		if i.Kind != c.kind || !strings.Contains(i.Why, c.why) || c.bytes > 0 && i.Bytes > int64(n*c.bytes) {
			t.Errorf("%d bytes a row, recall %v: %s of %d bytes a row, %s", c.bytes, c.recall, i.Kind, i.Bytes/n, i.Why)
		}
		wantRecall(t, b.Searcher(), f, base[:20*dim], Query{K: 10}, 0.9)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestLargeSegmentsSuitListsEarlier(t *testing.T) {
	for _, c := range []struct {
		rows  int
		local float64
		want  bool
	}{
		{flatBelow + 1, scannDimension, true},
		{50_000, scannDimension, true},
		{50_000, 21, false},
		{scannLargeRows - 1, 21, false},
		{scannLargeRows, 21, true},
		{scannLargeRows, 17, false},
	} {
		if got := suitsLists(c.rows, c.local); got != c.want {
			t.Errorf("%d rows of dimension %.0f: %v", c.rows, c.local, got)
		}
	}
}

// TestAGraphThatWouldWalkTooFarIsNotKept: products of vectors that all point to one side.
func TestAGraphThatWouldWalkTooFarIsNotKept(t *testing.T) {
	const n, dim = 6000, 48
	base := clustered(rng(98), n, dim)
	for i := range base {
		if i%dim >= 12 { // there are few, by distances
			base[i] /= 20
		}
		base[i] += 30
	}
	f := newFlat(t, dim, IP, base)
	b := build(t, Spec{Kind: KindAuto, Metric: IP, Dim: dim}, base)
	if i := b.Info(); i.Kind != KindScaNN || !strings.Contains(i.Why, "a graph would walk") {
		t.Errorf("%s, %s", i.Kind, i.Why)
	}
	wantRecall(t, b.Searcher(), f, base[:20*dim], Query{K: 10}, 0.9)
}

func TestWalksMayBeLongerAmongMoreRows(t *testing.T) {
	for _, c := range []struct {
		rows, effort int
		want         bool
	}{
		{5000, longWalk, false},
		{5000, longWalk + 1, true},
		{longWalkRows, longWalk + 1, true},
		{8 * longWalkRows, 2 * longWalk, false},
		{8 * longWalkRows, 2*longWalk + 1, true},
	} {
		if got := walksTooFar(c.rows, c.effort); got != c.want {
			t.Errorf("%d candidates of %d rows: %v", c.effort, c.rows, got)
		}
	}
}
