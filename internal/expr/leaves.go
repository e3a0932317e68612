package expr

import (
	"math/bits"
	"slices"
	"sort"

	"github.com/querynode/querynode/internal/schema"
)

// ref is a field a leaf reads.
type ref struct {
	slot  int // into scratch.cols and Plan.columns
	field schema.Field
}

// number is what a numeric column holds.
type number interface{ int64 | float32 | float64 }

// rangePred is lo <= column <= hi: every comparison of a number with a constant
// is one. With neg it is the rows outside, NaN included.
type rangePred[T number] struct {
	ref
	lo, hi T
	neg    bool
}

func (r *rangePred[T]) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[r.slot]
	vals := numbers[T](c)
	flip := maskOf(r.neg)
	if dense(in) {
		r.evalDense(s, c, vals[b.lo:b.hi], b, in, out)
		return
	}
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		if bits.OnesCount64(m) <= sparse {
			out[w] = (inRangeOf(vals[lo:hi], r.lo, r.hi, m) ^ flip) & m & validBits(c, lo, m)
			continue
		}
		out[w] = (inRange(vals[lo:hi], r.lo, r.hi) ^ flip) & m & validWord(c, lo, hi)
	}
}

// dense reports whether so many words have rows that all are worked on at once.
func dense(in []uint64) bool {
	full := 0
	for _, m := range in {
		if bits.OnesCount64(m) > sparse {
			full++
		}
	}
	return full > len(in)/4
}

func (r *rangePred[T]) evalDense(s *scratch, c *schema.Column, vals []T, b block, in, out []uint64) {
	found := s.push(len(in))
	defer s.pop()
	words := 0
	switch lo := any(r.lo).(type) {
	case int64:
		words = s.kern.WithinInt64(any(vals).([]int64), lo, any(r.hi).(int64), found)
	case float64:
		words = s.kern.WithinFloat64(any(vals).([]float64), lo, any(r.hi).(float64), found)
	case float32:
		words = s.kern.WithinFloat32(any(vals).([]float32), lo, any(r.hi).(float32), found)
	}
	if words < len(in) {
		found[words] = inRange(vals[words*64:], r.lo, r.hi)
	}
	keep(found, maskOf(r.neg), c, b, in, out)
}

// keep writes the rows of in that are in found and not null; with flip, those
// that are not in found.
func keep(found []uint64, flip uint64, c *schema.Column, b block, in, out []uint64) {
	if c.Valid == nil {
		for w, m := range in {
			out[w] = (found[w] ^ flip) & m
		}
		return
	}
	for w, m := range in {
		if m != 0 {
			lo, hi := b.rows(w)
			m &= validWord(c, lo, hi)
		}
		out[w] = (found[w] ^ flip) & m
	}
}

// sparse is up to how many rows of a word are looked at one by one.
const sparse = 6

// inRangeOf is inRange for the rows of m.
func inRangeOf[T number](v []T, lo, hi T, m uint64) (r uint64) {
	for m != 0 {
		i := nextBit(&m)
		r |= bit(v[i], lo, hi) << i
	}
	return r
}

func (r *rangePred[T]) cost() int { return 1 }

// numbers returns the slice of the column that holds values of type T.
func numbers[T number](c *schema.Column) (v []T) {
	switch p := any(&v).(type) {
	case *[]int64:
		*p = c.Int
	case *[]float32:
		*p = c.Float
	case *[]float64:
		*p = c.Double
	}
	return v
}

// maskOf is all ones for true.
func maskOf(b bool) uint64 { return -uint64(b2i(b)) }

// inRange returns bit i set where lo <= v[i] <= hi, for up to 64 values.
func inRange[T number](v []T, lo, hi T) uint64 {
	var w uint64
	i := 0
	for ; i+8 <= len(v); i += 8 {
		q := v[i : i+8 : i+8]
		x := bit(q[0], lo, hi) | bit(q[1], lo, hi)<<1 | bit(q[2], lo, hi)<<2 | bit(q[3], lo, hi)<<3 |
			bit(q[4], lo, hi)<<4 | bit(q[5], lo, hi)<<5 | bit(q[6], lo, hi)<<6 | bit(q[7], lo, hi)<<7
		w |= x << i
	}
	for ; i < len(v); i++ {
		w |= bit(v[i], lo, hi) << i
	}
	return w
}

// bit is written so that the compiler makes two comparisons and no branch.
func bit[T number](x, lo, hi T) uint64 {
	var a, b uint64
	if x >= lo {
		a = 1
	}
	if x <= hi {
		b = 1
	}
	return a & b
}

