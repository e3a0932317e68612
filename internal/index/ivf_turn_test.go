package index

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

// shallow is n rows of dim values that vary in few directions, and a little in all.
func shallow(r *rand.Rand, n, dim, few int, noise float64) []float32 {
	turn := make([]float32, few*dim)
	for i := range turn {
		turn[i] = float32(r.NormFloat64())
	}
	base, values := make([]float32, n*dim), make([]float32, few)
	for i := range n {
		shift := float32(r.IntN(6)) * 0.3
		for j := range values {
			values[j] = float32(r.NormFloat64()) + shift
		}
		for d := range dim {
			x := float32(r.NormFloat64() * noise)
			for j, v := range values {
				x += v * turn[j*dim+d]
			}
			base[i*dim+d] = x
		}
	}
	return base
}

func TestCodesAreOfTheDirectionsInWhichRowsDiffer(t *testing.T) {
	const dim, few, n, queries = 96, 10, 4000, 40
	for _, m := range []Metric{L2, Cosine, IP} {
		base := shallow(rng(61), n+queries, dim, few, 0.01)
		f := newFlat(t, dim, m, base[:n*dim])
		for _, kind := range []Kind{KindScaNN, KindIVFSQ8} {
			x := buildIVFFor(t, kind, m, dim, 60, base[:n*dim])
			if m == IP && x.turn == nil {
				continue // the longest rows lie in other directions
			}
			if x.turn == nil || x.width() > dim/2 || x.Info().Params["codes"] != strconv.Itoa(x.width()) {
				t.Fatalf("%s %s: codes of %d of %d values", kind, m, x.width(), dim)
			}
			var out bytes.Buffer
			if _, err := x.WriteTo(&out); err != nil {
				t.Fatal(err)
			}
			opened, err := Open(alignedCopy(out.Bytes()), base[:n*dim])
			if err != nil {
				t.Fatal(err)
			}
			half := bitset.New(n)
			for row := 0; row < n; row += 2 {
				half.Add(row)
			}
			for _, q := range []Query{{K: 10}, {K: 10, Allowed: half}, {K: 100}} {
				wantRecall(t, x, f, base[n*dim:], q, 0.95)
				wantRecall(t, opened, f, base[n*dim:], q, 0.95)
			}
			wantSame(t, x, opened, base[n*dim:])
		}
	}
}

// wantSame checks that two searchers find the same, one by one and in a batch.
func wantSame(t *testing.T, a, b Searcher, queries []float32) {
	t.Helper()
	dim, q := a.Info().Dim, Query{K: 10}
	var s, other Scratch
	batches := map[int][]Neighbor{}
	a.SearchBatch(queries, &q, &s, func(i int, rows []Neighbor) { batches[i] = append(batches[i], rows...) })
	b.SearchBatch(queries, &q, &s, func(i int, rows []Neighbor) { sameRows(t, "batch", batches[i], rows) })
	for i := 0; i < len(queries); i += dim {
		sameRows(t, "one", a.Search(queries[i:i+dim], &q, &s), b.Search(queries[i:i+dim], &q, &other))
	}
}

func sameRows(t *testing.T, what string, want, got []Neighbor) {
	t.Helper()
	if len(want) != len(got) {
		t.Fatalf("%s: %d rows, not %d", what, len(got), len(want))
	}
	for i := range want {
		if want[i] != got[i] {
			t.Fatalf("%s: %v at place %d, not %v", what, got[i], i, want[i])
		}
	}
}

func TestCodesAreOfAllDimensionsWhereRowsDifferInAll(t *testing.T) {
	const dim, n = 64, 3000
	for what, base := range map[string][]float32{
		"noise":             clustered(rng(62), n, dim),
		"few rows":          shallow(rng(63), turnRows-1, dim, 6, 0.01),
		"few dimensions":    shallow(rng(64), n, 2*codedDims-1, 4, 0.01),
		"all rows the same": make([]float32, n*dim),
	} {
		d := dim
		if what == "few dimensions" {
			d = 2*codedDims - 1
		}
		if x := buildIVFFor(t, KindScaNN, L2, d, 20, base); what != "all rows the same" && x.turn != nil {
			t.Errorf("%s: codes of %d of %d values", what, x.width(), d)
		}
	}
}

func TestWhatASampleDoesNotTellIsProven(t *testing.T) {
	const dim, n = 64, 4000
	base := clustered(rng(66), n, dim)
	b := &ivfBuilder{ivf: buildIVFFor(t, KindScaNN, L2, dim, 20, base)}
	other := buildIVFFor(t, KindScaNN, L2, dim, 20, shallow(rng(67), n, dim, 4, 0.01))
	if b.turn != nil || other.turn == nil {
		t.Fatal("the wrong one is turned")
	}
	b.ctx, b.o, b.prog = t.Context(), BuildOptions{Workers: 2}, &progress{}
	b.turn = other.turn // directions that tell nothing of these rows
	for _, step := range []func(int) error{b.cluster, b.assign, b.encode, b.refine} {
		if err := step(20); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.prove(20); err != nil {
		t.Fatal(err)
	}
	if b.turn != nil {
		t.Fatal("codes that do not find the nearest rows were kept")
	}
	wantRecall(t, b.ivf, newFlat(t, dim, L2, base), base[:50*dim], Query{K: 10, Effort: 20}, 0.99)
}

func TestAnImageWithoutDirectionsIsSearched(t *testing.T) {
	const dim, n = 20, 4000
	x, base := manyLists(t, Cosine, dim, n)
	inPairs(t, x)
	var out bytes.Buffer
	if _, err := x.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	image := alignedCopy(out.Bytes())
	binary.LittleEndian.PutUint32(image[8:], 3)
	binary.LittleEndian.PutUint32(image[124:], castagnoli(image[:124]))
	old, err := Open(image, base[:n*dim])
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, x, old, base[n*dim:])
}
