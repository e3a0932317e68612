// Command avo generates the distance kernels of internal/vec. It is a module of
// its own so that the generator's dependencies stay out of the product's.
//
// Every kernel comes from one description: an instruction set (isa), an element
// type with an operation (elem) and an addressing mode (rows named by ids, or
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
		for _, e := range elems(i) {
			for _, byID := range []bool{true, false} {
				(&kernel{isa: i, elem: e, byID: byID}).emit()
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
	elem elem
	byID bool

	q    reg.GPVirtual
	rows reg.GPVirtual // ids left, or the next contiguous row
	n    reg.GPVirtual // rows left
}

func (k *kernel) emit() {
	name, doc := k.elem.name()+"Rows"+k.isa.name(), "of the n rows at base"
	ptr := "*" + k.elem.goType()
	params := "q " + ptr + ", base " + ptr + ", dim int, n int, out *float32"
	if k.byID {
		name, doc = k.elem.name()+"IDs"+k.isa.name(), "of the rows of base named by the n ids"
		params = "q " + ptr + ", base " + ptr + ", dim int, ids *uint32, n int, out *float32"
	}
	TEXT(name, NOSPLIT, "func("+params+")")
	Pragma("noescape")
	Doc(fmt.Sprintf("%s writes to out the %s of q and each %s.", name, k.elem.what(), doc))

	k.q = Load(Param("q"), GP64()).(reg.GPVirtual)
	k.n = Load(Param("n"), GP64()).(reg.GPVirtual)
	first := "base"
	if k.byID {
		first = "ids"
	}
	k.rows = Load(Param(first), GP64()).(reg.GPVirtual)
	k.elem.prepare()

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
	if shift := k.elem.shift(); shift > 0 {
		SHLQ(Imm(shift), s)
	}
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

	w, unroll := k.elem.width(), k.elem.unroll()
	var acc [group][]sums
	for i := range acc {
		for range unroll {
			acc[i] = append(acc[i], k.elem.zero())
		}
	}
	off := GP64()
	XORQ(off, off)

	lim := k.limit(unroll * w)
	Label("group2")
	CMPQ(off, lim)
	JGE(LabelRef("group1"))
	for u := range unroll {
		q := k.elem.load(k.at(k.q, off, u*w))
		for i := range row {
			k.elem.step(acc[i][u], q, k.at(row[i], off, u*w))
		}
	}
	if k.byID {
		for line := 0; line < unroll*w; line += 64 {
			for i := range ahead {
				PREFETCHT0(k.at(ahead[i], off, line))
			}
		}
	}
	ADDQ(I32(int32(unroll*w)), off)
	JMP(LabelRef("group2"))

	Label("group1")
	if unroll > 1 {
		lim = k.limit(w)
		CMPQ(off, lim)
		JGE(LabelRef("groupTail"))
		q := k.elem.load(k.at(k.q, off, 0))
		for i := range row {
			k.elem.step(acc[i][0], q, k.at(row[i], off, 0))
		}
		ADDQ(I32(int32(w)), off)
	}

	Label("groupTail")
	lim = k.stride()
	CMPQ(off, lim)
	JGE(LabelRef("groupSum"))
	if k.elem.overlaps() {
		LEAQ(Mem{Base: lim, Disp: -w}, off)
	}
	q := k.elem.loadTail(k.at(k.q, off, 0))
	for i := range row {
		k.elem.stepTail(acc[i][0], q, k.at(row[i], off, 0))
	}
	if k.byID {
		for i := range ahead {
			PREFETCHT0(k.at(ahead[i], off, 0))
		}
	}

	Label("groupSum")
	var total [group]sums
	for i := range total {
		total[i] = acc[i][0]
		for _, more := range acc[i][1:] {
			k.elem.add(more, total[i])
		}
	}
	hi := k.elem.reduce(total[:])
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
	chains, w := k.elem.chains(), k.elem.width()
	var acc []sums
	for range chains {
		acc = append(acc, k.elem.zero())
	}
	off := GP64()
	XORQ(off, off)

	lim := k.limit(chains * w)
	Label("single4")
	CMPQ(off, lim)
	JGE(LabelRef("single1"))
	for i := range acc {
		k.elem.step(acc[i], k.elem.load(k.at(k.q, off, i*w)), k.at(row, off, i*w))
	}
	ADDQ(I32(int32(chains*w)), off)
	JMP(LabelRef("single4"))

	Label("single1")
	if chains > 1 {
		lim = k.limit(w)
		Label("single1loop")
		CMPQ(off, lim)
		JGE(LabelRef("singleTail"))
		k.elem.step(acc[0], k.elem.load(k.at(k.q, off, 0)), k.at(row, off, 0))
		ADDQ(I32(int32(w)), off)
		JMP(LabelRef("single1loop"))
	}

	Label("singleTail")
	lim = k.stride()
	CMPQ(off, lim)
	JGE(LabelRef("singleSum"))
	if k.elem.overlaps() {
		LEAQ(Mem{Base: lim, Disp: -w}, off)
	}
	k.elem.stepTail(acc[chains-1], k.elem.loadTail(k.at(k.q, off, 0)), k.at(row, off, 0))

	Label("singleSum")
	for step := 1; step < chains; step *= 2 {
		for i := 0; i+step < chains; i += 2 * step {
			k.elem.add(acc[i+step], acc[i])
		}
	}
	hi := k.elem.reduce(acc[:1])
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

// sums is what a row's distance is added up in: one register, or two.
type sums []reg.VecVirtual

// isa is what differs between the instruction sets.
type isa interface {
	name() string
	// width is the size of a vector register in bytes.
	width() int
	reg() reg.VecVirtual
	// fold adds the halves of a register until 256 bits are left, with VADDPS or
	// VPADDD.
	fold(v reg.VecVirtual, ints bool) reg.VecVirtual
}

// elem is a type of elements and what is computed from them.
type elem interface {
	name() string   // of the operation: what the kernel's name begins with
	what() string   // it computes, in words
	goType() string // of what the pointers point at
	shift() uint64  // log2 of the size of an element
	width() int     // bytes of a row that a step takes
	unroll() int    // steps a round of the loop over four rows
	chains() int    // steps a round of the loop over one row, a power of two
	prepare()       // constants, and the mask for tails
	zero() sums
	load(Mem) reg.VecVirtual
	// step adds the part of a row at m to s.
	step(s sums, q reg.VecVirtual, m Mem)
	// overlaps says that a tail is loaded with what is before it, which is then
	// masked out; rows have at least width bytes.
	overlaps() bool
	loadTail(Mem) reg.VecVirtual
	stepTail(s sums, q reg.VecVirtual, m Mem)
	// add adds a to b.
	add(a, b sums)
	// reduce turns the sums of one row or four into as many float32.
	reduce([]sums) reg.VecVirtual
}
