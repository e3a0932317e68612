package vec

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// getFastScan is the inverse of PutFastScan: it reads the first len(code) parts.
func getFastScan(code, block []byte, lane int) {
	shift := uint(lane) / 16 * 4
	for i := range code {
		code[i] = block[i/4*FastScanQuad+lane%16*4+i%4] >> shift & 0x0f
	}
}

// randomFastScan returns codes of whole blocks, as they are and packed, and a table.
func randomFastScan(r *rand.Rand, parts, blocks int) (codes [][]byte, packed, lut []byte) {
	quads := FastScanQuads(parts)
	packed = make([]byte, blocks*quads*FastScanQuad)
	for i := range packed {
		packed[i] = byte(r.Uint32()) // what is past the last part must not matter
	}
	lut = make([]byte, quads*FastScanQuad)
	for i := range parts * 16 {
		lut[i] = byte(r.Uint32())
	}
	for i := range blocks * FastScanBlock {
		code := make([]byte, parts)
		for j := range code {
			code[j] = byte(r.IntN(16))
		}
		PutFastScan(packed[i/FastScanBlock*quads*FastScanQuad:], i%FastScanBlock, code)
		codes = append(codes, code)
	}
	return codes, packed, lut
}

func checkFastScanAgainstSums(t *testing.T, k Kernels, r *rand.Rand, parts, blocks int) {
	t.Helper()
	codes, packed, lut := randomFastScan(r, parts, blocks)
	quads := FastScanQuads(parts)
	out := make([]uint32, blocks*FastScanBlock+1)
	out[len(out)-1] = 12345
	k.FastScan(packed, quads, lut, out[:len(out)-1])
	if out[len(out)-1] != 12345 {
		t.Fatalf("%s: wrote past the end", k.Level())
	}
	bias := make([]float32, len(codes))
	var all []float32
	for i, code := range codes {
		want := uint32(0)
		for j, c := range code {
			want += uint32(lut[16*j+int(c)])
		}
		if out[i] != want {
			t.Fatalf("%s: %d parts: sum %d is %d, want %d", k.Level(), parts, i, out[i], want)
		}
		got := make([]byte, parts)
		getFastScan(got, packed[i/FastScanBlock*quads*FastScanQuad:], i%FastScanBlock)
		if !slices.Equal(got, code) {
			t.Fatalf("code %d reads back as %v, want %v", i, got, code)
		}
		bias[i] = float32(r.IntN(64))
		all = append(all, 0.5*float32(want)-100+bias[i])
	}
	// All numbers are halves, so sums are exact at every level.
	sorted := slices.Sorted(slices.Values(all))
	limit := sorted[r.IntN(len(sorted))]
	rows, dist := make([]uint32, len(all)+1), make([]float32, len(all)+1)
	masks := make([]uint32, blocks)
	for i := range masks {
		masks[i] = r.Uint32() & r.Uint32() * uint32(i%2) // some have none
	}
	for i, b := range [][]float32{bias, nil, bias, nil} {
		wanted := masks
		if i < 2 {
			wanted = nil
		}
		n := k.FastScanBelow(packed, quads, blocks, lut, b, wanted, Affine{Scale: 0.5, Base: -100}, limit, rows, dist)
		at := 0
		for i, d := range all {
			if b == nil {
				d -= bias[i]
			}
			if d < limit && (wanted == nil || wanted[i/FastScanBlock]>>(i%FastScanBlock)&1 == 1) {
				if at >= n || rows[at] != uint32(i) || dist[at] != d {
					t.Fatalf("%s: hit %d of %d is %d at %v, want %d at %v", k.Level(), at, n, rows[at], dist[at], i, d)
				}
				at++
			}
		}
		if at != n {
			t.Fatalf("%s: %d hits, want %d", k.Level(), n, at)
		}
	}
}

func TestFastScanSums(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	for _, k := range append(levels(t), Kernels{}) {
		for parts := 1; parts <= 70; parts++ {
			checkFastScanAgainstSums(t, k, r, parts, 1+parts%4)
		}
		for _, parts := range []int{255, 256, 257, 258, 392, 511, 513, 768, 1600} {
			checkFastScanAgainstSums(t, k, r, parts, 2)
		}
	}
}

func TestFastScanOfTheLargestSums(t *testing.T) {
	for _, k := range append(levels(t), Kernels{}) {
		for _, quads := range []int{1, 64, 65, 129, 400} {
			codes, lut := make([]byte, quads*FastScanQuad), make([]byte, quads*FastScanQuad)
			for i := range lut {
				lut[i] = 255
			}
			var out [FastScanBlock]uint32
			k.FastScan(codes, quads, lut, out[:])
			for i, s := range out {
				if s != uint32(quads*4*255) {
					t.Fatalf("%s: %d quads: sum %d is %d", k.Level(), quads, i, s)
				}
			}
		}
	}
}

func FuzzFastScan(f *testing.F) {
	f.Add(uint64(1), uint16(50), uint8(1))
	f.Add(uint64(2), uint16(391), uint8(3))
	f.Fuzz(func(t *testing.T, seed uint64, parts uint16, blocks uint8) {
		p, b := int(parts)%1100+1, int(blocks)%5+1
		for _, k := range append(levels(t), Kernels{}) {
			checkFastScanAgainstSums(t, k, rand.New(rand.NewPCG(seed, 3)), p, b)
		}
	})
}

func TestFastScanRefusesBadArguments(t *testing.T) {
	codes, lut, out := make([]byte, 4*FastScanQuad), make([]byte, 2*FastScanQuad), make([]uint32, 64)
	rows, dist := make([]uint32, 64), make([]float32, 64)
	for _, k := range append(levels(t), Kernels{}) {
		for name, f := range map[string]func(){
			"too many blocks": func() { k.FastScan(codes, 3, append(lut, lut...), out) },
			"short table":     func() { k.FastScan(codes, 4, lut, out[:32]) },
			"no quads":        func() { k.FastScan(codes, 0, lut, out[:32]) },
			"part of a block": func() { k.FastScan(codes, 2, lut, out[:33]) },
			"no room":         func() { k.FastScanBelow(codes, 2, 2, lut, nil, nil, Affine{}, 0, rows[:63], dist) },
			"few biases":      func() { k.FastScanBelow(codes, 2, 2, lut, dist[:63], nil, Affine{}, 0, rows, dist) },
			"negative":        func() { k.FastScanBelow(codes, 2, -1, lut, nil, nil, Affine{}, 0, rows, dist) },
		} {
			func() {
				defer func() {
					if _, ok := recover().(error); !ok {
						t.Errorf("%s: %s did not panic with an error", k.Level(), name)
					}
				}()
				f()
			}()
		}
	}
}

func BenchmarkFastScan(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, parts := range []int{32, 50, 64, 392} {
		_, packed, lut := randomFastScan(r, parts, 32)
		n := 32 * FastScanBlock
		out, rows, dist := make([]uint32, n), make([]uint32, n), make([]float32, n)
		for _, k := range append(levels(b), Kernels{}) {
			perCode := func(name string, f func()) {
				b.Run(fmt.Sprintf("%s/parts=%d/%s", name, parts, k.Level()), func(b *testing.B) {
					for b.Loop() {
						f()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/code")
				})
			}
			perCode("Sums", func() { k.FastScan(packed, FastScanQuads(parts), lut, out) })
			perCode("Below", func() {
				k.FastScanBelow(packed, FastScanQuads(parts), 32, lut, nil, nil, Affine{Scale: 1}, 0, rows, dist)
			})
		}
	}
}
