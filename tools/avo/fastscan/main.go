// Command fastscan generates the kernels that sum up 4-bit codes; see
// internal/vec/fastscan.go for the layout they read.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	emitSums512()
	emitBelow512()
	emitSums256()
	Generate()
}

// vbmi holds the constants of the AVX-512 kernels. A table of 64 bytes serves
// four codes at once: VPERMB takes six bits of index, of which a code is four
// and its place among the four is the other two; VPDPBUSD with ones adds the
// four bytes of each vector.
type vbmi struct {
	low, place, ones reg.VecVirtual
	codes            reg.GPVirtual // moves over the codes of all blocks
	lut, bytes       reg.GPVirtual // bytes: the size of a block
}

func newVBMI() *vbmi {
	v := &vbmi{low: ZMM(), place: ZMM(), ones: ZMM()}
	x := GP32()
	for _, c := range []struct {
		to  reg.VecVirtual
		val uint32
	}{{v.low, 0x0f0f0f0f}, {v.place, 0x30201000}, {v.ones, 0x01010101}} {
		MOVL(U32(c.val), x)
		VPBROADCASTD(x, c.to)
	}
	v.codes = Load(Param("codes"), GP64()).(reg.GPVirtual)
	v.lut = Load(Param("lut"), GP64()).(reg.GPVirtual)
	v.bytes = Load(Param("quads"), GP64()).(reg.GPVirtual)
	SHLQ(Imm(6), v.bytes)
	return v
}

// sumBlock adds up a block and returns the sums of its first and last 16 codes.
func (v *vbmi) sumBlock() (lo, hi reg.VecVirtual) {
	acc := [4]reg.VecVirtual{ZMM(), ZMM(), ZMM(), ZMM()}
	for _, a := range acc {
		VPXORD(a, a, a)
	}
	off, last := GP64(), GP64()
	XORQ(off, off)
	LEAQ(Mem{Base: v.bytes, Disp: -64}, last)
	step := func(at int, lo, hi reg.VecVirtual) {
		a, b, table := ZMM(), ZMM(), ZMM()
		codes := Mem{Base: v.codes, Index: off, Scale: 1, Disp: at}
		VMOVDQU64(codes, a)
		VPSRLD(Imm(4), a, b)
		VMOVDQU64(Mem{Base: v.lut, Index: off, Scale: 1, Disp: at}, table)
		VPTERNLOGD(U8(0xea), v.place, v.low, a) // a&low | place
		VPTERNLOGD(U8(0xea), v.place, v.low, b)
		VPERMB(table, a, a)
		VPERMB(table, b, b)
		VPDPBUSD(v.ones, a, lo)
		VPDPBUSD(v.ones, b, hi)
	}
	Label("quads2")
	CMPQ(off, last)
	JGE(LabelRef("quad1"))
	step(0, acc[0], acc[1])
	step(64, acc[2], acc[3])
	ADDQ(U32(128), off)
	JMP(LabelRef("quads2"))
	Label("quad1")
	JG(LabelRef("summed"))
	step(0, acc[0], acc[1])
	Label("summed")
	VPADDD(acc[2], acc[0], acc[0])
	VPADDD(acc[3], acc[1], acc[1])
	ADDQ(v.bytes, v.codes)
	return acc[0], acc[1]
}

func emitSums512() {
	TEXT("fastScanAVX512", NOSPLIT, "func(codes *byte, quads int, blocks int, lut *byte, out *uint32)")
	Pragma("noescape")
	Doc("fastScanAVX512 writes the sums of the codes of all blocks to out. It needs VBMI and VNNI.")
	v := newVBMI()
	out := Load(Param("out"), GP64())
	n := Load(Param("blocks"), GP64())
	Label("block")
	lo, hi := v.sumBlock()
	VMOVDQU32(lo, Mem{Base: out})
	VMOVDQU32(hi, Mem{Base: out, Disp: 64})
	ADDQ(U32(128), out)
	DECQ(n)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}

