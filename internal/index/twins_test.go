package index

import (
	"bytes"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// mostlyEqual are rows of which all but one of so many are equal.
func mostlyEqual(n, dim, but int) []float32 {
	base := clustered(rng(31), n, dim)
	for row := range n {
		if row%but != 0 {
			clear(base[row*dim:][:dim])
		}
	}
	return base
}

// TestRowsEquallyFarComeInTheirOrder, however many are wanted: pages follow one another.
func TestRowsEquallyFarComeInTheirOrder(t *testing.T) {
	const n, dim = 3900, 8
	base := clustered(rng(32), n, dim)
	for row := 5; row < n; row += 13 {
		copy(base[row*dim:][:dim], base[:dim])
	}
	f := newFlat(t, dim, L2, base)
	var s, fs Scratch
	for _, kind := range []Kind{KindHNSW, KindHNSWSQ} {
		b := build(t, Spec{Kind: kind, Metric: L2, Dim: dim, M: 8, EfConstruction: 60}, base)
		var image bytes.Buffer
		if _, err := b.WriteTo(&image); err != nil {
			t.Fatal(err)
		}
		opened, err := Open(alignedCopy(image.Bytes()), base)
		if err != nil {
			t.Fatal(err)
		}
		for what, x := range map[string]Searcher{"built": b.Searcher(), "opened": opened} {
			for _, k := range []int{10, 20, 40} {
				got, want := x.Search(base[:dim], &Query{K: k}, &s), f.Search(base[:dim], k, nil, &fs)
				if s.Stats().Scanned {
					t.Fatalf("%s of %d: nothing was walked", kind, k)
				}
				for i := range want {
					if got[i].Row != want[i].Row {
						t.Fatalf("%s, %s: number %d of %d is row %d: want %d", kind, what, i, k, got[i].Row, want[i].Row)
					}
				}
			}
		}
	}
}

// TestAmongEqualRowsAFilterFindsThoseItAllows: looking whether one is takes as many steps as finding it.
func TestAmongEqualRowsAFilterFindsThoseItAllows(t *testing.T) {
	const n, dim = 3000, 8
	base := mostlyEqual(n, dim, 24)
	g := build(t, Spec{Kind: KindHNSWSQ, Metric: L2, Dim: dim}, base).Searcher().(*sqGraph)
	f := newFlat(t, dim, L2, base)
	query := slices.Repeat([]float32{0.001}, dim)
	var s, fs Scratch
	for _, from := range []int{0, n / 2, n * 6 / 10} {
		allowed := filterOf(n, func(row int) bool { return row >= from })
		got, want := g.Search(query, &Query{K: 10, Effort: 10, Allowed: allowed}, &s), f.Search(query, 10, allowed, &fs)
		if s.Stats().Scanned {
			t.Fatal("nothing was walked")
		}
		for i := range want {
			if i >= len(got) || got[i].Row != want[i].Row {
				t.Fatalf("from row %d on: %v: want %v", from, got, want)
			}
		}
	}
}

// TestOfEqualRowsAsManyAreRankedAsAreWanted, and those that are not are still found.
func TestOfEqualRowsAsManyAreRankedAsAreWanted(t *testing.T) {
	const n, dim, k = 8000, 8, 10
	base := mostlyEqual(n, dim, 50)
	g := build(t, Spec{Kind: KindHNSWSQ, Metric: L2, Dim: dim}, base).Searcher().(*sqGraph)
	f := newFlat(t, dim, L2, base)
	query := slices.Repeat([]float32{0.001}, dim)
	var s, fs Scratch
	for name, allowed := range map[string]*bitset.Set{"all": nil, "most": filterOf(n, func(row int) bool { return row%10 > 1 })} {
		got, want := g.Search(query, &Query{K: k, Allowed: allowed}, &s), f.Search(query, k, allowed, &fs)
		if ranked := s.Stats().Ranked; ranked > 200 {
			t.Errorf("%s: %d rows were ranked", name, ranked)
		}
		for i := range want {
			if got[i].Row != want[i].Row {
				t.Fatalf("%s: %v: want %v", name, got, want)
			}
		}
	}
	var stop atomic.Bool
	stop.Store(true)
	s.Stop = &stop
	s.begin(g.m0)
	sq := g.prepare(query, &s)
	if g.rank(query, &sq, []uint64{vec.Key(0, 1)}, k, nil, &s); !s.Stats().Stopped {
		t.Error("a chain of equal rows is followed to its end though the search is to stop")
	}
}

// TestEqualRowsOfTheSameCodeFollowOneAnother: others of the code, which are not equal, come between them.
func TestEqualRowsOfTheSameCodeFollowOneAnother(t *testing.T) {
	base := []float32{7, 7, 8, 7, 8, 9, 8, 7}
	b := &sqBuilder{g: &sqGraph{space: space{dim: 1, base: base}, code: &coder{stride: 1}, rows: len(base), records: make([]byte, len(base)), upperOff: make([]uint32, len(base)+1)}}
	b.findTwins()
	s := &Scratch{}
	var rows []uint32
	var equal []bool
	for row, ok := uint32(0), true; ok; row, ok = b.g.follow(row, s) {
		rows, equal = append(rows, row), append(equal, b.g.equalNext(row))
	}
	if !slices.Equal(rows, []uint32{0, 1, 3, 7, 2, 4, 6, 5}) || !slices.Equal(equal, []bool{true, true, true, false, true, true, false, false}) {
		t.Fatalf("%v, equal to the next: %v", rows, equal)
	}
}
