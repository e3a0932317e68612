package index

import (
	"bytes"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

// heapsAndZeros makes rows in far heaps, one of twenty of which is zero.
func heapsAndZeros(n, dim int, seed uint64) []float32 {
	r := rng(seed)
	heaps := 20
	centres, base := make([]float32, heaps*dim), make([]float32, n*dim)
	for i := range centres {
		centres[i] = 3 * float32(r.NormFloat64())
	}
	for row := range n {
		if r.IntN(20) == 0 {
			continue
		}
		for d := range dim {
			base[row*dim+d] = centres[row%heaps*dim+d] + 0.1*float32(r.NormFloat64())
		}
	}
	return base
}

// TestWalksGetToEveryHeap though equal rows in the middle are nearer to all of them.
func TestWalksGetToEveryHeap(t *testing.T) {
	const n, dim, queries = 12_000, 7, 100
	base := heapsAndZeros(n, dim, 1)
	vectors, r := make([]float32, queries*dim), rng(2)
	for i := range vectors {
		vectors[i] = float32(r.NormFloat64())
	}
	g, b := buildCodes(t, L2, dim, base)
	if !g.seeded {
		t.Fatal("walks begin at one row")
	}
	f := newFlat(t, dim, L2, base)
	var image bytes.Buffer
	if _, err := b.WriteTo(&image); err != nil {
		t.Fatal(err)
	}
	opened, err := Open(alignedCopy(image.Bytes()), base)
	if err != nil {
		t.Fatal(err)
	}
	most := filterOf(n, func(row int) bool { return row%20 != 7 })
	for what, q := range map[string]Query{"all": {K: 10}, "most": {K: 10, Allowed: most}, "many": {K: 400, Effort: 2000}} {
		wantRecall(t, opened, f, vectors, q, 0.95)
		found := 0.0
		var s, exact Scratch
		opened.SearchBatch(vectors, &q, &s, func(i int, rows []Neighbor) {
			found += recall(rows, f.Search(vectors[i*dim:][:dim], q.K, q.Allowed, &exact)) / queries
		})
		if found < 0.95 {
			t.Errorf("%s: recall %.3f in batches", what, found)
		}
	}
	one := make([]float32, n*12)
	for i := range one {
		one[i] = float32(r.NormFloat64())
	}
	if g, _ := buildCodes(t, L2, 12, one); g.seeded {
		t.Error("walks of an ordinary set begin in lists")
	}
}

// TestWalksBeginInTheNearestLists, wherever among all lists these are.
func TestWalksBeginInTheNearestLists(t *testing.T) {
	const n, dim, queries = 20_000, 7, 200
	base := heapsAndZeros(n, dim, 3)
	g, _ := buildCodes(t, L2, dim, base)
	if g.lists.n < seedBlock+1 {
		t.Fatalf("%d lists are compared at once", g.lists.n)
	}
	var s Scratch
	r := rng(4)
	for range queries {
		v := make([]float32, dim)
		for d := range v {
			v[d] = 3 * float32(r.NormFloat64())
		}
		s.begin(g.m0)
		g.prepare(v, &s)
		var got [seedLists]uint32
		found := g.seeds(got[:], &s)
		f := &s.lists
		var keys []uint64
		for l := range g.lists.n {
			keys = append(keys, vec.Key(float32(f.sums[l])*f.aff.Scale+f.aff.Base+f.bias[l], uint32(l)))
		}
		slices.Sort(keys)
		near := map[uint32]bool{}
		for _, key := range keys[:seedLists+1] { // one more: two may be equally near but for rounding
			for _, link := range g.lists.list(uint32(key)) {
				near[link-1] = true
			}
		}
		for _, row := range got[:found] {
			if !near[row] {
				t.Fatalf("row %d is in none of the nearest lists", row)
			}
		}
		if found == 0 {
			t.Fatal("walks begin in no list")
		}
	}
}

// TestWalksThatBeginNearTheQueryOnly find as much as those that get there from one row, too, for less, and their images are not mistaken.
func TestWalksThatBeginNearTheQueryOnly(t *testing.T) {
	const n, dim, queries = 12_000, 7, 200
	base := heapsAndZeros(n, dim, 5)
	g, built := buildCodes(t, L2, dim, base)
	var image bytes.Buffer
	if _, err := built.WriteTo(&image); err != nil {
		t.Fatal(err)
	}
	b := &sqBuilt{g: g, mem: region{bytes: alignedCopy(image.Bytes())}}
	if !g.seeded {
		t.Fatal("walks begin at one row")
	}
	f, vectors := newFlat(t, dim, L2, base), base[:queries*dim]
	search := func(nearOnly bool) (found float64, distances int) {
		g.nearOnly = nearOnly
		var s, exact Scratch
		for i := range queries {
			v := vectors[i*dim:][:dim]
			found += recall(g.Search(v, &Query{K: 10, Effort: 20}, &s), f.Search(v, 10, nil, &exact)) / queries
			distances += s.Stats().Distances
		}
		return found, distances
	}
	both, more := search(false)
	near, less := search(true)
	if near < both-0.01 || less >= more {
		t.Errorf("%.3f are found with %d distances, %.3f with %d by walks that begin near the query only", both, more, near, less)
	}
	if w := g.walkBeside(3, 10, 20, &Scratch{}); slices.ContainsFunc(w.pool, func(key uint64) bool { return poolRow(key) == 3 }) {
		t.Error("a walk for a row meets it")
	}

	b.noteSeeds()
	opened, err := openSQ(b.mem.bytes, base)
	if err != nil || !opened.nearOnly || !opened.seeded {
		t.Fatalf("an opened graph begins near the query only: %v, %v", opened != nil && opened.nearOnly, err)
	}
	if version := b.mem.bytes[8]; version != 8 {
		t.Errorf("its image has version %d, which other builds take for one of theirs", version)
	}
	older := alignedCopy(b.mem.bytes)
	older[8] = 7
	if _, err := openSQ(withChecksum(older), base); errclass.Of(err) != errclass.Corrupt {
		t.Errorf("version 7 that begins near the query only: %v", err)
	}
	alone := alignedCopy(b.mem.bytes)
	alone[44] &^= sqSeeded
	if _, err := openSQ(withChecksum(alone), base); errclass.Of(err) != errclass.Corrupt {
		t.Errorf("walks that begin in lists only, but not in lists: %v", err)
	}
}
