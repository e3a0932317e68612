// Command panel generates the kernels that multiply queries with panels of
// bytes, and those that look through the sums; see internal/vec/panel.go.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for queries := panelsMost; queries > 0; queries-- {
		emitPanels(queries)
	}
	emitPanels256()
	emitQuantize()
	emitBelow()
	emitNearest()
	Generate()
}

// panelsMost is how many queries are multiplied in one go at most: their sums fit the registers.
const panelsMost = 8

// emitPanels emits a kernel for a fixed number of queries. A panel's two
// registers of a quad are multiplied with the quad of each query, broadcast.
func emitPanels(queries int) {
	TEXT(fmt.Sprintf("panels%dAVX512", queries), NOSPLIT, "func(queries *int8, quads int, panels *byte, n int, out *int32)")
	Pragma("noescape")
	Doc(fmt.Sprintf("panels%dAVX512 writes the dot products of %d queries and the vectors of n panels to out. It needs VNNI.", queries, queries))
	q := Load(Param("queries"), GP64())
	quads := Load(Param("quads"), GP64())
	panel := Load(Param("panels"), GP64())
	n := Load(Param("n"), GP64())
	out := Load(Param("out"), GP64())
	stride, width := GP64(), GP64() // of a query, of its results, in bytes
	MOVQ(quads, stride)
	SHLQ(Imm(2), stride)
	MOVQ(n, width)
	SHLQ(Imm(7), width)
	chains := 1
	if queries < 4 {
		chains = 2 // else additions wait for one another
	}
	acc := make([][2]reg.VecVirtual, queries*chains)
	for i := range acc {
		acc[i] = [2]reg.VecVirtual{ZMM(), ZMM()}
	}

	Label("panel")
	for _, a := range acc {
		VPXORD(a[0], a[0], a[0])
		VPXORD(a[1], a[1], a[1])
	}
	left, at := GP64(), GP64()
	MOVQ(quads, left)
	MOVQ(q, at)
	step := func(chain int) {
		lo, hi := ZMM(), ZMM()
		VMOVDQU64(Mem{Base: panel, Disp: 128 * chain}, lo)
		VMOVDQU64(Mem{Base: panel, Disp: 128*chain + 64}, hi)
		row := GP64()
		for i := range queries {
			m := Mem{Base: at, Disp: 4 * chain}
			if i > 0 {
				if i == 1 {
					LEAQ(Mem{Base: at, Index: stride, Scale: 1}, row)
				} else {
					ADDQ(stride, row)
				}
				m = Mem{Base: row, Disp: 4 * chain}
			}
			b := ZMM()
			VPBROADCASTD(m, b)
			VPDPBUSD(b, lo, acc[i*chains+chain][0])
			VPDPBUSD(b, hi, acc[i*chains+chain][1])
		}
	}
	if chains == 2 {
		Label("quads2")
		CMPQ(left, Imm(2))
		JL(LabelRef("quad"))
		step(0)
		step(1)
		ADDQ(Imm(8), at)
		ADDQ(U32(256), panel)
		SUBQ(Imm(2), left)
		JMP(LabelRef("quads2"))
	}
	Label("quad")
	TESTQ(left, left)
	JZ(LabelRef("store"))
	step(0)
	ADDQ(Imm(4), at)
	ADDQ(U32(128), panel)
	DECQ(left)
	JMP(LabelRef("quad"))
	Label("store")
	if chains == 2 {
		for i := range queries {
			VPADDD(acc[2*i+1][0], acc[2*i][0], acc[2*i][0])
			VPADDD(acc[2*i+1][1], acc[2*i][1], acc[2*i][1])
		}
	}
	to := GP64()
	MOVQ(out, to)
	for i := range queries {
		VMOVDQU32(acc[i*chains][0], Mem{Base: to})
		VMOVDQU32(acc[i*chains][1], Mem{Base: to, Disp: 64})
		if i+1 < queries {
			ADDQ(width, to)
		}
	}
	ADDQ(U32(128), out)
	DECQ(n)
	JNZ(LabelRef("panel"))
	VZEROUPPER()
	RET()
}

