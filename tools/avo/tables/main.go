// Command tables generates the kernels that make the tables of a query for
// fast-scan; see internal/vec/tables.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	emitValues()
	emitBytes()
	Generate()
}

// emitValues emits what multiplies the two values of a part with its 16 points. A
// least and a largest value stand in every lane of a register after four steps.
func emitValues() {
	TEXT("tableValuesAVX512", NOSPLIT, "func(points *float32, q *float32, parts int, factor float32, values *float32, least *float32) float32")
	Pragma("noescape")
	Doc("tableValuesAVX512 writes the products of parts of q and their points, times factor and less the least of the part, to values. It adds up the least of all parts at least, and returns the largest value.")
	points := Load(Param("points"), GP64())
	q := Load(Param("q"), GP64())
	n := Load(Param("parts"), GP64())
	values := Load(Param("values"), GP64())
	addr, err := Param("factor").Resolve()
	if err != nil {
		panic(err)
	}
	factor, most, sum := ZMM(), ZMM(), ZMM()
	VBROADCASTSS(addr.Addr, factor)
	VPXORD(most, most, most)
	VPXORD(sum, sum, sum)
	Label("part")
	x, y := ZMM(), ZMM()
	VBROADCASTSS(Mem{Base: q}, x)
	VBROADCASTSS(Mem{Base: q, Disp: 4}, y)
	VMULPS(factor, x, x)
	VMULPS(factor, y, y)
	VMULPS(Mem{Base: points}, x, x)
	VFMADD231PS(Mem{Base: points, Disp: 64}, y, x)
	lo, hi := everywhere(x, VMINPS), everywhere(x, VMAXPS)
	VSUBPS(lo, x, x)
	VSUBPS(lo, hi, hi)
	VADDPS(lo, sum, sum)
	VMAXPS(hi, most, most)
	VMOVUPS(x, Mem{Base: values})
	ADDQ(U32(128), points)
	ADDQ(Imm(8), q)
	ADDQ(Imm(64), values)
	DECQ(n)
	JNZ(LabelRef("part"))
	least := Load(Param("least"), GP64())
	VMOVSS(sum.AsX(), Mem{Base: least})
	Store(most.AsX(), ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// everywhere returns a register that has op of all lanes of x in each.
func everywhere(x reg.VecVirtual, op func(...Op)) reg.VecVirtual {
	out, t := ZMM(), ZMM()
	VSHUFF32X4(Imm(0x4e), x, x, t)
	op(t, x, out)
	VSHUFF32X4(Imm(0xb1), out, out, t)
	op(t, out, out)
	VPERMILPS(Imm(0x4e), out, t)
	op(t, out, out)
	VPERMILPS(Imm(0xb1), out, t)
	op(t, out, out)
	return out
}

func emitBytes() {
	TEXT("tableBytesAVX512", NOSPLIT, "func(values *float32, parts int, inv float32, lut *byte)")
	Pragma("noescape")
	Doc("tableBytesAVX512 writes 16 values for each part, times inv, to lut as the nearest bytes.")
	values := Load(Param("values"), GP64())
	n := Load(Param("parts"), GP64())
	lut := Load(Param("lut"), GP64())
	addr, err := Param("inv").Resolve()
	if err != nil {
		panic(err)
	}
	inv, x := ZMM(), ZMM()
	VBROADCASTSS(addr.Addr, inv)
	Label("part")
	VMULPS(Mem{Base: values}, inv, x)
	VCVTPS2DQ(x, x)
	VPMOVUSDB(x, Mem{Base: lut})
	ADDQ(Imm(64), values)
	ADDQ(Imm(16), lut)
	DECQ(n)
	JNZ(LabelRef("part"))
	VZEROUPPER()
	RET()
}
