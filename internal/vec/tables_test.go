package vec

import (
	"math"
	"math/rand/v2"
	"testing"
)

func checkTables(t *testing.T, k Kernels, r *rand.Rand, parts int, size float32) {
	t.Helper()
	points, q := make([]float32, parts*tablePoints), make([]float32, 2*parts)
	for i := range points {
		points[i] = size * float32(r.NormFloat64())
	}
	for i := range q {
		q[i] = float32(r.NormFloat64())
	}
	values, lut := make([]float32, parts*TablePart), make([]byte, parts*TablePart+1)
	lut[len(lut)-1] = 77
	factor := float32(-2)
	aff := k.Tables(points, q, factor, values, lut)
	if lut[len(lut)-1] != 77 {
		t.Fatalf("%s: wrote past the end", k.Level())
	}
	sum, want := 0.0, 0.0
	for p := range parts {
		c := r.IntN(TablePart)
		sum += float64(lut[p*TablePart+c])
		want += float64(factor) * (float64(q[2*p])*float64(points[p*tablePoints+c]) + float64(q[2*p+1])*float64(points[p*tablePoints+TablePart+c]))
	}
	got := float64(aff.Base) + float64(aff.Scale)*sum
	if slack := (0.51*float64(aff.Scale) + 1e-4*float64(size)) * float64(parts); math.Abs(got-want) > slack {
		t.Fatalf("%s: %d parts: %v, want %v to %v", k.Level(), parts, got, want, slack)
	}
}

func TestTablesTellProducts(t *testing.T) {
	for _, k := range levels(t) {
		r := rand.New(rand.NewPCG(3, 4))
		for _, parts := range []int{1, 2, 3, 4, 5, 50, 64, 391} {
			checkTables(t, k, r, parts, 1)
			checkTables(t, k, r, parts, 1e20)
			checkTables(t, k, r, parts, 1e-20)
		}
	}
}

func TestTablesOfWhatHasNoOrder(t *testing.T) {
	for _, k := range levels(t) {
		for _, x := range []float32{0, float32(math.NaN()), float32(math.Inf(1)), math.MaxFloat32} {
			points, q := make([]float32, 2*tablePoints), []float32{1, x, x, 1}
			for i := range points {
				points[i] = x
			}
			k.Tables(points, q, 1, make([]float32, 2*TablePart), make([]byte, 2*TablePart)) // no panic
		}
	}
}

func FuzzTables(f *testing.F) {
	f.Add(uint64(1), uint16(3), float32(1))
	f.Add(uint64(2), uint16(64), float32(1e-3))
	f.Fuzz(func(t *testing.T, seed uint64, parts uint16, size float32) {
		size = float32(math.Abs(float64(size)))
		if !(size > 1e-25 && size < 1e25) {
			size = 1
		}
		for _, k := range levels(t) {
			checkTables(t, k, rand.New(rand.NewPCG(seed, 1)), 1+int(parts)%500, size)
		}
	})
}
