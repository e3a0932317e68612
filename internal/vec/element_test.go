package vec

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// distances are all computations on vectors of about dim values.
func distances(tb testing.TB, k Kernels, dim int) []Distance {
	tb.Helper()
	var ds []Distance
	for e := Float32; e <= Uint4; e++ {
		for op := OpL2; op <= OpJaccard; op++ {
			if (op >= OpHamming) != (e == Bit) {
				continue
			}
			n := dim
			switch e {
			case Bit:
				n *= 8
			case Uint4:
				n *= 2
			}
			d, err := k.Distance(e, op, n)
			if err != nil {
				tb.Fatal(err)
			}
			ds = append(ds, d)
		}
	}
	return ds
}

// randomRows returns n rows of random finite values for d.
func randomRows(r *rand.Rand, d Distance, n int) []byte {
	b := make([]byte, 0, n*d.bytes)
	for len(b) < n*d.bytes {
		x := float32(r.NormFloat64())
		switch d.elem {
		case Float32:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(x))
		case Float16:
			b = binary.LittleEndian.AppendUint16(b, Float32ToFloat16(x))
		case BFloat16:
			b = binary.LittleEndian.AppendUint16(b, Float32ToBFloat16(x))
		default:
			b = append(b, byte(r.Uint32()))
		}
	}
	return b
}

// slack is what the sums of d may differ by between levels.
func (d Distance) slack(a, b []byte) float64 {
	if d.elem >= Int8 {
		return 1e-6 // Jaccard divides once; all else is exact
	}
	s := 0.0
	for i := range d.dim {
		x, y := float64(d.elem.at(a, i)), float64(d.elem.at(b, i))
		if d.op == OpL2 {
			s += (x - y) * (x - y)
		} else {
			s += math.Abs(x * y)
		}
	}
	return 1e-5*s + 1e-30
}

func compareElements(t *testing.T, d Distance, q, base []byte, ids []uint32) {
	t.Helper()
	n := len(base) / d.bytes
	check := func(how string, i int, got float32) {
		t.Helper()
		row := base[i*d.bytes:][:d.bytes]
		if want := d.portable(q, row); math.Abs(float64(got)-float64(want)) > d.slack(q, row) {
			t.Fatalf("%s %s of %s by %s, dim %d: row %d is at %v, want %v", d.k.Level(), d.op, d.elem, how, d.dim, i, got, want)
		}
	}
	const canary = 12345.5
	out := make([]float32, n+1)
	out[n] = canary
	d.Rows(q, base, out[:n])
	for i, got := range out[:n] {
		check("rows", i, got)
	}
	if out[n] != canary {
		t.Fatalf("%s %s of %s by rows: wrote past the end", d.k.Level(), d.op, d.elem)
	}
	out = make([]float32, len(ids)+1)
	out[len(ids)] = canary
	d.IDs(q, base, ids, out)
	for i, id := range ids {
		check("ids", int(id), out[i])
	}
	if out[len(ids)] != canary {
		t.Fatalf("%s %s of %s by ids: wrote past the end", d.k.Level(), d.op, d.elem)
	}
}

func TestElementsAgreeWithPortableAtAllDimensions(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, k := range levels(t) {
		for dim := 1; dim <= 150; dim++ {
			for _, d := range distances(t, k, dim) {
				n := 1 + dim%11
				ids := make([]uint32, dim%14)
				for i := range ids {
					ids[i] = uint32(r.IntN(n))
				}
				// Nothing is aligned.
				q := append([]byte{1}, randomRows(r, d, 1)...)[1:]
				base := append([]byte{1}, randomRows(r, d, n)...)[1:]
				compareElements(t, d, q, base, ids)
			}
		}
	}
}

