package expr

import (
	"github.com/querynode/querynode/internal/schema"
)

// array binds the name of an array field: the array, or one of its elements.
func (b *binder) array(n *node) error {
	f := n.field
	switch {
	case len(n.path) == 0:
		n.typ = kArray
	case len(n.path) > 1 || n.path[0].index < 0 || n.path[0].quoted:
		return b.fail(n, "array field %q takes one index, such as %s[0]", f.Name, f.Name)
	default:
		n.typ = kindOf(f.Element)
		n.field = schema.Field{Name: f.Name, Type: f.Element}
	}
	n.base = &f
	return nil
}

// arrayConstant binds the comparison of an array with a list.
func (b *binder) arrayConstant(n, l, r *node) error {
	if r.kind != nConst || r.val.k != kArray {
		return b.fail(n, "cannot compare %s with %s, only with a list such as [1, 2]", b.describe(l), b.describe(r))
	}
	r.typ = kArray
	return b.elementsFit(r, l, r.val.list)
}

// members binds what array_contains looks for.
func (b *binder) members(n, array, arg *node) error {
	list := arg.val.list
	if containsMode(n.op) == containsOne {
		list = []value{arg.val}
	}
	return b.elementsFit(arg, array, list)
}

// elementsFit checks that elements of the array can have these values.
func (b *binder) elementsFit(at, array *node, list []value) error {
	want := kindOf(array.base.Element)
	for i, v := range list {
		if v.k != want && !(v.k.numeric() && want.numeric()) {
			return b.fail(at, "value %d is %s, elements of %s are %s", i, v.k, b.describe(array), array.base.Element)
		}
	}
	return nil
}

// arrayTest is what an arrayPred asks of the elements.
type arrayTest uint8

const (
	arrayAny   arrayTest = iota // one of them is in the list
	arrayAll                    // all of the list are among them
	arrayEqual                  // they are the list
)

func (pl *planner) arrayContains(name *node, mode containsMode, arg value, neg bool) pred {
	list, test := arg.list, arrayAny
	switch mode {
	case containsOne:
		list = []value{arg}
	case containsAll:
		test = arrayAll
	}
	return newArrayPred(pl.ref(name), test, list, neg)
}

func newArrayPred(f ref, test arrayTest, list []value, neg bool) pred {
	switch f.field.Element {
	case schema.Bool:
		return arrayOf(f, test, neg, list, func(v value) (bool, bool) { return v.i != 0, true })
	case schema.VarChar:
		return arrayOf(f, test, neg, list, func(v value) (string, bool) { return v.s, true })
	case schema.Float:
		return arrayOf(f, test, neg, list, func(v value) (float32, bool) {
			iv := floatInterval(opEq, v)
			return iv.lo, !iv.empty()
		})
	case schema.Double:
		return arrayOf(f, test, neg, list, func(v value) (float64, bool) {
			iv := doubleInterval(opEq, v)
			return iv.lo, !iv.empty()
		})
	}
	return arrayOf(f, test, neg, list, func(v value) (int64, bool) {
		v = integral(v)
		return v.i, v.k == kInt
	})
}

// arrayOf drops values that no element can have; all and equal cannot hold then.
func arrayOf[T comparable](f ref, test arrayTest, neg bool, list []value, convert func(value) (T, bool)) pred {
	p := &arrayPred[T]{ref: f, test: test, neg: neg}
	for _, v := range list {
		x, ok := convert(v)
		switch {
		case ok:
			p.list = append(p.list, x)
		case test != arrayAny:
			p.never = true
		}
	}
	if test != arrayEqual {
		p.index = make(map[T]int, len(p.list))
		for _, x := range p.list {
			if _, ok := p.index[x]; !ok {
				p.index[x] = len(p.index)
			}
		}
	}
	return p
}

// arrayPred is a condition on the elements of an array; unknown for a null array.
type arrayPred[T comparable] struct {
	ref
	test  arrayTest
	neg   bool
	never bool // false for every array
	list  []T
	index map[T]int // any, all: numbers the members of list
}

func (p *arrayPred[T]) eval(s *scratch, b block, in, out []uint64) {
	c := s.cols[p.slot]
	vals := elementsOf[T](c)
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		var r uint64
		for m &= validWord(c, lo, hi); m != 0; {
			i := nextBit(&m)
			from, to := c.List(lo + i)
			if p.holds(s, vals[from:to]) != p.neg {
				r |= 1 << i
			}
		}
		out[w] = r
	}
}

func (p *arrayPred[T]) holds(s *scratch, v []T) bool {
	switch {
	case p.never:
		return false
	case p.test == arrayEqual:
		return equalLists(v, p.list)
	case p.test == arrayAny:
		return p.any(v)
	case len(p.index) > len(v):
		return false
	}
	missing := len(p.index)
	s.seen = append(s.seen[:0], make([]uint64, (missing+63)/64)...)
	for _, x := range v {
		if missing == 0 {
			break
		}
		if i, ok := p.index[x]; ok && s.seen[i>>6]>>(i&63)&1 == 0 {
			s.seen[i>>6] |= 1 << (i & 63)
			missing--
		}
	}
	return missing == 0
}

func (p *arrayPred[T]) any(v []T) bool {
	if len(p.list) <= linear {
		for _, x := range v {
			for _, y := range p.list {
				if x == y {
					return true
				}
			}
		}
		return false
	}
	for _, x := range v {
		if _, ok := p.index[x]; ok {
			return true
		}
	}
	return false
}

func equalLists[T comparable](a, b []T) bool {
	if len(a) != len(b) {
		return false
	}
	for i, x := range a {
		if x != b[i] {
			return false
		}
	}
	return true
}

func (p *arrayPred[T]) cost() int { return 20 + 5*min(len(p.list), linear) }

func (p *arrayPred[T]) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}

// elementsOf returns the slice of the column that holds elements of type T.
func elementsOf[T comparable](c *schema.Column) (v []T) {
	switch p := any(&v).(type) {
	case *[]bool:
		*p = c.Bool
	case *[]int64:
		*p = c.Int
	case *[]float32:
		*p = c.Float
	case *[]float64:
		*p = c.Double
	case *[]string:
		*p = c.Str
	}
	return v
}
