package expr

import (
	"cmp"
	"slices"

	"github.com/querynode/querynode/internal/schema"
)

// statistics gives what is known of a column, see Plan.MayMatch.
type statistics func(fieldID int64) (min, max any, nulls, rows int64, ok bool)

// MayMatch reports whether a row may match in a chunk whose columns have these
// statistics; false is certain. stats returns the least and the greatest value
// that is not null (int64, float32, float64, string or bool by the type of the field;
// nil when unknown), the number of nulls and of rows; ok is false when nothing
// is known of the field. Bounds may be wider than the values, and NaN need not be counted.
func (p *Plan) MayMatch(stats func(fieldID int64) (min, max any, nulls, rows int64, ok bool)) bool {
	return p.root.mayMatch(stats)
}

// bounds returns what stats says about the field. some is whether there may be
// a value that is not null, null whether there may be a null.
func (r ref) bounds(st statistics) (lo, hi any, some, null bool) {
	if r.field.ID == derivedID {
		return nil, nil, true, true
	}
	lo, hi, nulls, rows, ok := st(r.field.ID)
	if !ok {
		return nil, nil, true, true
	}
	return lo, hi, nulls < rows, nulls > 0
}

// numericBounds gives bounds as numbers of type T; not ok when there are none,
// when one is NaN or when one does not fit T exactly.
func numericBounds[T number](lo, hi any) (l, h T, ok bool) {
	l, ok1 := exactly[T](lo)
	h, ok2 := exactly[T](hi)
	return l, h, ok1 && ok2
}

func exactly[T number](x any) (t T, ok bool) {
	switch x := x.(type) {
	case T:
		return x, x == x
	case float32:
		t = T(x)
		return t, float32(t) == x
	case float64:
		t = T(x)
		return t, float64(t) == x
	}
	return 0, false
}

// anyWithin reports whether a member of the sorted list is in [lo, hi].
func anyWithin[T cmp.Ordered](list []T, lo, hi T) bool {
	i, _ := slices.BinarySearch(list, lo)
	return i < len(list) && list[i] <= hi
}

func (r *rangePred[T]) mayMatch(st statistics) bool {
	lo, hi, some, _ := r.bounds(st)
	if !some {
		return false
	}
	l, h, ok := numericBounds[T](lo, hi)
	if !ok {
		return true
	}
	if r.neg {
		// A NaN may hide outside of the bounds of floats.
		return r.field.Type == schema.Float || r.field.Type == schema.Double || l < r.lo || h > r.hi
	}
	return l <= r.hi && h >= r.lo
}

func (p *intInPred) mayMatch(st statistics) bool {
	lo, hi, some, _ := p.bounds(st)
	l, ok1 := lo.(int64)
	h, ok2 := hi.(int64)
	if !some || p.neg || !ok1 || !ok2 {
		return some
	}
	return anyWithin(p.set.list, l, h)
}

func (p *floatInPred) mayMatch(st statistics) bool {
	lo, hi, some, _ := p.bounds(st)
	l, h, ok := numericBounds[float64](lo, hi)
	if !some || p.neg || !ok {
		return some
	}
	return anyWithin(p.list, l, h)
}

func (p *stringInPred) mayMatch(st statistics) bool {
	lo, hi, some, _ := p.bounds(st)
	l, ok1 := lo.(string)
	h, ok2 := hi.(string)
	if !some || p.neg || !ok1 || !ok2 {
		return some
	}
	return anyWithin(p.set.list, l, h)
}

func (p *stringPred) mayMatch(st statistics) bool {
	lo, hi, some, _ := p.bounds(st)
	l, ok1 := lo.(string)
	h, ok2 := hi.(string)
	if !some || !ok1 || !ok2 {
		return some
	}
	switch p.op {
	case opEq:
		return l <= p.val && p.val <= h
	case opNe:
		return l != p.val || h != p.val
	case opLt:
		return l < p.val
	case opLe:
		return l <= p.val
	case opGt:
		return h > p.val
	}
	return h >= p.val
}

func (p *likePred) mayMatch(st statistics) bool {
	lo, hi, some, _ := p.bounds(st)
	l, ok1 := lo.(string)
	h, ok2 := hi.(string)
	prefix := p.pattern.head.text[:p.pattern.head.lead]
	if !some || p.neg || !ok1 || !ok2 {
		return some
	}
	// Values with the prefix are >= it, and cut to its length they are it.
	return h >= prefix && l[:min(len(l), len(prefix))] <= prefix
}

func (p *boolPred) mayMatch(st statistics) bool {
	lo, hi, some, _ := p.bounds(st)
	l, ok1 := lo.(bool)
	h, ok2 := hi.(bool)
	if !some || !ok1 || !ok2 {
		return some
	}
	return l == p.want || h == p.want
}

func (p *nullPred) mayMatch(st statistics) bool {
	_, _, some, null := p.bounds(st)
	if p.null {
		return null
	}
	return some
}

func (p *jsonPred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}

func (p *jsonNullPred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return p.null || some
}

func (p *vectorPred) mayMatch(st statistics) bool { return allSome(p.refs, st) }
func (p *rowPred) mayMatch(st statistics) bool    { return allSome(p.refs, st) }

func allSome(refs []ref, st statistics) bool {
	for _, r := range refs {
		if _, _, some, _ := r.bounds(st); !some {
			return false
		}
	}
	return true
}
