package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// getSQMixed is the inverse of PutSQMixed.
func getSQMixed(codes, record []byte, wide int) {
	from := record[SQ8Bias+copy(codes[:wide], record[SQ8Bias:]):]
	low, high := codes[wide:wide+len(from)], codes[wide+len(from):]
	for i, b := range from {
		low[i], high[i] = b&15, b>>4
	}
}

// levels are the kernels that this machine runs.
func sq8Levels(tb testing.TB) []Kernels {
	tb.Helper()
	var all []Kernels
	for l := Portable; l <= Supported(); l++ {
		if k, err := New(l); err == nil {
			all = append(all, k)
		}
	}
	return all
}

type sq8Query struct {
	halves []int8
	scale  float32
}

func newSQ8Query(stride int, weights []float32) sq8Query {
	q := sq8Query{halves: make([]int8, 2*stride)}
	q.scale = Detect().SetSQ8(q.halves, weights)
	return q
}

// sq8Case makes n records of random codes and a query.
func sq8Case(r *rand.Rand, n, codes int) (q sq8Query, records []byte, weights, bias []float32, code [][]byte) {
	stride := SQ8Stride(codes)
	records = make([]byte, n*stride)
	weights, bias, code = make([]float32, codes), make([]float32, n), make([][]byte, n)
	for i := range weights {
		weights[i] = float32(r.NormFloat64())
	}
	for i := range n {
		code[i] = make([]byte, codes)
		for j := range code[i] {
			code[i][j] = byte(r.Uint32())
		}
		bias[i] = float32(r.NormFloat64()) * 100
		PutSQ8(records[i*stride:(i+1)*stride], bias[i], code[i])
	}
	return newSQ8Query(stride, weights), records, weights, bias, code
}

func checkSQ8(tb testing.TB, r *rand.Rand, n, codes int) {
	tb.Helper()
	q, records, weights, bias, code := sq8Case(r, n, codes)
	ids := make([]uint32, r.IntN(3*n+1))
	for i := range ids {
		ids[i] = uint32(r.IntN(n))
	}
	top := float64(0)
	for _, w := range weights {
		top = max(top, math.Abs(float64(w)))
	}
	for _, k := range sq8Levels(tb) {
		out := make([]float32, len(ids)+1)
		out[len(ids)] = 42
		k.SQ8IDs(q.halves, q.scale, records, ids, out)
		for i, id := range ids {
			want, size := float64(bias[id]), math.Abs(float64(bias[id]))
			for j, c := range code[id] {
				want += float64(c) * float64(weights[j])
				size += float64(c) * math.Abs(float64(weights[j]))
			}
			if slack := 1e-5*size + float64(codes)*255*top/30_000; math.Abs(float64(out[i])-want) > slack {
				tb.Fatalf("%s, %d codes: record %d is at %v, want %v", k.Level(), codes, id, out[i], want)
			}
		}
		if out[len(ids)] != 42 {
			tb.Fatalf("%s wrote past the end", k.Level())
		}
	}
}

func TestSQ8SumsAgreeAtEveryLevel(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, codes := range []int{0, 1, 3, 59, 60, 61, 100, 124, 125, 300, 784, SQ8MaxStride - SQ8Bias} {
		for range 5 {
			checkSQ8(t, r, 1+r.IntN(40), codes)
		}
	}
}

func TestSQ8SumsOfTheLargestCodesDoNotOverflow(t *testing.T) {
	const codes = SQ8MaxStride - SQ8Bias
	weights := slices.Repeat([]float32{3}, codes)
	records := make([]byte, SQ8MaxStride)
	PutSQ8(records, -1, slices.Repeat([]byte{255}, codes))
	q := newSQ8Query(SQ8MaxStride, weights)
	for _, k := range sq8Levels(t) {
		out := make([]float32, 5)
		k.SQ8IDs(q.halves, q.scale, records, make([]uint32, 5), out)
		for _, got := range out {
			if want := 255*3*float32(codes) - 1; math.Abs(float64(got-want)) > 1e-4*float64(want) {
				t.Errorf("%s: %v, want %v", k.Level(), got, want)
			}
		}
	}
}

