package index

import (
	"testing"

	"github.com/querynode/querynode/internal/bitset"
)

func TestFilteredRecall(t *testing.T) {
	if raceEnabled {
		t.Skip("slow, and has nothing to race with")
	}
	const n, dim = 4000, 12
	r := rng(2)
	base := clustered(r, n+20, dim)
	base, queries := base[:n*dim], base[n*dim:]
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, M: 8, EfConstruction: 48}, base)
	insertAll(t, h, n, 4)
	f := newFlat(t, dim, L2, base)
	for _, selected := range []float64{1, 0.9, 0.5, 0.1, 0.01, 0.001, 0} {
		allowed := bitset.New(n)
		for i := range n {
			if r.Float64() < selected {
				allowed.Add(i)
			}
		}
		got, scanned := meanRecall(t, h, f, queries, 10, 64, allowed)
		if got < 0.95 {
			t.Errorf("%g selected: recall@10 is %.3f", selected, got)
		}
		if want := map[bool]int{true: 20}[selected <= 0.1]; scanned != want {
			t.Errorf("%g selected: %d of 20 searches scanned, want %d", selected, scanned, want)
		}
	}
}

func TestFilterFarFromTheQueryEndsInAScan(t *testing.T) {
	const n, dim = 4000, 8
	r := rng(3)
	base := clustered(r, n, dim)
	for i := range n / 2 { // the second half is elsewhere
		base[(n/2+i)*dim] += 1000
	}
	h := newHNSW(t, HNSWOptions{Dim: dim, Metric: L2, Capacity: n, M: 6, EfConstruction: 40}, base)
	insertAll(t, h, n, 2)
	allowed := bitset.New(n)
	for i := range n / 2 {
		allowed.Add(n/2 + i)
	}
	got, scanned := meanRecall(t, h, newFlat(t, dim, L2, base), base[:10*dim], 10, 16, allowed)
	if got < 0.95 {
		t.Errorf("recall@10 is %.3f", got)
	}
	if scanned == 0 {
		t.Error("no search gave up walking")
	}
}

func TestFilterOlderThanTheRowsHidesThem(t *testing.T) {
	const n, known = 1500, 1000
	base := clustered(rng(12), n, 4)
	h := newHNSW(t, HNSWOptions{Dim: 4, Metric: L2, Capacity: n, M: 4, EfConstruction: 20}, base)
	insertAll(t, h, n, 2)
	var s Scratch
	for q := known; q < n; q += 50 {
		got := h.Search(base[q*4:][:4], 10, 20, allOf(known), &s)
		if wantSorted(t, got, allOf(n)); len(got) != 10 || s.Stats().Scanned {
			t.Fatalf("query %d: %d results, %+v", q, len(got), s.Stats())
		}
		for _, g := range got {
			if g.Row >= known {
				t.Fatalf("query %d: row %d came after the filter", q, g.Row)
			}
		}
	}
	for _, none := range []*bitset.Set{{}, bitset.New(0), bitset.New(n)} {
		if got := h.Search(base[:4], 10, 20, none, &s); len(got) != 0 {
			t.Fatalf("nothing is allowed: %v", got)
		}
		if got := newFlat(t, 4, L2, base).Search(base[:4], 10, none, &s); len(got) != 0 {
			t.Fatalf("flat, nothing is allowed: %v", got)
		}
	}
}
