package vec

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// firstLineCase makes n records of two lines, mixed or not, and a query for them and their first lines.
func firstLineCase(r *rand.Rand, n int, mixed bool) (q, line []int8, scale, lineScale float32, records []byte, weights []float32) {
	const stride, wide = 2 * SQ8Line, 21
	codes, k := stride-SQ8Bias, Detect()
	if mixed {
		codes = SQMixedCodes(stride, wide)
	}
	weights, records = make([]float32, codes), make([]byte, n*stride)
	for i := range weights {
		weights[i] = float32(r.NormFloat64())
	}
	for i := range n {
		code := make([]byte, codes)
		for j := range code {
			if code[j] = byte(r.Uint32()); mixed && j >= wide {
				code[j] &= 15
			}
		}
		if bias := float32(r.NormFloat64()) * 100; mixed {
			PutSQMixed(records[i*stride:][:stride], bias, wide, code)
		} else {
			PutSQ8(records[i*stride:][:stride], bias, code)
		}
	}
	line = make([]int8, FirstLineQueryLen)
	if mixed {
		q = make([]int8, SQMixedQueryLen(stride))
		scale = k.SetSQMixed(q, wide, weights)
	} else {
		q = make([]int8, SQ8QueryLen(stride))
		scale = k.SetSQ8(q, weights)
	}
	return q, line, scale, SetFirstLine(line, q, scale, mixed), records, weights
}

func TestFirstLinesSayWhatTheirCodesDo(t *testing.T) {
	const n, stride, wide = 50, 2 * SQ8Line, 21
	r := rand.New(rand.NewPCG(7, 8))
	for _, mixed := range []bool{false, true} {
		_, line, _, scale, records, weights := firstLineCase(r, n, mixed)
		for _, ids := range []int{0, 1, 15, 16, 17, 33, 100} {
			rows := make([]uint32, ids)
			for i := range rows {
				rows[i] = uint32(r.IntN(n))
			}
			for _, k := range sq8Levels(t) {
				out := make([]float32, ids+1)
				out[ids] = 42
				k.SQFirstLines(line, scale, records, stride, rows, out)
				for i, row := range rows {
					record := records[int(row)*stride:][:SQ8Line]
					want, slack := float64(math.Float32frombits(uint32(record[0])|uint32(record[1])<<8|uint32(record[2])<<16|uint32(record[3])<<24)), 1e-3
					for j, b := range record[SQ8Bias:] {
						if mixed && j >= wide {
							b &= 15
						}
						want += float64(b) * float64(weights[j])
						slack += float64(b) * 4 / firstLineTop // weights are below 4 or nearly so, and in 8 bits
					}
					if math.Abs(float64(out[i])-want) > slack {
						t.Fatalf("%s, mixed %v: row %d of %d is at %v, want %v within %v", k.Level(), mixed, i, ids, out[i], want, slack)
					}
				}
				if out[ids] != 42 {
					t.Fatalf("%s wrote past the end", k.Level())
				}
			}
		}
	}
}

func TestFirstLinesAreTheSameAtEveryLevel(t *testing.T) {
	const n, stride = 40, 2 * SQ8Line
	r := rand.New(rand.NewPCG(9, 9))
	for _, mixed := range []bool{false, true} {
		_, line, _, scale, records, _ := firstLineCase(r, n, mixed)
		rows := make([]uint32, n)
		for i := range rows {
			rows[i] = uint32(n - 1 - i)
		}
		var first []float32
		for _, k := range sq8Levels(t) {
			out := make([]float32, n)
			k.SQFirstLines(line, scale, records, stride, rows, out)
			if first == nil {
				first = out
			}
			for i := range out { // a product and a sum are rounded once or twice
				if math.Abs(float64(out[i]-first[i])) > 1e-3 {
					t.Fatalf("%s, mixed %v: %v, want %v", k.Level(), mixed, out[i], first[i])
				}
			}
		}
	}
}

func TestAFirstLineWithoutWeightsIsTheBias(t *testing.T) {
	q, line, records := make([]int8, SQ8QueryLen(SQ8Line)), make([]int8, FirstLineQueryLen), make([]byte, SQ8Line)
	PutSQ8(records, 7, []byte{200, 100})
	scale := SetFirstLine(line, q, 0, false)
	for _, k := range sq8Levels(t) {
		out := make([]float32, 1)
		if k.SQFirstLines(line, scale, records, SQ8Line, []uint32{0}, out); out[0] != 7 {
			t.Errorf("%s: %v", k.Level(), out[0])
		}
	}
}

func TestFirstLinesOfRowsThatAreNotThereAreRefused(t *testing.T) {
	line, records, out := make([]int8, FirstLineQueryLen), make([]byte, 4*SQ8Line), make([]float32, 64)
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
					k.SQFirstLines(line, 1, records, SQ8Line, ids, out)
				}()
			}
		}
	}
}

func TestPlacesBelowALimitAreThoseOfSmallerDistances(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	nan := float32(math.NaN())
	for n := range 100 {
		dist := make([]float32, n)
		for i := range dist {
			if dist[i] = float32(r.NormFloat64()); r.IntN(10) == 0 {
				dist[i] = nan
			}
		}
		for _, limit := range []float32{-10, -1.5, 0, 10, float32(math.Inf(1)), nan} {
			var want []uint32
			for i, d := range dist {
				if d < limit {
					want = append(want, uint32(i))
				}
			}
			for _, k := range sq8Levels(t) {
				places := slices.Repeat([]uint32{math.MaxUint32}, n+PlacesRoom+1)
				got := k.PlacesBelow(dist, limit, places[:n+PlacesRoom])
				if !slices.Equal(places[:got], want) || places[n+PlacesRoom] != math.MaxUint32 {
					t.Fatalf("%s, %d distances below %v: %v, want %v", k.Level(), n, limit, places[:got], want)
				}
			}
		}
	}
}

func TestMinimaAreTheLeastOfTheirParts(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 4))
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, n := range []int{0, 1, 15, 16, 17, 100, 1000} {
		for _, parts := range []int{16, 48, 128} {
			dist, want := make([]float32, n), slices.Repeat([]float32{inf}, parts)
			for i := range dist {
				switch r.IntN(20) {
				case 0:
					dist[i] = nan
				case 1:
					dist[i] = inf
				default:
					dist[i] = float32(r.NormFloat64())
					want[i%parts] = min(want[i%parts], dist[i])
				}
			}
			for _, k := range sq8Levels(t) {
				got := make([]float32, parts)
				if k.Minima(dist, got); !slices.Equal(got, want) {
					t.Fatalf("%s, %d distances in %d parts: %v, want %v", k.Level(), n, parts, got, want)
				}
			}
		}
	}
}