func TestSQ8QueriesWithoutWeightGiveTheBias(t *testing.T) {
	for _, weights := range [][]float32{nil, {0, 0}, {1e-44, -1e-45}, {float32(math.NaN()), 1}, {float32(math.Inf(1)), 1}} {
		records := make([]byte, SQ8Line)
		PutSQ8(records, 7, []byte{200, 100})
		q := newSQ8Query(SQ8Line, weights)
		for _, k := range sq8Levels(t) {
			out := make([]float32, 1)
			if k.SQ8IDs(q.halves, q.scale, records, []uint32{0}, out); out[0] != 7 {
				t.Errorf("%s, weights %v: %v", k.Level(), weights, out[0])
			}
		}
	}
}

func TestSQ8HalvesAgreeAtEveryLevel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for n := range 140 {
		weights := make([]float32, n)
		for i := range weights {
			weights[i] = float32(r.NormFloat64())
		}
		for _, k := range sq8Levels(t) {
			got := slices.Repeat([]int8{1}, 2*SQ8Stride(n))
			scale := k.SetSQ8(got, weights)
			for i, c := range got[:len(got)/2] {
				both, want := int(c)<<7+int(got[len(got)/2+i]), 0.0
				if j := i - SQ8Bias; j >= 0 && j < n {
					want = float64(weights[j]) / float64(scale)
				}
				if math.Abs(float64(both)-want) > 0.51 {
					t.Fatalf("%s: weight %d of %d is %d, want %v", k.Level(), i-SQ8Bias, n, both, want)
				}
			}
		}
	}
}

// checkMixed compares the sums of mixed records with what they are by definition.
func checkMixed(tb testing.TB, r *rand.Rand, n, stride, wide int) {
	tb.Helper()
	codes := SQMixedCodes(stride, wide)
	records, weights := make([]byte, n*stride), make([]float32, codes)
	bias, code := make([]float32, n), make([][]byte, n)
	top := 0.0
	for i := range weights {
		weights[i] = float32(r.NormFloat64())
		top = max(top, math.Abs(float64(weights[i])))
	}
	for i := range n {
		code[i], bias[i] = make([]byte, codes), float32(r.NormFloat64())*50
		for j := range code[i] {
			if code[i][j] = byte(r.Uint32()); j >= wide {
				code[i][j] &= 15
			}
		}
		record := records[i*stride : (i+1)*stride]
		PutSQMixed(record, bias[i], wide, code[i])
		back := make([]byte, codes)
		if getSQMixed(back, record, wide); !slices.Equal(back, code[i]) {
			tb.Fatalf("%v became %v", code[i], back)
		}
	}
	ids := make([]uint32, r.IntN(3*n+1))
	for i := range ids {
		ids[i] = uint32(r.IntN(n))
	}
	for _, k := range sq8Levels(tb) {
		q, out := make([]int8, SQMixedQueryLen(stride)), make([]float32, len(ids)+1)
		scale := k.SetSQMixed(q, wide, weights)
		out[len(ids)] = 42
		k.SQMixedIDs(q, scale, records, ids, out)
		for i, id := range ids {
			want, size := float64(bias[id]), math.Abs(float64(bias[id]))
			for j, c := range code[id] {
				want += float64(c) * float64(weights[j])
				size += float64(c) * math.Abs(float64(weights[j]))
			}
			if slack := 1e-5*size + float64(codes)*255*top/30_000; math.Abs(float64(out[i])-want) > slack {
				tb.Fatalf("%s, stride %d, %d wide: record %d is at %v, want %v", k.Level(), stride, wide, id, out[i], want)
			}
		}
		if out[len(ids)] != 42 {
			tb.Fatalf("%s wrote past the end", k.Level())
		}
	}
}

