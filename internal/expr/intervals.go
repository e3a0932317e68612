package expr

import "math"

// interval is lo <= x <= hi; empty when lo > hi.
type interval[T number] struct{ lo, hi T }

func (iv interval[T]) empty() bool { return iv.lo > iv.hi }

func (iv interval[T]) and(o interval[T]) interval[T] {
	return interval[T]{max(iv.lo, o.lo), min(iv.hi, o.hi)}
}

// intInterval turns a comparison of an integer with a constant, other than !=,
// into an interval; it is exact for float constants too.
func intInterval(op cmpOp, v value) interval[int64] {
	const lowest, highest = math.MinInt64, math.MaxInt64
	none := interval[int64]{1, 0}
	if v.k == kFloat {
		floor := math.Floor(v.f)
		switch {
		case v.f >= two63 && (op == opLt || op == opLe), v.f < -two63 && (op == opGt || op == opGe):
			return interval[int64]{lowest, highest}
		case v.f >= two63, v.f < -two63:
			return none
		case floor == v.f:
		case op == opEq:
			return none
		case op == opLt: // x < 1.5 is x <= 1
			op = opLe
		case op == opGe: // x >= 1.5 is x > 1
			op = opGt
		}
		v = intValue(int64(floor))
	}
	switch {
	case op == opEq:
		return interval[int64]{v.i, v.i}
	case op == opLe:
		return interval[int64]{lowest, v.i}
	case op == opGe:
		return interval[int64]{v.i, highest}
	case op == opLt && v.i > lowest:
		return interval[int64]{lowest, v.i - 1}
	case op == opGt && v.i < highest:
		return interval[int64]{v.i + 1, highest}
	}
	return none
}

// doubleInterval is intInterval for a 64-bit float, exact for integer constants too.
func doubleInterval(op cmpOp, v value) interval[float64] {
	lowest, highest := math.Inf(-1), math.Inf(1)
	f := v.float()
	if v.k == kInt {
		switch c := compareIntFloat(v.i, f); {
		case c == 0:
		case op == opEq:
			return interval[float64]{1, 0}
		case c < 0 && op == opLe: // f is the next float above the constant
			op = opLt
		case c < 0 && op == opGt:
			op = opGe
		case c > 0 && op == opLt: // the next below
			op = opLe
		case c > 0 && op == opGe:
			op = opGt
		}
	}
	switch op {
	case opEq:
		return interval[float64]{f, f}
	case opLe:
		return interval[float64]{lowest, f}
	case opGe:
		return interval[float64]{f, highest}
	case opLt:
		return interval[float64]{lowest, math.Nextafter(f, lowest)}
	}
	return interval[float64]{math.Nextafter(f, highest), highest}
}

// floatInterval is for a 32-bit float: the constant is rounded to 32 bits first.
// One that is beyond them keeps its side of every finite number.
func floatInterval(op cmpOp, v value) interval[float32] {
	lowest, highest := float32(math.Inf(-1)), float32(math.Inf(1))
	f := float32(v.float())
	if f == highest || f == lowest {
		switch {
		case op == opEq:
			return interval[float32]{1, 0}
		case f == highest && (op == opLt || op == opLe):
			return interval[float32]{lowest, math.MaxFloat32}
		case f == lowest && (op == opGt || op == opGe):
			return interval[float32]{-math.MaxFloat32, highest}
		}
		return interval[float32]{f, f} // only the infinity of that side
	}
	switch op {
	case opEq:
		return interval[float32]{f, f}
	case opLe:
		return interval[float32]{lowest, f}
	case opGe:
		return interval[float32]{f, highest}
	case opLt:
		return interval[float32]{lowest, math.Nextafter32(f, lowest)}
	}
	return interval[float32]{math.Nextafter32(f, highest), highest}
}
