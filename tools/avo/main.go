// Command avo generates the distance kernels of internal/vec. It is a module of
// its own so that the generator's dependencies stay out of the product's.
//
// Every kernel comes from one description: an instruction set (isa), an
// operation (squared L2 or dot) and an addressing mode (rows named by ids, or
// contiguous rows). Rows go four at a time, so that one load of the query
// serves four rows and the four sums are reduced together.
package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for _, i := range []isa{avx512{}, &avx2{}} {
		for _, op := range []string{"l2", "dot"} {
			for _, byID := range []bool{true, false} {
				(&kernel{isa: i, l2: op == "l2", byID: byID}).emit(op)
			}
		}
	}
	emitPrefetch()
	Generate()
}

// emitPrefetch emits a function that asks for the lines of n bytes.
func emitPrefetch() {
	TEXT("prefetchAMD64", NOSPLIT, "func(p *uint32, n int)")
	Pragma("noescape")
	Doc("prefetchAMD64 asks the processor for the cache lines of the n bytes at p.")
	p := Load(Param("p"), GP64())
	n := Load(Param("n"), GP64())
	ADDQ(p, n)
	Label("line")
	CMPQ(p, n)
	JGE(LabelRef("done"))
	PREFETCHT0(Mem{Base: p})
	ADDQ(Imm(64), p)
	JMP(LabelRef("line"))
	Label("done")
	RET()
}

// group is how many rows are worked on together.
const group = 4

// kernel emits one function.
type kernel struct {
	isa  isa
	l2   bool
	byID bool

	q    reg.GPVirtual
	rows reg.GPVirtual // ids left, or the next contiguous row
	n    reg.GPVirtual // rows left
}