func TestMixedSumsAgreeAtEveryLevel(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, c := range [][2]int{{64, 0}, {64, 1}, {64, 20}, {64, 59}, {64, 60}, {128, 33}, {320, 100}, {SQ8MaxStride, 7}} {
		for range 5 {
			checkMixed(t, r, 1+r.IntN(40), c[0], c[1])
		}
	}
}

func FuzzSQMixed(f *testing.F) {
	f.Add(uint64(1), uint8(1), uint16(20), uint8(9))
	f.Fuzz(func(t *testing.T, seed uint64, lines uint8, wide uint16, n uint8) {
		stride := SQ8Line * (1 + int(lines)%64)
		checkMixed(t, rand.New(rand.NewPCG(seed, 1)), 1+int(n), stride, int(wide)%(stride-SQ8Bias+1))
	})
}

func FuzzSQ8(f *testing.F) {
	f.Add(uint64(1), uint16(100), uint8(9))
	f.Add(uint64(2), uint16(0), uint8(1))
	f.Fuzz(func(t *testing.T, seed uint64, codes uint16, n uint8) {
		checkSQ8(t, rand.New(rand.NewPCG(seed, 1)), 1+int(n), int(codes)%(SQ8MaxStride-SQ8Bias+1))
	})
}

func TestBelowKeepsWhatIsBelow(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for n := range 70 {
		var ids []uint32
		var dist []float32
		for i := range n {
			ids = append(ids, uint32(i*7))
			dist = append(dist, float32(r.NormFloat64()))
		}
		if n > 3 {
			dist[1], dist[2], dist[3] = float32(math.NaN()), float32(math.Inf(1)), 0.25
		}
		var wantIDs []uint32
		var want []float32
		for i, d := range dist {
			if d < 0.25 {
				wantIDs, want = append(wantIDs, ids[i]), append(want, d)
			}
		}
		for _, k := range sq8Levels(t) {
			gotIDs, got := append(slices.Clone(ids), 99), append(slices.Clone(dist), 42)
			m := k.Below(gotIDs[:n], got[:n], 0.25)
			if !slices.Equal(gotIDs[:m], wantIDs) || !slices.Equal(got[:m], want) || gotIDs[n] != 99 || got[n] != 42 {
				t.Fatalf("%s, %d: %v %v, want %v %v", k.Level(), n, gotIDs[:m], got[:m], wantIDs, want)
			}
		}
	}
}

func TestSQ8RefusesWhatDoesNotFit(t *testing.T) {
	q, records, _, _, _ := sq8Case(rand.New(rand.NewPCG(1, 1)), 3, 10)
	k := Detect()
	for name, call := range map[string]func(){
		"an id past the end":   func() { k.SQ8IDs(q.halves, q.scale, records, []uint32{3}, make([]float32, 1)) },
		"no room for results":  func() { k.SQ8IDs(q.halves, q.scale, records, []uint32{0, 1}, make([]float32, 1)) },
		"a query not set":      func() { k.SQ8IDs(nil, 1, records, []uint32{0}, make([]float32, 1)) },
		"too many weights":     func() { k.SetSQ8(make([]int8, 128), make([]float32, 61)) },
		"a stride of no lines": func() { k.SetSQ8(make([]int8, 65), make([]float32, 1)) },
		"fewer distances":      func() { k.Below(make([]uint32, 3), make([]float32, 2), 0) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			call()
		}()
	}
}

func BenchmarkSQ8(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, codes := range []int{60, 124, 188, 764} {
		q, records, _, _, _ := sq8Case(r, 32, codes)
		ids, out := make([]uint32, 32), make([]float32, 32)
		for i := range ids {
			ids[i] = uint32(r.IntN(32))
		}
		for _, k := range sq8Levels(b) {
			b.Run(fmt.Sprintf("%s/codes=%d", k.Level(), codes), func(b *testing.B) {
				for b.Loop() {
					k.SQ8IDs(q.halves, q.scale, records, ids, out)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*32), "ns/row")
			})
		}
	}
}
