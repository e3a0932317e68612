// Command keys generates the kernels that make, split and sort keys of distances; see
// internal/vec/keys.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	lanes = 8 // keys of a register
	// splitMost and sortMost are as in internal/vec.
	splitMost, sortMost = 512, 128
	// sortLanes is how many keys find their places at once.
	sortLanes = 4 * lanes
)

// Predicates of comparisons.
const (
	unordered = 3
	less      = 1
	greater   = 6
)

func main() {
	ConstraintExpr("amd64")
	emitKeys()
	emitSplit()
	emitSort()
	Generate()
}

func at(base reg.Register, index reg.Register, disp int) Mem {
	return Mem{Base: base, Index: index, Scale: 8, Disp: disp}
}

// firstLanes is a mask of the first n lanes, all if n is 32 or more. It changes RCX.
func firstLanes(n reg.Register, label string) reg.GPVirtual {
	mask := GP32()
	MOVL(I32(-1), mask)
	CMPQ(n, Imm(32))
	JGE(LabelRef(label))
	MOVQ(n, reg.RCX)
	MOVL(U32(1), mask)
	SHLL(reg.CL, mask)
	DECL(mask)
	Label(label)
	return mask
}

func emitKeys() {
	TEXT("keysAVX512", NOSPLIT, "func(dist *float32, rows *uint32, n int, add uint32, keys *uint64)")
	Pragma("noescape")
	Doc("keysAVX512 writes the keys of n distances and rows, to each of which it adds add.")
	dist, rows, n := Load(Param("dist"), GP64()), Load(Param("rows"), GP64()), Load(Param("n"), GP64())
	keys := Load(Param("keys"), GP64())
	add, inf, sign, zero, x := YMM(), YMM(), YMM(), YMM(), GP32()
	VPBROADCASTD(Load(Param("add"), GP32()), add)
	MOVL(U32(0x7f800000), x)
	VPBROADCASTD(x, inf)
	MOVL(U32(1<<31), x)
	VPBROADCASTD(x, sign)
	VPXORD(zero, zero, zero)
	i, left := GP64(), GP64()
	XORQ(i, i)
	mask := GP32()
	MOVL(U32(1<<lanes-1), mask)
	Label("keys")
	MOVQ(n, left)
	SUBQ(i, left)
	JLE(LabelRef("done"))
	CMPQ(left, Imm(lanes))
	JGE(LabelRef("whole"))
	MOVQ(left, reg.RCX)
	MOVL(U32(1), mask)
	SHLL(reg.CL, mask)
	DECL(mask)
	Label("whole")
	KMOVW(mask, reg.K1)
	d, row, s := YMM(), YMM(), YMM()
	VMOVUPS_Z(Mem{Base: dist, Index: i, Scale: 4}, reg.K1, d)
	VMOVDQU32_Z(Mem{Base: rows, Index: i, Scale: 4}, reg.K1, row)
	VCMPPS(Imm(unordered), d, d, reg.K2)
	VMOVAPS(inf, reg.K2, d)
	VADDPS(zero, d, d) // -0 counts as 0
	VPSRAD(Imm(31), d, s)
	VPORD(sign, s, s)
	VPXORD(s, d, d)
	VPADDD(add, row, row)
	high, low := ZMM(), ZMM()
	VPMOVZXDQ(d, high)
	VPMOVZXDQ(row, low)
	VPSLLQ(Imm(32), high, high)
	VPORQ(high, low, low)
	VMOVDQU64(low, reg.K1, at(keys, i, 0))
	ADDQ(Imm(lanes), i)
	JMP(LabelRef("keys"))
	Label("done")
	VZEROUPPER()
	RET()
}

