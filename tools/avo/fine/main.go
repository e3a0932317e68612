// Command fine generates the kernels that multiply a query with codes of 12 and
// 16 bits a value; see internal/vec/fine.go.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for _, bits := range []int{12, 16} {
		emit(bits)
	}
	Generate()
}

// ahead is how many rows are asked for before they are used.
const ahead = 8

type kernel struct {
	bits             int
	weights, at, row reg.GPVirtual // at moves over the weights as row does over a row
	flip, eight, low reg.VecVirtual
	high, rest, tail reg.VecVirtual // sums; of low halves
}

func emit(bits int) {
	name := fmt.Sprintf("fineIDs%dAVX512", bits)
	TEXT(name, NOSPLIT, "func(weights *int8, dim int, base *byte, stride int, ids *uint32, n int, out *int32)")
	Pragma("noescape")
	Doc(name + " writes two sums for each row: of products with high bytes, and of the rest. It needs VNNI.")
	k := &kernel{bits: bits, weights: Load(Param("weights"), GP64()).(reg.GPVirtual)}
	base := Load(Param("base"), GP64())
	stride := Load(Param("stride"), GP64())
	ids := Load(Param("ids"), GP64())
	n := Load(Param("n"), GP64())
	out := Load(Param("out"), GP64())
	k.flip, k.eight, k.low = ZMM(), ZMM(), ZMM()
	x := GP32()
	for _, c := range []struct {
		to  reg.VecVirtual
		val uint32
	}{{k.flip, 0x80808080}, {k.eight, 0x08080808}, {k.low, 0x0f0f0f0f}} {
		MOVL(U32(c.val), x)
		VPBROADCASTD(x, c.to)
	}
	// Bytes of the high part and of the low one: whole registers, and what is left.
	dim := Load(Param("dim"), reg.RCX)
	bytes := GP64()
	MOVQ(dim, bytes)
	highs, lows := GP64(), GP64()
	MOVQ(bytes, highs)
	mask(reg.RCX, reg.K1)
	if bits == 12 {
		MOVQ(bytes, reg.RCX)
		INCQ(reg.RCX)
		SHRQ(Imm(1), reg.RCX)
	} else {
		MOVQ(bytes, reg.RCX)
	}
	MOVQ(reg.RCX, lows)
	mask(reg.RCX, reg.K2)

	Label("row")
	next, id := GP64(), GP64()
	MOVQ(n, next)
	DECQ(next)
	limit := GP64()
	MOVQ(U32(ahead), limit)
	CMPQ(limit, next)
	CMOVQLT(limit, next) // at most the last row
	MOVL(Mem{Base: ids, Index: next, Scale: 4}, next.As32())
	IMULQ(stride, next)
	ADDQ(base, next)
	end := GP64()
	LEAQ(Mem{Base: next, Index: stride, Scale: 1}, end)
	Label("ask")
	PREFETCHT0(Mem{Base: next})
	ADDQ(Imm(64), next)
	CMPQ(next, end)
	JLT(LabelRef("ask"))
	PREFETCHT0(Mem{Base: end, Disp: -1})

	MOVL(Mem{Base: ids}, id.As32())
	IMULQ(stride, id)
	k.row = GP64()
	LEAQ(Mem{Base: base, Index: id, Scale: 1}, k.row)
	k.at = GP64()
	MOVQ(k.weights, k.at)
	k.high, k.rest, k.tail = ZMM(), ZMM(), ZMM()
	for _, a := range []reg.VecVirtual{k.high, k.rest, k.tail} {
		VPXORD(a, a, a)
	}
	k.section("high", highs, reg.K1, func(v reg.VecVirtual) {
		VPXORD(k.flip, v, v)
		VPDPBUSD(Mem{Base: k.at}, v, k.high)
		VPDPBUSD(Mem{Base: k.at, Disp: 64}, v, k.rest)
	})
	k.section("low", lows, reg.K2, func(v reg.VecVirtual) {
		if bits == 16 {
			VPXORD(k.flip, v, v)
			VPDPBUSD(Mem{Base: k.at}, v, k.tail)
			return
		}
		VPXORD(k.eight.AsZ(), v, v)
		odd := ZMM()
		VPSRLW(Imm(4), v, odd)
		VPANDD(k.low, v, v)
		VPANDD(k.low, odd, odd)
		VPXORD(k.eight, odd, odd)
		VPDPBUSD(Mem{Base: k.at}, v, k.tail)
		VPDPBUSD(Mem{Base: k.at, Disp: 64}, odd, k.tail)
	})
	if bits == 12 {
		VPSLLD(Imm(3), k.tail, k.tail)
	}
	VPADDD(k.tail, k.rest, k.rest)
	// Both sums at once.
	hy, ry, t := YMM(), YMM(), YMM()
	VEXTRACTI64X4(Imm(1), k.high, hy)
	VPADDD(k.high.AsY(), hy, hy)
	VEXTRACTI64X4(Imm(1), k.rest, ry)
	VPADDD(k.rest.AsY(), ry, ry)
	VPHADDD(ry, hy, t) // h h r r in each half
	VPHADDD(t, t, t)   // h r h r
	lo := XMM()
	VEXTRACTI128(Imm(1), t, lo)
	VPADDD(t.AsX(), lo, lo)
	VMOVQ(lo, Mem{Base: out})
	ADDQ(Imm(8), out)
	ADDQ(Imm(4), ids)
	DECQ(n)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// mask makes the mask of as many bytes as the last register of so many has.
func mask(bytes, k reg.Register) {
	m := GP64()
	ANDQ(Imm(63), bytes)
	MOVQ(U64(1), m)
	SHLQ(reg.CL, m)
	DECQ(m)
	KMOVQ(m, k)
}

// section calls each for every register of a part of a row.
func (k *kernel) section(name string, bytes reg.GPVirtual, mask reg.Register, each func(v reg.VecVirtual)) {
	left := GP64()
	MOVQ(bytes, left)
	step := I32(128)
	if k.bits == 16 && name == "low" {
		step = I32(64)
	}
	Label(name)
	CMPQ(left, Imm(64))
	JL(LabelRef(name + "Tail"))
	v := ZMM()
	VMOVDQU64(Mem{Base: k.row}, v)
	each(v)
	ADDQ(Imm(64), k.row)
	ADDQ(step, k.at)
	SUBQ(Imm(64), left)
	JMP(LabelRef(name))
	Label(name + "Tail")
	TESTQ(left, left)
	JZ(LabelRef(name + "Done"))
	VMOVDQU8_Z(Mem{Base: k.row}, mask, v)
	each(v)
	ADDQ(left, k.row)
	ADDQ(step, k.at)
	Label(name + "Done")
}
