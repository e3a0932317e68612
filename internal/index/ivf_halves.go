package index

import (
	"encoding/binary"
	"math"
	"sync/atomic"
	"unsafe"

	"github.com/querynode/querynode/internal/vec"
)

// Of searches that compare allowed rows one by one. Nearly all of these are far from the query, and half a byte of each value says so: that is a third of
// a fine code, in as few cache lines as can be. Of the others fine codes are read.
const (
	// halfLeast is the dimension from which on rows have such codes: below, they would be no fewer lines.
	halfLeast = 65
	// halfStep is how many steps of a fine code's high bytes a step of these is.
	halfStep = 16
	// halfMost is the largest square of a length, of a row or a query, for which no sum of products is too large for a float32.
	halfMost = 1e30
	// halfRun is of how many values a search makes codes at most, in a millisecond or two: clients that do not wait for longer would never
	// have them made.
	halfRun = 1 << 21
	// halfEach times as many rows as are wanted, and halfMore more than are wanted, are looked at by fine codes at least.
	halfEach, halfMore = 3, 28
)

// halfRows has the codes of half a byte once searches have made them, each a part. They take vec.HalfBytes a row. It is safe for concurrent use, and
// nothing waits in it.
type halfRows struct {
	of        atomic.Pointer[vec.HalfRows] // without rows: numbers are too large
	making    atomic.Bool                  // a search is, now: what follows is its own
	part      vec.HalfRows                 // of which so many rows are made
	made      int
	forgotten atomic.Bool // the part, and the codes, are to be dropped
}

// existing returns the codes if they were made; nil if not.
func (h *halfRows) existing() *vec.HalfRows {
	if of := h.of.Load(); of != nil && of.Exist() {
		return of
	}
	return nil
}

// halvesOf returns codes of half a byte of all rows. Where they are not made yet it makes some, and returns nil if others are left or
// another search is making them just now, there is no memory for them or s is stopped; or if rows have none.
func (x *ivf) halvesOf(s *Scratch) *vec.HalfRows {
	h := &x.halves
	if h.of.Load() != nil {
		return h.existing()
	}
	if x.marks == nil || !x.fine.exists() || x.dim < halfLeast || x.n == 0 || !x.kern.HalfFast() || !h.making.CompareAndSwap(false, true) {
		return nil
	}
	defer x.dropForgotten()
	defer h.making.Store(false)
	if h.forgotten.Load() || h.of.Load() != nil {
		return h.existing()
	}
	if !h.part.Exist() {
		if !x.marks.take(x.halfBytes()) {
			return nil
		}
		h.part, h.made = vec.NewHalfRows(x.dim, x.n, hugeBytes(vec.HalfLines(x.dim, x.n))), 0
	}
	for to := min(h.made+max(halfRun/x.dim, scanChunk), x.n); h.made < to; h.made++ {
		if h.made%scanChunk == 0 && s.stopped() {
			return nil
		}
		values, step, bias := x.fine.halves(h.made)
		if !(math.Abs(float64(bias)) <= halfMost && square(step, x.fine.bits, x.dim) <= halfMost) {
			x.dropPart()
			h.of.Store(&vec.HalfRows{})
			return nil
		}
		h.part.Put(h.made, values, step, bias)
	}
	if h.made < x.n {
		return nil
	}
	of := h.part
	h.part = vec.HalfRows{}
	h.of.Store(&of)
	return &of
}

// halfBytes is how many bytes the codes take.
func (x *ivf) halfBytes() int64 { return int64(x.n) * int64(vec.HalfBytes(x.dim)) }

// forgetHalves drops what halvesOf has kept.
func (x *ivf) forgetHalves() {
	x.halves.forgotten.Store(true)
	x.dropForgotten()
}

// dropForgotten drops what is made if it is to be; a search that is making some does when it is done with it, which may have been the last of it.
func (x *ivf) dropForgotten() {
	h := &x.halves
	for h.forgotten.Load() && h.making.CompareAndSwap(false, true) {
		if h.forgotten.Swap(false) {
			x.dropPart()
			if of := h.of.Swap(nil); of != nil && of.Exist() {
				x.marks.take(-x.halfBytes())
			}
		}
		h.making.Store(false)
	}
}

// dropPart drops the part that is made, by who is making it.
func (x *ivf) dropPart() {
	if x.halves.part.Exist() {
		x.halves.part = vec.HalfRows{}
		x.marks.take(-x.halfBytes())
	}
}

// square is more than the square of the length of a row with so large a step.
func square(step float32, bits, dim int) float64 {
	return float64(step) * float64(step) * math.Exp2(float64(2*bits-2)) * float64(dim)
}

// halvesFor returns what a search for q compares rows with before it reads fine codes; nil if these are read in the first place.
func (p *plan) halvesFor(q *fineQuery) *vec.HalfRows {
	if !(q.square <= halfMost && math.Abs(q.add) <= halfMost) {
		return nil
	}
	return p.halves
}

// coarseRows is how many of the best rows by the upper halves of fine codes, or by codes of half a byte, are looked at for the rows wanted.
func (p *plan) coarseRows(q *fineQuery) int {
	if p.halvesFor(q) != nil {
		return max(halfEach*p.k, p.k+halfMore)
	}
	return max(4*p.k, p.k+64)
}

// halves returns what a row's code of half a byte is made of. A row whose distances fine codes do not tell to three digits, as one of zeros far
// from the mean, is told well enough to be looked at.
func (f *fine) halves(row int) (values []byte, step, bias float32) {
	code := f.bytes[row*f.stride:][:f.stride]
	values, tail := code[:f.space.dim], code[f.stride-fineTail:]
	step, bias = math.Float32frombits(binary.LittleEndian.Uint32(tail)), math.Float32frombits(binary.LittleEndian.Uint32(tail[4:]))
	if bias != bias {
		bias = 0
		if f.space.metric != IP {
			sum := 0
			for _, b := range values {
				sum += int(int8(b)) * int(int8(b))
			}
			value := float64(step) * float64(int(1)<<(f.bits-8))
			bias = float32(float64(sum) * value * value)
		}
	}
	return values, step, bias
}

// byHalves is coarse by codes of half a byte: it reads a third of a row, and is good to about a fiftieth of the square of the query.
func (f *fine) byHalves(rows *vec.HalfRows, ids []uint32, out []float32, q *fineQuery) {
	if !q.halved {
		q.half.Set(q.halves[vec.SQ8Bias:][:f.space.dim])
		q.halved = true
	}
	base, mul, factor := q.add, 1.0, q.scale*128*halfStep*float64(int(1)<<(f.bits-8))
	switch f.space.metric {
	case L2:
		factor *= 2
	case Cosine:
		base, mul = base/2, 0.5
	}
	f.space.kern.HalfIDs(&q.half, rows, ids, float32(base), float32(mul), float32(-factor), out)
}

// hugeBytes are bytes of the Go heap from a cache line on, in huge pages where the system has them. They are of the heap because searches may
// still read them when they are forgotten.
func hugeBytes(n int) []byte {
	const page = 4096
	b := make([]byte, n+vec.HalfLine)
	b = b[-uintptr(unsafe.Pointer(&b[0]))%vec.HalfLine:][:n]
	if off := -uintptr(unsafe.Pointer(&b[0])) % page; uintptr(n) >= off+page {
		wantHugePages(b[off:])
	}
	return b
}
