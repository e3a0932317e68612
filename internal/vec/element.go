package vec

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Element is the type of a vector's values in memory: little endian, one
// behind the other. The zero Element is not valid.
type Element uint8

// The element types.
const (
	// Float32 is IEEE 754 binary32.
	Float32 Element = 1 + iota
	// Float16 is IEEE 754 binary16.
	Float16
	// BFloat16 is the upper half of a binary32.
	BFloat16
	// Int8 is a signed byte.
	Int8
	// Bit is one bit; a dimension is a multiple of eight. Which bit of a byte
	// comes first makes no difference to distances.
	Bit
	// Uint4 is an unsigned value of four bits, two a byte, as scalar quantisers
	// with one step for all dimensions make; a dimension is even. Which half of a
	// byte comes first makes no difference to distances.
	Uint4
)

var elementNames = [...]string{Float32: "float32", Float16: "float16", BFloat16: "bfloat16", Int8: "int8", Bit: "bit", Uint4: "uint4"}

// String returns the element's name.
func (e Element) String() string {
	if e.Valid() {
		return elementNames[e]
	}
	return "unknown"
}

// Valid reports whether e is one of the element types.
func (e Element) Valid() bool { return e >= Float32 && e <= Uint4 }

// RowBytes is the size of a vector of dim values, rounded up to bytes.
func (e Element) RowBytes(dim int) int {
	switch e {
	case Float32:
		return 4 * dim
	case Float16, BFloat16:
		return 2 * dim
	case Bit:
		return (dim + 7) / 8
	case Uint4:
		return (dim + 1) / 2
	}
	return dim
}

// Op is what is computed from two vectors. The zero Op is not valid.
type Op uint8

// The operations.
const (
	// OpL2 is the squared Euclidean distance, of any element but Bit.
	OpL2 Op = 1 + iota
	// OpDot is the dot product, of any element but Bit.
	OpDot
	// OpHamming is the number of bits that differ.
	OpHamming
	// OpJaccard is 1 - |a and b| / |a or b| of the set bits, and 0 if none is set.
	OpJaccard
)

var opNames = [...]string{OpL2: "l2", OpDot: "dot", OpHamming: "hamming", OpJaccard: "jaccard"}

// String returns the operation's name.
func (o Op) String() string {
	if o >= OpL2 && o <= OpJaccard {
		return opNames[o]
	}
	return "unknown"
}

// maxElementDim keeps sums of Int8 in 32 bits: the squared distance of 2^15
// values is less than 2^31.
const maxElementDim = 1 << 15

// Distance computes an operation on rows of one element type and dimension,
// given as bytes. It is a small immutable value and may be used by any number
// of goroutines. Make it with Kernels.Distance.
//
// Floats are added up in float32, integers exactly and then rounded to float32.
// Rows and queries need no alignment. Lengths that do not fit, and ids without a
// row, panic in Go before any memory is touched.
type Distance struct {
	k     Kernels
	elem  Element
	op    Op
	dim   int // in values; of Bit and Uint4, in bytes
	bytes int // of a row
}

// Distance returns the computation of op on vectors of dim values of e. Errors
// have class Invalid: an op that e does not have, a dimension that is not
// positive, above 32768 (262144 for Bit), or of Bit no multiple of eight, of Uint4 none of two.
func (k Kernels) Distance(e Element, op Op, dim int) (Distance, error) {
	most, per := maxElementDim, 1
	switch e {
	case Bit:
		most, per = 8*maxElementDim, 8
	case Uint4:
		per = 2
	}
	switch {
	case !e.Valid(), op < OpL2 || op > OpJaccard, (op >= OpHamming) != (e == Bit):
		return Distance{}, errclass.New(errclass.Invalid, "there is no operation %s on vectors of %s", op, e)
	case dim < 1 || dim > most || dim%per != 0:
		return Distance{}, errclass.New(errclass.Invalid, "vectors of %s: dimension %d: want 1 to %d, a multiple of %d", e, dim, most, per)
	}
	return Distance{k: k, elem: e, op: op, dim: dim / per, bytes: e.RowBytes(dim)}, nil
}

// RowBytes is the size of a row.
func (d Distance) RowBytes() int { return d.bytes }

// Rows writes to out[i] the distance of q and row i of rows, which lie one
// behind the other, for every i < len(out). len(q) is RowBytes.
func (d Distance) Rows(q, rows []byte, out []float32) {
	if len(q) != d.bytes || d.bytes == 0 || len(out) > len(rows)/d.bytes {
		panic(errors.AssertionFailedf("%d rows of %d bytes: query has %d, base %d", len(out), d.bytes, len(q), len(rows)))
	}
	if len(out) > 0 {
		d.rows(q, rows, out)
	}
}

