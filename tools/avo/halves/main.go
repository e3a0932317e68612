// Command halves generates the kernel that compares rows of codes of half a byte; see
// internal/vec/halves.go for what they are.
package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	emit()
	Generate()
}

// rows is how many rows are worked on together, so little each that loads of many are under way at a time.
const rows = 16

type kernel struct {
	q, codes, stride, tails, ids, n, out reg.GPVirtual
	less, base, mul, scale, nibble, zero reg.VecVirtual
}

func load(name string) reg.GPVirtual { return Load(Param(name), GP64()).(reg.GPVirtual) }

func param(name string) Mem {
	p, err := Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return p.Addr
}

func emit() {
	TEXT("halfIDsVNNI", NOSPLIT, "func(q *int8, codes *byte, stride int, tails *float32, ids *uint32, n int, less int32, base, mul, scale float32, out *float32)")
	Pragma("noescape")
	Doc("halfIDsVNNI writes to out, for each of the rows named by the n ids, base plus mul times the second of its two tails plus scale times the first " +
		"times what the sum of its codes, weighed by q, is more than less.")
	k := &kernel{
		q: load("q"), codes: load("codes"), stride: load("stride"), tails: load("tails"), ids: load("ids"), n: load("n"), out: load("out"),
		less: ZMM(), base: ZMM(), mul: ZMM(), scale: ZMM(), nibble: ZMM(), zero: ZMM(),
	}
	x := GP32()
	MOVL(U32(0x0f0f0f0f), x)
	VPBROADCASTD(x, k.nibble)
	VPXORD(k.zero, k.zero, k.zero)
	MOVL(param("less"), x)
	VPBROADCASTD(x, k.less)
	VBROADCASTSS(param("base"), k.base)
	VBROADCASTSS(param("mul"), k.mul)
	VBROADCASTSS(param("scale"), k.scale)

	Label("group")
	CMPQ(k.n, Imm(rows))
	JL(LabelRef("single"))
	var sums, steps, biases [rows / 4]reg.VecVirtual // each quarter of one of the sums has parts of those of four rows
	for f := range sums {
		sums[f] = k.four(string(rune('a'+f)), 16*f)
	}
	join := func(a, b reg.VecVirtual, low, high uint64) {
		t := ZMM()
		VSHUFI32X4(Imm(low), b, a, t)
		VSHUFI32X4(Imm(high), b, a, a)
		VPADDD(t, a, a)
	}
	join(sums[0], sums[1], 0x44, 0xee)
	join(sums[2], sums[3], 0x44, 0xee)
	join(sums[0], sums[2], 0x88, 0xdd)
	for f := range steps {
		steps[f], biases[f] = k.ends(16 * f)
	}
	for _, v := range []*[rows / 4]reg.VecVirtual{&steps, &biases} {
		VINSERTF32X4(Imm(1), v[1].AsX(), v[0].AsY(), v[0].AsY())
		VINSERTF32X4(Imm(1), v[3].AsX(), v[2].AsY(), v[2].AsY())
		VINSERTF64X4(Imm(1), v[2].AsY(), v[0].AsZ(), v[0].AsZ())
	}
	k.finish(sums[0], steps[0], biases[0])
	VMOVUPS(biases[0].AsZ(), Mem{Base: k.out})
	k.advance(rows)
	JMP(LabelRef("group"))

	Label("single")
	TESTQ(k.n, k.n)
	JZ(LabelRef("done"))
	one := k.sums("one", []reg.GPVirtual{k.row(0)})[0]
	half := YMM()
	VEXTRACTI64X4(Imm(1), one, half)
	VPADDD(half, one.AsY(), one.AsY())
	VEXTRACTI32X4(Imm(1), one.AsY(), half.AsX())
	VPADDD(half.AsX(), one.AsX(), one.AsX())
	for _, swap := range []uint64{0x4e, 0xb1} {
		VPSHUFD(Imm(swap), one.AsX(), half.AsX())
		VPADDD(half.AsX(), one.AsX(), one.AsX())
	}
	tail, step, bias := k.tail(0), XMM(), XMM()
	VMOVSS(tail, step)
	VMOVSS(tail.Offset(4), bias)
	k.finish(one, step, bias)
	VMOVSS(bias, Mem{Base: k.out})
	k.advance(1)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// finish makes distances of sums, steps and biases, in the place of the last.
func (k *kernel) finish(sums, steps, biases reg.VecVirtual) {
	step, bias := steps.AsZ(), biases.AsZ()
	VPSUBD(k.less, sums, sums)
	VCVTDQ2PS(sums, sums)
	VMULPS(k.scale, step, step)
	VFMADD213PS(k.base, k.mul, bias)
	VFMADD231PS(step, sums, bias)
}

func (k *kernel) advance(n int) {
	ADDQ(Imm(uint64(4*n)), k.ids)
	ADDQ(Imm(uint64(4*n)), k.out)
	SUBQ(Imm(uint64(n)), k.n)
}

// row computes the address of the codes of the row whose id is so many bytes on.
func (k *kernel) row(disp int) reg.GPVirtual {
	r := GP64()
	MOVL(Mem{Base: k.ids, Disp: disp}, r.As32())
	IMULQ(k.stride, r)
	ADDQ(k.codes, r)
	return r
}

// tail is where the tails of such a row are.
func (k *kernel) tail(disp int) Mem {
	r := GP64()
	MOVL(Mem{Base: k.ids, Disp: disp}, r.As32())
	return Mem{Base: k.tails, Index: r, Scale: 8}
}

// four adds up four rows: each quarter of the result has a part of the sum of each.
func (k *kernel) four(label string, disp int) reg.VecVirtual {
	var at [4]reg.GPVirtual
	for i := range at {
		at[i] = k.row(disp + 4*i)
	}
	acc := k.sums(label, at[:])
	for i := 0; i < len(acc); i += 2 {
		low := ZMM()
		VPUNPCKLDQ(acc[i+1], acc[i], low)
		VPUNPCKHDQ(acc[i+1], acc[i], acc[i])
		VPADDD(low, acc[i], acc[i])
	}
	four := ZMM()
	VPUNPCKLQDQ(acc[2], acc[0], four)
	VPUNPCKHQDQ(acc[2], acc[0], acc[0])
	VPADDD(acc[0], four, four)
	return four
}

// sums adds up rows, each in the lanes of a register.
func (k *kernel) sums(label string, at []reg.GPVirtual) []reg.VecVirtual {
	acc := make([]reg.VecVirtual, len(at))
	for i := range acc {
		acc[i] = ZMM()
		VMOVDQA64(k.zero, acc[i])
	}
	off, q := GP64(), GP64()
	MOVQ(U32(0), off)
	MOVQ(k.q, q)
	Label(label)
	even, odd := ZMM(), ZMM()
	VMOVDQU64(Mem{Base: q}, even)
	VMOVDQU64(Mem{Base: q, Disp: 64}, odd)
	for i, row := range at {
		c, upper := ZMM(), ZMM()
		VMOVDQU64(Mem{Base: row, Index: off, Scale: 1}, c)
		VPSRLW(Imm(4), c, upper)
		VPANDD(k.nibble, c, c)
		VPANDD(k.nibble, upper, upper)
		VPDPBUSD(even, c, acc[i])
		VPDPBUSD(odd, upper, acc[i])
	}
	ADDQ(Imm(128), q)
	ADDQ(Imm(64), off)
	CMPQ(off, k.stride)
	JB(LabelRef(label))
	return acc
}

// ends loads the tails of four rows.
func (k *kernel) ends(disp int) (steps, biases reg.VecVirtual) {
	a, b := XMM(), XMM()
	for i, x := range []reg.VecVirtual{a, b} {
		VMOVSD(k.tail(disp+8*i), x)
		VMOVHPS(k.tail(disp+8*i+4), x, x)
	}
	steps, biases = XMM(), XMM()
	VSHUFPS(Imm(0x88), b, a, steps)
	VSHUFPS(Imm(0xdd), b, a, biases)
	return steps, biases
}