// emitPanels256 emits a kernel for one query. Products of codes of seven bits fit
// 16 bits in pairs.
func emitPanels256() {
	TEXT("panels1AVX2", NOSPLIT, "func(queries *int8, quads int, panels *byte, n int, out *int32)")
	Pragma("noescape")
	Doc("panels1AVX2 writes the dot products of a query and the vectors of n panels to out.")
	q := Load(Param("queries"), GP64())
	quads := Load(Param("quads"), GP64())
	panel := Load(Param("panels"), GP64())
	n := Load(Param("n"), GP64())
	out := Load(Param("out"), GP64())
	acc := [4]reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	ones, b := YMM(), YMM()
	VPCMPEQW(ones, ones, ones)
	VPSRLW(Imm(15), ones, ones)
	Label("panel")
	for _, a := range acc {
		VPXOR(a, a, a)
	}
	left, at := GP64(), GP64()
	MOVQ(quads, left)
	MOVQ(q, at)
	Label("quad")
	VPBROADCASTD(Mem{Base: at}, b)
	for i, a := range acc {
		t := YMM()
		VMOVDQU(Mem{Base: panel, Disp: 32 * i}, t)
		VPMADDUBSW(b, t, t)
		VPMADDWD(ones, t, t)
		VPADDD(t, a, a)
	}
	ADDQ(Imm(4), at)
	ADDQ(U32(128), panel)
	DECQ(left)
	JNZ(LabelRef("quad"))
	for i, a := range acc {
		VMOVDQU(a, Mem{Base: out, Disp: 32 * i})
	}
	ADDQ(U32(128), out)
	DECQ(n)
	JNZ(LabelRef("panel"))
	VZEROUPPER()
	RET()
}

// emitQuantize emits what makes a query of float32 one of int8.
func emitQuantize() {
	TEXT("quantizeAVX512", NOSPLIT, "func(q *float32, step *float32, n int, z *int8) float32")
	Pragma("noescape")
	Doc("quantizeAVX512 writes the products of n values and steps to z, scaled so that the largest is 127, and returns that before it is scaled.")
	q := Load(Param("q"), GP64())
	step := Load(Param("step"), GP64())
	n := Load(Param("n"), GP64())
	z := Load(Param("z"), GP64())
	tail := Load(Param("n"), reg.RCX)
	ANDQ(Imm(15), tail)
	mask := GP64()
	MOVQ(U64(1), mask)
	SHLQ(reg.CL, mask)
	DECQ(mask)
	KMOVW(mask.As32(), reg.K1)
	ANDQ(I32(-16), n)
	off := GP64()
	most, positive := ZMM(), ZMM()
	VPXORD(most, most, most)
	x := GP32()
	MOVL(U32(0x7fffffff), x)
	VPBROADCASTD(x, positive)
	at := func(base reg.Register) Mem { return Mem{Base: base, Index: off, Scale: 4} }
	each := func(pass string, each func(v reg.VecVirtual, masked bool)) {
		XORQ(off, off)
		Label(pass)
		CMPQ(off, n)
		JGE(LabelRef(pass + "Tail"))
		v := ZMM()
		VMOVUPS(at(q), v)
		VMULPS(at(step), v, v)
		each(v, false)
		ADDQ(Imm(16), off)
		JMP(LabelRef(pass))
		Label(pass + "Tail")
		TESTQ(tail, tail)
		JZ(LabelRef(pass + "Done"))
		s := ZMM()
		VMOVUPS_Z(at(q), reg.K1, v)
		VMOVUPS_Z(at(step), reg.K1, s)
		VMULPS(s, v, v)
		each(v, true)
		Label(pass + "Done")
	}
	each("largest", func(v reg.VecVirtual, _ bool) {
		VPANDD(positive, v, v)
		VMAXPS(most, v, most)
	})
	y := YMM()
	VEXTRACTF64X4(Imm(1), most, y)
	VMAXPS(y, most.AsY(), y)
	m, h := XMM(), XMM()
	VEXTRACTF128(Imm(1), y, m)
	VMAXPS(m, y.AsX(), m)
	VPSHUFD(Imm(0x4e), m, h)
	VMAXPS(h, m, m)
	VPSHUFD(Imm(0xb1), m, h)
	VMAXPS(h, m, m)
	Store(m, ReturnIndex(0))
	scale := ZMM()
	MOVL(U32(0x42fe0000), x) // 127
	VMOVD(x, h)
	VDIVSS(m, h, h)
	VBROADCASTSS(h, scale)
	each("scaled", func(v reg.VecVirtual, masked bool) {
		VMULPS(scale, v, v)
		VCVTPS2DQ(v, v)
		to := Mem{Base: z, Index: off, Scale: 1}
		if masked {
			VPMOVSDB(v, reg.K1, to)
		} else {
			VPMOVSDB(v, to)
		}
	})
	VZEROUPPER()
	RET()
}