func TestElementsByHand(t *testing.T) {
	half := func(xs ...float32) (b []byte) {
		for _, x := range xs {
			b = binary.LittleEndian.AppendUint16(b, Float32ToFloat16(x))
		}
		return b
	}
	brain := func(xs ...float32) (b []byte) {
		for _, x := range xs {
			b = binary.LittleEndian.AppendUint16(b, Float32ToBFloat16(x))
		}
		return b
	}
	for _, c := range []struct {
		e    Element
		op   Op
		dim  int
		a, b []byte
		want float32
	}{
		{Float16, OpL2, 2, half(1, 2), half(-1, 5), 13},
		{Float16, OpDot, 2, half(1, 2), half(-1, 5), 9},
		{BFloat16, OpL2, 3, brain(0, 2, 1), brain(1, 4, 1), 5},
		{BFloat16, OpDot, 3, brain(1, 2, 3), brain(1, 4, 1), 12},
		{Int8, OpL2, 2, []byte{0x80, 1}, []byte{0x7f, 0xff}, 255*255 + 4},
		{Int8, OpDot, 2, []byte{0x80, 1}, []byte{0x80, 0xff}, 128*128 - 1},
		{Uint4, OpL2, 4, []byte{0xf0, 0x12}, []byte{0x0f, 0x21}, 452},
		{Uint4, OpDot, 4, []byte{0xff, 0x12}, []byte{0xff, 0x21}, 454},
		{Bit, OpHamming, 16, []byte{0xff, 1}, []byte{0x0f, 3}, 5},
		{Bit, OpJaccard, 16, []byte{0xff, 1}, []byte{0x0f, 3}, 0.5},
		{Bit, OpJaccard, 8, []byte{0}, []byte{0}, 0},
		{Bit, OpJaccard, 8, []byte{1}, []byte{2}, 1},
	} {
		for _, k := range append(levels(t), Kernels{}) {
			// More of the same rows, so that the assembly for long rows runs too.
			for _, times := range []int{1, 40} {
				var a, b []byte
				for range times {
					a, b = append(a, c.a...), append(b, c.b...)
				}
				d, err := k.Distance(c.e, c.op, times*c.dim)
				if err != nil {
					t.Fatal(err)
				}
				want := c.want * float32(times)
				if c.op == OpJaccard {
					want = c.want
				}
				var out [1]float32
				if d.Rows(a, b, out[:]); out[0] != want {
					t.Errorf("%s: %s of %s, %d times: %v, want %v", k.Level(), c.op, c.e, times, out[0], want)
				}
			}
		}
	}
}

func TestNormOfElements(t *testing.T) {
	for _, c := range []struct {
		e    Element
		op   Op
		dim  int
		v    []byte
		want float32
	}{
		{Int8, OpDot, 2, []byte{3, 0xfc}, 5},
		{Float16, OpDot, 2, []byte{0, 0x42, 0, 0x44}, 5},
		{BFloat16, OpL2, 2, []byte{0x40, 0x40, 0x80, 0x40}, 5},
		{Float32, OpL2, 1, []byte{0, 0, 0x80, 0x3f}, 1},
		{Bit, OpHamming, 16, []byte{0xf0, 0xf8}, 3},
		{Uint4, OpDot, 2, []byte{0x43}, 5},
	} {
		d, err := Kernels{}.Distance(c.e, c.op, c.dim)
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Norm(c.v); got != c.want {
			t.Errorf("norm of %x as %s is %v, want %v", c.v, c.e, got, c.want)
		}
	}
}

func TestHalvesRoundTrip(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		x, y := Float16ToFloat32(h), BFloat16ToFloat32(h)
		if x == x && Float32ToFloat16(x) != h {
			t.Fatalf("float16 %04x is %v, which is %04x", h, x, Float32ToFloat16(x))
		}
		if y == y && Float32ToBFloat16(y) != h {
			t.Fatalf("bfloat16 %04x is %v, which is %04x", h, y, Float32ToBFloat16(y))
		}
		if back := Float32ToFloat16(x); x != x && Float16ToFloat32(back) == Float16ToFloat32(back) {
			t.Fatalf("float16 %04x is not a number, but %04x is", h, back)
		}
		if back := Float32ToBFloat16(y); y != y && BFloat16ToFloat32(back) == BFloat16ToFloat32(back) {
			t.Fatalf("bfloat16 %04x is not a number, but %04x is", h, back)
		}
	}
}

