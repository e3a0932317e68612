// Command links generates the kernel that follows the links of a graph's row; see
// internal/vec/links.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const lanes = 16

func main() {
	ConstraintExpr("amd64")
	TEXT("linksAVX512", NOSPLIT, "func(links *uint32, n int, rows uint32, words *uint64, flip uint32, ids *uint32) int")
	Pragma("noescape")
	Doc("linksAVX512 writes to ids those of the n links, less one, that are below rows and whose bit of words, each xor flip, is 1, up to " +
		"the end of a block of 16 with a link of 0, and returns how many they are.")
	links, n := Load(Param("links"), GP64()), Load(Param("n"), GP64())
	words, ids := Load(Param("words"), GP64()), Load(Param("ids"), GP64())
	at, found := GP64(), GP64()
	one, low, rows, flip := broadcast(U32(1)), broadcast(U32(31)), ZMM(), ZMM()
	VPBROADCASTD(Load(Param("rows"), GP32()), rows)
	VPBROADCASTD(Load(Param("flip"), GP32()), flip)
	XORQ(at, at)
	XORQ(found, found)
	mask := GP32()
	MOVL(U32(1<<lanes-1), mask)

	Label("block")
	CMPQ(at, n)
	JGE(LabelRef("done"))
	left := GP64()
	MOVQ(n, left)
	SUBQ(at, left)
	CMPQ(left, Imm(lanes))
	JGE(LabelRef("whole"))
	MOVQ(left, reg.RCX)
	MOVL(U32(1), mask)
	SHLL(reg.CL, mask)
	DECL(mask)
	Label("whole")
	KMOVW(mask, reg.K1)
	row, word, bit := ZMM(), ZMM(), ZMM()
	VMOVDQU32_Z(Mem{Base: links.(reg.Register), Index: at, Scale: 4}, reg.K1, row)
	VPTESTMD(row, row, reg.K1, reg.K5) // those that are not 0
	VPSUBD(one, row, row)
	VPCMPUD(Imm(1), rows, row, reg.K1, reg.K2) // less than rows
	KMOVW(reg.K2, reg.K3)
	VPSRLD(Imm(5), row, bit)
	VPXORD(word, word, word)
	VPGATHERDD(Mem{Base: words.(reg.Register), Index: bit, Scale: 4}, reg.K3, word)
	VPXORD(flip, word, word)
	VPANDD(low, row, bit)
	VPSLLVD(bit, one, bit)
	VPTESTMD(bit, word, reg.K2, reg.K4)
	VPCOMPRESSD_Z(row, reg.K4, row)
	count, full := GP32(), GP32()
	KMOVW(reg.K4, count)
	POPCNTL(count, count)
	VMOVDQU32(row, reg.K1, Mem{Base: ids.(reg.Register), Index: found, Scale: 4})
	ADDQ(count.As64(), found)
	ADDQ(Imm(lanes), at)
	KMOVW(reg.K5, full)
	CMPL(full, mask)
	JEQ(LabelRef("block"))

	Label("done")
	Store(found, ReturnIndex(0))
	VZEROUPPER()
	RET()
	Generate()
}

func broadcast(c Constant) reg.VecVirtual {
	x, z := GP32(), ZMM()
	MOVL(c, x)
	VPBROADCASTD(x, z)
	return z
}
