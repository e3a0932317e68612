package vec

import (
	"math"
	"math/rand/v2"
	"testing"
)

// halfCase makes n rows of dim values by their bytes, and weights.
func halfCase(r *rand.Rand, dim, n int) (rows HalfRows, values [][]byte, weights []int8) {
	rows, weights = NewHalfRows(dim, n, make([]byte, HalfLines(dim, n))), make([]int8, dim)
	for i := range weights {
		weights[i] = int8(r.IntN(256) - 128)
	}
	for i := range n {
		row := make([]byte, dim)
		for j := range row {
			row[j] = byte(r.Uint32())
		}
		values = append(values, row)
		rows.Put(i, row, float32(r.NormFloat64()), float32(r.NormFloat64()))
	}
	return rows, values, weights
}

// halfCode is the code of a signed byte.
func halfCode(value byte) int { return min(int(math.Floor((float64(int8(value))+8)/16)), 7) }

func TestHalfRowsAreWeighedAsTheirCodesSay(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 1))
	for _, dim := range []int{1, 2, 7, 8, 15, 63, 64, 100, 127, 128, 129, 200, 255, 256, 300, 768} {
		const n = 40
		rows, values, weights := halfCase(r, dim, n)
		var q HalfQuery
		q.Set(weights)
		for _, count := range []int{0, 1, 15, 16, 17, 33, 100} {
			ids := make([]uint32, count)
			for i := range ids {
				ids[i] = uint32(r.IntN(n))
			}
			const base, mul, scale = 3, 0.5, -0.25
			for _, k := range sq8Levels(t) {
				out := make([]float32, count+1)
				out[count] = 42
				k.HalfIDs(&q, &rows, ids, base, mul, scale, out)
				for i, id := range ids {
					sum := 0
					for j, v := range values[id] {
						sum += halfCode(v) * int(weights[j])
					}
					step, bias := rows.tails[2*id], rows.tails[2*id+1]
					want := base + mul*float64(bias) + scale*float64(step)*float64(sum)
					if math.Abs(float64(out[i])-want) > 1e-5*(math.Abs(want)+10) {
						t.Fatalf("%s, %d values: row %d, number %d of %d, is at %v, want %v", k.Level(), dim, id, i, count, out[i], want)
					}
				}
				if out[count] != 42 {
					t.Fatalf("%s, %d values wrote past the end of %d", k.Level(), dim, count)
				}
			}
		}
	}
}

func TestHalfCodesAreTheNearestToEachByte(t *testing.T) {
	for v := range 256 {
		for at := range 8 {
			values := uint64(v) << (8 * at)
			if got := int(halfCodes(values)>>(4*at)&15) - 8; got != halfCode(byte(v)) {
				t.Errorf("byte %d in place %d has the code %d, want %d", int8(v), at, got, halfCode(byte(v)))
			}
		}
	}
}

func TestARowOfHalvesWithoutABiasHasNoDistance(t *testing.T) {
	rows := NewHalfRows(128, 20, make([]byte, HalfLines(128, 20)))
	var q HalfQuery
	weights := make([]int8, 128)
	weights[5] = 100
	q.Set(weights)
	ids := make([]uint32, 20)
	for i := range ids {
		ids[i] = uint32(i)
		rows.Put(i, make([]byte, 128), 1, 0)
	}
	rows.Put(7, make([]byte, 128), 1, float32(math.NaN()))
	for _, k := range sq8Levels(t) {
		out := make([]float32, 20)
		k.HalfIDs(&q, &rows, ids, 1, 1, 1, out)
		for i, d := range out {
			if i == 7 != (d != d) || i != 7 && d != 1 {
				t.Errorf("%s: row %d is at %v", k.Level(), i, d)
			}
		}
	}
}

func TestHalfRowsThatAreNotThereAreRefused(t *testing.T) {
	rows := NewHalfRows(128, 4, make([]byte, HalfLines(128, 4)))
	var q HalfQuery
	q.Set(make([]int8, 128))
	out := make([]float32, 64)
	for _, k := range sq8Levels(t) {
		for _, at := range []int{0, 3, 31, 63} {
			for _, id := range []uint32{4, math.MaxInt32 + 1, math.MaxUint32} {
				ids := make([]uint32, 64)
				ids[at] = id
				func() {
					defer func() {
						if recover() == nil {
							t.Errorf("%s: row %d of 4 at place %d was read", k.Level(), id, at)
						}
					}()
					k.HalfIDs(&q, &rows, ids, 0, 1, 1, out)
				}()
			}
		}
	}
}

// FuzzHalfIDs holds every kernel to the portable one.
func FuzzHalfIDs(f *testing.F) {
	f.Add(uint64(1), uint16(128), uint8(33))
	f.Add(uint64(2), uint16(100), uint8(16))
	f.Add(uint64(3), uint16(769), uint8(15))
	f.Fuzz(func(t *testing.T, seed uint64, dim uint16, count uint8) {
		r := rand.New(rand.NewPCG(seed, 1))
		rows, _, weights := halfCase(r, int(dim)%2000+1, 25)
		var q HalfQuery
		q.Set(weights)
		ids := make([]uint32, count)
		for i := range ids {
			ids[i] = uint32(r.IntN(25))
		}
		want := make([]float32, count)
		halfIDsPortable(&q, &rows, ids, 1, 2, 3, want)
		for _, k := range sq8Levels(t) {
			got := make([]float32, count)
			k.HalfIDs(&q, &rows, ids, 1, 2, 3, got)
			for i := range got { // a product and a sum are rounded once or twice
				if math.Abs(float64(got[i]-want[i])) > 1e-5*(math.Abs(float64(want[i]))+10) {
					t.Fatalf("%s: row %d is at %v, want %v", k.Level(), ids[i], got[i], want[i])
				}
			}
		}
	})
}

func BenchmarkHalfIDs(b *testing.B) {
	const dim, n, some = 128, 1 << 20, 2048
	r := rand.New(rand.NewPCG(3, 1))
	rows := NewHalfRows(dim, n, make([]byte, HalfLines(dim, n)))
	var q HalfQuery
	q.Set(make([]int8, dim))
	ids, out := make([]uint32, some), make([]float32, some)
	k := Detect()
	for b.Loop() {
		b.StopTimer()
		for i := range ids {
			ids[i] = r.Uint32N(n)
		}
		b.StartTimer()
		k.HalfIDs(&q, &rows, ids, 0, 1, 1, out)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/some, "ns/row")
}
