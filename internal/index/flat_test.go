package index

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
)

func TestCosineOfVectorsWithoutDirection(t *testing.T) {
	base := []float32{0, 0, 3, 0, -5, 0, 1e-30, 0, 1e30, 0}
	h := newHNSW(t, HNSWOptions{Dim: 2, Metric: Cosine, Capacity: 5}, base)
	insertAll(t, h, 5, 1)
	f := newFlat(t, 2, Cosine, base)
	for _, q := range [][]float32{{1, 0}, {0, 0}, {1e-30, 0}, {1e30, 0}} {
		for name, got := range map[string][]Neighbor{
			"hnsw": h.Search(q, 5, 5, nil, new(Scratch)),
			"flat": f.Search(q, 5, nil, new(Scratch)),
		} {
			if len(got) != 5 {
				t.Errorf("%s, query %v: %v", name, q, got)
			}
			for _, g := range got {
				if score := Cosine.Score(g.Distance); !(score >= -1 && score <= 1) {
					t.Errorf("%s, query %v: row %d has score %v", name, q, g.Row, score)
				}
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	for m := L2; m <= Cosine; m++ {
		if got, err := ParseMetric(m.String()); err != nil || got != m {
			t.Errorf("ParseMetric(%q) = %v, %v", m, got, err)
		}
	}
	if m, err := ParseMetric("cosine"); err != nil || m != Cosine {
		t.Errorf("lower case: %v, %v", m, err)
	}
	_, err := ParseMetric("MANHATTAN")
	if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), "L2, IP, COSINE") {
		t.Errorf("unknown metric: %v", err)
	}
	base := []float32{3, 4}
	for _, c := range []struct {
		m    Metric
		q    []float32
		want float32
	}{{L2, []float32{0, 0}, 25}, {IP, []float32{1, 2}, 11}, {Cosine, []float32{4, -3}, 0}, {Cosine, []float32{6, 8}, 1}, {Cosine, []float32{-3, -4}, -1}} {
		got := newFlat(t, 2, c.m, base).Search(c.q, 1, nil, new(Scratch))
		if score := c.m.Score(got[0].Distance); math.Abs(float64(score-c.want)) > 1e-6 {
			t.Errorf("%s of %v and %v: score %v, want %v", c.m, c.q, base, score, c.want)
		}
	}
	if !L2.Better(1, 2) || !IP.Better(2, 1) || !Cosine.Better(0.5, 0.1) || L2.Better(1, 1) {
		t.Error("Better is wrong")
	}
}

func TestFlatAgainstSort(t *testing.T) {
	const n, dim = 500, 5
	r := rng(10)
	base := clustered(r, n, dim)
	f := newFlat(t, dim, L2, base)
	allowed := bitset.New(n)
	for i := range n {
		if i < 200 || r.IntN(3) == 0 { // full words and sparse ones
			allowed.Add(i)
		}
	}
	q := base[:dim]
	var want []Neighbor
	for i := range n {
		if allowed.Has(i) {
			want = append(want, Neighbor{Row: uint32(i), Distance: f.kern.L2(q, base[i*dim:][:dim])})
		}
	}
	slices.SortFunc(want, Neighbor.Compare)
	for _, k := range []int{1, 10, n, 2 * n} {
		got := f.Search(q, k, allowed, new(Scratch))
		if len(got) != min(k, len(want)) || recall(got, want[:len(got)]) < 1 {
			t.Fatalf("k = %d: %d results", k, len(got))
		}
		wantSorted(t, got, allowed)
	}
}

func TestVisitedIsEmptyAfterReset(t *testing.T) {
	r := rng(11)
	var v visited
	for range 200 {
		n := 1 + r.IntN(5000)
		v.reset(n)
		for row := range n {
			if v.words[row>>6]>>(row&63)&1 != 0 {
				t.Fatalf("row %d of %d is in an empty set", row, n)
			}
		}
		for range r.IntN(300) {
			v.add(uint32(r.IntN(n)))
		}
	}
}
