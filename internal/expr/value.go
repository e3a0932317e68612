package expr

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"strconv"
	"strings"
)

// kind is the type of a value or of a node.
type kind uint8

const (
	kNone   kind = iota // unknown: a null, a missing path, an overflow
	kBool               // value.i is 0 or 1
	kInt                // value.i
	kFloat              // value.f
	kString             // value.s
	kArray              // constants: value.list; read from JSON: value.s, its text
	kObject             // read from JSON only: value.s, its text
	kTime               // value.i, microseconds since 1970-01-01 UTC
	kSpan               // value.i, microseconds, and value.months, which constants of their own kind have
	kDyn                // nodes only: the type is known per row
	kCond               // nodes only: a condition
	kVector             // nodes only: a vector field, which is null or not
)

var kindNames = [...]string{"nothing", "a bool", "an integer", "a float", "a string", "an array", "an object", "a time", "an interval", "a JSON value", "a condition", "a vector"}

func (k kind) String() string { return kindNames[k] }

func (k kind) numeric() bool { return k == kInt || k == kFloat }

// temporal says that values are microseconds, which are handled as integers.
func (k kind) temporal() bool { return k == kTime || k == kSpan }

// value is a constant, or what one row holds.
type value struct {
	k      kind
	months int32
	i      int64
	f      float64
	s      string
	list   []value
}

func intValue(i int64) value     { return value{k: kInt, i: i} }
func floatValue(f float64) value { return value{k: kFloat, f: f} }
func stringValue(s string) value { return value{k: kString, s: s} }
func boolValue(b bool) value     { return value{k: kBool, i: b2i(b)} }

func b2i(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// float is a numeric value as a float.
func (v value) float() float64 {
	if v.k == kInt {
		return float64(v.i)
	}
	return v.f
}

// append writes v as the language reads it.
func (v value) append(b *strings.Builder) {
	switch v.k {
	case kBool:
		b.WriteString(strconv.FormatBool(v.i != 0))
	case kInt:
		var digits [20]byte
		b.Write(strconv.AppendInt(digits[:0], v.i, 10))
	case kFloat:
		b.WriteString(formatFloat(v.f))
	case kString:
		quote(b, v.s)
	case kTime, kSpan:
		b.WriteString(formatTemporal(v))
	case kArray:
		b.WriteByte('[')
		for i, e := range v.list {
			if i > 0 {
				b.WriteString(", ")
			}
			e.append(b)
		}
		b.WriteByte(']')
	}
}

func (v value) String() string {
	var b strings.Builder
	v.append(&b)
	return b.String()
}

func formatFloat(f float64) string {
	s := strconv.FormatFloat(f, 'g', -1, 64)
	if !strings.ContainsAny(s, ".e") {
		s += ".0"
	}
	return s
}

func quote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
}

// tri is a value of three-valued logic.
type tri int8

const (
	unknown tri = -1
	no      tri = 0
	yes     tri = 1
)

func triOf(b bool) tri { return tri(b2i(b)) }

// cmpOp is a comparison.
type cmpOp uint8

const (
	opEq cmpOp = iota
	opNe
	opLt
	opLe
	opGt
	opGe
)

var cmpNames = [...]string{"==", "!=", "<", "<=", ">", ">="}

func (o cmpOp) String() string { return cmpNames[o] }

// flipped is the operator with its sides exchanged.
func (o cmpOp) flipped() cmpOp {
	switch o {
	case opLt:
		return opGt
	case opLe:
		return opGe
	case opGt:
		return opLt
	case opGe:
		return opLe
	}
	return o
}

// holds applies the operator to the outcome of a three-way comparison.
func (o cmpOp) holds(c int) bool {
	switch o {
	case opEq:
		return c == 0
	case opNe:
		return c != 0
	case opLt:
		return c < 0
	case opLe:
		return c <= 0
	case opGt:
		return c > 0
	}
	return c >= 0
}

// compareValues applies o; unknown when the types cannot be compared. A NaN
// satisfies only !=.
func compareValues(o cmpOp, a, b value) tri {
	switch {
	case a.k.numeric() && b.k.numeric():
		if a.k == kInt && b.k == kInt {
			return triOf(o.holds(cmp.Compare(a.i, b.i)))
		}
		if a.k == kFloat && math.IsNaN(a.f) || b.k == kFloat && math.IsNaN(b.f) {
			return triOf(o == opNe)
		}
		return triOf(o.holds(compareNumbers(a, b)))
	case a.k != b.k:
		return unknown
	case a.k.temporal():
		return triOf(o.holds(cmp.Compare(a.i, b.i)))
	case a.k == kString:
		return triOf(o.holds(strings.Compare(a.s, b.s)))
	case a.k == kBool && o <= opNe:
		return triOf(o.holds(int(a.i - b.i)))
	}
	return unknown
}

