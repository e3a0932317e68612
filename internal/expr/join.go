package expr

import (
	"slices"
	"strings"
)

// joinAnd is the conjunction of terms: flat, constants gone, ranges of one
// column intersected, comparisons of one JSON path joined.
func joinAnd(terms []pred) pred {
	var out []pred
	ranges := map[int]int{}   // slot -> index in out of its range
	paths := map[string]int{} // slot and path -> index in out of its comparison
	for _, t := range flatten(terms, andTerms) {
		switch t := t.(type) {
		case *constPred:
			if !t.value {
				return t
			}
			continue
		case *rangePred[int64]:
			if merged(&out, ranges, t) {
				continue
			}
		case *rangePred[float32]:
			if merged(&out, ranges, t) {
				continue
			}
		case *rangePred[float64]:
			if merged(&out, ranges, t) {
				continue
			}
		case *jsonPred:
			if mergedPath(out, paths, t, len(out)) {
				continue
			}
		}
		out = append(out, t)
	}
	for _, t := range out {
		if c, ok := t.(*constPred); ok && !c.value {
			return c
		}
	}
	switch len(out) {
	case 0:
		return &constPred{value: true}
	case 1:
		return out[0]
	}
	byCost(out)
	return newAnd(out)
}

// flatten replaces terms by the terms inside of them, where inner finds any.
func flatten(terms []pred, inner func(pred) []pred) []pred {
	out := make([]pred, 0, len(terms))
	for _, t := range terms {
		if in := inner(t); in != nil {
			out = append(out, in...)
		} else {
			out = append(out, t)
		}
	}
	return out
}

func andTerms(p pred) []pred {
	if a, ok := p.(*andPred); ok {
		return a.terms
	}
	return nil
}

func orTerms(p pred) []pred {
	if o, ok := p.(*orPred); ok {
		return o.terms
	}
	return nil
}

// merged intersects r with the range of the same column in out, if there is one.
func merged[T number](out *[]pred, at map[int]int, r *rangePred[T]) bool {
	if r.neg {
		return false
	}
	i, ok := at[r.slot]
	if !ok {
		at[r.slot] = len(*out)
		return false
	}
	old, ok := (*out)[i].(*rangePred[T])
	if !ok {
		return true // the intersection is empty already
	}
	iv := interval[T]{old.lo, old.hi}.and(interval[T]{r.lo, r.hi})
	(*out)[i] = newRange(r.ref, iv, false)
	return true
}

// mergedPath adds the comparison j to the one of the same path in out, so that
// the text is walked once.
func mergedPath(out []pred, at map[string]int, j *jsonPred, next int) bool {
	c, ok := j.cond.(*jsonCompare)
	if !ok || j.neg {
		return false
	}
	key := pathKey(j)
	i, ok := at[key]
	if !ok {
		at[key] = next
		return false
	}
	old := out[i].(*jsonPred)
	all := append(slices.Clip(old.cond.(*jsonCompare).all), c.all...)
	out[i] = &jsonPred{ref: old.ref, path: old.path, cond: &jsonCompare{all: all}}
	return true
}

func pathKey(j *jsonPred) string {
	n := &node{kind: nName, field: j.field}
	for _, s := range j.path {
		n.path = append(n.path, step{key: s.key, quoted: true})
	}
	var b strings.Builder
	n.printName(&b)
	return b.String()
}

// joinOr is the disjunction of terms: flat, constants gone, equalities and lists
// of one column united.
func joinOr(terms []pred) pred {
	u := unions{at: map[int]int{}}
	for _, t := range flatten(terms, orTerms) {
		switch t := t.(type) {
		case *constPred:
			if t.value {
				return t
			}
			continue
		case *rangePred[int64]:
			if !t.neg && t.lo == t.hi {
				u.add(t.ref, []int64{t.lo}, nil)
				continue
			}
		case *intInPred:
			if !t.neg {
				u.add(t.ref, t.set.list, nil)
				continue
			}
		case *stringPred:
			if t.op == opEq {
				u.add(t.ref, nil, []string{t.val})
				continue
			}
		case *stringInPred:
			if !t.neg {
				u.add(t.ref, nil, t.set.list)
				continue
			}
		}
		u.out = append(u.out, t)
	}
	out := u.terms()
	switch len(out) {
	case 0:
		return &constPred{}
	case 1:
		return out[0]
	}
	byCost(out)
	return newOr(out)
}

// unions collects the terms of a disjunction, and per column the values it may equal.
type unions struct {
	out []pred      // nil where a union will stand
	at  map[int]int // slot -> index in all
	all []union
}

type union struct {
	ref   ref
	place int // in out
	ints  []int64
	words []string
}

func (u *unions) add(r ref, ints []int64, words []string) {
	i, ok := u.at[r.slot]
	if !ok {
		i = len(u.all)
		u.at[r.slot] = i
		u.all = append(u.all, union{ref: r, place: len(u.out)})
		u.out = append(u.out, nil)
	}
	u.all[i].ints = append(u.all[i].ints, ints...)
	u.all[i].words = append(u.all[i].words, words...)
}

// terms returns the terms, the unions in their places.
func (u *unions) terms() []pred {
	for _, x := range u.all {
		if x.ints != nil {
			u.out[x.place] = newIntIn(x.ref, x.ints, false)
		} else {
			u.out[x.place] = newStringIn(x.ref, x.words, false)
		}
	}
	return u.out
}
