package index

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/vec"
)

func fineOf(tb testing.TB, m Metric, dim int, base []float32) (*space, fine) {
	tb.Helper()
	rows := len(base) / dim
	sp := &space{kern: vec.Detect(), metric: m, dim: dim, base: base}
	if m == Cosine {
		sp.inv = make([]float32, rows)
		for r := range sp.inv {
			sp.inv[r] = sp.kern.InvNorm(sp.vector(uint32(r)))
		}
	}
	c := &coder{kern: sp.kern, metric: m, dim: dim, head: dim, wide: dim, stride: vec.SQ8Stride(dim), mean: make([]float32, dim)}
	c.findMean(sampled{base: base, dim: dim})
	bits := fineBits(dim)
	f := newFine(sp, c.mean, bits, make([]byte, rows*fineStride(dim, bits)))
	if !f.exists() {
		tb.Fatalf("no fine codes of %d dimensions", dim)
	}
	flat := make([]float32, dim)
	for r := range rows {
		f.put(uint32(r), sp.vector(uint32(r)), flat)
	}
	return sp, f
}

func TestFineCodesTellDistancesToFourDigits(t *testing.T) {
	for _, dim := range []int{16, 17, 63, 64, 65, 100, 128, 447, 448, 768} {
		for _, m := range []Metric{L2, IP, Cosine} {
			t.Run(fmt.Sprintf("%s/%d", m, dim), func(t *testing.T) {
				const rows = 300
				base := clustered(rng(uint64(dim)), rows+5, dim)
				base, queries := base[:rows*dim], base[rows*dim:]
				sp, f := fineOf(t, m, dim, base)
				ids, got, want := make([]uint32, rows), make([]float32, rows), make([]float32, rows)
				for i := range ids {
					ids[i] = uint32(i)
				}
				var s Scratch
				for at := 0; at < len(queries); at += dim {
					q := queries[at : at+dim]
					f.prepare(q, &s.fine)
					f.refine(sp, q, sp.scale(q), ids, got, &s)
					sp.byID(q, sp.scale(q), ids, want)
					for i := range ids {
						size := math.Abs(float64(want[i]))
						if m == IP { // a product may be any part of the lengths
							size = math.Sqrt(float64(sp.kern.Dot(q, q)) * float64(sp.kern.Dot(sp.vector(ids[i]), sp.vector(ids[i]))))
						}
						if off := math.Abs(float64(got[i]-want[i])) / size; !(off < 1e-3) {
							t.Fatalf("row %d: %v, exactly %v", i, got[i], want[i])
						}
					}
				}
			})
		}
	}
}

func TestFineCodesLeaveWhatTheyCannotTellToTheVectors(t *testing.T) {
	const dim, rows = 40, 50
	base := clustered(rng(3), rows, dim)
	clear(base[:dim])     // no direction
	base[dim] = 3e38      // its square is no number
	base[2*dim+1] = -3e38 // the same
	for _, m := range []Metric{L2, IP, Cosine} {
		sp, f := fineOf(t, m, dim, base)
		for _, q := range [][]float32{sp.vector(0), sp.vector(1), sp.vector(9)} {
			ids, got, want := []uint32{0, 1, 2, 9}, make([]float32, 4), make([]float32, 4)
			var s Scratch
			f.prepare(q, &s.fine)
			f.refine(sp, q, sp.scale(q), ids, got, &s)
			sp.byID(q, sp.scale(q), ids, want)
			for i := range ids {
				off := math.Abs(float64(got[i] - want[i]))
				if m == Cosine && off <= 1e-6 { // what a float32 near to 1 tells, of which either is left
					continue
				}
				if got[i] != want[i] && !(off <= 1e-3*math.Abs(float64(want[i])) || m == IP && off <= 1e-3*float64(sp.kern.Dot(q, q)) || math.IsNaN(float64(want[i]))) {
					t.Errorf("%s, row %d: %v, exactly %v", m, ids[i], got[i], want[i])
				}
			}
		}
	}
}

// Images of version 1 had no fine codes behind the rest.
func TestImagesWithoutFineCodesAreRead(t *testing.T) {
	const n, dim = 800, 24
	base := clustered(rng(12), n+10, dim)
	base, queries := base[:n*dim], base[n*dim:]
	for _, kind := range []Kind{KindHNSWSQ, KindScaNN} {
		b := build(t, Spec{Kind: kind, Metric: L2, Dim: dim, EfConstruction: testEf}, base)
		if x, ok := b.Searcher().(*ivf); ok {
			inPairs(t, x)
		}
		var out bytes.Buffer
		if _, err := b.WriteTo(&out); err != nil {
			t.Fatal(err)
		}
		image := alignedCopy(out.Bytes())
		fineAt, sizeAt, cut := 96, 72, aligned(uint64(n*fineStride(dim, fineBits(dim))))
		if kind == KindScaNN {
			fineAt, sizeAt, cut = 36, 56, cut+aligned(4*dim)
		}
		le := binary.LittleEndian
		le.PutUint32(image[8:], 1)
		if _, err := Open(reheaded(image), base); errclass.Of(err) != errclass.Corrupt {
			t.Errorf("%s: fine codes in version 1: %v", kind, err)
		}
		le.PutUint32(image[fineAt:], 0)
		le.PutUint64(image[sizeAt:], uint64(len(image))-cut)
		x, err := Open(reheaded(image[:uint64(len(image))-cut]), base)
		if err != nil {
			t.Fatal(err)
		}
		wantRecall(t, x, newFlat(t, dim, L2, base), queries, Query{K: 10}, 0.9)
	}
}

// reheaded puts the checksum of a header right.
func reheaded(image []byte) []byte {
	binary.LittleEndian.PutUint32(image[124:], castagnoli(image[:124]))
	return image
}