// compareNumbers compares exactly; neither is NaN.
func compareNumbers(a, b value) int {
	switch {
	case a.k == kInt && b.k == kInt:
		return cmp.Compare(a.i, b.i)
	case a.k == kInt:
		return compareIntFloat(a.i, b.f)
	case b.k == kInt:
		return -compareIntFloat(b.i, a.f)
	}
	return cmp.Compare(a.f, b.f)
}

const two63 = float64(1 << 63)

// compareIntFloat compares without rounding; f is not NaN.
func compareIntFloat(i int64, f float64) int {
	if f >= two63 {
		return -1
	}
	if f < -two63 {
		return 1
	}
	t := math.Trunc(f)
	if c := cmp.Compare(i, int64(t)); c != 0 {
		return c
	}
	return cmp.Compare(t, f)
}

// arithOp is an operator of arithmetic.
type arithOp uint8

const (
	opAdd arithOp = iota
	opSub
	opMul
	opDiv
	opMod
	opPow
	opBitAnd
	opBitOr
	opBitXor
)

var arithNames = [...]string{"+", "-", "*", "/", "%", "**", "&", "|", "^"}

func (o arithOp) String() string { return arithNames[o] }

// integral says that the operator is for integers.
func (o arithOp) integral() bool { return o == opMod || o >= opBitAnd }

// arithInt is checked 64-bit arithmetic; not ok on overflow and division by zero.
func arithInt(o arithOp, a, b int64) (r int64, ok bool) {
	switch o {
	case opAdd:
		r = a + b
		return r, (a^r)&(b^r) >= 0
	case opSub:
		r = a - b
		return r, (a^b)&(a^r) >= 0
	case opMul:
		return mulInt(a, b)
	case opDiv:
		if b == 0 || b == -1 && a == math.MinInt64 {
			return 0, false
		}
		return a / b, true
	case opMod:
		if b == 0 {
			return 0, false
		}
		if b == -1 {
			return 0, true
		}
		return a % b, true
	case opBitAnd:
		return a & b, true
	case opBitOr:
		return a | b, true
	case opBitXor:
		return a ^ b, true
	}
	return 0, false
}

// mulInt multiplies; it fits when the high half of the 128-bit product is
// nothing but the sign of the low one.
func mulInt(a, b int64) (r int64, ok bool) {
	hi, lo := bits.Mul64(uint64(a), uint64(b))
	high := int64(hi) - a>>63&b - b>>63&a
	return int64(lo), high == int64(lo)>>63
}

func arithFloat(o arithOp, a, b float64) float64 {
	switch o {
	case opAdd:
		return a + b
	case opSub:
		return a - b
	case opMul:
		return a * b
	case opDiv:
		return a / b
	}
	return math.Pow(a, b)
}

// arith is arithmetic on values; the zero value (kNone) when there is no result.
func arith(o arithOp, a, b value) value {
	switch {
	case !a.k.numeric() || !b.k.numeric():
		return value{}
	case o != opPow && a.k == kInt && b.k == kInt:
		r, ok := arithInt(o, a.i, b.i)
		if !ok {
			return value{}
		}
		return intValue(r)
	case o.integral():
		return value{}
	}
	return floatValue(arithFloat(o, a.float(), b.float()))
}

// foldArith is arith for constants: an error text instead of no result, and
// powers of integers stay integers while they fit.
func foldArith(o arithOp, a, b value) (value, string) {
	if o.integral() && (a.k != kInt || b.k != kInt) {
		return value{}, o.String() + " is for integers"
	}
	zero := b.k == kInt && b.i == 0 || b.k == kFloat && b.f == 0
	if (o == opDiv || o == opMod) && zero {
		return value{}, "division by zero"
	}
	if o == opPow && a.k == kInt && b.k == kInt && b.i >= 0 {
		if r, ok := powInt(a.i, b.i); ok {
			return intValue(r), ""
		}
	}
	v := arith(o, a, b)
	switch {
	case v.k == kNone:
		return v, "the result does not fit a 64-bit integer"
	case v.k == kFloat && (math.IsInf(v.f, 0) || math.IsNaN(v.f)):
		return v, "the result is not a finite number"
	}
	return v, ""
}

func powInt(a, n int64) (r int64, ok bool) {
	for r = 1; n > 0; n >>= 1 {
		if n&1 == 1 {
			if r, ok = arithInt(opMul, r, a); !ok {
				return 0, false
			}
		}
		if n > 1 {
			if a, ok = arithInt(opMul, a, a); !ok {
				return 0, false
			}
		}
	}
	return r, true
}