// IDs writes to out[i] the distance of q and row ids[i] of base. It fetches rows
// ahead of use, so one call for many ids beats many calls. out is at least as
// long as ids.
func (d Distance) IDs(q, base []byte, ids []uint32, out []float32) {
	if len(q) != d.bytes || d.bytes == 0 || len(out) < len(ids) {
		panic(errors.AssertionFailedf("%d ids of %d bytes: query has %d, out %d", len(ids), d.bytes, len(q), len(out)))
	}
	rows := len(base) / d.bytes
	for _, id := range ids {
		if int(id) >= rows {
			panic(errors.AssertionFailedf("row %d of a base of %d rows", id, rows))
		}
	}
	if len(ids) > 0 {
		d.ids(q, base, ids, out)
	}
}

// Norm is the Euclidean length of a vector; of Bit, the root of the number of
// set bits.
func (d Distance) Norm(v []byte) float32 {
	var sq float64
	if d.elem == Bit {
		for _, b := range v[:d.bytes] {
			sq += float64(bits.OnesCount8(b))
		}
		return float32(math.Sqrt(sq))
	}
	if d.elem == Uint4 {
		return float32(math.Sqrt(float64(nibblesPortable(v[:d.bytes], v, false))))
	}
	for i := range d.dim {
		x := float64(d.elem.at(v, i))
		sq += x * x
	}
	return float32(math.Sqrt(sq))
}

// at is value i of a vector; not of Bit nor Uint4.
func (e Element) at(v []byte, i int) float32 {
	switch e {
	case Float32:
		return math.Float32frombits(binary.LittleEndian.Uint32(v[4*i:]))
	case Float16:
		return Float16ToFloat32(binary.LittleEndian.Uint16(v[2*i:]))
	case BFloat16:
		return BFloat16ToFloat32(binary.LittleEndian.Uint16(v[2*i:]))
	}
	return float32(int8(v[i]))
}

// Widen writes the values of a vector, which is of Float32, Float16, BFloat16 or Int8, to dst,
// whose length says how many they are. It is exact.
func (e Element) Widen(dst []float32, v []byte) {
	for i := range dst {
		dst[i] = e.at(v, i)
	}
}

// portable computes the distance of two rows.
func (d Distance) portable(a, b []byte) float32 {
	a, b = a[:d.bytes], b[:d.bytes]
	switch {
	case d.op >= OpHamming:
		return bitsPortable(a, b, d.op == OpJaccard)
	case d.elem == Uint4:
		return nibblesPortable(a, b, d.op == OpL2)
	case d.elem == Int8 && d.op == OpL2:
		s := int32(0)
		for i, x := range a {
			diff := int32(int8(x)) - int32(int8(b[i]))
			s += diff * diff
		}
		return float32(s)
	case d.elem == Int8:
		s := int32(0)
		for i, x := range a {
			s += int32(int8(x)) * int32(int8(b[i]))
		}
		return float32(s)
	}
	var s [4]float32
	if d.op == OpL2 {
		for i := range d.dim {
			diff := d.elem.at(a, i) - d.elem.at(b, i)
			s[i&3] += diff * diff
		}
	} else {
		for i := range d.dim {
			s[i&3] += d.elem.at(a, i) * d.elem.at(b, i)
		}
	}
	return (s[0] + s[1]) + (s[2] + s[3])
}

func bitsPortable(a, b []byte, jaccard bool) float32 {
	differ, either := 0, 0
	for len(a) >= 8 && len(b) >= 8 {
		x, y := binary.LittleEndian.Uint64(a), binary.LittleEndian.Uint64(b)
		differ += bits.OnesCount64(x ^ y)
		either += bits.OnesCount64(x | y)
		a, b = a[8:], b[8:]
	}
	for i, x := range a {
		differ += bits.OnesCount8(x ^ b[i])
		either += bits.OnesCount8(x | b[i])
	}
	if jaccard {
		return float32(differ) / float32(max(either, 1))
	}
	return float32(differ)
}

func nibblesPortable(a, b []byte, l2 bool) float32 {
	s := int32(0)
	for i, x := range a {
		lo, hi, lo2, hi2 := int32(x&15), int32(x>>4), int32(b[i]&15), int32(b[i]>>4)
		if l2 {
			lo, hi = lo-lo2, hi-hi2
			lo2, hi2 = lo, hi
		}
		s += lo*lo2 + hi*hi2
	}
	return float32(s)
}

func (d Distance) rowsPortable(q, rows []byte, out []float32) {
	for i := range out {
		out[i] = d.portable(q, rows[i*d.bytes:])
	}
}

func (d Distance) idsPortable(q, base []byte, ids []uint32, out []float32) {
	for i, id := range ids {
		out[i] = d.portable(q, base[int(id)*d.bytes:])
	}
}
