package vec

import (
	"math/rand/v2"
	"testing"
)

// checkFine compares the sums of rows at the very end of memory with plain products.
func checkFine(t *testing.T, k Kernels, r *rand.Rand, dim, bits, tail, rows int) {
	t.Helper()
	high, low := make([]int8, dim), make([]int8, dim)
	for i := range high {
		high[i], low[i] = int8(r.IntN(255)-127), int8(r.IntN(128)-64)
	}
	var w FineWeights
	w.Set(high, low, bits)
	stride := w.rowBytes() + tail
	base := make([]byte, rows*stride)
	for i := range base {
		base[i] = byte(r.Uint32())
	}
	ids := make([]uint32, 2*rows+1)
	for i := range ids {
		ids[i] = uint32(r.IntN(rows))
	}
	ids[0] = uint32(rows - 1)
	out := make([]int32, 2*len(ids)+1)
	out[len(out)-1] = 4711
	k.FineIDs(&w, base, stride, ids, out)
	if out[len(out)-1] != 4711 {
		t.Fatalf("%s: wrote past the end", k.Level())
	}
	for i, id := range ids {
		row := base[int(id)*stride:]
		var wantHigh, wantRest int32
		for d := range dim {
			h := int32(int8(row[d]))
			wantHigh += h * int32(high[d])
			if bits == 16 {
				wantRest += 2*h*int32(low[d]) + int32(int8(row[dim+d]))*int32(high[d])
				continue
			}
			half := int32(row[dim+d/2]>>(4*(d%2))) & 15
			if half > 7 {
				half -= 16
			}
			wantRest += h*int32(low[d]) + 8*half*int32(high[d])
		}
		if out[2*i] != wantHigh || out[2*i+1] != wantRest {
			t.Fatalf("%s: %d values of %d bits: sums of row %d are %d, %d: want %d, %d", k.Level(), dim, bits, id, out[2*i], out[2*i+1], wantHigh, wantRest)
		}
	}
}

func TestFineSums(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	ks := levels(t)
	if k, err := New(Portable); err == nil {
		ks = append(ks, k)
	}
	for _, k := range ks {
		for _, bits := range []int{12, 16} {
			for _, dim := range []int{1, 2, 16, 17, 63, 64, 65, 100, 127, 128, 129, 256, 447, 784} {
				checkFine(t, k, r, dim, bits, 8, 7)
				checkFine(t, k, r, dim, bits, 0, 1)
			}
		}
	}
}

func FuzzFine(f *testing.F) {
	f.Add(uint64(1), uint16(100), false, uint8(8))
	f.Add(uint64(2), uint16(784), true, uint8(0))
	f.Fuzz(func(t *testing.T, seed uint64, dim uint16, wide bool, tail uint8) {
		bits := 12
		if wide {
			bits = 16
		}
		for _, k := range levels(t) {
			checkFine(t, k, rand.New(rand.NewPCG(seed, 2)), 1+int(dim)%1024, bits, int(tail), 1+int(tail)%5)
		}
	})
}

// BenchmarkFine reads rows at random from more memory than caches hold.
func BenchmarkFine(b *testing.B) {
	const dim, bits, n = 128, 12, 64
	k := Detect()
	high, low := make([]int8, dim), make([]int8, dim)
	var w FineWeights
	w.Set(high, low, bits)
	stride := w.rowBytes() + 8
	base := make([]byte, 64<<20)
	r := rand.New(rand.NewPCG(1, 1))
	ids, out := make([]uint32, n), make([]int32, 2*n)
	for b.Loop() {
		for i := range ids {
			ids[i] = uint32(r.IntN(len(base) / stride))
		}
		k.FineIDs(&w, base, stride, ids, out)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
}
