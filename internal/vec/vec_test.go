package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// levels are the kernels that this machine can run, without the portable ones.
func levels(tb testing.TB) []Kernels {
	tb.Helper()
	var ks []Kernels
	for l := AVX2; l <= Supported(); l++ {
		if k, err := New(l); err == nil {
			ks = append(ks, k)
		} else if runs(l) {
			tb.Fatal(err)
		}
	}
	return ks
}

func randomVector(r *rand.Rand, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		v[i] = float32(r.NormFloat64())
	}
	return v
}

// near compares with a tolerance relative to the sum of the absolute terms,
// which is what rounding errors grow with.
func near(got, want float32, terms float64) bool {
	return math.Abs(float64(got)-float64(want)) <= 1e-5*terms+1e-30
}

func terms(op string, a, b []float32) (s float64) {
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		if op == "l2" {
			s += (x - y) * (x - y)
		} else {
			s += math.Abs(x * y)
		}
	}
	return s
}

// compareWithPortable checks every operation of k on the same input.
func compareWithPortable(t *testing.T, k Kernels, q, base []float32, dim int, ids []uint32) {
	t.Helper()
	var ref Kernels
	rows := len(base) / dim
	ops := []struct {
		name   string
		one    func(Kernels) func(a, b []float32) float32
		byID   func(Kernels) func(q, base []float32, dim int, ids []uint32, out []float32)
		inRows func(Kernels) func(q, rows []float32, dim int, out []float32)
	}{
		{"l2", func(k Kernels) func(a, b []float32) float32 { return k.L2 },
			func(k Kernels) func(q, base []float32, dim int, ids []uint32, out []float32) { return k.L2IDs },
			func(k Kernels) func(q, rows []float32, dim int, out []float32) { return k.L2Rows }},
		{"dot", func(k Kernels) func(a, b []float32) float32 { return k.Dot },
			func(k Kernels) func(q, base []float32, dim int, ids []uint32, out []float32) { return k.DotIDs },
			func(k Kernels) func(q, rows []float32, dim int, out []float32) { return k.DotRows }},
	}
	const canary = 12345.5
	for _, op := range ops {
		check := func(how string, i int, row uint32, got, want float32) {
			t.Helper()
			if !near(got, want, terms(op.name, q, base[int(row)*dim:][:dim])) {
				t.Fatalf("%s %s %s dim %d: result %d (row %d) is %v, want %v", k.Level(), op.name, how, dim, i, row, got, want)
			}
		}
		for r := range rows {
			row := base[r*dim:][:dim]
			check("one", r, uint32(r), op.one(k)(q, row), op.one(ref)(q, row))
		}
		got, want := make([]float32, len(ids)+1), make([]float32, len(ids))
		got[len(ids)] = canary
		op.byID(k)(q, base, dim, ids, got)
		op.byID(ref)(q, base, dim, ids, want)
		for i := range want {
			check("ids", i, ids[i], got[i], want[i])
		}
		if got[len(ids)] != canary {
			t.Fatalf("%s %s ids: wrote past the end", k.Level(), op.name)
		}
		got, want = make([]float32, rows+1), make([]float32, rows)
		got[rows] = canary
		op.inRows(k)(q, base, dim, got[:rows])
		op.inRows(ref)(q, base, dim, want)
		for i := range want {
			check("rows", i, uint32(i), got[i], want[i])
		}
		if got[rows] != canary {
			t.Fatalf("%s %s rows: wrote past the end", k.Level(), op.name)
		}
	}
}

func TestKernelsAgreeWithPortableAtAllDimensions(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range levels(t) {
		for dim := 1; dim <= 200; dim++ {
			rows := 1 + dim%11
			base := randomVector(r, rows*dim)
			ids := make([]uint32, dim%14)
			for i := range ids {
				ids[i] = uint32(r.IntN(rows))
			}
			compareWithPortable(t, k, randomVector(r, dim), base, dim, ids)
		}
	}
}

// TestPortableIsRight checks the reference itself, in float64.
func TestPortableIsRight(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	var k Kernels
	for dim := 1; dim <= 40; dim++ {
		a, b := randomVector(r, dim), randomVector(r, dim)
		var l2, dot float64
		for i := range a {
			l2 += float64(a[i]-b[i]) * float64(a[i]-b[i])
			dot += float64(a[i]) * float64(b[i])
		}
		if got := k.L2(a, b); !near(got, float32(l2), l2) {
			t.Fatalf("dim %d: L2 is %v, want %v", dim, got, l2)
		}
		if got := k.Dot(a, b); !near(got, float32(dot), terms("dot", a, b)) {
			t.Fatalf("dim %d: Dot is %v, want %v", dim, got, dot)
		}
	}
}

func FuzzKernels(f *testing.F) {
	f.Add(uint64(1), uint16(1), uint8(1), uint8(1), float32(1))
	f.Add(uint64(2), uint16(100), uint8(9), uint8(13), float32(1e-6))
	f.Add(uint64(3), uint16(771), uint8(4), uint8(32), float32(1e6))
	f.Fuzz(func(t *testing.T, seed uint64, d uint16, rows, n uint8, scale float32) {
		dim := int(d)%1024 + 1
		if !(scale > 1e-10 && scale < 1e10) || rows == 0 {
			t.Skip()
		}
		r := rand.New(rand.NewPCG(seed, 5))
		q, base := randomVector(r, dim), randomVector(r, int(rows)*dim)
		for i := range q {
			q[i] *= scale
		}
		ids := make([]uint32, n)
		for i := range ids {
			ids[i] = uint32(r.IntN(int(rows)))
		}
		for _, k := range levels(t) {
			compareWithPortable(t, k, q, base, dim, ids)
		}
	})
}