// TestHalvesRoundToNearest compares with the definition: of the two neighbours
// the nearer, of two as near the even one.
func TestHalvesRoundToNearest(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 200_000 {
		x := math.Float32frombits(r.Uint32() & 0x7fffffff)
		if r.IntN(2) == 0 {
			x = float32(math.Ldexp(1+r.Float64(), r.IntN(44)-27)) // where float16 lives
		}
		if x != x {
			continue
		}
		h := Float32ToFloat16(x)
		switch {
		case float64(x) >= 65520:
			if h != 0x7c00 {
				t.Fatalf("%v becomes %04x, want infinity", x, h)
			}
			continue
		case Float32ToFloat16(-x) != h|0x8000:
			t.Fatalf("%v and its negative differ", x)
		}
		d := math.Abs(float64(Float16ToFloat32(h)) - float64(x))
		for _, other := range []uint16{h - 1, h + 1} {
			if other&0x7c00 == 0x7c00 || h == 0 && other == 0xffff {
				continue
			}
			o := math.Abs(float64(Float16ToFloat32(other)) - float64(x))
			if o < d || o == d && h&1 == 1 {
				t.Fatalf("%v becomes %04x, %04x is nearer", x, h, other)
			}
		}
	}
}

func TestDistanceRefusesNonsense(t *testing.T) {
	for _, c := range []struct {
		e   Element
		op  Op
		dim int
	}{
		{0, OpL2, 8}, {7, OpL2, 8}, {Uint4, OpL2, 3}, {Uint4, OpHamming, 8}, {Bit, OpL2, 8}, {Float16, OpHamming, 8}, {Int8, 0, 8}, {Int8, 9, 8},
		{Int8, OpDot, 0}, {Int8, OpDot, -1}, {Int8, OpDot, maxElementDim + 1}, {Bit, OpJaccard, 12},
	} {
		if _, err := (Kernels{}).Distance(c.e, c.op, c.dim); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%s of %s, dimension %d: %v", c.op, c.e, c.dim, err)
		}
	}
	for _, k := range append(levels(t), Kernels{}) {
		for _, d := range distances(t, k, 8) {
			q, base, out := make([]byte, d.bytes), make([]byte, 3*d.bytes), make([]float32, 8)
			for name, f := range map[string]func(){
				"id past the end": func() { d.IDs(q, base, []uint32{0, 3}, out) },
				"short out":       func() { d.IDs(q, base, []uint32{0, 1}, out[:1]) },
				"short query":     func() { d.IDs(q[1:], base, []uint32{0}, out) },
				"too many rows":   func() { d.Rows(q, base, out[:4]) },
				"zero":            func() { Distance{}.Rows(nil, base, out[:1]) },
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
}

func FuzzElements(f *testing.F) {
	f.Add(uint64(1), uint16(1), uint8(1), uint8(1))
	f.Add(uint64(2), uint16(100), uint8(9), uint8(13))
	f.Add(uint64(3), uint16(771), uint8(4), uint8(32))
	f.Fuzz(func(t *testing.T, seed uint64, dim uint16, rows, n uint8) {
		if rows == 0 {
			t.Skip()
		}
		r := rand.New(rand.NewPCG(seed, 5))
		ids := make([]uint32, n)
		for i := range ids {
			ids[i] = uint32(r.IntN(int(rows)))
		}
		for _, k := range levels(t) {
			for _, d := range distances(t, k, int(dim)%1500+1) {
				compareElements(t, d, randomRows(r, d, 1), randomRows(r, d, int(rows)), ids)
			}
		}
	})
}

func BenchmarkElements(b *testing.B) {
	r := rand.New(rand.NewPCG(7, 8))
	const rows = 32
	ids, out := make([]uint32, rows), make([]float32, rows)
	for i, j := range r.Perm(rows) {
		ids[i] = uint32(j)
	}
	for _, dim := range []int{128, 768} {
		for _, k := range append(levels(b), Kernels{}) {
			for _, d := range distances(b, k, dim) {
				q, base := randomRows(r, d, 1), randomRows(r, d, rows)
				b.Run(fmt.Sprintf("%s/%s/bytes=%d/%s", d.elem, d.op, d.bytes, k.Level()), func(b *testing.B) {
					for b.Loop() {
						d.IDs(q, base, ids, out)
					}
					b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*rows), "ns/row")
				})
			}
		}
	}
}
