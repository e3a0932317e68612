package main

import (
	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// elems are the element types and operations that there are kernels for.
func elems(i isa) []elem {
	var es []elem
	for _, l2 := range []bool{true, false} {
		es = append(es, &floats{isa: i, l2: l2})
		es = append(es, &halves{floats: floats{isa: i, l2: l2}})
		es = append(es, &halves{floats: floats{isa: i, l2: l2}, brain: true})
		es = append(es, &int8s{isa: i, l2: l2})
		es = append(es, &nibbles{isa: i, l2: l2})
	}
	return append(es, &bitsets{isa: i}, &bitsets{isa: i, jaccard: true})
}

// floats are float32.
type floats struct {
	isa isa
	l2  bool
}

func (f *floats) name() string {
	if f.l2 {
		return "l2"
	}
	return "dot"
}

func (f *floats) what() string {
	if f.l2 {
		return "squared Euclidean distances"
	}
	return "dot products"
}

func (f *floats) goType() string { return "float32" }
func (f *floats) shift() uint64  { return 2 }
func (f *floats) width() int     { return f.isa.width() }
func (f *floats) unroll() int    { return 2 }
func (f *floats) chains() int    { return 4 } // enough to hide the latency of a fused multiply-add
func (f *floats) overlaps() bool { return false }

func (f *floats) prepare() {
	switch i := f.isa.(type) {
	case avx512:
		i.prepareMask(16)
	case *avx2:
		i.prepareMask()
	}
}

func (f *floats) zero() sums {
	r := f.isa.reg()
	if f.isa.width() == 64 {
		VPXORD(r, r, r)
	} else {
		VXORPS(r, r, r)
	}
	return sums{r}
}

func (f *floats) load(m Mem) reg.VecVirtual {
	r := f.isa.reg()
	VMOVUPS(m, r)
	return r
}

func (f *floats) loadTail(m Mem) reg.VecVirtual {
	r := f.isa.reg()
	switch i := f.isa.(type) {
	case avx512:
		VMOVUPS_Z(m, reg.K1, r)
	case *avx2:
		VMASKMOVPS(m, i.mask, r)
	}
	return r
}

func (f *floats) step(s sums, q reg.VecVirtual, m Mem) {
	if !f.l2 {
		VFMADD231PS(m, q, s[0])
		return
	}
	d := f.isa.reg()
	VSUBPS(m, q, d)
	VFMADD231PS(d, d, s[0])
}

// stepLoaded adds a vector of a row that is in a register, and destroys it.
func (f *floats) stepLoaded(s sums, q, r reg.VecVirtual) {
	if f.l2 {
		VSUBPS(r, q, r)
		q = r
	}
	VFMADD231PS(r, q, s[0])
}

func (f *floats) stepTail(s sums, q reg.VecVirtual, m Mem) {
	f.stepLoaded(s, q, f.loadTail(m)) // lanes past the row are 0
}

func (f *floats) add(a, b sums) { VADDPS(a[0], b[0], b[0]) }

func (f *floats) reduce(rows []sums) reg.VecVirtual {
	var v []reg.VecVirtual
	for _, s := range rows {
		v = append(v, f.isa.fold(s[0], false))
	}
	hi := XMM()
	if len(v) == 1 {
		VEXTRACTF128(Imm(1), v[0], hi)
		VADDPS(hi, v[0].AsX(), hi)
		VHADDPS(hi, hi, hi)
		VHADDPS(hi, hi, hi)
		return hi
	}
	VHADDPS(v[1], v[0], v[0])
	VHADDPS(v[3], v[2], v[2])
	VHADDPS(v[2], v[0], v[0])
	VEXTRACTF128(Imm(1), v[0], hi)
	VADDPS(hi, v[0].AsX(), hi)
	return hi
}

// halves are float16 or, brain, bfloat16: they become float32 when loaded.
type halves struct {
	floats
	brain bool
}

func (h *halves) name() string {
	if h.brain {
		return h.floats.name() + "BFloat16"
	}
	return h.floats.name() + "Float16"
}

func (h *halves) goType() string { return "byte" }
func (h *halves) shift() uint64  { return 1 }
func (h *halves) width() int     { return h.isa.width() / 2 }

// overlaps: AVX2 has no masked load of 16 bits.
func (h *halves) overlaps() bool { return h.isa.width() == 32 }

func (h *halves) prepare() {
	switch i := h.isa.(type) {
	case avx512:
		i.prepareMask(16)
	case *avx2:
		i.prepareEnd(8, 4)
	}
}

func (h *halves) load(m Mem) reg.VecVirtual {
	r := h.isa.reg()
	if h.brain {
		VPMOVZXWD(m, r)
		VPSLLD(Imm(16), r, r)
	} else {
		VCVTPH2PS(m, r)
	}
	return r
}

func (h *halves) loadTail(m Mem) reg.VecVirtual {
	if i, ok := h.isa.(*avx2); ok {
		r := h.load(m)
		VANDPS(i.mask, r, r)
		return r
	}
	r := h.isa.reg()
	y := YMM()
	VMOVDQU16_Z(m, reg.K1, y)
	if h.brain {
		VPMOVZXWD(y, r)
		VPSLLD(Imm(16), r, r)
	} else {
		VCVTPH2PS(y, r)
	}
	return r
}

func (h *halves) step(s sums, q reg.VecVirtual, m Mem) { h.stepLoaded(s, q, h.load(m)) }

func (h *halves) stepTail(s sums, q reg.VecVirtual, m Mem) { h.stepLoaded(s, q, h.loadTail(m)) }

// int8s become 16 bits when loaded; products are added up in 32.
type int8s struct {
	isa isa
	l2  bool
}

func (e *int8s) name() string   { return (&floats{l2: e.l2}).name() + "Int8" }
func (e *int8s) what() string   { return (&floats{l2: e.l2}).what() }
func (e *int8s) goType() string { return "byte" }
func (e *int8s) shift() uint64  { return 0 }
func (e *int8s) width() int     { return e.isa.width() / 2 }
func (e *int8s) unroll() int    { return 2 }
func (e *int8s) chains() int    { return 4 }
func (e *int8s) overlaps() bool { return e.isa.width() == 32 }

func (e *int8s) prepare() {
	switch i := e.isa.(type) {
	case avx512:
		i.prepareMask(32)
	case *avx2:
		i.prepareEnd(16, 2)
	}
}

func (e *int8s) zero() sums { return (&floats{isa: e.isa}).zero() }

func (e *int8s) load(m Mem) reg.VecVirtual {
	r := e.isa.reg()
	VPMOVSXBW(m, r)
	return r
}

func (e *int8s) loadTail(m Mem) reg.VecVirtual {
	if i, ok := e.isa.(*avx2); ok {
		r := e.load(m)
		VPAND(i.mask, r, r)
		return r
	}
	r, y := ZMM(), YMM()
	VMOVDQU8_Z(m, reg.K1, y)
	VPMOVSXBW(y, r)
	return r
}

func (e *int8s) step(s sums, q reg.VecVirtual, m Mem)     { e.stepLoaded(s, q, e.load(m)) }
func (e *int8s) stepTail(s sums, q reg.VecVirtual, m Mem) { e.stepLoaded(s, q, e.loadTail(m)) }

func (e *int8s) stepLoaded(s sums, q, r reg.VecVirtual) {
	if e.l2 {
		VPSUBW(r, q, r)
		q = r
	}
	if e.isa.width() == 64 {
		VPDPWSSD(r, q, s[0])
		return
	}
	VPMADDWD(r, q, r)
	VPADDD(r, s[0], s[0])
}

func (e *int8s) add(a, b sums) { VPADDD(a[0], b[0], b[0]) }

func (e *int8s) reduce(rows []sums) reg.VecVirtual {
	r := reduceInts(e.isa, rows, 0)
	VCVTDQ2PS(r, r)
	return r
}

// reduceInts adds up register at of the sums of one row or four.
func reduceInts(i isa, rows []sums, at int) reg.VecVirtual {
	var v []reg.VecVirtual
	for _, s := range rows {
		v = append(v, i.fold(s[at], true))
	}
	hi := XMM()
	if len(v) == 1 {
		VEXTRACTI128(Imm(1), v[0], hi)
		VPADDD(hi, v[0].AsX(), hi)
		VPHADDD(hi, hi, hi)
		VPHADDD(hi, hi, hi)
		return hi
	}
	VPHADDD(v[1], v[0], v[0])
	VPHADDD(v[3], v[2], v[2])
	VPHADDD(v[2], v[0], v[0])
	VEXTRACTI128(Imm(1), v[0], hi)
	VPADDD(hi, v[0].AsX(), hi)
	return hi
}

// bitsets are bits, eight a byte; an element is a byte.
type bitsets struct {
	isa     isa
	jaccard bool
}

func (b *bitsets) name() string {
	if b.jaccard {
		return "jaccard"
	}
	return "hamming"
}

func (b *bitsets) what() string {
	if b.jaccard {
		return "Jaccard distances"
	}
	return "Hamming distances"
}

func (b *bitsets) goType() string { return "byte" }
func (b *bitsets) shift() uint64  { return 0 }
func (b *bitsets) width() int     { return b.isa.width() }
func (b *bitsets) unroll() int    { return 1 }
func (b *bitsets) chains() int    { return 1 }
func (b *bitsets) overlaps() bool { return b.isa.width() == 32 }

func (b *bitsets) prepare() {
	switch i := b.isa.(type) {
	case avx512:
		i.prepareMask(64)
	case *avx2:
		i.prepareEnd(32, 1)
		i.prepareCount()
	}
}

// zero: the Hamming distance, or the bits that differ and those that are set in
// any of the two.
func (b *bitsets) zero() sums {
	s := (&floats{isa: b.isa}).zero()
	if b.jaccard {
		s = append(s, (&floats{isa: b.isa}).zero()...)
	}
	return s
}

func (b *bitsets) load(m Mem) reg.VecVirtual {
	r := b.isa.reg()
	if b.isa.width() == 64 {
		VMOVDQU64(m, r)
	} else {
		VMOVDQU(m, r)
	}
	return r
}

func (b *bitsets) loadTail(m Mem) reg.VecVirtual {
	if i, ok := b.isa.(*avx2); ok {
		r := b.load(m)
		VPAND(i.mask, r, r)
		return r
	}
	r := ZMM()
	VMOVDQU8_Z(m, reg.K1, r)
	return r
}

func (b *bitsets) step(s sums, q reg.VecVirtual, m Mem)     { b.stepLoaded(s, q, b.load(m)) }
func (b *bitsets) stepTail(s sums, q reg.VecVirtual, m Mem) { b.stepLoaded(s, q, b.loadTail(m)) }

func (b *bitsets) stepLoaded(s sums, q, r reg.VecVirtual) {
	either := b.isa.reg()
	if i, ok := b.isa.(*avx2); ok {
		if b.jaccard {
			VPOR(q, r, either)
			i.count(either)
			VPADDD(either, s[1], s[1])
		}
		VPXOR(q, r, r)
		i.count(r)
	} else {
		if b.jaccard {
			VPORD(q, r, either)
			VPOPCNTD(either, either)
			VPADDD(either, s[1], s[1])
		}
		VPXORD(q, r, r)
		VPOPCNTD(r, r)
	}
	VPADDD(r, s[0], s[0])
}

func (b *bitsets) add(x, y sums) {
	for i := range x {
		VPADDD(x[i], y[i], y[i])
	}
}

func (b *bitsets) reduce(rows []sums) reg.VecVirtual {
	differ := reduceInts(b.isa, rows, 0)
	VCVTDQ2PS(differ, differ)
	if b.jaccard {
		either, one := reduceInts(b.isa, rows, 1), XMM()
		// Two empty sets are equal: 0 of 1.
		VPCMPEQD(one, one, one)
		VPSRLD(Imm(31), one, one)
		VPMAXSD(one, either, either)
		VCVTDQ2PS(either, either)
		VDIVPS(either, differ, differ)
	}
	return differ
}

// nibbles are unsigned values of four bits, two a byte; an element is a byte.
type nibbles struct {
	isa  isa
	l2   bool
	low  reg.VecVirtual    // 15 in every byte
	ones reg.VecVirtual    // of 16 bits; AVX2 only
	qs   [2]reg.VecVirtual // the halves of the query at hand
}

func (e *nibbles) name() string   { return (&floats{l2: e.l2}).name() + "Uint4" }
func (e *nibbles) what() string   { return (&floats{l2: e.l2}).what() }
func (e *nibbles) goType() string { return "byte" }
func (e *nibbles) shift() uint64  { return 0 }
func (e *nibbles) width() int     { return e.isa.width() }
func (e *nibbles) unroll() int    { return 1 }
func (e *nibbles) chains() int    { return 1 }
func (e *nibbles) overlaps() bool { return e.isa.width() == 32 }

func (e *nibbles) prepare() {
	x := GP32()
	MOVL(U32(0x0f0f0f0f), x)
	e.low = e.isa.reg()
	switch i := e.isa.(type) {
	case avx512:
		i.prepareMask(64)
		VPBROADCASTD(x, e.low)
	case *avx2:
		i.prepareEnd(32, 1)
		VMOVD(x, e.low.AsX())
		VPBROADCASTD(e.low.AsX(), e.low)
		e.ones = YMM()
		VPCMPEQW(e.ones, e.ones, e.ones)
		VPSRLW(Imm(15), e.ones, e.ones)
	}
}

// zero: the sums of the low and of the high halves.
func (e *nibbles) zero() sums {
	f := &floats{isa: e.isa}
	return append(f.zero(), f.zero()...)
}

func (e *nibbles) and(a, b, to reg.VecVirtual) {
	if e.isa.width() == 64 {
		VPANDD(a, b, to)
	} else {
		VPAND(a, b, to)
	}
}

// split returns the values of the low and of the high halves; v becomes the low.
func (e *nibbles) split(v reg.VecVirtual) [2]reg.VecVirtual {
	hi := e.isa.reg()
	VPSRLW(Imm(4), v, hi)
	e.and(e.low, v, v)
	e.and(e.low, hi, hi)
	return [2]reg.VecVirtual{v, hi}
}

// load splits the query, which all rows of a step share.
func (e *nibbles) load(m Mem) reg.VecVirtual {
	e.qs = e.split((&bitsets{isa: e.isa}).load(m))
	return e.qs[0]
}

func (e *nibbles) loadTail(m Mem) reg.VecVirtual {
	e.qs = e.split((&bitsets{isa: e.isa}).loadTail(m))
	return e.qs[0]
}

func (e *nibbles) step(s sums, _ reg.VecVirtual, m Mem) {
	e.stepLoaded(s, (&bitsets{isa: e.isa}).load(m))
}

func (e *nibbles) stepTail(s sums, _ reg.VecVirtual, m Mem) {
	e.stepLoaded(s, (&bitsets{isa: e.isa}).loadTail(m))
}

func (e *nibbles) stepLoaded(s sums, r reg.VecVirtual) {
	for i, v := range e.split(r) {
		q := e.qs[i]
		if e.l2 {
			VPSUBB(v, q, v)
			VPABSB(v, v)
			q = v
		}
		if e.isa.width() == 64 {
			VPDPBUSD(q, v, s[i])
			continue
		}
		VPMADDUBSW(q, v, v)
		VPMADDWD(e.ones, v, v)
		VPADDD(v, s[i], s[i])
	}
}

func (e *nibbles) add(a, b sums) {
	for i := range a {
		VPADDD(a[i], b[i], b[i])
	}
}

func (e *nibbles) reduce(rows []sums) reg.VecVirtual {
	for _, s := range rows {
		VPADDD(s[1], s[0], s[0])
	}
	r := reduceInts(e.isa, rows, 0)
	VCVTDQ2PS(r, r)
	return r
}
