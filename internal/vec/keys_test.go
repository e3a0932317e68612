package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// guarded is n keys, some of them equal if so many values are few, and what must not change behind them.
func guarded(r *rand.Rand, n int, values uint64) []uint64 {
	keys := make([]uint64, n, n+16)
	for i := range keys {
		if keys[i] = r.Uint64(); values > 0 {
			keys[i] = keys[i] % values * (math.MaxUint64 / max(values-1, 1))
		}
	}
	for i := range 16 {
		keys[:n+16][n+i] = uint64(i)
	}
	return keys
}

func checkGuard(t *testing.T, k Kernels, keys []uint64) {
	t.Helper()
	for i, v := range keys[len(keys) : len(keys)+16] {
		if v != uint64(i) {
			t.Fatalf("%s: wrote past the end of %d keys", k.Level(), len(keys))
		}
	}
}

func checkSplit(t *testing.T, k Kernels, keys []uint64, pivot uint64) {
	t.Helper()
	want, all := 0, slices.Sorted(slices.Values(keys))
	for _, key := range keys {
		if key < pivot {
			want++
		}
	}
	n := k.Split(keys, pivot)
	checkGuard(t, k, keys)
	for i, key := range keys {
		if (key < pivot) != (i < n) {
			t.Fatalf("%s: of %d keys %d are below the pivot, but %d is in place %d", k.Level(), len(keys), n, key, i)
		}
	}
	if n != want || !slices.Equal(slices.Sorted(slices.Values(keys)), all) {
		t.Fatalf("%s: %d of %d keys are below the pivot, not %d, or some are others now", k.Level(), want, len(keys), n)
	}
}

func checkSort(t *testing.T, k Kernels, keys []uint64) {
	t.Helper()
	want := slices.Sorted(slices.Values(keys))
	k.Sort(keys)
	checkGuard(t, k, keys)
	if !slices.Equal(keys, want) {
		t.Fatalf("%s: %d keys are not in order", k.Level(), len(keys))
	}
}

func TestKeysAreSplitAtAPivot(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range levels(t) {
		for n := range 70 {
			for _, values := range []uint64{0, 1, 2, 9} {
				keys := guarded(r, n, values)
				pivots := []uint64{0, math.MaxUint64, math.MaxUint64 / 2, 1}
				if n > 0 {
					pivots = append(pivots, keys[r.IntN(n)])
				}
				for _, pivot := range pivots {
					checkSplit(t, k, keys, pivot)
				}
			}
		}
		for _, n := range []int{splitMost - 1, splitMost, splitMost + 1, 3*splitMost + 7} {
			for _, part := range []uint64{1, 4, 9, 15, 16} { // sixteenths below the pivot
				checkSplit(t, k, guarded(r, n, 0), math.MaxUint64/16*part)
			}
		}
	}
}

func TestKeysAreSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, k := range levels(t) {
		for n := range sortMost + 5 {
			for _, values := range []uint64{0, 1, 2, 9, 1000} {
				checkSort(t, k, guarded(r, n, values))
			}
		}
	}
}

func FuzzKeysAreSplitAndSorted(f *testing.F) {
	f.Add(uint64(1), uint16(100), uint64(0), uint64(1<<63))
	f.Add(uint64(1), uint16(2000), uint64(5), uint64(7))
	f.Fuzz(func(t *testing.T, seed uint64, n uint16, values, pivot uint64) {
		for _, k := range levels(t) {
			keys := guarded(rand.New(rand.NewPCG(seed, 5)), int(n)%3000, values)
			checkSplit(t, k, keys, pivot)
			checkSort(t, k, keys)
		}
	})
}

// odd are distances whose keys are easily got wrong.
var odd = []float32{
	0, float32(math.Copysign(0, -1)), float32(math.Inf(1)), float32(math.Inf(-1)), float32(math.NaN()), -float32(math.NaN()),
	math.MaxFloat32, -math.MaxFloat32, math.SmallestNonzeroFloat32, -math.SmallestNonzeroFloat32, 1, -1,
}

func checkKeys(t *testing.T, k Kernels, dist []float32, rows []uint32, add uint32) {
	t.Helper()
	keys := make([]uint64, len(dist)+1)
	keys[len(dist)] = 77
	k.Keys(dist, rows, add, keys)
	for i, d := range dist {
		if want := Key(d, rows[i]+add); keys[i] != want {
			t.Fatalf("%s: the key of %v in row %d is %x, not %x", k.Level(), d, rows[i]+add, keys[i], want)
		}
	}
	if keys[len(dist)] != 77 {
		t.Fatalf("%s: wrote past the end of %d keys", k.Level(), len(dist))
	}
}

func TestKeysOfDistances(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for _, k := range levels(t) {
		for n := range 40 {
			dist, rows := make([]float32, n), make([]uint32, n)
			for i := range dist {
				dist[i], rows[i] = float32(r.NormFloat64()), r.Uint32()
				if r.IntN(3) == 0 {
					dist[i] = odd[r.IntN(len(odd))]
				}
			}
			checkKeys(t, k, dist, rows, r.Uint32())
		}
	}
}

func FuzzKeysOfDistances(f *testing.F) {
	f.Add(uint32(0x7fc00001), uint32(0x80000000), uint32(5), uint32(math.MaxUint32), uint8(9))
	f.Fuzz(func(t *testing.T, a, b, row, add uint32, n uint8) {
		dist, rows := make([]float32, n), make([]uint32, n)
		for i := range dist {
			dist[i], rows[i] = math.Float32frombits(a), row
			a, b, row = b, a*0x9e3779b1+uint32(i), row+add
		}
		for _, k := range levels(t) {
			checkKeys(t, k, dist, rows, add)
		}
	})
}

func BenchmarkKeys(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, k := range levels(b) {
		for _, n := range []int{32, 64, 128, 256, 512} {
			all := guarded(r, n, 0)
			keys, dist, rows := make([]uint64, n), make([]float32, n), make([]uint32, n)
			for i := range dist {
				dist[i], rows[i] = float32(r.NormFloat64()), uint32(i)
			}
			run := func(what string, do func()) {
				b.Run(fmt.Sprintf("%s/%d/%s", what, n, k.Level()), func(b *testing.B) {
					for b.Loop() {
						copy(keys, all)
						do()
					}
				})
			}
			run("Split", func() { k.Split(keys, math.MaxUint64/3) })
			run("Sort", func() { k.Sort(keys) })
			run("Keys", func() { k.Keys(dist, rows, 1000, keys) })
		}
	}
}