func emitSplit() {
	TEXT("splitAVX512", 0, "func(keys *uint64, n int, pivot uint64) int")
	Pragma("noescape")
	Doc("splitAVX512 moves the keys below pivot to the front and returns how many they are; n is at most 512.")
	others := AllocLocal(8 * (splitMost + lanes))
	keys, n := Load(Param("keys"), GP64()), Load(Param("n"), GP64())
	pivot := ZMM()
	VPBROADCASTQ(Load(Param("pivot"), GP64()), pivot)
	room := GP64()
	LEAQ(others, room)
	i, below, above, c := GP64(), GP64(), GP64(), GP32()
	XORQ(i, i)
	XORQ(below, below)
	XORQ(above, above)
	key, low, high := ZMM(), ZMM(), ZMM()
	last := GP64()
	LEAQ(Mem{Base: n, Disp: -lanes}, last)
	Label("eight")
	CMPQ(i, last)
	JG(LabelRef("rest"))
	VMOVDQU64(at(keys, i, 0), key)
	VPCMPUQ(Imm(less), pivot, key, reg.K1)
	KNOTW(reg.K1, reg.K2)
	VPCOMPRESSQ_Z(key, reg.K1, low)
	VPCOMPRESSQ_Z(key, reg.K2, high)
	KMOVW(reg.K1, c)
	POPCNTL(c, c)
	VMOVDQU64(low, at(keys, below, 0)) // no more were kept than were looked at
	VMOVDQU64(high, at(room, above, 0))
	ADDQ(c.As64(), below)
	ADDQ(Imm(lanes), i)
	MOVQ(i, above)
	SUBQ(below, above)
	JMP(LabelRef("eight"))

	Label("rest")
	CMPQ(i, n)
	JGE(LabelRef("back"))
	left := GP64()
	MOVQ(n, left)
	SUBQ(i, left)
	KMOVW(firstLanes(left, "restMask"), reg.K3)
	VMOVDQU64_Z(at(keys, i, 0), reg.K3, key)
	VPCMPUQ(Imm(less), pivot, key, reg.K3, reg.K1)
	KANDNW(reg.K3, reg.K1, reg.K2)
	VPCOMPRESSQ_Z(key, reg.K1, low)
	VPCOMPRESSQ_Z(key, reg.K2, high)
	KMOVW(reg.K1, c)
	POPCNTL(c, c)
	VMOVDQU64(high, at(room, above, 0))
	kept := GP64()
	MOVQ(c.As64(), kept)
	KMOVW(firstLanes(kept, "keptMask"), reg.K4)
	VMOVDQU64(low, reg.K4, at(keys, below, 0))
	ADDQ(kept, below)

	Label("back")
	MOVQ(n, above)
	SUBQ(below, above)
	to := GP64()
	LEAQ(at(keys, below, 0), to)
	XORQ(i, i)
	LEAQ(Mem{Base: above, Disp: -lanes}, last)
	Label("copy")
	CMPQ(i, last)
	JG(LabelRef("copyRest"))
	VMOVDQU64(at(room, i, 0), key)
	VMOVDQU64(key, at(to, i, 0))
	ADDQ(Imm(lanes), i)
	JMP(LabelRef("copy"))
	Label("copyRest")
	SUBQ(i, above)
	JLE(LabelRef("done"))
	KMOVW(firstLanes(above, "copyMask"), reg.K3)
	VMOVDQU64(at(room, i, 0), key)
	VMOVDQU64(key, reg.K3, at(to, i, 0))
	Label("done")
	Store(below, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// emitSort counts for each key how many are less: that is its place. Where keys are equal the
// places do not add up to what they should, and nothing is written.
func emitSort() {
	TEXT("sortAVX512", 0, "func(keys *uint64, n int) bool")
	Pragma("noescape")
	Doc("sortAVX512 puts keys in order if no two are equal, and returns whether it did; n is at most 128.")
	sorted := AllocLocal(8 * sortMost)
	places := AllocLocal(8 * sortMost)
	keys, n := Load(Param("keys"), GP64()), Load(Param("n"), GP64())
	one, other := ZMM(), ZMM()
	x := GP64()
	MOVQ(U32(1), x)
	VPBROADCASTQ(x, one)
	out, place := GP64(), GP64()
	LEAQ(sorted, out)
	LEAQ(places, place)
	from, left, j := GP64(), GP64(), GP64()
	XORQ(from, from)
	var mine, count [4]reg.VecVirtual
	for r := range mine {
		mine[r], count[r] = ZMM(), ZMM()
	}
	Label("group")
	MOVQ(n, left)
	SUBQ(from, left)
	JLE(LabelRef("placed"))
	KMOVD(firstLanes(left, "groupMask"), reg.K1)
	for r := range mine {
		VMOVDQU64_Z(at(keys, from, 8*lanes*r), reg.K1, mine[r])
		VPXORQ(count[r], count[r], count[r])
		KSHIFTRD(Imm(lanes), reg.K1, reg.K1)
	}
	XORQ(j, j)
	Label("compare")
	VPBROADCASTQ(at(keys, j, 0), other)
	ks := []reg.Register{reg.K2, reg.K3, reg.K4, reg.K5}
	for r := range mine {
		VPCMPUQ(Imm(greater), other, mine[r], ks[r])
	}
	for r := range mine {
		VPADDQ(one, count[r], ks[r], count[r])
	}
	INCQ(j)
	CMPQ(j, n)
	JL(LabelRef("compare"))
	for r := range mine {
		VMOVDQU64(count[r], at(place, from, 8*lanes*r))
	}
	ADDQ(Imm(sortLanes), from)
	JMP(LabelRef("group"))

	Label("placed")
	i, sum, p, key := GP64(), GP64(), GP64(), GP64()
	XORQ(i, i)
	XORQ(sum, sum)
	Label("put")
	MOVQ(at(place, i, 0), p)
	MOVQ(at(keys, i, 0), key)
	MOVQ(key, at(out, p, 0))
	ADDQ(p, sum)
	INCQ(i)
	CMPQ(i, n)
	JL(LabelRef("put"))
	// Places of n keys are 0 to n-1.
	LEAQ(Mem{Base: n, Disp: -1}, i)
	IMULQ(n, i)
	ADDQ(sum, sum)
	same := GP8()
	CMPQ(sum, i)
	SETEQ(same)
	Store(same, ReturnIndex(0))
	JNE(LabelRef("done"))
	XORQ(i, i)
	Label("copy")
	MOVQ(n, left)
	SUBQ(i, left)
	JLE(LabelRef("done"))
	KMOVW(firstLanes(left, "copyMask"), reg.K1)
	VMOVDQU64_Z(at(out, i, 0), reg.K1, other)
	VMOVDQU64(other, reg.K1, at(keys, i, 0))
	ADDQ(Imm(lanes), i)
	JMP(LabelRef("copy"))
	Label("done")
	VZEROUPPER()
	RET()
}
