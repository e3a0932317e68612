package index

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// uneven returns vectors in clusters of very different spread: around some there are many at nearly
// the same distance, around others few that are near.
func uneven(r *rand.Rand, n, dim int) []float32 {
	const clusters = 40
	centres, spread := make([]float32, clusters*dim), make([]float32, clusters)
	for i := range centres {
		centres[i] = float32(r.NormFloat64())
	}
	for i := range spread {
		spread[i] = float32(math.Exp(0.7 * r.NormFloat64()))
	}
	base := make([]float32, n*dim)
	for i := range n {
		c := r.IntN(clusters)
		for d := range dim {
			base[i*dim+d] = centres[c*dim+d] + spread[c]*float32(r.NormFloat64())
		}
	}
	return base
}

// walks is what searches for queries find and do: the mean recall of ten rows and the mean of rows followed.
func walks(t *testing.T, g *sqGraph, f *Flat, queries []float32, ef int) (found, hops float64) {
	t.Helper()
	var s, exact Scratch
	for v := range slices.Chunk(queries, g.dim) {
		want := f.Search(v, 10, nil, &exact)
		found += recall(g.Search(v, &Query{K: 10, Effort: ef}, &s), want)
		if s.Stats().Scanned {
			t.Fatalf("ef %d: scanned", ef)
		}
		hops += float64(s.Stats().Hops)
	}
	n := float64(len(queries) / g.dim)
	return found / n, hops / n
}

// byEf is a graph whose walks end when ef rows have been followed.
func byEf(g *sqGraph) *sqGraph {
	to := *g
	to.ending = ending{}
	return &to
}

func TestWalksThatEndByDistanceFindAsMuch(t *testing.T) {
	const n, dim, asked = 6000, 16, 200
	all := uneven(rng(41), n+asked, dim)
	base, queries := all[:n*dim], all[n*dim:]
	off := slices.Clone(base[:asked*dim]) // unlike the rows
	r := rng(42)
	for i := range off {
		off[i] += 2 * float32(r.NormFloat64())
	}
	for _, m := range []Metric{L2, IP, Cosine} {
		g, b := buildCodes(t, m, dim, base)
		if !g.ending.exists() {
			t.Fatalf("%s: %+v", m, g.ending)
		}
		if again := reopened(t, b, base).(*sqGraph).ending; again != g.ending {
			t.Errorf("%s: %+v in the image, %+v built", m, again, g.ending)
		}
		f := newFlat(t, dim, m, base)
		for _, ef := range []int{25, 40} {
			found, hops := walks(t, g, f, queries, ef)
			fixed, fixedHops := walks(t, byEf(g), f, queries, ef)
			if found < fixed-0.005 || hops > 1.35*fixedHops {
				t.Errorf("%s, ef %d: recall %.4f after %.1f rows, by ef %.4f after %.1f", m, ef, found, hops, fixed, fixedHops)
			}
			found, hops = walks(t, g, f, off, ef)
			same, _ := walks(t, byEf(g), f, off, int(float64(ef)*hops/fixedHops))
			if found < same-0.01 || hops > endMost*float64(ef)+20 {
				t.Errorf("%s, ef %d, queries unlike the rows: recall %.4f after %.1f rows, by ef %.4f", m, ef, found, hops, same)
			}
		}
	}
}

func TestFewRowsWantedAndLittleWorkEndByEf(t *testing.T) {
	const n, dim = 4200, 8
	base := uneven(rng(43), n, dim)
	g, _ := buildCodes(t, L2, dim, base)
	var s Scratch
	for _, q := range []Query{{K: 10, Effort: 24}, {K: 1, Effort: 24}, {K: 30, Effort: 70}} {
		for v := range slices.Chunk(base[:50*dim], dim) {
			got := slices.Clone(g.Search(v, &q, &s))
			st := s.Stats()
			if want := byEf(g).Search(v, &q, &s); !slices.Equal(got, want) || st != s.Stats() {
				t.Fatalf("%+v: %+v, by ef %+v", q, st, s.Stats())
			}
		}
	}
}

func TestAWalkFollowsHalfToOneAndAHalfEf(t *testing.T) {
	const n, dim, ef = 4200, 8, 40
	base := uneven(rng(44), n, dim)
	g, _ := buildCodes(t, L2, dim, base)
	v := base[:dim]
	for _, c := range []struct {
		typical     float32
		least, most int
	}{{1e-30, ef / 2, ef}, {1e30, 3 * ef / 2, 2 * ef}} {
		h := byEf(g)
		h.ending = ending{near: 1, far: 1, typical: c.typical} // e is next to nothing, but times 1e30
		h.shares = nil                                         // batches walk
		var s Scratch
		h.Search(v, &Query{K: 10, Effort: ef}, &s)
		if hops := s.Stats().Hops; hops < c.least || hops > c.most {
			t.Errorf("%g: %d rows followed, want %d to %d", c.typical, hops, c.least, c.most)
		}
		told := 0
		h.SearchBatch(base[:20*dim], &Query{K: 10, Effort: ef}, &s, func(_ int, rows []Neighbor) {
			if told++; len(rows) != 10 {
				t.Errorf("%d rows in a batch", len(rows))
			}
		})
		if hops := s.Stats().Hops; told != 20 || hops < 20*c.least || hops > 20*c.most {
			t.Errorf("%g: %d queries of a batch follow %d rows", c.typical, told, hops)
		}
	}
}

