package vec

import (
	"encoding/binary"
	"math"

	"github.com/cockroachdb/errors"
)

// FirstLineQueryLen is how long a query for the first lines of records is.
const FirstLineQueryLen = 2 * SQ8Line

const firstLineTop = 127 // the largest weight

// SetFirstLine makes of a query that SetSQMixed, or SetSQ8 if the records are not mixed, has set one for SQFirstLines: it
// has the weights for the first line of a record, in 8 bits, without the codes in high halves of bytes. It returns its scale,
// given that of the other.
func SetFirstLine(line, q []int8, scale float32, mixed bool) float32 {
	parts := sq8Parts
	if mixed {
		parts = sqMixedParts
	}
	stride := len(q) / parts
	if len(line) != FirstLineQueryLen || len(q)%parts != 0 || stride == 0 || stride%SQ8Line != 0 {
		panic(errors.AssertionFailedf("first line of %d bytes of a query of %d for mixed records: %v", len(line), len(q), mixed))
	}
	var weights [SQ8Line]int32
	high, low, top := q[:SQ8Line], q[stride:][:SQ8Line], int32(0)
	for i := range weights {
		w := int32(high[i])<<7 + int32(low[i])
		weights[i], top = w, max(top, w, -w)
	}
	if top == 0 {
		clear(line)
		return 0
	}
	by := float32(firstLineTop) / float32(top)
	for i, w := range weights {
		// Adding and taking away 1.5*2^23 rounds to the nearest integer.
		x := float32(w)*by + 12582912
		line[i] = int8(int32(x - 12582912))
		line[SQ8Line+i] = -1
	}
	if mixed {
		copy(line[SQ8Line:], q[4*stride:][:SQ8Line])
	}
	return scale / by
}

// SQFirstLines is SQ8IDs for the first lines of records of stride bytes, with a query that SetFirstLine has set: what it
// writes lacks the other lines, and for mixed records the codes in high halves of bytes.
func (k Kernels) SQFirstLines(line []int8, scale float32, records []byte, stride int, ids []uint32, out []float32) {
	if len(line) != FirstLineQueryLen {
		panic(errors.AssertionFailedf("query of %d bytes for first lines", len(line)))
	}
	if k.checkRecords(stride, records, ids, out) {
		k.sqFirstLines(line, scale, records, stride, ids, out)
	}
}

func sqFirstLinesPortable(line []int8, scale float32, records []byte, stride int, ids []uint32, out []float32) {
	for i, id := range ids {
		record := records[int(id)*stride:][:SQ8Line]
		sum := int32(0)
		for j, b := range record {
			sum += int32(line[j]) * int32(b&byte(line[SQ8Line+j]))
		}
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(record)) + scale*float32(sum)
	}
}

func topIDPortable(ids []uint32) uint32 {
	top := uint32(0)
	for ; len(ids) >= 4; ids = ids[4:] { // four at a time do not wait for one another
		top = max(top, max(ids[0], ids[1]), max(ids[2], ids[3]))
	}
	for _, id := range ids {
		top = max(top, id)
	}
	return top
}

// PlacesRoom is how many places more than there are distances PlacesBelow wants.
const PlacesRoom = 16

// PlacesBelow writes to places which of the distances are less than limit, in order, and returns how many they are. What is behind
// those is undefined then: there is room for as many as there are distances and PlacesRoom more. A distance that is not a number is never less.
func (k Kernels) PlacesBelow(dist []float32, limit float32, places []uint32) int {
	if len(places) < len(dist)+PlacesRoom {
		panic(errors.AssertionFailedf("room for %d places for %d distances", len(places), len(dist)))
	}
	if len(dist) == 0 {
		return 0
	}
	return k.placesBelow(dist, limit, places)
}

func placesBelowPortable(dist []float32, limit float32, places []uint32) int {
	n := 0
	for i, d := range dist {
		if d < limit {
			places[n] = uint32(i)
			n++
		}
	}
	return n
}

// MinimaStep is what the number of parts of Minima is a multiple of.
const MinimaStep = 16

// Minima writes to each of the parts in least the least of the distances of the part, +Inf where there is none: distance i is of part i
// modulo their number, which is a multiple of MinimaStep. Where j of the minima are less than something, j distances are or more.
// A distance that is not a number does not count.
func (k Kernels) Minima(dist, least []float32) {
	if len(least) == 0 || len(least)%MinimaStep != 0 {
		panic(errors.AssertionFailedf("minima of %d parts", len(least)))
	}
	for i := range least {
		least[i] = float32(math.Inf(1))
	}
	n := k.minima(dist, least)
	for i, d := range dist[n:] {
		if at := (n + i) % len(least); d < least[at] {
			least[at] = d
		}
	}
}
