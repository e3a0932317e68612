package vec

import (
	"encoding/binary"
	"math"

	"github.com/cockroachdb/errors"
)

//go:generate go -C ../../tools/avo run ./sq8 -out ../../internal/vec/sq8_amd64.s -stubs ../../internal/vec/sq8_amd64.go -pkg vec

// Records of 8-bit codes. A record is a number of whole cache lines: four bytes
// of bias, a little-endian float32, then a code of one byte, 0 to 255, for each
// dimension, zeros behind. A distance is the bias plus a sum of the codes, each
// weighed by the query: that covers the squared Euclidean distance and the
// dot product of vectors quantised with a step and an offset for each dimension.
//
// Weights have 15 bits, so that what the query loses is nothing beside what the
// codes have lost. VPDPBUSD takes 8: they go in two halves.
const (
	// SQ8Line is what the size of a record is a multiple of.
	SQ8Line = 64
	// SQ8Bias is the number of bytes before the codes.
	SQ8Bias = 4
	// SQ8MaxStride is the size of the largest record: sums of it fit 32 bits.
	SQ8MaxStride = 128 * SQ8Line

	sq8Top = 127 << 7 // the largest weight
)

// Codes of 4 bits among those of 8 make records of half the size: a mixed record
// has a number of wide codes of a byte each, then bytes with two narrow ones, the
// first half of them in the low halves of these bytes, the second in the high
// ones.

// SQMixedCodes is how many codes a mixed record of stride bytes has, wide ones
// included.
func SQMixedCodes(stride, wide int) int { return 2*(stride-SQ8Bias) - wide }

// PutSQMixed writes a mixed record. codes are as many as it has; narrow ones are
// 0 to 15.
func PutSQMixed(record []byte, bias float32, wide int, codes []byte) {
	binary.LittleEndian.PutUint32(record, math.Float32bits(bias))
	to := record[SQ8Bias+copy(record[SQ8Bias:], codes[:wide]):]
	low, high := codes[wide:wide+len(to)], codes[wide+len(to):]
	for i := range to {
		to[i] = low[i]&15 | high[i]<<4
	}
}

// Parts of a query, each as long as a record.
const (
	sq8Parts     = 2
	sqMixedParts = 5
)

// SQ8QueryLen and SQMixedQueryLen are how long queries are for records of stride
// bytes.
func SQ8QueryLen(stride int) int     { return sq8Parts * stride }
func SQMixedQueryLen(stride int) int { return sqMixedParts * stride }

// SetSQMixed is SetSQ8 for mixed records: q is as long as SQMixedQueryLen says, and
// there is a weight for each code.
func (k Kernels) SetSQMixed(q []int8, wide int, weights []float32) (scale float32) {
	stride := len(q) / sqMixedParts
	checkStride(stride, len(weights), SQMixedCodes(stride, wide))
	scale, inv := k.sq8Scale(q, weights)
	mask := q[4*stride:]
	for i := range wide {
		mask[SQ8Bias+i] = -1
	}
	narrow := stride - SQ8Bias - wide
	for i := SQ8Bias + wide; i < stride; i++ {
		mask[i] = 15
	}
	if scale > 0 {
		first := wide + narrow
		k.halves(q[SQ8Bias:stride], q[stride+SQ8Bias:2*stride], weights[:first], inv)
		if narrow > 0 {
			k.halves(q[2*stride+SQ8Bias+wide:3*stride], q[3*stride+SQ8Bias+wide:4*stride], weights[first:], inv)
		}
	}
	return scale
}

// SQMixedIDs is SQ8IDs for mixed records, with a query that SetSQMixed has set.
func (k Kernels) SQMixedIDs(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	if k.checkRecords(len(q)/sqMixedParts, records, ids, out) {
		k.sqMixedIDs(q, scale, records, ids, out)
	}
}

func sqMixedIDsPortable(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	stride := len(q) / sqMixedParts
	for i, id := range ids {
		record := records[int(id)*stride:][:stride]
		var sum int64
		for j, b := range record {
			wide := int64(b & byte(q[4*stride+j]))
			upper := int64(b >> 4)
			sum += wide*(int64(q[j])<<7+int64(q[stride+j])) + upper*(int64(q[2*stride+j])<<7+int64(q[3*stride+j]))
		}
		bias := math.Float32frombits(binary.LittleEndian.Uint32(record))
		out[i] = bias + scale*float32(sum)
	}
}

// SQ8Stride is the size of a record with n codes.
func SQ8Stride(n int) int { return (n + SQ8Bias + SQ8Line - 1) / SQ8Line * SQ8Line }

// PutSQ8 writes a record. codes fit in it; the rest of it becomes 0.
func PutSQ8(record []byte, bias float32, codes []byte) {
	binary.LittleEndian.PutUint32(record, math.Float32bits(bias))
	n := copy(record[SQ8Bias:], codes)
	clear(record[SQ8Bias+n:])
}

