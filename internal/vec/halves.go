package vec

import (
	"encoding/binary"
	"unsafe"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./halves -out ../../internal/vec/halves_amd64.s -stubs ../../internal/vec/halves_amd64.go -pkg vec

// HalfLine is what a row of HalfRows takes whole numbers of, in bytes: a cache line.
const HalfLine = 64

// halfTails is how many numbers a row has behind its codes.
const halfTails = 2

// HalfRows are rows of codes of half a byte, for a look at many rows of which few are read whole. A row has a code from -8 to 7 for each value, and two
// numbers that lie elsewhere, so that a row of 128 values is one line: a step, which is what a code of 1 stands for, and a bias. The zero
// HalfRows have no rows.
type HalfRows struct {
	dim   int
	lines []byte    // rows in whole lines; a value with an even number is in the lower half of a byte
	tails []float32 // step and bias of each row
}

// HalfBytes is how many bytes a row of dim values takes.
func HalfBytes(dim int) int { return halfStride(dim) + 4*halfTails }

// halfStride is the size of its lines.
func halfStride(dim int) int { return (dim + 2*HalfLine - 1) / (2 * HalfLine) * HalfLine }

// HalfLines is how many bytes the lines of n rows of dim values take.
func HalfLines(dim, n int) int { return n * halfStride(dim) }

// NewHalfRows returns n rows of dim values, all of which are 0 until they are put. Their lines are in memory that the caller has and does not
// use otherwise, as many bytes as HalfLines says; it had better start at a multiple of HalfLine.
func NewHalfRows(dim, n int, lines []byte) HalfRows {
	if dim < 1 || dim > maxElementDim || n < 0 || len(lines) != HalfLines(dim, n) {
		panic(errors.AssertionFailedf("%d rows of %d values in %d bytes", n, dim, len(lines)))
	}
	return HalfRows{dim: dim, lines: lines, tails: make([]float32, halfTails*n)}
}

// Exist reports whether there are rows.
func (h *HalfRows) Exist() bool { return len(h.tails) > 0 }

// Len is how many rows there are.
func (h *HalfRows) Len() int { return len(h.tails) / halfTails }

// Put writes a row by signed bytes for its values, of which 16 are a step: the code of one is the multiple of 16 nearest to it, or 7 if that is more.
func (h *HalfRows) Put(row int, values []byte, step, bias float32) {
	h.tails[halfTails*row], h.tails[halfTails*row+1] = step, bias
	stride := halfStride(h.dim)
	to, values := h.lines[row*stride:][:stride], values[:h.dim]
	for ; len(values) >= 8; to, values = to[4:], values[8:] {
		binary.LittleEndian.PutUint32(to, halfCodes(binary.LittleEndian.Uint64(values)))
	}
	if len(values) > 0 {
		var last [8]byte
		copy(last[:], values)
		var codes [4]byte
		binary.LittleEndian.PutUint32(codes[:], halfCodes(binary.LittleEndian.Uint64(last[:])))
		copy(to, codes[:])
	}
}

// halfCodes makes codes, each 8 more than it is, of eight values.
func halfCodes(values uint64) uint32 {
	const ones = 0x0101010101010101
	x := values ^ 0x80*ones // 128 more than they are
	full := x >> 4 & (x >> 5) & (x >> 6) & (x >> 7)
	x = x>>4&(0x0f*ones) + x>>3&^full&ones
	x = (x | x>>4) & 0x00ff00ff00ff00ff
	x = (x | x>>8) & 0x0000ffff0000ffff
	return uint32(x | x>>16)
}

// HalfQuery is what rows are compared with. The zero HalfQuery has no weights.
type HalfQuery struct {
	dim     int
	weights []int8 // of each line those of its lower halves, and then those of its upper ones
	less    int32  // what sums have too much, for codes are multiplied as numbers from 0 on
}

// Bytes is the memory that q holds.
func (q *HalfQuery) Bytes() int { return cap(q.weights) }

// Set takes a weight for each value.
func (q *HalfQuery) Set(weights []int8) {
	q.dim = len(weights)
	if n := 2 * halfStride(q.dim); cap(q.weights) < n {
		q.weights = make([]int8, n)
	} else {
		q.weights = q.weights[:n]
	}
	clear(q.weights)
	q.less = 8 * sumOf(weights)
	for at := q.weights; len(weights) > 0; at = at[2*HalfLine:] {
		some := weights[:min(len(weights), 2*HalfLine)]
		weights = weights[len(some):]
		for i, w := range some {
			at[i&1*HalfLine+i/2] = w
		}
	}
}

// HalfFast says whether HalfIDs has a kernel of its own.
func (k Kernels) HalfFast() bool { return k.halfFast() }

// HalfIDs writes to out, for each row that ids name, base plus mul times its bias plus scale times its step times the sum of its codes, each times its
// weight. len(out) is at least len(ids).
func (k Kernels) HalfIDs(q *HalfQuery, rows *HalfRows, ids []uint32, base, mul, scale float32, out []float32) {
	if len(ids) == 0 {
		return
	}
	if q.dim != rows.dim || q.dim == 0 || len(out) < len(ids) {
		panic(errors.AssertionFailedf("%d rows of %d values, %d weights: room for %d", len(ids), rows.dim, q.dim, len(out)))
	}
	if top := k.topID(ids); int(top) >= rows.Len() {
		panic(errors.AssertionFailedf("row %d of %d", top, rows.Len()))
	}
	k.halfIDs(q, rows, ids, base, mul, scale, out)
}

// PrefetchHalves asks for rows, without waiting.
func (k Kernels) PrefetchHalves(rows *HalfRows, ids []uint32) {
	if len(ids) == 0 || !rows.Exist() {
		return
	}
	stride := halfStride(rows.dim)
	k.prefetchRows(rows.lines, stride, stride/HalfLine, ids, 0)
	k.prefetchRows(tailBytes(rows.tails), 4*halfTails, 1, ids, 0)
}

// tailBytes views numbers as bytes.
func tailBytes(tails []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(tails))), 4*len(tails))
}

func halfIDsPortable(q *HalfQuery, rows *HalfRows, ids []uint32, base, mul, scale float32, out []float32) {
	stride := halfStride(rows.dim)
	for i, id := range ids {
		sum := -q.less
		for from := 0; from < stride; from += HalfLine {
			weights := q.weights[2*from:][:2*HalfLine]
			for j, b := range rows.lines[int(id)*stride+from:][:HalfLine] {
				sum += int32(weights[j])*int32(b&15) + int32(weights[HalfLine+j])*int32(b>>4)
			}
		}
		tail := rows.tails[halfTails*int(id):][:halfTails]
		out[i] = base + mul*tail[1] + scale*tail[0]*float32(sum)
	}
}
