// Command within generates the kernels that compare columns of numbers with
// constants; see internal/vec/within.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for _, t := range types {
		within512(t)
		within256(t)
	}
	equal512()
	equal256()
	Generate()
}

// number is a type of column.
type number struct {
	name, goType string
	size         int
	float        bool
}

var types = []number{{"Int64", "int64", 8, false}, {"Float64", "float64", 8, true}, {"Float32", "float32", 4, true}}

// Predicates of comparisons: integers, and floats where a NaN makes them false.
const (
	intLE   = 2
	intGE   = 5
	floatLE = 0x12
	floatGE = 0x1d
)

func begin(t number, level string) (v, words, out reg.Register) {
	TEXT("within"+t.name+level, NOSPLIT, "func(v *"+t.goType+", words int, lo, hi "+t.goType+", out *uint64)")
	Pragma("noescape")
	Doc("within" + t.name + level + " sets bit i of out where lo <= v[i] <= hi, for 64*words values; words > 0.")
	return Load(Param("v"), GP64()), Load(Param("words"), GP64()), Load(Param("out"), GP64())
}

// limit loads a parameter into all lanes.
func limit(t number, name string, to reg.VecVirtual) {
	switch {
	case !t.float:
		x := Load(Param(name), GP64())
		if to.Size() == 64 {
			VPBROADCASTQ(x, to)
			return
		}
		low := XMM()
		MOVQ(x, low)
		VPBROADCASTQ(low, to)
	case t.size == 8:
		x := XMM()
		Load(Param(name), x)
		VBROADCASTSD(x, to)
	default:
		x := XMM()
		Load(Param(name), x)
		VBROADCASTSS(x, to)
	}
}

func within512(t number) {
	v, words, out := begin(t, "AVX512")
	lo, hi := ZMM(), ZMM()
	limit(t, "lo", lo)
	limit(t, "hi", hi)
	Label("word")
	lanes := 64 / t.size
	for i := range 64 / lanes {
		at := Mem{Base: v, Disp: 64 * i}
		k, both, bits := reg.K1, reg.K2, GP32()
		switch {
		case !t.float:
			VPCMPQ(Imm(intLE), at, lo, k)
			VPCMPQ(Imm(intGE), at, hi, k, both)
		case t.size == 8:
			VCMPPD(Imm(floatLE), at, lo, k)
			VCMPPD(Imm(floatGE), at, hi, k, both)
		default:
			VCMPPS(Imm(floatLE), at, lo, k)
			VCMPPS(Imm(floatGE), at, hi, k, both)
		}
		KMOVW(both, bits)
		if lanes == 8 {
			MOVB(bits.As8(), Mem{Base: out, Disp: i})
		} else {
			MOVW(bits.As16(), Mem{Base: out, Disp: 2 * i})
		}
	}
	next(v, out, words, 64*t.size)
	VZEROUPPER()
	RET()
}

// next moves on to the next word.
func next(v, out, words reg.Register, bytes int) {
	ADDQ(U32(uint32(bytes)), v)
	ADDQ(Imm(8), out)
	DECQ(words)
	JNZ(LabelRef("word"))
}

func within256(t number) {
	v, words, out := begin(t, "AVX2")
	lo, hi := YMM(), YMM()
	limit(t, "lo", lo)
	limit(t, "hi", hi)
	Label("word")
	for i := range 8 { // a byte of the result
		if t.size == 4 {
			MOVB(lanes256(t, Mem{Base: v, Disp: 32 * i}, lo, hi).As8(), Mem{Base: out, Disp: i})
			continue
		}
		low := lanes256(t, Mem{Base: v, Disp: 64 * i}, lo, hi)
		high := lanes256(t, Mem{Base: v, Disp: 64*i + 32}, lo, hi)
		SHLL(Imm(4), high)
		ORL(high, low)
		MOVB(low.As8(), Mem{Base: out, Disp: i})
	}
	next(v, out, words, 64*t.size)
	VZEROUPPER()
	RET()
}

