package index

import (
	"context"
	"math"
	"testing"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// closed is what was built, and how often it was closed.
type closed struct {
	Built
	times int
}

func (c *closed) Close() error {
	c.times++
	return c.Built.Close()
}

// TestWhatIsNotTakenIsClosed, for a graph that is being built is outside of the Go heap, and what is taken is not.
func TestWhatIsNotTakenIsClosed(t *testing.T) {
	const n, dim = 5000, 48
	kernels := vec.Detect()
	o := BuildOptions{Kernels: &kernels, Workers: 2}
	spec := Spec{Kind: KindHNSWSQ, Metric: L2, Dim: dim}
	r := rng(76)
	base := make([]float32, n*dim) // rows of unlike lengths in all directions: lists find too little
	for row := range n {
		by := math.Exp(r.NormFloat64())
		for d := range dim {
			base[row*dim+d] = float32(by * r.NormFloat64())
		}
	}
	// farther is a graph of the same rows that has to walk through nearly all of them.
	farther := func(b Built) *sqGraph {
		of := b.Searcher().(*sqGraph)
		g := &sqGraph{space: of.space, rows: of.rows, code: of.code}
		g.shares = shareTable{{rows: calibrateK, effort: uint32(g.rows), found: shareAll * 975 / 1000}}
		if effort := g.shares.effort(calibrateK, usualRecall); !walksTooFar(g.rows, effort) {
			t.Fatalf("a walk of %d candidates of %d rows is not too far", effort, g.rows)
		}
		return g
	}
	graph := func(base []float32) *closed {
		b, err := buildKind(t.Context(), spec, base, o, "")
		if err != nil {
			t.Fatal(err)
		}
		return &closed{Built: b}
	}

	few := clustered(rng(77), 2000, dim)
	b := graph(few)
	got, err := buildDoubted(t.Context(), spec, few, o, b, farther(b.Built))
	if err != nil {
		t.Fatal(err)
	}
	if kind := got.Info().Kind; kind != KindScaNN || b.times != 1 {
		t.Errorf("%s is taken in place of a graph that walks too far, which is closed %d times", kind, b.times)
	}
	_ = got.Close()

	b = graph(few)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := buildDoubted(ctx, spec, few, o, b, farther(b.Built)); !errors.Is(err, context.Canceled) || b.times != 1 {
		t.Errorf("given up: %v, and the graph is closed %d times", err, b.times)
	}

	b = graph(base)
	got, err = buildDoubted(t.Context(), spec, base, o, b, farther(b.Built))
	if err != nil {
		t.Fatal(err)
	}
	if got != Built(b) || b.times != 0 {
		t.Errorf("%s is taken, though lists find too little; the graph is closed %d times", got.Info().Kind, b.times)
	}
	_ = got.Close()

	lists, err := buildKind(t.Context(), Spec{Kind: KindScaNN, Metric: L2, Dim: dim}, few, o, "")
	if err != nil {
		t.Fatal(err)
	}
	b = &closed{Built: lists}
	got, err = buildInstead(t.Context(), spec, few, o, b, lists.Searcher().(*ivf))
	if err != nil {
		t.Fatal(err)
	}
	if kind := got.Info().Kind; kind != KindHNSWSQ || b.times != 1 {
		t.Errorf("%s is taken in place of lists, which are closed %d times", kind, b.times)
	}
	_ = got.Close()
}
