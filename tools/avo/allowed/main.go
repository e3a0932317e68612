// Command allowed generates the kernel that looks rows up in a set of bits; see
// internal/vec/allowed.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	TEXT("allowedAVX512", NOSPLIT, "func(ids *uint32, blocks int, set *uint64, words int, masks *uint32) int")
	Pragma("noescape")
	Doc("allowedAVX512 writes a mask for each block of 32 ids, of those in a set of so many words of 32 bits, and returns how many they are.")
	ids := Load(Param("ids"), GP64())
	n := Load(Param("blocks"), GP64())
	set := Load(Param("set"), GP64())
	masks := Load(Param("masks"), GP64())
	words, low, one := ZMM(), ZMM(), ZMM()
	addr, err := Param("words").Resolve()
	if err != nil {
		panic(err)
	}
	VPBROADCASTD(addr.Addr, words)
	x := GP32()
	for _, c := range []struct {
		to  reg.VecVirtual
		val uint32
	}{{low, 31}, {one, 1}} {
		MOVL(U32(c.val), x)
		VPBROADCASTD(x, c.to)
	}
	count := GP64()
	XORQ(count, count)
	Label("block")
	var half [2]reg.GPVirtual
	for i := range half {
		v, at, got := ZMM(), ZMM(), ZMM()
		VMOVDQU32(Mem{Base: ids, Disp: 64 * i}, v)
		VPSRLD(Imm(5), v, at)
		k, in := K(), K()
		VPCMPUD(U8(1), words, at, k) // at < words
		VPXORD(got, got, got)
		VPGATHERDD(Mem{Base: set, Index: at, Scale: 4}, k, got)
		VPANDD(low, v, v)
		VPSRLVD(v, got, got)
		VPTESTMD(one, got, in)
		half[i] = GP32()
		KMOVW(in, half[i])
	}
	SHLL(Imm(16), half[1])
	ORL(half[1], half[0])
	MOVL(half[0], Mem{Base: masks})
	POPCNTL(half[0], half[0])
	ADDQ(half[0].As64(), count)
	ADDQ(Imm(4), masks)
	ADDQ(U32(128), ids)
	DECQ(n)
	JNZ(LabelRef("block"))
	Store(count, ReturnIndex(0))
	VZEROUPPER()
	RET()
	Generate()
}
