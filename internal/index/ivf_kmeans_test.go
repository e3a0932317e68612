package index

import (
	"bytes"
	"context"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/vec"
)

// TestTheSameRowsMakeTheSameLists, whichever worker is quicker: what an index finds must not differ with what else the
// machine does.
func TestTheSameRowsMakeTheSameLists(t *testing.T) {
	const dim, n, workers, times = 24, 6000, 3, 3
	base := clustered(rng(103), n, dim)
	var first []byte
	for i := range times {
		b, err := Build(context.Background(), Spec{Kind: KindScaNN, Metric: L2, Dim: dim, Lists: 100}, base, BuildOptions{Workers: workers})
		if err != nil {
			t.Fatal(err)
		}
		var image bytes.Buffer
		if _, err := b.WriteTo(&image); err != nil {
			t.Fatal(err)
		}
		if err := b.Close(); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			first = image.Bytes()
		} else if !bytes.Equal(first, image.Bytes()) {
			t.Fatalf("of %d builds of the same rows by %d workers the last is another than the first", i+1, workers)
		}
	}
}

// TestEachWorkerSumsUpItsOwnVectors, also where one of them does the work of all.
func TestEachWorkerSumsUpItsOwnVectors(t *testing.T) {
	const dim, n, lists, workers = 24, 5000, 10, 3
	base, kern := clustered(rng(104), n, dim), vec.Detect()
	c := &centres{dim: dim, n: lists, vectors: slices.Clone(base[:lists*dim])}
	c.pack(L2)
	want := make([]float32, lists*dim)
	for i := range workers {
		alone := newTallies(c, kern, 1, n)[0]
		for piece := range slices.Chunk(base[i*n/workers*dim:(i+1)*n/workers*dim], assignBlock*dim) {
			alone.add(piece)
		}
		for j, x := range alone.sum {
			want[j] += x
		}
	}
	tallies := newTallies(c, kern, workers, n)
	for range 3 {
		got, err := sumUp(context.Background(), tallies, base)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got.sum, want) {
			t.Fatalf("%d workers sum up in another order", workers)
		}
		rows := 0
		for _, count := range got.count {
			rows += count
		}
		if rows != n {
			t.Fatalf("%d of %d vectors are counted", rows, n)
		}
	}
}
