package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// Every level says the same of the same values, at all edges.
func FuzzWithin(f *testing.F) {
	f.Add(uint64(1), int64(-3), int64(4), 64)
	f.Add(uint64(2), int64(math.MinInt64), int64(math.MaxInt64), 200)
	f.Add(uint64(3), int64(5), int64(1), 1000)
	f.Add(uint64(4), int64(0), int64(0), 63)
	f.Fuzz(func(t *testing.T, seed uint64, lo, hi int64, n int) {
		if n < 0 || n > 2000 {
			return
		}
		r := rand.New(rand.NewPCG(seed, 1))
		edges := []int64{lo, hi, lo - 1, hi + 1, 0, -1, math.MinInt64, math.MaxInt64}
		ints, doubles, floats := make([]int64, n), make([]float64, n), make([]float32, n)
		for i := range ints {
			ints[i] = edges[r.IntN(len(edges))] + int64(r.IntN(3)) - 1
			doubles[i] = []float64{float64(ints[i]), math.NaN(), math.Inf(1), math.Inf(-1), math.Copysign(0, -1)}[r.IntN(5)]
			floats[i] = float32(doubles[i])
		}
		list := edges[:r.IntN(len(edges)+1)]
		for _, k := range levels(t) {
			for what, call := range map[string]func(k Kernels, out []uint64) int{
				"int64":   func(k Kernels, out []uint64) int { return k.WithinInt64(ints, lo, hi, out) },
				"float64": func(k Kernels, out []uint64) int { return k.WithinFloat64(doubles, float64(lo), float64(hi), out) },
				"float32": func(k Kernels, out []uint64) int { return k.WithinFloat32(floats, float32(lo), float32(hi), out) },
				"equal":   func(k Kernels, out []uint64) int { return k.EqualInt64(ints, list, out) },
			} {
				want, got := make([]uint64, n/64+1), make([]uint64, n/64+1)
				want[n/64], got[n/64] = 42, 42 // not to be touched
				words := call(Kernels{}, want)
				if call(k, got) != words || words != n/64 || !slices.Equal(got, want) {
					t.Fatalf("%s %s: %d words %x, want %d words %x", k, what, words, got, n/64, want)
				}
			}
		}
	})
}

func BenchmarkWithin(b *testing.B) {
	v := make([]int64, 1<<16)
	for i := range v {
		v[i] = int64(i % 1000)
	}
	list := []int64{1, 2, 3, 5, 8, 13, 21, 34, 55, 89}
	out := make([]uint64, len(v)/64)
	for _, k := range append(levels(b), Kernels{}) {
		b.Run("range/"+k.String(), func(b *testing.B) {
			b.SetBytes(int64(8 * len(v)))
			for b.Loop() {
				k.WithinInt64(v, 100, 500, out)
			}
		})
		b.Run(fmt.Sprintf("in%d/%s", len(list), k), func(b *testing.B) {
			b.SetBytes(int64(8 * len(v)))
			for b.Loop() {
				k.EqualInt64(v, list, out)
			}
		})
	}
}