func TestRowsNextToEqualAreStillTold(t *testing.T) {
	const n, dim, copies = 6000, 16, 12
	r := rng(45)
	base := uneven(r, n, dim)
	for i := range n / 3 {
		from := i / copies * copies
		for d := range dim {
			base[i*dim+d] = base[from*dim+d] + 0.05*float32(r.NormFloat64())
		}
	}
	queries := append(slices.Clone(base[:100*dim]), base[(n-100)*dim:]...)
	for _, m := range []Metric{L2, Cosine} {
		g, _ := buildCodes(t, m, dim, base)
		f := newFlat(t, dim, m, base)
		for _, ef := range []int{25, 60} {
			found, _ := walks(t, g, f, queries, ef)
			fixed, _ := walks(t, byEf(g), f, queries, ef)
			if found < fixed-0.01 {
				t.Errorf("%s ef %d: recall %.4f, by ef %.4f", m, ef, found, fixed)
			}
		}
	}
}

func TestEndingsAreMeasuredAlikeByAnyNumberOfWorkers(t *testing.T) {
	const n, dim = 4200, 8
	_, b := buildCodes(t, Cosine, dim, uneven(rng(46), n, dim))
	built := b.(*sqBuilt)
	first, image := built.g.ending, slices.Clone(built.mem.bytes)
	for _, workers := range []int{1, 4} {
		built.g.ending = ending{}
		if err := built.learnEnding(t.Context(), workers); err != nil {
			t.Fatal(err)
		}
		if built.g.ending != first || !bytes.Equal(image, built.mem.bytes) {
			t.Errorf("%d workers: %+v, %+v before", workers, built.g.ending, first)
		}
	}
}

func TestImagesFromBeforeThereWereEndingsEndByEf(t *testing.T) {
	image, base := endingImage(t)
	x, err := Open(before4(t, image), base)
	if err != nil {
		t.Fatal(err)
	}
	if g := x.(*sqGraph); g.ending.exists() {
		t.Errorf("%+v", g.ending)
	}
}

// endingImage is the image of a graph whose walks end by distance.
func endingImage(t *testing.T) (image []byte, base []float32) {
	t.Helper()
	const n, dim = 4200, 6
	base = uneven(rng(47), n, dim)
	g, b := buildCodes(t, L2, dim, base)
	if !g.ending.exists() {
		t.Fatal("ends by ef")
	}
	var out bytes.Buffer
	if _, err := b.WriteTo(&out); err != nil {
		t.Fatal(err)
	}
	return alignedCopy(out.Bytes()), base
}

func TestDamagedEndingsAreRefusedOrHarmless(t *testing.T) {
	good, base := endingImage(t)
	const dim, ef = 6, 60
	for _, c := range []struct {
		near, far uint16
		typical   float64
		ok        bool
	}{
		{100, 100, math.NaN(), false},
		{100, 100, -1, false},
		{100, 100, math.Inf(1), false},
		{math.MaxUint16, math.MaxUint16, math.MaxFloat32, true},
		{1, math.MaxUint16, 1e-38, true},
		{math.MaxUint16, 1, 1, true},
		{0, math.MaxUint16, 1, true},
		{100, 100, 0, true},
	} {
		image := alignedCopy(good)
		(&ending{near: c.near, far: c.far, typical: float32(c.typical)}).put(image)
		x, err := Open(withChecksum(image), base)
		if !c.ok {
			if errclass.Of(err) != errclass.Corrupt {
				t.Errorf("%+v: %v", c, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", c, err)
			continue
		}
		var s Scratch
		for v := range slices.Chunk(base[:50*dim], dim) {
			if got := x.Search(v, &Query{K: 10, Effort: ef}, &s); len(got) != 10 || s.Stats().Hops > 2*ef {
				t.Fatalf("%+v: %d rows, %+v", c, len(got), s.Stats())
			}
		}
		for _, v := range []float32{0, 1e30, -1e30, float32(math.Inf(1)), float32(math.NaN())} {
			x.Search(slices.Repeat([]float32{v}, dim), &Query{K: 10, Effort: ef}, &s)
			if s.Stats().Hops > 2*ef {
				t.Errorf("%+v, values %v: %+v", c, v, s.Stats())
			}
		}
	}
}
