package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// everyKernel are the kernels that this machine can run.
func everyKernel(tb testing.TB) []Kernels {
	tb.Helper()
	ks := append(levels(tb), Kernels{})
	if hasAMX() {
		ks = append(ks, Kernels{level: AVX512, amx: true})
	}
	return ks
}

func checkPanels(t *testing.T, r *rand.Rand, dim, nq, n int) {
	t.Helper()
	quads := PanelQuads(dim)
	if 4*quads < dim || quads%panelTileRows(quads) != 0 || PanelQuads(4*quads) != quads {
		t.Fatalf("dimension %d takes %d quads", dim, quads)
	}
	panels := make([]byte, n*quads*panelQuad)
	codes := make([][]byte, n*PanelRows)
	for i := range codes {
		codes[i] = make([]byte, dim)
		for j := range codes[i] {
			codes[i][j] = byte(r.IntN(PanelMax + 1))
		}
		PutPanel(panels[i/PanelRows*quads*panelQuad:], i%PanelRows, codes[i])
	}
	room := (nq + 15) / 16 * 16
	queries := make([]int8, room*4*quads)
	for i := range queries {
		queries[i] = int8(r.Uint32())
	}
	for _, k := range everyKernel(t) {
		const canary = 1234567
		out := make([]int32, room*len(codes)+1)
		out[len(out)-1] = canary
		k.Panels(queries, nq, quads, panels, n, out)
		if out[len(out)-1] != canary {
			t.Fatalf("%s: wrote past the end", k)
		}
		for q := range nq {
			for i, code := range codes {
				want := int32(0)
				for j, c := range code {
					want += int32(queries[q*4*quads+j]) * int32(c)
				}
				if got := out[q*len(codes)+i]; got != want {
					t.Fatalf("%s: dim %d, query %d of %d, vector %d of %d: %d, want %d", k, dim, q, nq, i, len(codes), got, want)
				}
			}
		}
	}
}

func TestPanelsMultiply(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	for dim := 1; dim <= 140; dim++ {
		checkPanels(t, r, dim, 1+dim%40, 1+dim%3)
	}
	for _, dim := range []int{256, 300, 784, 1536} {
		checkPanels(t, r, dim, 33, 2)
	}
}

func FuzzPanels(f *testing.F) {
	f.Add(uint64(1), uint16(100), uint8(1), uint8(1))
	f.Add(uint64(2), uint16(784), uint8(3), uint8(35))
	f.Fuzz(func(t *testing.T, seed uint64, dim uint16, n, nq uint8) {
		checkPanels(t, rand.New(rand.NewPCG(seed, 1)), int(dim)%1200+1, int(nq)%70, int(n)%5)
	})
}

func TestSums(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 5))
	for _, k := range everyKernel(t) {
		for n := 16; n <= 400; n += 16 {
			sums, bias := make([]int32, n), make([]float32, n)
			for i := range sums {
				sums[i], bias[i] = int32(r.IntN(100)-50), float32(r.IntN(10)) // ties are many
			}
			bias[r.IntN(n)] = float32(math.NaN())
			rows, dist := make([]uint32, n), make([]float32, n)
			wantRows, wantDist := make([]uint32, n), make([]float32, n)
			aff := Affine{Scale: -0.5, Base: 3}
			limit := float32(r.IntN(60) - 30)
			got := k.SumsBelow(sums, bias, aff, limit, rows, dist)
			want := sumsBelowPortable(sums, bias, aff, limit, wantRows, wantDist)
			if fmt.Sprint(rows[:got], dist[:got]) != fmt.Sprint(wantRows[:want], wantDist[:want]) {
				t.Fatalf("%s: below %v: %v %v, want %v %v", k, limit, rows[:got], dist[:got], wantRows[:want], wantDist[:want])
			}
			i, d := k.SumsNearest(sums, bias, 2)
			if wi, wd := sumsNearestPortable(sums, bias, 2); i != wi || d != wd {
				t.Fatalf("%s: nearest is %d at %v, want %d at %v", k, i, d, wi, wd)
			}
		}
		nan := float32(math.NaN())
		if i, d := k.SumsNearest(make([]int32, 16), []float32{15: nan, 0: nan, 1: nan, 2: nan, 3: nan, 4: nan, 5: nan, 6: nan, 7: nan, 8: nan, 9: nan, 10: nan, 11: nan, 12: nan, 13: nan, 14: nan}, 1); i != 0 || !math.IsInf(float64(d), 1) {
			t.Fatalf("%s: nearest of no numbers is %d at %v", k, i, d)
		}
	}
}

func TestQuantize(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 6))
	for _, k := range everyKernel(t) {
		for n := 1; n <= 70; n++ {
			q, step := randomVector(r, n), randomVector(r, n)
			z, want := make([]int8, n+1), make([]int8, n)
			z[n] = 77
			most, wantMost := k.Quantize(q, step, z[:n]), quantizePortable(q, step, want)
			if most != wantMost || z[n] != 77 {
				t.Fatalf("%s: %d values: largest is %v, want %v", k, n, most, wantMost)
			}
			large := false
			for i := range want {
				if d := int(z[i]) - int(want[i]); d < -1 || d > 1 { // a tie may fall either way
					t.Fatalf("%s: value %d of %d is %d, want %d", k, i, n, z[i], want[i])
				}
				large = large || z[i] == 127 || z[i] == -127
			}
			if !large {
				t.Fatalf("%s: no value of %v is 127", k, z)
			}
		}
	}
}

func TestPanelsRefuseBadArguments(t *testing.T) {
	quads := PanelQuads(100)
	queries, panels, out := make([]int8, 16*4*quads), make([]byte, 2*quads*panelQuad), make([]int32, 16*64)
	for _, k := range everyKernel(t) {
		for name, f := range map[string]func(){
			"too many panels":    func() { k.Panels(queries, 1, quads, panels, 3, append(out, out...)) },
			"no room for 16":     func() { k.Panels(queries[1:], 1, quads, panels, 2, out) },
			"no room in out":     func() { k.Panels(queries, 1, quads, panels, 2, out[1:]) },
			"odd quads":          func() { k.Panels(queries, 1, 17, panels, 1, out) },
			"negative":           func() { k.Panels(queries, -1, quads, panels, 1, out) },
			"part of a register": func() { k.SumsBelow(out[:8], make([]float32, 8), Affine{}, 0, make([]uint32, 8), make([]float32, 8)) },
			"few steps":          func() { k.Quantize(make([]float32, 2), make([]float32, 1), make([]int8, 2)) },
			"few biases":         func() { k.SumsNearest(out[:16], make([]float32, 8), 1) },
		} {
			func() {
				defer func() {
					if _, ok := recover().(error); !ok {
						t.Errorf("%s: %s did not panic with an error", k, name)
					}
				}()
				f()
			}()
		}
	}
}

func BenchmarkPanels(b *testing.B) {
	for _, dim := range []int{100, 784} {
		quads, n := PanelQuads(dim), 10
		panels, out := make([]byte, n*quads*panelQuad), make([]int32, 64*n*PanelRows)
		queries := make([]int8, 64*4*quads)
		for _, nq := range []int{1, 16, 64} {
			for _, k := range everyKernel(b) {
				b.Run(fmt.Sprintf("dim=%d/queries=%d/%s", dim, nq, k), func(b *testing.B) {
					for b.Loop() {
						k.Panels(queries, nq, quads, panels, n, out)
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n*PanelRows*nq), "ns/distance")
				})
			}
		}
	}
}
