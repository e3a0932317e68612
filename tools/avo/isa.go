package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// avx512 needs F, BW and VL.
type avx512 struct{}

func (avx512) name() string        { return "AVX512" }
func (avx512) width() int          { return 64 }
func (avx512) reg() reg.VecVirtual { return ZMM() }

func (avx512) zero() reg.VecVirtual {
	z := ZMM()
	VPXORD(z, z, z)
	return z
}

func (avx512) load(m Mem) reg.VecVirtual {
	z := ZMM()
	VMOVUPS(m, z)
	return z
}

func (avx512) prepareTail() {
	dim := Load(Param("dim"), reg.RCX)
	ANDQ(Imm(15), dim)
	mask := GP32()
	MOVL(U32(1), mask)
	SHLL(reg.CL, mask)
	DECL(mask)
	KMOVW(mask, reg.K1)
}

func (avx512) loadTail(m Mem) reg.VecVirtual {
	z := ZMM()
	VMOVUPS_Z(m, reg.K1, z)
	return z
}

func (avx512) fold(z reg.VecVirtual) reg.VecVirtual {
	hi := YMM()
	VEXTRACTF64X4(Imm(1), z, hi)
	VADDPS(hi, z.AsY(), hi)
	return hi
}

// avx2 needs AVX2 and FMA.
type avx2 struct {
	table Mem
	mask  reg.VecVirtual
}

func (*avx2) name() string        { return "AVX2" }
func (*avx2) width() int          { return 32 }
func (*avx2) reg() reg.VecVirtual { return YMM() }

func (*avx2) zero() reg.VecVirtual {
	y := YMM()
	VXORPS(y, y, y)
	return y
}

func (*avx2) load(m Mem) reg.VecVirtual {
	y := YMM()
	VMOVUPS(m, y)
	return y
}

// prepareTail loads the mask from a table of eight set words and eight clear
// ones, at the place where as many set words are left as the tail has.
func (a *avx2) prepareTail() {
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

func (a *avx2) loadTail(m Mem) reg.VecVirtual {
	y := YMM()
	VMASKMOVPS(m, a.mask, y)
	return y
}

func (*avx2) fold(y reg.VecVirtual) reg.VecVirtual { return y }