func (k *kernel) emit(op string) {
	name, doc := op+"Rows"+k.isa.name(), "of the n rows at base"
	params := "q *float32, base *float32, dim int, n int, out *float32"
	if k.byID {
		name, doc = op+"IDs"+k.isa.name(), "of the rows of base named by the n ids"
		params = "q *float32, base *float32, dim int, ids *uint32, n int, out *float32"
	}
	what := "dot products"
	if k.l2 {
		what = "squared Euclidean distances"
	}
	TEXT(name, NOSPLIT, "func("+params+")")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s writes to out the %s of q and each %s.", name, what, doc))

	k.q = Load(Param("q"), GP64()).(reg.GPVirtual)
	k.n = Load(Param("n"), GP64()).(reg.GPVirtual)
	first := "base"
	if k.byID {
		first = "ids"
	}
	k.rows = Load(Param(first), GP64()).(reg.GPVirtual)
	k.isa.prepareTail()

	Label("group")
	CMPQ(k.n, Imm(group))
	JL(LabelRef("single"))
	k.emitGroup()
	JMP(LabelRef("group"))

	Label("single")
	TESTQ(k.n, k.n)
	JZ(LabelRef("done"))
	k.emitSingle()
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// stride loads the length of a row in bytes.
func (k *kernel) stride() reg.GPVirtual {
	s := Load(Param("dim"), GP64()).(reg.GPVirtual)
	SHLQ(Imm(2), s)
	return s
}

// limit loads the byte length of the part of a row that whole blocks of size
// bytes cover.
func (k *kernel) limit(size int) reg.GPVirtual {
	l := k.stride()
	ANDQ(I32(int32(-size)), l)
	return l
}

// rowAt computes the address of the row whose id is at slot i.
func (k *kernel) rowAt(slot Mem, base, stride reg.Register) reg.GPVirtual {
	r := GP64()
	MOVL(slot, r.As32())
	IMULQ(stride, r)
	ADDQ(base, r)
	return r
}

func (k *kernel) emitGroup() {
	var row, ahead [group]reg.GPVirtual
	if k.byID {
		stride := k.stride()
		base := Load(Param("base"), GP64())
		for i := range row {
			row[i] = k.rowAt(Mem{Base: k.rows, Disp: 4 * i}, base, stride)
		}
		// The rows after these, clamped to the last one there is.
		last := GP64()
		LEAQ(Mem{Base: k.n, Disp: -1}, last)
		for i := range ahead {
			at := GP64()
			MOVQ(I32(int32(group+i)), at)
			CMPQ(at, last)
			CMOVQGT(last, at)
			ahead[i] = k.rowAt(Mem{Base: k.rows, Index: at, Scale: 4}, base, stride)
		}
	} else {
		stride := k.stride()
		row[0] = k.rows
		for i := 1; i < group; i++ {
			row[i] = GP64()
			LEAQ(Mem{Base: row[i-1], Index: stride, Scale: 1}, row[i])
		}
	}

	w := k.isa.width()
	var acc [group][2]reg.VecVirtual
	for i := range acc {
		acc[i] = [2]reg.VecVirtual{k.isa.zero(), k.isa.zero()}
	}
	off := GP64()
	XORQ(off, off)

	lim := k.limit(2 * w)
	Label("group2")
	CMPQ(off, lim)
	JGE(LabelRef("group1"))
	q0, q1 := k.isa.load(k.at(k.q, off, 0)), k.isa.load(k.at(k.q, off, w))
	for i := range row {
		k.step(acc[i][0], q0, k.at(row[i], off, 0))
		k.step(acc[i][1], q1, k.at(row[i], off, w))
	}
	if k.byID {
		for line := 0; line < 2*w; line += 64 {
			for i := range ahead {
				PREFETCHT0(k.at(ahead[i], off, line))
			}
		}
	}
	ADDQ(I32(int32(2*w)), off)
	JMP(LabelRef("group2"))

	Label("group1")
	lim = k.limit(w)
	CMPQ(off, lim)
	JGE(LabelRef("groupTail"))
	q0 = k.isa.load(k.at(k.q, off, 0))
	for i := range row {
		k.step(acc[i][0], q0, k.at(row[i], off, 0))
	}
	ADDQ(I32(int32(w)), off)

	Label("groupTail")
	lim = k.stride()
	CMPQ(off, lim)
	JGE(LabelRef("groupSum"))
	q0 = k.isa.loadTail(k.at(k.q, off, 0))
	for i := range row {
		k.stepTail(acc[i][0], q0, k.at(row[i], off, 0))
	}
	if k.byID {
		for i := range ahead {
			PREFETCHT0(k.at(ahead[i], off, 0))
		}
	}

	Label("groupSum")
	var sum [group]reg.VecVirtual
	for i := range sum {
		VADDPS(acc[i][1], acc[i][0], acc[i][0])
		sum[i] = k.isa.fold(acc[i][0])
	}
	VHADDPS(sum[1], sum[0], sum[0])
	VHADDPS(sum[3], sum[2], sum[2])
	VHADDPS(sum[2], sum[0], sum[0])
	hi := XMM()
	VEXTRACTF128(Imm(1), sum[0], hi)
	VADDPS(hi, sum[0].AsX(), hi)
	k.store(group, func(out Mem) { VMOVUPS(hi, out) })
	k.advance(group)
}

func (k *kernel) emitSingle() {
	row := k.rows
	if k.byID {
		stride := k.stride()
		base := Load(Param("base"), GP64())
		row = k.rowAt(Mem{Base: k.rows}, base, stride)
	}
	const chains = 4 // enough to hide the latency of a fused multiply-add
	w := k.isa.width()
	var acc [chains]reg.VecVirtual
	for i := range acc {
		acc[i] = k.isa.zero()
	}
	off := GP64()
	XORQ(off, off)

	lim := k.limit(chains * w)
	Label("single4")
	CMPQ(off, lim)
	JGE(LabelRef("single1"))
	for i := range acc {
		k.step(acc[i], k.isa.load(k.at(k.q, off, i*w)), k.at(row, off, i*w))
	}
	ADDQ(I32(int32(chains*w)), off)
	JMP(LabelRef("single4"))

	Label("single1")
	lim = k.limit(w)
	Label("single1loop")
	CMPQ(off, lim)
	JGE(LabelRef("singleTail"))
	k.step(acc[0], k.isa.load(k.at(k.q, off, 0)), k.at(row, off, 0))
	ADDQ(I32(int32(w)), off)
	JMP(LabelRef("single1loop"))

	Label("singleTail")
	lim = k.stride()
	CMPQ(off, lim)
	JGE(LabelRef("singleSum"))
	k.stepTail(acc[1], k.isa.loadTail(k.at(k.q, off, 0)), k.at(row, off, 0))

	Label("singleSum")
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	sum := k.isa.fold(acc[0])
	hi := XMM()
	VEXTRACTF128(Imm(1), sum, hi)
	VADDPS(hi, sum.AsX(), hi)
	VHADDPS(hi, hi, hi)
	VHADDPS(hi, hi, hi)
	k.store(1, func(out Mem) { VMOVSS(hi, out) })
	k.advance(1)
}

func (k *kernel) at(base reg.GPVirtual, off reg.GPVirtual, disp int) Mem {
	return Mem{Base: base, Index: off, Scale: 1, Disp: disp}
}

// store writes a result of n rows and moves out on. The pointer lives in its
// argument slot: general registers are scarce here.
func (k *kernel) store(n int, write func(Mem)) {
	slot, err := Param("out").Resolve()
	if err != nil {
		panic(err)
	}
	out := GP64()
	MOVQ(slot.Addr, out)
	write(Mem{Base: out})
	ADDQ(Imm(uint64(4*n)), out)
	MOVQ(out, slot.Addr)
}

// advance moves to the rows after the n done.
func (k *kernel) advance(n int) {
	SUBQ(Imm(uint64(n)), k.n)
	if k.byID {
		ADDQ(Imm(uint64(4*n)), k.rows)
		return
	}
	stride := k.stride()
	if n == group {
		SHLQ(Imm(2), stride)
	}
	ADDQ(stride, k.rows)
}

// step adds one vector of a row to acc.
func (k *kernel) step(acc, q reg.VecVirtual, row Mem) {
	if !k.l2 {
		VFMADD231PS(row, q, acc)
		return
	}
	d := k.isa.reg()
	VSUBPS(row, q, d)
	VFMADD231PS(d, d, acc)
}

// stepTail does so for the last, partial vector; lanes past the row are 0.
func (k *kernel) stepTail(acc, q reg.VecVirtual, row Mem) {
	r := k.isa.loadTail(row)
	if !k.l2 {
		VFMADD231PS(r, q, acc)
		return
	}
	VSUBPS(r, q, r)
	VFMADD231PS(r, r, acc)
}

// isa is what differs between the instruction sets.
type isa interface {
	name() string
	// width is the size of a vector register in bytes.
	width() int
	reg() reg.VecVirtual
	zero() reg.VecVirtual
	load(Mem) reg.VecVirtual
	// prepareTail sets up the mask that loadTail loads with.
	prepareTail()
	loadTail(Mem) reg.VecVirtual
	// fold adds the halves of a register until 256 bits are left.
	fold(reg.VecVirtual) reg.VecVirtual
}
