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
	return &andPred{terms: out}
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
	var out []pred
	ints, words := map[int][]int64{}, map[int][]string{} // by slot
	first := map[int]int{}                               // slot -> index in out, a place kept for the union
	var refs []ref
	keep := func(r ref) {
		if _, ok := first[r.slot]; !ok {
			first[r.slot] = len(out)
			out = append(out, nil)
			refs = append(refs, r)
		}
	}
	for _, t := range flatten(terms, orTerms) {
		switch t := t.(type) {
		case *constPred:
			if t.value {
				return t
			}
			continue
		case *rangePred[int64]:
			if !t.neg && t.lo == t.hi {
				keep(t.ref)
				ints[t.slot] = append(ints[t.slot], t.lo)
				continue
			}
		case *intInPred:
			if !t.neg {
				keep(t.ref)
				ints[t.slot] = append(ints[t.slot], t.set.list...)
				continue
			}
		case *stringPred:
			if t.op == opEq {
				keep(t.ref)
				words[t.slot] = append(words[t.slot], t.val)
				continue
			}
		case *stringInPred:
			if !t.neg {
				keep(t.ref)
				words[t.slot] = append(words[t.slot], t.set.list...)
				continue
			}
		}
		out = append(out, t)
	}
	for _, r := range refs {
		if v := ints[r.slot]; v != nil {
			out[first[r.slot]] = newIntIn(r, v, false)
		} else {
			out[first[r.slot]] = newStringIn(r, words[r.slot], false)
		}
	}
	switch len(out) {
	case 0:
		return &constPred{}
	case 1:
		return out[0]
	}
	byCost(out)
	return &orPred{terms: out}
}
