package main

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Some fields, and some keys, hold what is at the ends of their type: the least and the
// greatest number, what no float64 tells from its neighbour, times that
// only just have a year, texts that are empty, long, or of odd characters.

// integerEnds are of 64 bits, and of what is beyond the smaller types.
var integerEnds = []int64{math.MinInt64, math.MinInt64 + 1, -1<<53 - 1, -1 << 53, math.MinInt32 - 1, math.MinInt32, -129, -128,
	127, 128, math.MaxInt16, math.MaxInt32, math.MaxInt32 + 1, 1 << 53, 1<<53 + 1, math.MaxInt64 - 1, math.MaxInt64}

// keyEnds are keys that no other row has.
var keyEnds = slices.DeleteFunc(slices.Clone(integerEnds), func(k int64) bool { return 0 <= k && k < keySpace+mostCrowd })

var doubleEnds = []float64{-math.MaxFloat64, -1 << 63, -1 << 53, -math.MaxFloat32, -0.1, -math.SmallestNonzeroFloat64, math.Copysign(0, -1),
	math.SmallestNonzeroFloat64, math.SmallestNonzeroFloat32, 0.1, 1<<24 + 1, 1 << 53, 1<<53 + 2, 1<<63 - 1024, 1 << 63, math.MaxFloat32, math.MaxFloat64}

// textEnds fit a key of 64 bytes.
var textEnds = []string{"", " ", "\x00", "a\x00", "A", "\\", "\"'", "%", "_", "e\u0301", "\u00e9", "\u00df", "\u0130", "\u05d0\u05d1", "\u200b", "\ufeff", "\ufffd", "\uffff",
	"\U0001f600", "\U0001f468\u200d\U0001f469", "\U0010ffff", "line\nbreak\ttab", strings.Repeat("k", 64), strings.Repeat("\U0001f600", 16)}

// longTexts are the others; the last one is as long as a text may be.
var longTexts = []string{strings.Repeat("red ", 100), strings.Repeat("\u00fc", 2_000), strings.Repeat("e", 65_535)}

// timeEnds are microseconds.
var timeEnds = []int64{math.MinInt64, time.Date(1, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro(), time.Date(1600, 2, 29, 0, 0, 0, 0, time.UTC).UnixMicro(), -1, 0,
	math.MaxInt64 / 1000, math.MaxInt64/1000 + 1, time.Date(9999, 12, 31, 23, 59, 59, 999_999_000, time.UTC).UnixMicro(), math.MaxInt64}

// randomEnd draws what is at an end of a type.
func randomEnd(r *rand.Rand, t qnpb.DataType) any {
	one := func(lo, hi int64) int64 { return []int64{lo, lo + 1, hi - 1, hi}[r.IntN(4)] }
	switch t {
	case qnpb.DataType_DATA_TYPE_INT8:
		return one(math.MinInt8, math.MaxInt8)
	case qnpb.DataType_DATA_TYPE_INT16:
		return one(math.MinInt16, math.MaxInt16)
	case qnpb.DataType_DATA_TYPE_INT32:
		return one(math.MinInt32, math.MaxInt32)
	case qnpb.DataType_DATA_TYPE_FLOAT:
		return narrow(doubleEnds[r.IntN(len(doubleEnds))])
	case qnpb.DataType_DATA_TYPE_DOUBLE:
		return doubleEnds[r.IntN(len(doubleEnds))]
	case qnpb.DataType_DATA_TYPE_VARCHAR:
		if r.IntN(8) == 0 {
			return longTexts[r.IntN(len(longTexts))]
		}
		return textEnds[r.IntN(len(textEnds))]
	case qnpb.DataType_DATA_TYPE_TIMESTAMPTZ:
		return timeEnds[r.IntN(len(timeEnds))]
	}
	return integerEnds[r.IntN(len(integerEnds))]
}

// narrow is v in 32 bits, or 1 if it does not fit.
func narrow(v float64) float32 {
	if math.Abs(v) > math.MaxFloat32 {
		return 1
	}
	return float32(v)
}

// rounded is a constant as a field of 32 bits is compared with it, or 1 if it does not fit.
func rounded(f *field, v any) any {
	if f.typ != qnpb.DataType_DATA_TYPE_FLOAT {
		return v
	}
	return float64(narrow(number(v)))
}

// long reports whether a value is too long for the text of a filter.
func long(v any) bool {
	switch v := v.(type) {
	case string:
		return len(v) > 300
	case list:
		for _, e := range v {
			if long(e) {
				return true
			}
		}
	}
	return false
}

// numberOf and textOf are the key of the node for one of the model.
func (s *spec) numberOf(key int64) int64 {
	if s.ends && key < int64(len(keyEnds)) {
		return keyEnds[key]
	}
	return key
}

func (s *spec) textOf(key int64) string {
	if s.ends && key < int64(len(textEnds)) {
		return textEnds[key]
	}
	return textKey(key)
}

// exact is a bool or number without rounding.
func exact(v any) *big.Float {
	out := new(big.Float).SetPrec(64)
	if v, ok := v.(int64); ok {
		return out.SetInt64(v)
	}
	return out.SetFloat64(number(v))
}

// same reports whether the node shows a value as it was written, to the last bit.
func same(got, want any) bool {
	if want == nil || got == nil {
		return got == want
	}
	switch g := got.(type) {
	case float32:
		w, ok := want.(float32)
		return ok && math.Float32bits(g) == math.Float32bits(w)
	case float64:
		w, ok := want.(float64)
		return ok && math.Float64bits(g) == math.Float64bits(w)
	}
	return got == want
}

// alike is same, but for zeros, of which either sign will do.
func alike(got, want any) bool { return got == want || same(got, want) }

// calculate is arithmetic as filters do it; nil = there is no result.
func calculate(a any, op string, b any) any {
	x, whole := a.(int64)
	y, both := b.(int64)
	if a == nil || b == nil {
		return nil
	}
	if !whole || !both {
		f, g := number(a), number(b)
		switch op {
		case "+":
			return f + g
		case "-":
			return f - g
		}
		return f * g
	}
	i, j := big.NewInt(x), big.NewInt(y)
	switch op {
	case "+":
		i.Add(i, j)
	case "-":
		i.Sub(i, j)
	case "*":
		i.Mul(i, j)
	case "/":
		i.Quo(i, j)
	case "%":
		i.Rem(i, j)
	}
	if !i.IsInt64() {
		return nil
	}
	return i.Int64()
}

func textKey(key int64) string { return fmt.Sprintf("k%04d", key) }
