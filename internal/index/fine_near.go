package index

import (
	"encoding/binary"
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// Of rows near to a query, whose distances are small differences of large squares.
const (
	// nearOff is the part of a squared distance that rounding may take in the mean for codes to tell it, by L2. It takes as
	// much where the distance is a hundredth of the query's length or so, a tenth of that part at a tenth of it.
	nearOff = 1e-2
	// nearFloat is the part of a query's square that a squared distance must be: a row's bias is a float32 of about that square and off
	// by 2^-24 of it, which is then 1/256 of the distance. Near duplicates closer than that only vectors tell.
	nearFloat = 1.0 / (1 << 16)
	// nearVague is how many times as much as it may rounding must take for a distance not to be told any better: what it is told by is right
	// to a quarter or so.
	nearVague = 1.25
)

// nearRow returns the distance of a query and row id, the i-th of those that distances has just been asked for, and whether it is
// good: by L2 as nearOff says, by Cosine always, for however near a row is, the cosine is off by 0.000025 in the mean at worst, where
// a single value makes up the row, mostly by a tenth of that and less. It is for L2 and Cosine.
//
// With p for what the query's weights stand for, all of the row's codes multiplied by all of the weights give p·u. From
// that, |p-u|² is known but for the rounding of numbers, and less the squares of what rounding took from v and from
// x it is |v-x|² but for
//
//	2 (v-x)·(x-u) + 2 (p-v)·(x-u) + 2 (p-v)·(v-x)
//
// of which all become small as x comes near to v but the second, a product of two roundings.
func (f *fine) nearRow(q *fineQuery, i int, id uint32) (distance float32, good bool) {
	if !q.ownKnown {
		q.own, q.ownKnown = f.ownSquare(q), true
	}
	step, bias := f.tail(id)
	sum := f.sumOf(q, i) + f.lows(q, id)
	d := q.own + float64(bias) - 2*q.scale*float64(step)*sum
	if f.space.metric == Cosine {
		return float32(d / 2), d == d
	}
	return float32(d), d >= nearFloat*q.square && q.rounded(step) <= nearOff*nearOff*d
}

// rounded is what rounding of a row of a step and of the query takes of a squared distance, as a square in parts of it: a value that was
// rounded is off by the twelfth of its step's square, in the mean of squares.
func (q *fineQuery) rounded(step float32) float64 {
	return (roundedRow(step) + q.scale*q.scale) / 3
}

// roundedRow is a row's part of that. Of a step that is a power of two nothing was rounded, see exactStep.
func roundedRow(step float32) float64 {
	if math.Float32bits(step)<<9 == 0 {
		return 0
	}
	return float64(step) * float64(step)
}

// vague says whether nearRow is likely to find row id no good, by the distance without the product of lows. A row that it says so of by
// mistake is compared by its vector, which is right in any case.
func (f *fine) vague(q *fineQuery, id uint32, distance float32) bool {
	if f.space.metric != L2 {
		return false
	}
	step, _ := f.tail(id)
	return roundedRow(step)/3 > nearVague*nearOff*nearOff*max(float64(distance), nearFloat*q.square)
}

// ownSquare is |p|² less |p-v|², with p for what the weights stand for.
func (f *fine) ownSquare(q *fineQuery) float64 {
	half := len(q.halves) / 2
	high, low := q.halves[vec.SQ8Bias:][:len(q.flat)], q.halves[half+vec.SQ8Bias:][:len(q.flat)]
	var sums [4]float64 // which need not wait for one another
	for i, x := range q.flat {
		p := q.scale * float64(128*int32(high[i])+int32(low[i]))
		sums[i&3] += float64(x) * (2*p - float64(x))
	}
	return sums[0] + sums[1] + sums[2] + sums[3]
}

// tail is the step and the bias of a row.
func (f *fine) tail(id uint32) (step, bias float32) {
	tail := f.bytes[int(id)*f.stride+f.stride-fineTail:][:fineTail]
	return math.Float32frombits(binary.LittleEndian.Uint32(tail)), math.Float32frombits(binary.LittleEndian.Uint32(tail[4:]))
}

// lows is the product of the low halves of weights and the low bytes, or halves of bytes, of row id.
func (f *fine) lows(q *fineQuery, id uint32) float64 {
	n := f.space.dim
	half := len(q.halves) / 2
	rows := f.bytes[int(id)*f.stride+n:]
	if f.bits == 12 {
		q.rows = grown(q.rows, n+16)
		spreadRow(q.rows, rows[:(n+1)/2])
		rows = q.rows
	}
	f.short.Rows(bytesOf(q.halves[half+vec.SQ8Bias:][:n]), rows[:n], q.lowest[:])
	return float64(q.lowest[0])
}