func TestBadArgumentsPanicInGo(t *testing.T) {
	q, base, out := make([]float32, 4), make([]float32, 12), make([]float32, 8)
	for _, k := range append(levels(t), Kernels{}) {
		for name, f := range map[string]func(){
			"id past the end": func() { k.L2IDs(q, base, 4, []uint32{0, 3}, out) },
			"huge id":         func() { k.DotIDs(q, base, 4, []uint32{1 << 31}, out) },
			"short out":       func() { k.L2IDs(q, base, 4, []uint32{0, 1}, out[:1]) },
			"wrong dim":       func() { k.L2IDs(q, base, 3, []uint32{0}, out) },
			"no dim":          func() { k.L2Rows(nil, base, 0, out) },
			"negative dim":    func() { k.L2Rows(q, base, -4, out) },
			"too many rows":   func() { k.DotRows(q, base, 4, out[:4]) },
			"unequal":         func() { k.L2(q, base) },
			"unequal dot":     func() { k.Dot(base, q) },
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

func TestEmptyInput(t *testing.T) {
	for _, k := range append(levels(t), Kernels{}) {
		if k.L2(nil, nil) != 0 || k.Dot(nil, nil) != 0 {
			t.Fatal("vectors without values are not at distance 0")
		}
		k.L2IDs([]float32{1}, nil, 1, nil, nil)
		k.DotRows([]float32{1}, nil, 1, nil)
	}
}

func TestNorms(t *testing.T) {
	for _, k := range append(levels(t), Kernels{}) {
		for _, c := range []struct {
			v    []float32
			norm float32
			inv  float32
		}{
			{[]float32{3, 4}, 5, 0.2},
			{[]float32{0, 0, 0}, 0, 0},
			{[]float32{3e-25, 4e-25}, 5e-25, 2e24},
			{[]float32{3e25, 4e25}, 5e25, 2e-26},
			{[]float32{float32(math.Inf(1))}, float32(math.Inf(1)), 0},
			{[]float32{1e-45}, 1e-45, 0},
		} {
			if got := k.Norm(c.v); got != c.norm && !near(got, c.norm, float64(c.norm)) {
				t.Errorf("%s: norm of %v is %v, want %v", k.Level(), c.v, got, c.norm)
			}
			if got := k.InvNorm(c.v); !near(got, c.inv, float64(c.inv)) {
				t.Errorf("%s: inverse norm of %v is %v, want %v", k.Level(), c.v, got, c.inv)
			}
		}
		v := []float32{3, 0, -4}
		if inv := k.Normalize(v, v); inv != 0.2 || math.Abs(float64(k.Norm(v))-1) > 1e-6 {
			t.Errorf("%s: normalised to %v with %v", k.Level(), v, inv)
		}
		if k.InvNorm([]float32{float32(math.NaN())}) != 0 {
			t.Errorf("%s: NaN has a norm", k.Level())
		}
	}
}

func TestLevels(t *testing.T) {
	for l := Portable; l <= NEON; l++ {
		got, err := ParseLevel(l.String())
		if err != nil || got != l {
			t.Fatalf("ParseLevel(%q) = %v, %v", l, got, err)
		}
		t.Setenv(EnvSIMD, l.String())
		if got := Detect().Level(); runs(l) && got != l {
			t.Fatalf("forced %s, got %s", l, got)
		}
	}
	if _, err := ParseLevel("sse9"); !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("unknown level: %v", err)
	}
	if _, err := New(NEON + 1); !errclass.Is(err, errclass.Unimplemented) {
		t.Fatalf("level that no CPU has: %v", err)
	}
	for _, unusable := range []string{"", "sse9"} {
		t.Setenv(EnvSIMD, unusable)
		if got := Detect().Level(); got != Supported() {
			t.Fatalf("%s=%q: got %s, want %s", EnvSIMD, unusable, got, Supported())
		}
	}
}

func BenchmarkKernels(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	for _, dim := range []int{100, 128, 768} {
		const rows = 32
		q, base := randomVector(r, dim), randomVector(r, rows*dim)
		ids, out := make([]uint32, rows), make([]float32, rows)
		for i, j := range r.Perm(rows) {
			ids[i] = uint32(j)
		}
		for _, k := range append(levels(b), Kernels{}) {
			perRow := func(name string, n int, f func()) {
				b.Run(fmt.Sprintf("%s/d=%d/%s", name, dim, k.Level()), func(b *testing.B) {
					for b.Loop() {
						f()
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/row")
				})
			}
			perRow("L2", 1, func() { out[0] = k.L2(q, base[:dim]) })
			perRow("L2IDs", rows, func() { k.L2IDs(q, base, dim, ids, out) })
			perRow("L2Rows", rows, func() { k.L2Rows(q, base, dim, out) })
			perRow("DotIDs", rows, func() { k.DotIDs(q, base, dim, ids, out) })
		}
	}
}
