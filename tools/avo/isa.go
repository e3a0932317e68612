package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avx512 needs F, BW and VL; integers and bits need VNNI and VPOPCNTDQ.
type avx512 struct{}

func (avx512) name() string        { return "AVX512" }
func (avx512) width() int          { return 64 }
func (avx512) reg() reg.VecVirtual { return ZMM() }

func (avx512) fold(z reg.VecVirtual, ints bool) reg.VecVirtual {
	hi := YMM()
	VEXTRACTF64X4(Imm(1), z, hi)
	if ints {
		VPADDD(hi, z.AsY(), hi)
	} else {
		VADDPS(hi, z.AsY(), hi)
	}
	return hi
}

// prepareMask sets K1 to as many lanes as the tail has, of lanes in all.
func (avx512) prepareMask(lanes int) {
	dim := Load(Param("dim"), reg.RCX)
	ANDQ(I32(int32(lanes-1)), dim)
	mask := GP64()
	MOVQ(U64(1), mask)
	SHLQ(reg.CL, mask)
	DECQ(mask)
	KMOVQ(mask, reg.K1)
}

// avx2 needs AVX2, FMA and F16C.
type avx2 struct {
	table, ends, nibbles Mem
	mask                 reg.VecVirtual
	lookup, low          reg.VecVirtual
}

func (*avx2) name() string        { return "AVX2" }
func (*avx2) width() int          { return 32 }
func (*avx2) reg() reg.VecVirtual { return YMM() }

func (*avx2) fold(y reg.VecVirtual, _ bool) reg.VecVirtual { return y }

// prepareMask loads the mask from a table of eight set words and eight clear
// ones, at the place where as many set words are left as the tail has.
func (a *avx2) prepareMask() {
	if a.table.Symbol.Name == "" {
		a.table = GLOBL("tailMaskAVX2", RODATA|NOPTR)
		for i := range 8 {
			DATA(4*i, U32(0xffffffff))
		}
		for i := 8; i < 16; i++ {
			DATA(4*i, U32(0))
		}
	}
	dim := Load(Param("dim"), GP64())
	ANDQ(Imm(7), dim)
	at := GP64()
	LEAQ(a.table.Offset(32), at)
	SHLQ(Imm(2), dim)
	SUBQ(dim, at)
	a.mask = YMM()
	VMOVUPS(Mem{Base: at}, a.mask)
}

// prepareEnd loads a mask that leaves the last lanes, as many as the tail has,
// where a lane is of the given size.
func (a *avx2) prepareEnd(lanes, size int) {
	if a.ends.Symbol.Name == "" {
		a.ends = GLOBL("tailEndAVX2", RODATA|NOPTR)
		for i := range 16 {
			DATA(4*i, U32(0xffffffff*uint32(i/8)))
		}
	}
	dim := Load(Param("dim"), GP64())
	ANDQ(I32(int32(lanes-1)), dim)
	at := GP64()
	LEAQ(a.ends, at)
	a.mask = YMM()
	VMOVUPS(Mem{Base: at, Index: dim, Scale: uint8(size)}, a.mask)
}

// prepareCount loads what counting bits needs: how many there are in each nibble.
func (a *avx2) prepareCount() {
	if a.nibbles.Symbol.Name == "" {
		a.nibbles = GLOBL("nibbleBitsAVX2", RODATA|NOPTR)
		for i := range 8 {
			DATA(4*i, U32([]uint32{0x02010100, 0x03020201, 0x03020201, 0x04030302}[i%4]))
		}
	}
	a.lookup, a.low = YMM(), YMM()
	VMOVDQU(a.nibbles, a.lookup)
	x := GP32()
	MOVL(U32(0x0f0f0f0f), x)
	VMOVD(x, a.low.AsX())
	VPBROADCASTD(a.low.AsX(), a.low)
}

// count turns bytes into the numbers of their set bits, added up by eights.
func (a *avx2) count(y reg.VecVirtual) {
	hi := YMM()
	VPSRLW(Imm(4), y, hi)
	VPAND(a.low, y, y)
	VPAND(a.low, hi, hi)
	VPSHUFB(y, a.lookup, y)
	VPSHUFB(hi, a.lookup, hi)
	VPADDB(hi, y, y)
	VPXOR(hi, hi, hi)
	VPSADBW(hi, y, y)
}
