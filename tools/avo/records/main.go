// Command records generates the kernel that puts records of a graph into panels; see
// internal/vec/records.go.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

const (
	rows    = 16 // in one go
	line    = 64 // bytes of a record read in one go
	word    = 4
	partLen = 16 // bytes of what is said of a word
	quad    = 128
)

func main() {
	ConstraintExpr("amd64")
	TEXT("recordsAVX512", 0, "func(records *byte, stride int, ids *uint32, parts *uint32, words int, bias *float32, panel *byte)")
	Pragma("noescape")
	Doc("recordsAVX512 puts 16 records into a panel, word by word as parts say, and their first words into bias.")
	records, stride := Load(Param("records"), GP64()), Load(Param("stride"), GP64())
	ids, parts := Load(Param("ids"), GP64()), Load(Param("parts"), GP64())
	words, panel := Load(Param("words"), GP64()), Load(Param("panel"), GP64())
	turned := AllocLocal(line / word * line)
	bias := Load(Param("bias"), GP64())

	Label("line")
	transpose(records, stride, ids, turned)
	buf, n := GP64(), GP64()
	LEAQ(turned, buf)
	MOVQ(U32(line/word), n)
	CMPQ(words, n)
	CMOVQLT(words, n)
	SUBQ(n, words)
	x, y, z := ZMM(), ZMM(), ZMM()
	TESTQ(bias, bias)
	JEQ(LabelRef("word"))
	VMOVDQU32(Mem{Base: buf}, x) // the first word of all
	VMOVDQU32(x, Mem{Base: bias})
	XORQ(bias, bias)
	ADDQ(Imm(line), buf)
	DECQ(n)

	Label("word")
	VMOVDQU32(Mem{Base: buf}, x)
	VPSRLD(Imm(1), x, y)
	VPANDD_BCST(Mem{Base: parts}, y, y)
	VPANDD_BCST(Mem{Base: parts, Disp: 4}, x, z)
	VPORD(z, y, y)
	VMOVDQU32(y, Mem{Base: panel})
	ADDQ(Imm(quad), panel)
	high, to := GP32(), GP64()
	MOVL(Mem{Base: parts, Disp: 8}, high)
	TESTL(high, high)
	JEQ(LabelRef("next"))
	VPSRLD(Imm(4), x, y)
	VPANDD_BCST(Mem{Base: parts, Disp: 8}, y, y)
	MOVLQSX(Mem{Base: parts, Disp: 12}, to)
	VMOVDQU32(y, Mem{Base: panel, Index: to, Scale: 1, Disp: -quad})
	Label("next")
	ADDQ(Imm(line), buf)
	ADDQ(Imm(partLen), parts)
	DECQ(n)
	JNE(LabelRef("word"))

	ADDQ(Imm(line), records)
	TESTQ(words, words)
	JNE(LabelRef("line"))
	VZEROUPPER()
	RET()
	Generate()
}

// transpose writes word w of the lines of 16 records to 64 bytes at to+64*w.
func transpose(records, stride, ids reg.Register, to Mem) {
	var r, t [rows]reg.VecVirtual
	for i := range rows {
		at := GP64()
		MOVL(Mem{Base: ids, Disp: word * i}, at.As32())
		IMULQ(stride, at)
		r[i] = ZMM()
		VMOVDQU32(Mem{Base: records, Index: at, Scale: 1}, r[i])
	}
	for i := 0; i < rows; i += 2 {
		t[i], t[i+1] = ZMM(), ZMM()
		VPUNPCKLDQ(r[i+1], r[i], t[i])
		VPUNPCKHDQ(r[i+1], r[i], t[i+1])
	}
	for i := 0; i < rows; i += 4 {
		for j := range 2 {
			r[i+2*j], r[i+2*j+1] = ZMM(), ZMM()
			VPUNPCKLQDQ(t[i+2+j], t[i+j], r[i+2*j])
			VPUNPCKHQDQ(t[i+2+j], t[i+j], r[i+2*j+1])
		}
	}
	for j := range 4 {
		even, odd, even2, odd2 := ZMM(), ZMM(), ZMM(), ZMM()
		VSHUFI32X4(Imm(0x88), r[4+j], r[j], even)
		VSHUFI32X4(Imm(0xdd), r[4+j], r[j], odd)
		VSHUFI32X4(Imm(0x88), r[12+j], r[8+j], even2)
		VSHUFI32X4(Imm(0xdd), r[12+j], r[8+j], odd2)
		out := ZMM()
		for i, half := range [2][2]reg.VecVirtual{{even, even2}, {odd, odd2}} {
			VSHUFI32X4(Imm(0x88), half[1], half[0], out)
			VMOVDQU32(out, to.Offset(line*(4*i+j)))
			VSHUFI32X4(Imm(0xdd), half[1], half[0], out)
			VMOVDQU32(out, to.Offset(line*(8+4*i+j)))
		}
	}
}