func emitBelow512() {
	TEXT("fastScanBelowAVX512", NOSPLIT, "func(codes *byte, quads int, blocks int, lut *byte, bias *float32, masks *uint32, scale float32, base float32, limit float32, rows *uint32, dist *float32) int")
	Pragma("noescape")
	Doc("fastScanBelowAVX512 writes the rows below limit, and their distances, and returns how many they are. bias and masks may be nil. It needs VBMI and VNNI.")
	v := newVBMI()
	bias := Load(Param("bias"), GP64())
	masks := Load(Param("masks"), GP64())
	rows := Load(Param("rows"), GP64())
	dist := Load(Param("dist"), GP64())
	n := Load(Param("blocks"), GP64())
	scale, base, limit, ids, sixteen := ZMM(), ZMM(), ZMM(), ZMM(), ZMM()
	for _, p := range []struct {
		name string
		to   reg.VecVirtual
	}{{"scale", scale}, {"base", base}, {"limit", limit}} {
		a, err := Param(p.name).Resolve()
		if err != nil {
			panic(err)
		}
		VBROADCASTSS(a.Addr, p.to)
	}
	iota16 := GLOBL("fastScanIota", RODATA|NOPTR)
	for i := range 16 {
		DATA(4*i, U32(uint32(i)))
	}
	VMOVDQU32(iota16, ids)
	x := GP32()
	MOVL(U32(16), x)
	VPBROADCASTD(x, sixteen)
	first := GP64()
	MOVQ(rows, first)

	wanted := GP32()
	Label("block")
	MOVL(U32(0xffffffff), wanted)
	TESTQ(masks, masks)
	JZ(LabelRef("wanted"))
	MOVL(Mem{Base: masks}, wanted)
	ADDQ(Imm(4), masks)
	TESTL(wanted, wanted)
	JNZ(LabelRef("wanted"))
	ADDQ(v.bytes, v.codes)
	VPADDD(sixteen, ids, ids)
	VPADDD(sixteen, ids, ids)
	TESTQ(bias, bias)
	JZ(LabelRef("next"))
	ADDQ(U32(128), bias)
	JMP(LabelRef("next"))
	Label("wanted")
	lo, hi := v.sumBlock()
	for _, s := range []reg.VecVirtual{lo, hi} {
		VCVTDQ2PS(s, s)
		VFMADD213PS(base, scale, s)
	}
	TESTQ(bias, bias)
	JZ(LabelRef("compare"))
	VADDPS(Mem{Base: bias}, lo, lo)
	VADDPS(Mem{Base: bias, Disp: 64}, hi, hi)
	ADDQ(U32(128), bias)
	Label("compare")
	for i, s := range []reg.VecVirtual{lo, hi} {
		k := K()
		none := []string{"noneLow", "noneHigh"}[i]
		in := K()
		KMOVW(wanted, in)
		SHRL(Imm(16), wanted)
		VCMPPS(U8(1), limit, s, in, k) // less than, false for NaN
		KORTESTW(k, k)
		JZ(LabelRef(none))
		// A whole register always fits: at most as many rows were written as were looked at.
		packed := ZMM()
		VPCOMPRESSD_Z(ids, k, packed)
		VMOVDQU32(packed, Mem{Base: rows})
		VCOMPRESSPS_Z(s, k, s)
		VMOVUPS(s, Mem{Base: dist})
		bits := GP32()
		KMOVW(k, bits)
		POPCNTL(bits, bits)
		LEAQ(Mem{Base: rows, Index: bits.As64(), Scale: 4}, rows)
		LEAQ(Mem{Base: dist, Index: bits.As64(), Scale: 4}, dist)
		Label(none)
		VPADDD(sixteen, ids, ids)
	}
	Label("next")
	DECQ(n)
	JNZ(LabelRef("block"))
	SUBQ(first, rows)
	SHRQ(Imm(2), rows)
	Store(rows, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// chunkPairs is how many pairs of quads AVX2 adds up in 16 bits: four codes a
// quad, two quads in one sum at the end, at most 255 each.
const chunkPairs = 32

// emitSums256 works on two quads at once, one in each half of a register.
// VPSHUFB looks up 16 codes in one table of 16 bytes, so the four codes of a
// vector that lie together are taken apart first.
func emitSums256() {
	TEXT("fastScanAVX2", NOSPLIT, "func(codes *byte, quads int, blocks int, lut *byte, out *uint32)")
	Pragma("noescape")
	Doc("fastScanAVX2 adds the sums of the codes of all blocks to out.")
	apart := GLOBL("fastScanApart", RODATA|NOPTR)
	for i := range 8 {
		DATA(4*i, U32([]uint32{0x0c080400, 0x0d090501, 0x0e0a0602, 0x0f0b0703}[i%4]))
	}
	// Registers by hand: the allocator takes a load of a lower half for a use of
	// the upper one.
	var acc, y, t [4]reg.VecPhysical // acc: even, odd vectors of the first 16; of the last 16
	for i, r := range []reg.VecPhysical{reg.Y0, reg.Y1, reg.Y2, reg.Y3} {
		acc[i] = r
		y[i] = []reg.VecPhysical{reg.Y6, reg.Y7, reg.Y8, reg.Y9}[i]
		t[i] = []reg.VecPhysical{reg.Y10, reg.Y11, reg.Y12, reg.Y13}[i]
	}
	shuffle, low, table, hi := reg.Y4, reg.Y5, reg.Y14, reg.Y15
	VMOVDQU(apart, shuffle)
	x := GP32()
	MOVL(U32(0x0f0f0f0f), x)
	VMOVD(x, low.AsX())
	VPBROADCASTD(low.AsX(), low)

	codes := Load(Param("codes"), GP64())
	out := Load(Param("out"), GP64())
	n := Load(Param("blocks"), GP64())
	lut, left, pairs := GP64(), GP64(), GP64()

	load := func(base reg.Register, at int, both bool, y reg.VecPhysical) {
		VMOVDQU(Mem{Base: base, Disp: at}, y.AsX()) // clears the upper half
		if both {
			VINSERTI128(Imm(1), Mem{Base: base, Disp: at + 64}, y, y)
		}
	}
	step := func(both bool) {
		for i := range y {
			load(codes, 16*i, both, y[i])
			VPSHUFB(shuffle, y[i], y[i])
		}
		VPUNPCKLDQ(y[1], y[0], t[0])
		VPUNPCKHDQ(y[1], y[0], t[1])
		VPUNPCKLDQ(y[3], y[2], t[2])
		VPUNPCKHDQ(y[3], y[2], t[3])
		VPUNPCKLQDQ(t[2], t[0], y[0])
		VPUNPCKHQDQ(t[2], t[0], y[1])
		VPUNPCKLQDQ(t[3], t[1], y[2])
		VPUNPCKHQDQ(t[3], t[1], y[3])
		for i := range y {
			load(lut, 16*i, both, table)
			VPSRLW(Imm(4), y[i], hi)
			VPAND(low, y[i], y[i])
			VPAND(low, hi, hi)
			VPSHUFB(y[i], table, y[i])
			VPSHUFB(hi, table, hi)
			for j, s := range []reg.VecPhysical{y[i], hi} {
				// The even sums have those of their odd neighbours in the high byte until the end.
				VPADDW(s, acc[2*j], acc[2*j])
				VPSRLW(Imm(8), s, s)
				VPADDW(s, acc[2*j+1], acc[2*j+1])
			}
		}
	}

	Label("block")
	Load(Param("lut"), lut)
	Load(Param("quads"), left)
	Label("chunk")
	for _, a := range acc {
		VPXOR(a, a, a)
	}
	MOVQ(U32(chunkPairs), pairs)
	Label("pair")
	CMPQ(left, Imm(2))
	JL(LabelRef("odd"))
	step(true)
	ADDQ(U32(128), codes)
	ADDQ(U32(128), lut)
	SUBQ(Imm(2), left)
	DECQ(pairs)
	JNZ(LabelRef("pair"))
	JMP(LabelRef("flush"))
	Label("odd")
	TESTQ(left, left)
	JZ(LabelRef("flush"))
	step(false)
	ADDQ(Imm(64), codes)
	ADDQ(Imm(64), lut)
	DECQ(left)
	Label("flush")
	for j := range 2 {
		even, odd, t := acc[2*j], acc[2*j+1], t[0]
		VPSLLW(Imm(8), odd, t)
		VPSUBW(t, even, even)
		for _, a := range []reg.VecPhysical{even, odd} {
			VEXTRACTI128(Imm(1), a, t.AsX())
			VPADDW(t.AsX(), a.AsX(), a.AsX())
		}
		for i, unpack := range []func(...Op){VPUNPCKLWD, VPUNPCKHWD} {
			unpack(odd.AsX(), even.AsX(), t.AsX())
			VPMOVZXWD(t.AsX(), t)
			at := Mem{Base: out, Disp: 64*j + 32*i}
			VPADDD(at, t, t)
			VMOVDQU(t, at)
		}
	}
	TESTQ(left, left)
	JNZ(LabelRef("chunk"))
	ADDQ(U32(128), out)
	DECQ(n)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}
