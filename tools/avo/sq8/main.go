// Command sq8 generates the kernels that weigh 8-bit codes; see
// internal/vec/sq8.go for the records they read.
package main

import (
	"strings"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

func main() {
	ConstraintExpr("amd64")
	for _, mixed := range []bool{false, true} {
		emitVNNI(mixed)
		emitAVX2(mixed)
	}
	emitFirstLines()
	emitBelow()
	emitPlacesBelow()
	emitMinima()
	emitPrefetch()
	emitHalves()
	emitTop("sq8TopAVX512", "weights *float32", "sq8TopAVX512 returns the largest of the bits of the n weights, without their signs.", 0x7fffffff)
	emitTop("topIDAVX512", "ids *uint32", "topIDAVX512 returns the largest of n ids.", 0xffffffff)
	Generate()
}

// group is how many rows are worked on together.
const group = 4

// kernel is what both instruction sets share.
type kernel struct {
	base, stride, ids, n, out reg.GPVirtual
	q                         [5]reg.GPVirtual // the parts of a query
	mixed                     bool             // codes of 4 bits among those of 8
	nibble                    reg.VecVirtual   // mixed: 0x0f in each byte
}

func begin(level string, mixed bool) *kernel {
	name, doc := "sq8IDs"+level, ""
	if mixed {
		name = "sqMixedIDs" + level
		doc = " High halves of bytes count for themselves: q goes on with their weights and a mask of what else counts."
	}
	doc = name + " writes to out, for each of the records of base named by the n ids, its bias plus scale times the sum of its codes weighed by " +
		"128 times the first part of q plus the second." + doc
	params := "q *int8, base *byte, stride int, ids *uint32, n int, scale float32, out *float32"
	TEXT(name, NOSPLIT, "func("+params+")")
	Pragma("noescape")
	Doc(doc)
	k := &kernel{
		mixed:  mixed,
		base:   Load(Param("base"), GP64()).(reg.GPVirtual),
		stride: Load(Param("stride"), GP64()).(reg.GPVirtual),
		ids:    Load(Param("ids"), GP64()).(reg.GPVirtual),
		n:      Load(Param("n"), GP64()).(reg.GPVirtual),
		out:    Load(Param("out"), GP64()).(reg.GPVirtual),
	}
	k.q[0] = Load(Param("q"), GP64()).(reg.GPVirtual)
	for i := 1; i < k.parts(); i++ {
		k.q[i] = GP64()
		LEAQ(Mem{Base: k.q[i-1], Index: k.stride, Scale: 1}, k.q[i])
	}
	return k
}

// parts is how many parts a query has.
func (k *kernel) parts() int {
	if k.mixed {
		return 5
	}
	return 2
}

// part is where a part of the query is for the bytes at off.
func (k *kernel) part(i int, off reg.Register, disp int) Mem {
	return Mem{Base: k.q[i], Index: off, Scale: 1, Disp: disp}
}

// row computes the address of the record whose id is at slot.
func (k *kernel) row(slot Mem) reg.GPVirtual {
	r := GP64()
	MOVL(slot, r.As32())
	IMULQ(k.stride, r)
	ADDQ(k.base, r)
	return r
}

func (k *kernel) advance(n int) {
	ADDQ(Imm(uint64(4*n)), k.ids)
	ADDQ(Imm(uint64(4*n)), k.out)
	SUBQ(Imm(uint64(n)), k.n)
}

func emitVNNI(mixed bool) {
	k := begin("VNNI", mixed)
	if mixed {
		k.nibble = ZMM()
		x := GP32()
		MOVL(U32(0x0f0f0f0f), x)
		VPBROADCASTD(x, k.nibble)
	}
	scale := XMM()
	VBROADCASTSS(mustAddr("scale"), scale)

	Label("group")
	CMPQ(k.n, Imm(group))
	JL(LabelRef("single"))
	var rows [group]reg.GPVirtual
	for i := range rows {
		rows[i] = k.row(Mem{Base: k.ids, Disp: 4 * i})
	}
	sums := k.sumVNNI("block", rows[:])
	VHADDPS(sums[1].AsY(), sums[0].AsY(), sums[0].AsY())
	VHADDPS(sums[3].AsY(), sums[2].AsY(), sums[2].AsY())
	VHADDPS(sums[2].AsY(), sums[0].AsY(), sums[0].AsY())
	hi := XMM()
	VEXTRACTF128(Imm(1), sums[0].AsY(), hi)
	VADDPS(hi, sums[0].AsX(), hi)
	bias := XMM()
	VMOVSS(Mem{Base: rows[0]}, bias)
	for i := 1; i < group; i++ {
		VINSERTPS(Imm(uint64(i<<4)), Mem{Base: rows[i]}, bias, bias)
	}
	VFMADD231PS(scale, hi, bias)
	VMOVUPS(bias, Mem{Base: k.out})
	k.advance(group)
	JMP(LabelRef("group"))

	Label("single")
	TESTQ(k.n, k.n)
	JZ(LabelRef("done"))
	row := k.row(Mem{Base: k.ids})
	one := k.sumVNNI("singleBlock", []reg.GPVirtual{row})[0]
	x := XMM()
	VEXTRACTF128(Imm(1), one.AsY(), x)
	VADDPS(x, one.AsX(), x)
	VHADDPS(x, x, x)
	VHADDPS(x, x, x)
	b := XMM()
	VMOVSS(Mem{Base: row}, b)
	VFMADD231SS(scale, x, b)
	VMOVSS(b, Mem{Base: k.out})
	k.advance(1)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

// sumVNNI adds up rows; the sums are spread over eight float32 lanes each.
func (k *kernel) sumVNNI(label string, rows []reg.GPVirtual) []reg.VecVirtual {
	high, less := make([]reg.VecVirtual, len(rows)), make([]reg.VecVirtual, len(rows))
	for i := range rows {
		high[i], less[i] = ZMM(), ZMM()
		VPXORD(high[i], high[i], high[i])
		VPXORD(less[i], less[i], less[i])
	}
	off := GP64()
	XORQ(off, off)
	Label(label)
	var part [5]reg.VecVirtual
	for i := range k.parts() {
		part[i] = ZMM()
		VMOVDQU64(k.part(i, off, 0), part[i])
	}
	for i, r := range rows {
		c := ZMM()
		VMOVDQU64(Mem{Base: r, Index: off, Scale: 1}, c)
		if k.mixed {
			upper := ZMM()
			VPSRLW(Imm(4), c, upper)
			VPANDD(k.nibble, upper, upper)
			VPANDD(part[4], c, c)
			VPDPBUSD(part[2], upper, high[i])
			VPDPBUSD(part[3], upper, less[i])
		}
		VPDPBUSD(part[0], c, high[i])
		VPDPBUSD(part[1], c, less[i])
	}
	ADDQ(Imm(64), off)
	CMPQ(off, k.stride)
	JB(LabelRef(label))
	for i := range rows {
		VPSLLD(Imm(7), high[i], high[i])
		VPADDD(less[i], high[i], high[i])
		VCVTDQ2PS(high[i], high[i])
		half := YMM()
		VEXTRACTF64X4(Imm(1), high[i], half)
		VADDPS(half, high[i].AsY(), half)
		high[i] = half
	}
	return high
}

// emitFirstLines emits the function that looks at no more than the first line of records. What is asked for is one load, one product
// and a sixteenth of a transposition a row, so little that loads of many rows are under way at a time.
func emitFirstLines() {
	TEXT("sqFirstLinesVNNI", NOSPLIT, "func(q *int8, base *byte, stride int, ids *uint32, n int, scale float32, out *float32)")
	Pragma("noescape")
	Doc("sqFirstLinesVNNI writes to out, for each of the records of base named by the n ids, its bias plus scale times the sum of the bytes of its first line " +
		"weighed by the first part of q, of which only those bits count that are set in the second.")
	q := Load(Param("q"), GP64())
	k := &kernel{
		base:   Load(Param("base"), GP64()).(reg.GPVirtual),
		stride: Load(Param("stride"), GP64()).(reg.GPVirtual),
		ids:    Load(Param("ids"), GP64()).(reg.GPVirtual),
		n:      Load(Param("n"), GP64()).(reg.GPVirtual),
		out:    Load(Param("out"), GP64()).(reg.GPVirtual),
	}
	weights, mask, scale := ZMM(), ZMM(), ZMM()
	VMOVDQU64(Mem{Base: q}, weights)
	VMOVDQU64(Mem{Base: q, Disp: 64}, mask)
	VBROADCASTSS(mustAddr("scale"), scale)

	// line leaves the products of a row's bytes in acc, four of them added up.
	line := func(row reg.GPVirtual, acc reg.VecVirtual) {
		c := ZMM()
		VPANDD(Mem{Base: row}, mask, c)
		VPXORD(acc, acc, acc)
		VPDPBUSD(weights, c, acc)
	}

	const rows = 16
	Label("group")
	CMPQ(k.n, Imm(rows))
	JL(LabelRef("single"))
	var fours [rows / 4]reg.VecVirtual // each quarter of one has parts of the sums of four rows
	var biases [rows / 4]reg.VecVirtual
	for f := range fours {
		var acc [4]reg.VecVirtual
		bias := XMM()
		for i := range acc {
			row := k.row(Mem{Base: k.ids, Disp: 16*f + 4*i})
			if acc[i] = ZMM(); i == 0 {
				VMOVSS(Mem{Base: row}, bias)
			} else {
				VINSERTPS(Imm(uint64(i<<4)), Mem{Base: row}, bias, bias)
			}
			line(row, acc[i])
		}
		for i := 0; i < len(acc); i += 2 {
			low := ZMM()
			VPUNPCKLDQ(acc[i+1], acc[i], low)
			VPUNPCKHDQ(acc[i+1], acc[i], acc[i])
			VPADDD(low, acc[i], acc[i])
		}
		fours[f], biases[f] = ZMM(), bias
		VPUNPCKLQDQ(acc[2], acc[0], fours[f])
		VPUNPCKHQDQ(acc[2], acc[0], acc[0])
		VPADDD(acc[0], fours[f], fours[f])
	}
	join := func(a, b reg.VecVirtual, low, high uint64) {
		t := ZMM()
		VSHUFI32X4(Imm(low), b, a, t)
		VSHUFI32X4(Imm(high), b, a, a)
		VPADDD(t, a, a)
	}
	join(fours[0], fours[1], 0x44, 0xee)
	join(fours[2], fours[3], 0x44, 0xee)
	join(fours[0], fours[2], 0x88, 0xdd)
	bias := ZMM()
	VINSERTF32X4(Imm(1), biases[1], biases[0].AsY(), bias.AsY())
	VINSERTF32X4(Imm(1), biases[3], biases[2].AsY(), biases[2].AsY())
	VINSERTF64X4(Imm(1), biases[2].AsY(), bias, bias)
	VCVTDQ2PS(fours[0], fours[0])
	VFMADD231PS(scale, fours[0], bias)
	VMOVUPS(bias, Mem{Base: k.out})
	k.advance(rows)
	JMP(LabelRef("group"))

	Label("single")
	TESTQ(k.n, k.n)
	JZ(LabelRef("done"))
	row, acc := k.row(Mem{Base: k.ids}), ZMM()
	line(row, acc)
	half := YMM()
	VEXTRACTI64X4(Imm(1), acc, half)
	VPADDD(half, acc.AsY(), acc.AsY())
	VEXTRACTI32X4(Imm(1), acc.AsY(), half.AsX())
	VPADDD(half.AsX(), acc.AsX(), acc.AsX())
	for _, swap := range []uint64{0x4e, 0xb1} {
		VPSHUFD(Imm(swap), acc.AsX(), half.AsX())
		VPADDD(half.AsX(), acc.AsX(), acc.AsX())
	}
	VCVTDQ2PS(acc.AsX(), acc.AsX())
	b := XMM()
	VMOVSS(Mem{Base: row}, b)
	VFMADD231SS(scale.AsX(), acc.AsX(), b)
	VMOVSS(b, Mem{Base: k.out})
	k.advance(1)
	JMP(LabelRef("single"))

	Label("done")
	VZEROUPPER()
	RET()
}

func emitAVX2(mixed bool) {
	k := begin("AVX2", mixed)
	if mixed {
		k.nibble = YMM()
		x := GP32()
		MOVL(U32(0x0f0f0f0f), x)
		VMOVD(x, k.nibble.AsX())
		VPBROADCASTD(k.nibble.AsX(), k.nibble)
	}
	scale := XMM()
	VBROADCASTSS(mustAddr("scale"), scale)

	Label("group")
	TESTQ(k.n, k.n)
	JZ(LabelRef("done"))
	row := k.row(Mem{Base: k.ids})
	acc := [4]reg.VecVirtual{YMM(), YMM(), YMM(), YMM()}
	for i := range acc {
		VPXOR(acc[i], acc[i], acc[i])
	}
	off := GP64()
	XORQ(off, off)
	Label("block")
	for i := range acc {
		c := XMM()
		VMOVDQU(Mem{Base: row, Index: off, Scale: 1, Disp: 16 * i}, c)
		if k.mixed {
			upper := XMM()
			VPSRLW(Imm(4), c, upper)
			VPAND(k.nibble.AsX(), upper, upper)
			VPAND(k.part(4, off, 16*i), c, c)
			k.addAVX2(acc[i], upper, 2, off, 16*i)
		}
		k.addAVX2(acc[i], c, 0, off, 16*i)
	}
	ADDQ(Imm(64), off)
	CMPQ(off, k.stride)
	JB(LabelRef("block"))
	for i := range acc {
		VCVTDQ2PS(acc[i], acc[i])
	}
	VADDPS(acc[1], acc[0], acc[0])
	VADDPS(acc[3], acc[2], acc[2])
	VADDPS(acc[2], acc[0], acc[0])
	x := XMM()
	VEXTRACTF128(Imm(1), acc[0], x)
	VADDPS(x, acc[0].AsX(), x)
	VHADDPS(x, x, x)
	VHADDPS(x, x, x)
	b := XMM()
	VMOVSS(Mem{Base: row}, b)
	VFMADD231SS(scale, x, b)
	VMOVSS(b, Mem{Base: k.out})
	k.advance(1)
	JMP(LabelRef("group"))

	Label("done")
	VZEROUPPER()
	RET()
}

// addAVX2 adds 16 codes, weighed by two parts of the query, to acc.
func (k *kernel) addAVX2(acc, codes reg.VecVirtual, part int, off reg.Register, disp int) {
	c, w, l := YMM(), YMM(), YMM()
	VPMOVSXBW(k.part(part, off, disp), w)
	VPMOVSXBW(k.part(part+1, off, disp), l)
	VPSLLW(Imm(7), w, w)
	VPADDW(l, w, w)
	VPMOVZXBW(codes, c)
	VPMADDWD(w, c, c)
	VPADDD(c, acc, acc)
}

// emitBelow emits the function that leaves out what is not below a limit.
func emitBelow() {
	TEXT("belowAVX512", NOSPLIT, "func(ids *uint32, dist *float32, n int, limit float32) int")
	Pragma("noescape")
	Doc("belowAVX512 moves those of the n ids and distances to the front whose distance is below limit, and returns how many they are.")
	ids := Load(Param("ids"), GP64())
	dist := Load(Param("dist"), GP64())
	n := Load(Param("n"), GP64())
	limit := ZMM()
	VBROADCASTSS(mustAddr("limit"), limit)
	to, at := GP64(), GP64()
	XORQ(to, to)
	XORQ(at, at)
	all, some := GP32(), K()
	MOVL(U32(0xffff), all)
	Label("block")
	CMPQ(at, n)
	JGE(LabelRef("done"))
	left := GP64()
	MOVQ(n, left)
	SUBQ(at, left)
	CMPQ(left, Imm(16))
	JGE(LabelRef("whole"))
	MOVL(U32(0xffff), all)
	// Fewer than 16 are left: the mask has as many bits.
	MOVQ(left, reg.RCX)
	one := GP32()
	MOVL(U32(1), one)
	SHLL(reg.CL, one)
	DECL(one)
	MOVL(one, all)
	Label("whole")
	KMOVW(all, some)
	d, i := ZMM(), ZMM()
	VMOVUPS_Z(Mem{Base: dist, Index: at, Scale: 4}, some, d)
	VMOVDQU32_Z(Mem{Base: ids, Index: at, Scale: 4}, some, i)
	take := K()
	VCMPPS(Imm(1), limit, d, some, take) // less than, ordered
	VCOMPRESSPS_Z(d, take, d)
	VPCOMPRESSD_Z(i, take, i)
	count := GP32()
	KMOVW(take, count)
	POPCNTL(count, count)
	// What is written past the count was read before, or is past n and masked off.
	VMOVUPS(d, some, Mem{Base: dist, Index: to, Scale: 4})
	VMOVDQU32(i, some, Mem{Base: ids, Index: to, Scale: 4})
	ADDQ(count.As64(), to)
	ADDQ(Imm(16), at)
	JMP(LabelRef("block"))
	Label("done")
	Store(to, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// emitPlacesBelow emits the function that says where something is below a limit.
func emitPlacesBelow() {
	TEXT("placesBelowAVX512", NOSPLIT, "func(dist *float32, n int, limit float32, places *uint32) int")
	Pragma("noescape")
	Doc("placesBelowAVX512 writes to places which of the n distances are below limit, and returns how many they are. It writes up to 16 values behind these.")
	dist := Load(Param("dist"), GP64())
	n := Load(Param("n"), GP64())
	places := Load(Param("places"), GP64())
	limit, at, step := ZMM(), ZMM(), ZMM()
	VBROADCASTSS(mustAddr("limit"), limit)
	x := GP32()
	// Four bits after four bits, each is one more than the one before.
	VPXORD(at, at, at)
	for i, bits := range []uint64{0xaaaa, 0xcccc, 0xf0f0, 0xff00} {
		k := K()
		MOVL(U32(bits), x)
		KMOVW(x, k)
		MOVL(U32(1<<i), x)
		t := ZMM()
		VPBROADCASTD_Z(x, k, t)
		VPORD(t, at, at)
	}
	MOVL(U32(16), x)
	VPBROADCASTD(x, step)
	some := K()
	MOVL(U32(0xffff), x)
	KMOVW(x, some)
	to := GP64()
	XORQ(to, to)
	Label("block")
	TESTQ(n, n)
	JLE(LabelRef("done"))
	CMPQ(n, Imm(16))
	JGE(LabelRef("whole"))
	MOVQ(n, reg.RCX)
	MOVL(U32(1), x)
	SHLL(reg.CL, x)
	DECL(x)
	KMOVW(x, some)
	Label("whole")
	d := ZMM()
	VMOVUPS_Z(Mem{Base: dist}, some, d)
	take := K()
	VCMPPS(Imm(1), limit, d, some, take) // less than, ordered
	found := ZMM()
	VPCOMPRESSD_Z(at, take, found)
	VMOVDQU32(found, Mem{Base: places, Index: to, Scale: 4})
	count := GP32()
	KMOVW(take, count)
	POPCNTL(count, count)
	ADDQ(count.As64(), to)
	VPADDD(step, at, at)
	ADDQ(Imm(64), dist)
	SUBQ(Imm(16), n)
	JMP(LabelRef("block"))
	Label("done")
	Store(to, ReturnIndex(0))
	VZEROUPPER()
	RET()
}

// emitMinima emits the function that finds the least of each of several interleaved parts.
func emitMinima() {
	TEXT("minimaAVX512", NOSPLIT, "func(dist *float32, n int, least *float32, parts int)")
	Pragma("noescape")
	Doc("minimaAVX512 lowers least[i%parts] to dist[i] if that is less, for n distances. n and parts are multiples of 16.")
	dist := Load(Param("dist"), GP64())
	n := Load(Param("n"), GP64())
	least := Load(Param("least"), GP64())
	parts := Load(Param("parts"), GP64())
	at := GP64()
	Label("round")
	XORQ(at, at)
	Label("block")
	TESTQ(n, n)
	JLE(LabelRef("done"))
	d, m := ZMM(), ZMM()
	VMOVUPS(Mem{Base: dist}, d)
	VMOVUPS(Mem{Base: least, Index: at, Scale: 4}, m)
	VMINPS(m, d, m) // what is not a number does not count
	VMOVUPS(m, Mem{Base: least, Index: at, Scale: 4})
	ADDQ(Imm(64), dist)
	SUBQ(Imm(16), n)
	ADDQ(Imm(16), at)
	CMPQ(at, parts)
	JL(LabelRef("block"))
	JMP(LabelRef("round"))
	Label("done")
	VZEROUPPER()
	RET()
}

// emitPrefetch emits the function that asks for records.
func emitPrefetch() {
	TEXT("prefetchRowsAMD64", NOSPLIT, "func(base *byte, stride int, lines int, ids *uint32, n int, add int)")
	Pragma("noescape")
	Doc("prefetchRowsAMD64 asks for the first lines of the rows of base named by the n ids, each plus add.")
	base := Load(Param("base"), GP64())
	stride := Load(Param("stride"), GP64())
	lines := Load(Param("lines"), GP64())
	ids := Load(Param("ids"), GP64())
	n := Load(Param("n"), GP64())
	add := Load(Param("add"), GP64())
	Label("row")
	TESTQ(n, n)
	JZ(LabelRef("done"))
	r, left := GP64(), GP64()
	MOVL(Mem{Base: ids}, r.As32())
	ADDQ(add, r)
	IMULQ(stride, r)
	ADDQ(base, r)
	MOVQ(lines, left)
	Label("line")
	PREFETCHT0(Mem{Base: r})
	ADDQ(Imm(64), r)
	DECQ(left)
	JNZ(LabelRef("line"))
	ADDQ(Imm(4), ids)
	DECQ(n)
	JMP(LabelRef("row"))
	Label("done")
	RET()
}

func mustAddr(param string) Mem {
	p, err := Param(param).Resolve()
	if err != nil {
		panic(err)
	}
	return p.Addr
}

// emitHalves emits the function that takes weights apart.
func emitHalves() {
	TEXT("sq8HalvesAVX512", NOSPLIT, "func(high *int8, low *int8, weights *float32, n int, inv float32)")
	Pragma("noescape")
	Doc("sq8HalvesAVX512 rounds each of the n weights times inv to an integer and writes its two halves.")
	high := Load(Param("high"), GP64())
	low := Load(Param("low"), GP64())
	w := Load(Param("weights"), GP64())
	n := Load(Param("n"), GP64())
	inv, half := ZMM(), ZMM()
	VBROADCASTSS(mustAddr("inv"), inv)
	x := GP32()
	MOVL(U32(64), x)
	VPBROADCASTD(x, half)
	mask := K()
	MOVL(U32(0xffff), x)
	KMOVW(x, mask)
	Label("block")
	TESTQ(n, n)
	JLE(LabelRef("done"))
	CMPQ(n, Imm(16))
	JGE(LabelRef("whole"))
	MOVQ(n, reg.RCX)
	MOVL(U32(1), x)
	SHLL(reg.CL, x)
	DECL(x)
	KMOVW(x, mask)
	Label("whole")
	v, h, t := ZMM(), ZMM(), ZMM()
	VMOVUPS_Z(Mem{Base: w}, mask, v)
	VMULPS(inv, v, v)
	VCVTPS2DQ(v, v)
	VPADDD(half, v, h)
	VPSRAD(Imm(7), h, h)
	VPSLLD(Imm(7), h, t)
	VPSUBD(t, v, v)
	VPMOVDB(h, mask, Mem{Base: high})
	VPMOVDB(v, mask, Mem{Base: low})
	ADDQ(Imm(16), high)
	ADDQ(Imm(16), low)
	ADDQ(Imm(64), w)
	SUBQ(Imm(16), n)
	JMP(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// emitTop emits a function that finds the largest of some numbers of 32 bits, those of a mask.
func emitTop(name, param, doc string, bits uint32) {
	TEXT(name, NOSPLIT, "func("+param+", n int) uint32")
	Pragma("noescape")
	Doc(doc)
	w := Load(Param(param[:strings.IndexByte(param, ' ')]), GP64())
	n := Load(Param("n"), GP64())
	top, abs := ZMM(), ZMM()
	VPXORD(top, top, top)
	x := GP32()
	MOVL(U32(bits), x)
	VPBROADCASTD(x, abs)
	mask := K()
	MOVL(U32(0xffff), x)
	KMOVW(x, mask)
	Label("block")
	TESTQ(n, n)
	JLE(LabelRef("done"))
	CMPQ(n, Imm(16))
	JGE(LabelRef("whole"))
	MOVQ(n, reg.RCX)
	MOVL(U32(1), x)
	SHLL(reg.CL, x)
	DECL(x)
	KMOVW(x, mask)
	Label("whole")
	v := ZMM()
	VMOVDQU32_Z(Mem{Base: w}, mask, v)
	VPANDD(abs, v, v)
	VPMAXUD(v, top, top)
	ADDQ(Imm(64), w)
	SUBQ(Imm(16), n)
	JMP(LabelRef("block"))
	Label("done")
	half := YMM()
	VEXTRACTI64X4(Imm(1), top, half)
	VPMAXUD(half, top.AsY(), half)
	quarter := XMM()
	VEXTRACTI128(Imm(1), half, quarter)
	VPMAXUD(quarter, half.AsX(), quarter)
	other := XMM()
	VPSHUFD(Imm(0x4e), quarter, other)
	VPMAXUD(other, quarter, quarter)
	VPSHUFD(Imm(0xb1), quarter, other)
	VPMAXUD(other, quarter, quarter)
	VMOVD(quarter, x)
	Store(x, ReturnIndex(0))
	VZEROUPPER()
	RET()
}