// lanes256 compares 32 bytes.
func lanes256(t number, at Mem, lo, hi reg.VecVirtual) reg.GPVirtual {
	a, b, bits := YMM(), YMM(), GP32()
	switch {
	case !t.float: // there is only "greater"
		VMOVDQU(at, a)
		VPCMPGTQ(a, lo, b)
		VPCMPGTQ(hi, a, a)
		VPOR(a, b, a)
		VMOVMSKPD(a, bits)
		XORL(Imm(15), bits)
	case t.size == 8:
		VCMPPD(Imm(floatLE), at, lo, a)
		VCMPPD(Imm(floatGE), at, hi, b)
		VANDPD(a, b, a)
		VMOVMSKPD(a, bits)
	default:
		VCMPPS(Imm(floatLE), at, lo, a)
		VCMPPS(Imm(floatGE), at, hi, b)
		VANDPS(a, b, a)
		VMOVMSKPS(a, bits)
	}
	return bits
}

func beginEqual(level string) (v, words, list, n, out reg.Register) {
	TEXT("equalInt64"+level, NOSPLIT, "func(v *int64, words int, list *int64, n int, out *uint64)")
	Pragma("noescape")
	Doc("equalInt64" + level + " sets bit i of out where v[i] is one of the n values of list, for 64*words values; words, n > 0.")
	return Load(Param("v"), GP64()), Load(Param("words"), GP64()), Load(Param("list"), GP64()), Load(Param("n"), GP64()), Load(Param("out"), GP64())
}

func equal512() {
	v, words, list, n, out := beginEqual("AVX512")
	Label("word")
	for half := range 2 {
		var rows, found [4]reg.Register
		for i := range rows {
			z := ZMM()
			VMOVDQU64(Mem{Base: v, Disp: 256*half + 64*i}, z)
			k := []reg.Register{reg.K1, reg.K2, reg.K3, reg.K4}[i]
			KXORW(k, k, k)
			rows[i], found[i] = z, k
		}
		at, left, x := GP64(), GP64(), ZMM()
		MOVQ(list, at)
		MOVQ(n, left)
		label := []string{"first", "second"}[half]
		Label(label)
		VPBROADCASTQ(Mem{Base: at}, x)
		for i := range rows {
			VPCMPEQQ(rows[i], x, reg.K5)
			KORW(reg.K5, found[i], found[i])
		}
		ADDQ(Imm(8), at)
		DECQ(left)
		JNZ(LabelRef(label))
		for i := range found {
			bits := GP32()
			KMOVW(found[i], bits)
			MOVB(bits.As8(), Mem{Base: out, Disp: 4*half + i})
		}
	}
	next(v, out, words, 512)
	VZEROUPPER()
	RET()
}

func equal256() {
	v, words, list, n, out := beginEqual("AVX2")
	Label("word")
	bytes := GP64()
	XORQ(bytes, bytes)
	Label("quarter")
	var rows, found [4]reg.VecVirtual
	for i := range rows {
		rows[i], found[i] = YMM(), YMM()
		VMOVDQU(Mem{Base: v, Disp: 32 * i}, rows[i])
		VPXOR(found[i], found[i], found[i])
	}
	at, left, x := GP64(), GP64(), YMM()
	MOVQ(list, at)
	MOVQ(n, left)
	Label("value")
	VPBROADCASTQ(Mem{Base: at}, x)
	for i := range rows {
		same := YMM()
		VPCMPEQQ(rows[i], x, same)
		VPOR(same, found[i], found[i])
	}
	ADDQ(Imm(8), at)
	DECQ(left)
	JNZ(LabelRef("value"))
	for i := 0; i < 4; i += 2 {
		low, high := GP32(), GP32()
		VMOVMSKPD(found[i], low)
		VMOVMSKPD(found[i+1], high)
		SHLL(Imm(4), high)
		ORL(high, low)
		MOVB(low.As8(), Mem{Base: out, Index: bytes, Scale: 1, Disp: i / 2})
	}
	ADDQ(U32(128), v)
	ADDQ(Imm(2), bytes)
	CMPQ(bytes, Imm(8))
	JB(LabelRef("quarter"))
	ADDQ(Imm(8), out)
	DECQ(words)
	JNZ(LabelRef("word"))
	VZEROUPPER()
	RET()
}