// intInPred is column in a set of integers.
type intInPred struct {
	ref
	set intSet
	neg bool
}

func (p *intInPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(p.neg)
	if len(p.set.list) <= compared && dense(in) {
		found := s.push(len(in))
		vals := c.Int[b.lo:b.hi]
		if words := s.kern.EqualInt64(vals, p.set.list, found); words < len(in) {
			found[words] = p.set.find(vals[words*64:], in[words])
		}
		keep(found, flip, c, b, in, out)
		s.pop()
		return
	}
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		out[w] = (p.set.find(c.Int[lo:hi], m) ^ flip) & m & validWord(c, lo, hi)
	}
}

// compared is up to how many numbers a row is compared with all of them.
const compared = 16

func (p *intInPred) cost() int { return 4 }

// floatInPred is column in a sorted list, for Float and Double columns.
type floatInPred struct {
	ref
	list []float64
	neg  bool
}

func (p *floatInPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(p.neg)
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		var r uint64
		for k := m; k != 0; {
			i := nextBit(&k)
			var x float64
			if c.Type == schema.Float {
				x = float64(c.Float[lo+i])
			} else {
				x = c.Double[lo+i]
			}
			r |= uint64(b2i(p.has(x))) << i
		}
		out[w] = (r ^ flip) & m & validWord(c, lo, hi)
	}
}

func (p *floatInPred) has(x float64) bool {
	if len(p.list) <= 8 {
		for _, y := range p.list {
			if x == y {
				return true
			}
		}
		return false
	}
	i := sort.SearchFloat64s(p.list, x)
	return i < len(p.list) && p.list[i] == x
}

func (p *floatInPred) cost() int { return 8 }

// boolPred is column == want.
type boolPred struct {
	ref
	want bool
}

func (p *boolPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(!p.want)
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		out[w] = (packBools(c.Bool[lo:hi]) ^ flip) & m & validWord(c, lo, hi)
	}
}

func (p *boolPred) cost() int { return 1 }

// nullPred is column is null, or is not null.
type nullPred struct {
	ref
	null bool
}

func (p *nullPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(p.null)
	for w, m := range in {
		lo, hi := b.rows(w)
		out[w] = (validWord(c, lo, hi) ^ flip) & m
	}
}

func (p *nullPred) cost() int { return 1 }

// stringPred compares a VarChar column with a constant.
type stringPred struct {
	ref
	op  cmpOp
	val string
}

func (p *stringPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		m &= validWord(c, lo, hi)
		if p.op <= opNe {
			out[w] = (equalStrings(c.Str[lo:hi], p.val, m) ^ maskOf(p.op == opNe)) & m
			continue
		}
		out[w] = orderedStrings(c.Str[lo:hi], p.op, p.val, m)
	}
}

func (p *stringPred) cost() int { return 6 }

func equalStrings(v []string, x string, m uint64) (r uint64) {
	for m != 0 {
		i := nextBit(&m)
		if v[i] == x {
			r |= 1 << i
		}
	}
	return r
}

func orderedStrings(v []string, op cmpOp, x string, m uint64) (r uint64) {
	for m != 0 {
		i := nextBit(&m)
		var ok bool
		switch op {
		case opLt:
			ok = v[i] < x
		case opLe:
			ok = v[i] <= x
		case opGt:
			ok = v[i] > x
		default:
			ok = v[i] >= x
		}
		if ok {
			r |= 1 << i
		}
	}
	return r
}

// stringInPred is a VarChar column in a set.
type stringInPred struct {
	ref
	set stringSet
	neg bool
}

func (p *stringInPred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(p.neg)
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		m &= validWord(c, lo, hi)
		out[w] = (p.set.find(c.Str[lo:hi], m) ^ flip) & m
	}
}

func (p *stringInPred) cost() int { return 12 }

// likePred matches a VarChar column with a pattern.
type likePred struct {
	ref
	pattern *pattern
	neg     bool
}

func (p *likePred) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	flip := maskOf(p.neg)
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		m &= validWord(c, lo, hi)
		if s.over(aWord) {
			return
		}
		var r uint64
		for k := m; k != 0; {
			i := nextBit(&k)
			text := c.Str[lo+i]
			if len(text) > shortText && s.over(len(text)) {
				return
			}
			if p.pattern.match(text) {
				r |= 1 << i
			}
		}
		out[w] = (r ^ flip) & m
	}
}

func (p *likePred) cost() int { return 20 }

// sortedUnique sorts a list and drops duplicates.
func sortedUnique[T int64 | float64 | string](v []T) []T {
	slices.Sort(v)
	return slices.Compact(v)
}