// SetSQ8 writes the two halves of weights to q, which has twice the size of a
// record, and returns the scale: what a weight of 1 stands for. A record has room
// for so many codes. A sum's error is below 1/30,000 of the largest weight for
// each code's unit. Weights of which one is not finite count as zeros.
func (k Kernels) SetSQ8(q []int8, weights []float32) (scale float32) {
	stride := len(q) / sq8Parts
	checkStride(stride, len(weights), stride-SQ8Bias)
	scale, inv := k.sq8Scale(q, weights)
	if scale > 0 {
		k.halves(q[SQ8Bias:stride][:len(weights)], q[stride+SQ8Bias:][:len(weights)], weights, inv)
	}
	return scale
}

func checkStride(stride, weights, most int) {
	if stride <= 0 || stride%SQ8Line != 0 || stride > SQ8MaxStride || weights > most {
		panic(errors.AssertionFailedf("%d weights for records of %d bytes", weights, stride))
	}
}

// sq8Scale clears q and returns what a weight of 1 stands for, with its inverse;
// 0 if the weights cannot be told apart.
func (k Kernels) sq8Scale(q []int8, weights []float32) (scale, inv float32) {
	clear(q)
	if len(weights) == 0 {
		return 0, 0
	}
	// A float's bits without the sign order as the number does, NaN above all.
	scale = math.Float32frombits(k.topBits(weights)) / sq8Top
	inv = 1 / scale
	if !(scale > 0 && scale <= math.MaxFloat32 && inv <= math.MaxFloat32) {
		return 0, 0
	}
	return scale, inv
}

func topBitsPortable(weights []float32) uint32 {
	bits := uint32(0)
	for _, x := range weights {
		bits = max(bits, math.Float32bits(x)&math.MaxInt32)
	}
	return bits
}

func halvesPortable(high, low []int8, weights []float32, inv float32) {
	for i, x := range weights {
		// Adding and taking away 1.5*2^23 rounds to the nearest integer.
		x = x*inv + 12582912
		v := int32(x - 12582912)
		h := (v + 64) >> 7
		high[i], low[i] = int8(h), int8(v-h<<7)
	}
}

// SQ8IDs writes to out[i] the bias of record ids[i] plus scale times the sum of
// its codes, each weighed by q; see SetSQ8. records holds whole records, half as
// long as q, one behind the other; see PrefetchRows.
func (k Kernels) SQ8IDs(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	if k.checkRecords(len(q)/sq8Parts, records, ids, out) {
		k.sq8IDs(q, scale, records, ids, out)
	}
}

// checkRecords panics on bad arguments and reports whether there is work.
func (k Kernels) checkRecords(stride int, records []byte, ids []uint32, out []float32) bool {
	if stride == 0 || stride%SQ8Line != 0 || stride > SQ8MaxStride || len(out) < len(ids) {
		panic(errors.AssertionFailedf("%d ids, out has room for %d, query for records of %d bytes", len(ids), len(out), stride))
	}
	if len(ids) == 0 {
		return false
	}
	if top := k.topID(ids); int(top) >= len(records)/stride {
		panic(errors.AssertionFailedf("record %d of %d", top, len(records)/stride))
	}
	return true
}

func sq8IDsPortable(q []int8, scale float32, records []byte, ids []uint32, out []float32) {
	stride := len(q) / 2
	high, low := q[:stride], q[stride:]
	for i, id := range ids {
		record := records[int(id)*stride:][:stride]
		low := low[:len(record)]
		var s0, s1 int64
		for j, w := range high[:len(record)] {
			s0 += int64(record[j]) * int64(w)
			s1 += int64(record[j]) * int64(low[j])
		}
		bias := math.Float32frombits(binary.LittleEndian.Uint32(record))
		out[i] = bias + scale*float32(s0<<7+s1)
	}
}

// Below moves those of the ids and their distances to the front, in order, whose
// distance is less than limit, and returns how many they are. A distance that is
// not a number is never less. What is behind them is undefined.
func (k Kernels) Below(ids []uint32, dist []float32, limit float32) int {
	if len(dist) < len(ids) {
		panic(errors.AssertionFailedf("%d ids, %d distances", len(ids), len(dist)))
	}
	if len(ids) == 0 {
		return 0
	}
	return k.below(ids, dist, limit)
}

func belowPortable(ids []uint32, dist []float32, limit float32) int {
	n := 0
	for i, d := range dist[:len(ids)] {
		dist[n], ids[n] = d, ids[i]
		if d < limit {
			n++
		}
	}
	return n
}

// PrefetchRows asks for the first lines, at least one, of the rows of stride
// bytes named by ids, each plus add, without waiting. What it asks for need not
// exist.
func (k Kernels) PrefetchRows(base []byte, stride, lines int, ids []uint32, add int) {
	if len(ids) > 0 && len(base) > 0 && lines > 0 {
		k.prefetchRows(base, stride, lines, ids, add)
	}
}
