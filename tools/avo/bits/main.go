// Command bits generates the kernels that count and list the rows of a set of bits; see
// internal/vec/bits.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	count()
	list()
	Generate()
}

// count adds up eight words at a time, four times.
func count() {
	const words, wide = 8, 4
	TEXT("countBitsAVX512", NOSPLIT, "func(set *uint64, words int) int")
	Pragma("noescape")
	Doc("countBitsAVX512 counts the bits of so many words, a multiple of 32. It needs VPOPCNTDQ.")
	set := Load(Param("set"), GP64())
	n := Load(Param("words"), GP64())
	var sums [wide]reg.VecVirtual
	for i := range sums {
		sums[i] = ZMM()
		VPXORQ(sums[i], sums[i], sums[i])
	}
	Label("words")
	for i := range sums {
		v := ZMM()
		VPOPCNTQ(Mem{Base: set, Disp: 8 * words * i}, v)
		VPADDQ(v, sums[i], sums[i])
	}
	ADDQ(U32(8*words*wide), set)
	SUBQ(Imm(words*wide), n)
	JNZ(LabelRef("words"))
	VPADDQ(sums[1], sums[0], sums[0])
	VPADDQ(sums[3], sums[2], sums[2])
	VPADDQ(sums[2], sums[0], sums[0])
	half := YMM()
	VEXTRACTI64X4(Imm(1), sums[0], half)
	VPADDQ(sums[0].AsY(), half, half)
	quarter := XMM()
	VEXTRACTI128(Imm(1), half, quarter)
	VPADDQ(half.AsX(), quarter, quarter)
	low, high := GP64(), GP64()
	MOVQ(quarter, low)
	VPEXTRQ(Imm(1), quarter, high)
	ADDQ(high, low)
	Store(low, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// list packs the places of a word's bits together; most words have eight or fewer. Of eight words
// at a time those are passed over that have none.
func list() {
	const words, few = 8, 8
	TEXT("listBitsAVX512", NOSPLIT, "func(set *uint64, words int, row uint32, places *byte, out *uint32) int")
	Pragma("noescape")
	Doc("listBitsAVX512 writes row and the place of each bit of so many words, a multiple of 8, to out, up to 8 more than there are, and returns how many these are. places are 0 to 63. It needs VBMI2.")
	set := Load(Param("set"), GP64())
	n := Load(Param("words"), GP64())
	out := Load(Param("out"), GP64())
	places := ZMM()
	VMOVDQU64(Mem{Base: Load(Param("places"), GP64())}, places)
	first, start := Load(Param("row"), GP32()).(reg.GPVirtual), GP64()
	MOVQ(out, start)
	Label("words")
	all, some, which := ZMM(), K(), GP32()
	VMOVDQU64(Mem{Base: set}, all)
	VPTESTMQ(all, all, some)
	KMOVB(some, which)
	TESTL(which, which)
	JZ(LabelRef("next"))
	Label("word")
	i, word, bits := GP32(), K(), GP64()
	BSFL(which, i)
	KMOVQ(Mem{Base: set, Index: i.As64(), Scale: 8}, word)
	POPCNTQ(Mem{Base: set, Index: i.As64(), Scale: 8}, bits)
	SHLL(Imm(6), i)
	ADDL(first, i)
	packed, rows, base := ZMM(), YMM(), YMM()
	VPCOMPRESSB_Z(places, word, packed)
	VPBROADCASTD(i, base)
	VPMOVZXBD(packed.AsX(), rows)
	VPADDD(base, rows, rows)
	VMOVDQU(rows, Mem{Base: out})
	CMPQ(bits, Imm(few))
	JG(LabelRef("more"))
	Label("done")
	LEAQ(Mem{Base: out, Index: bits, Scale: 4}, out)
	less := GP32()
	LEAL(Mem{Base: which, Disp: -1}, less)
	ANDL(less, which)
	JNZ(LabelRef("word"))
	Label("next")
	ADDQ(Imm(8*words), set)
	ADDL(U32(64*words), first)
	SUBQ(Imm(words), n)
	JNZ(LabelRef("words"))
	SUBQ(start, out)
	SHRQ(Imm(2), out)
	Store(out, ReturnIndex(0))
	VZEROUPPER()
	RET()
	// The other places of a word, eight at a time.
	Label("more")
	at, left := GP64(), GP64()
	MOVQ(out, at)
	MOVQ(bits, left)
	Label("again")
	ADDQ(Imm(4*few), at)
	VALIGNQ(Imm(1), packed, packed, packed)
	VPMOVZXBD(packed.AsX(), rows)
	VPADDD(base, rows, rows)
	VMOVDQU(rows, Mem{Base: at})
	SUBQ(Imm(few), left)
	CMPQ(left, Imm(few))
	JG(LabelRef("again"))
	JMP(LabelRef("done"))
}