func broadcast(name string) reg.VecVirtual {
	a, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	z := ZMM()
	VBROADCASTSS(a.Addr, z)
	return z
}

// affine loads 16 sums and makes them distances.
func affine(sums, bias reg.Register, scale, base reg.VecVirtual) reg.VecVirtual {
	d := ZMM()
	VCVTDQ2PS(Mem{Base: sums}, d)
	VFMADD213PS(base, scale, d)
	VADDPS(Mem{Base: bias}, d, d)
	return d
}

func emitBelow() {
	TEXT("sumsBelowAVX512", NOSPLIT, "func(sums *int32, n int, bias *float32, scale float32, base float32, limit float32, rows *uint32, dist *float32) int")
	Pragma("noescape")
	Doc("sumsBelowAVX512 writes the places below limit among n, a multiple of 16, and their distances, and returns how many they are.")
	sums := Load(Param("sums"), GP64())
	n := Load(Param("n"), GP64())
	bias := Load(Param("bias"), GP64())
	scale, base, limit := broadcast("scale"), broadcast("base"), broadcast("limit")
	rows := Load(Param("rows"), GP64())
	dist := Load(Param("dist"), GP64())
	ids, sixteen := iotaOnce()
	first := GP64()
	MOVQ(rows, first)
	Label("loop")
	d := affine(sums, bias, scale, base)
	k := K()
	VCMPPS(U8(1), limit, d, k)
	KORTESTW(k, k)
	JZ(LabelRef("none"))
	packed := ZMM()
	VPCOMPRESSD_Z(ids, k, packed)
	VMOVDQU32(packed, Mem{Base: rows})
	VCOMPRESSPS_Z(d, k, d)
	VMOVUPS(d, Mem{Base: dist})
	bits := GP32()
	KMOVW(k, bits)
	POPCNTL(bits, bits)
	LEAQ(Mem{Base: rows, Index: bits.As64(), Scale: 4}, rows)
	LEAQ(Mem{Base: dist, Index: bits.As64(), Scale: 4}, dist)
	Label("none")
	VPADDD(sixteen, ids, ids)
	ADDQ(Imm(64), sums)
	ADDQ(Imm(64), bias)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("loop"))
	SUBQ(first, rows)
	SHRQ(Imm(2), rows)
	Store(rows, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

var iotaTable *Mem

// iotaOnce returns 0 to 15 and a register of sixteens; one table serves all functions.
func iotaOnce() (ids, sixteen reg.VecVirtual) {
	if iotaTable == nil {
		table := GLOBL("panelIota", RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, U32(uint32(i)))
		}
		iotaTable = &table
	}
	ids, sixteen = ZMM(), ZMM()
	VMOVDQU32(*iotaTable, ids)
	x := GP32()
	MOVL(U32(16), x)
	VPBROADCASTD(x, sixteen)
	return ids, sixteen
}

func emitNearest() {
	TEXT("sumsNearestAVX512", NOSPLIT, "func(sums *int32, n int, bias *float32, scale float32, rows *uint32, dist *float32)")
	Pragma("noescape")
	Doc("sumsNearestAVX512 writes 16 places and distances, among which the nearest of n is, a multiple of 16.")
	sums := Load(Param("sums"), GP64())
	n := Load(Param("n"), GP64())
	bias := Load(Param("bias"), GP64())
	scale := broadcast("scale")
	ids, sixteen := iotaOnce()
	best, at, zero := ZMM(), ZMM(), ZMM()
	VPXORD(at, at, at)
	VPXORD(zero, zero, zero)
	x := GP32()
	MOVL(U32(0x7f800000), x)
	VPBROADCASTD(x, best)
	Label("loop")
	d := affine(sums, bias, scale, zero)
	k := K()
	VCMPPS(U8(1), best, d, k)
	VBLENDMPS(d, best, k, best)
	VPBLENDMD(ids, at, k, at)
	VPADDD(sixteen, ids, ids)
	ADDQ(Imm(64), sums)
	ADDQ(Imm(64), bias)
	SUBQ(Imm(16), n)
	JNZ(LabelRef("loop"))
	rows := Load(Param("rows"), GP64())
	dist := Load(Param("dist"), GP64())
	VMOVDQU32(at, Mem{Base: rows})
	VMOVUPS(best, Mem{Base: dist})
	VZEROUPPER()
	RET()
}
