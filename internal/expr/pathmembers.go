package expr

import (
	"slices"

	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// indexElements notes the elements of the array at doc[at], of row i; not ok if the index may
// not know them.
func indexElements(v *scalarindex.PathValues, i int, doc string, at int, decoded []byte) (buf []byte, ok bool) {
	v.Elements.Array(i)
	e := elements{s: doc, i: at}
	var x value
	for e.next() {
		x, decoded = readJSON(doc, e.i, decoded[:0])
		ok := true
		switch x.k {
		case kBool:
			v.Elements.Bool(i, x.i)
		case kInt:
			ok = x.i <= maxExact && x.i >= -maxExact && v.Elements.Number(i, float64(x.i))
		case kFloat:
			ok = v.Elements.Number(i, x.f)
		case kString:
			if len(decoded) > 0 {
				x.s, ok = v.Copy(x.s)
			}
			ok = ok && v.Elements.Text(i, x.s)
		}
		if !ok {
			return decoded, false
		}
	}
	return decoded, !e.bad
}

// sampled is how many documents are looked at for arrays.
const sampled = 256

// ElementsRoom is about what IndexPath takes for the elements of arrays at a path, which is written as there:
// twice what some of the documents suggest, 0 if none of these has an array.
func ElementsRoom(c *schema.Column, path string) int64 {
	n, err := parse("x"+path, nil, "")
	if err != nil || n.kind != nName || len(c.Str) == 0 {
		return 0
	}
	total, different := 0, map[string]bool{}
	step := max(1, len(c.Str)/sampled)
	for i := 0; i < len(c.Str); i += step {
		if c.Null(i) {
			continue
		}
		doc := c.Str[i]
		at := findJSON(doc, n.path)
		if at < 0 || at >= len(doc) || doc[at] != '[' {
			continue
		}
		total++ // be it empty
		for e := (elements{s: doc, i: at}); e.next(); total++ {
			end, _ := skipValue(doc, e.i)
			different[doc[e.i:max(e.i, end)]] = true
		}
	}
	return 2 * int64(step) * scalarindex.ElementsRoom(total, len(different))
}

// membersOf looks up the arrays that hold one of the values, or all; nil if the index knows no
// elements. The values are scalars.
func membersOf(at *scalarindex.Path, list []value, all, neg bool, n int) *lookup {
	e := at.Elements
	if e == nil {
		return nil
	}
	var numbers []float64
	var words []string
	var bools [][]uint64
	never := false // one of the values is in no array
	for _, v := range list {
		switch v.k {
		case kInt, kFloat:
			iv := doubleInterval(opEq, v)
			if iv.empty() {
				never = true
				continue
			}
			numbers = append(numbers, iv.lo)
		case kString:
			words = append(words, v.s)
		case kBool:
			bools = append(bools, e.Bools[v.i])
		}
	}
	numbers, words = sortedUnique(numbers), sortedUnique(words)
	if all {
		return membersOfAll(e, numbers, words, bools, never, neg, n)
	}
	rows := e.Numbers.Count(numbers) + e.Texts.Count(words)
	for _, b := range bools {
		rows += countBits(b, 0, n)
	}
	return newLookup(min(n, rows), n, neg, e.Arrays, func(out []uint64) {
		e.Numbers.AddAny(numbers, out)
		e.Texts.AddAny(words, out)
		for _, b := range bools {
			or(out, b)
		}
	})
}

// membersOfAll looks up the arrays that hold all of the values.
func membersOfAll(e *scalarindex.PathElements, numbers []float64, words []string, bools [][]uint64, never, neg bool, n int) *lookup {
	rows := countBits(e.Arrays, 0, n)
	for i := range numbers {
		rows = min(rows, e.Numbers.Count(numbers[i:i+1]))
	}
	for i := range words {
		rows = min(rows, e.Texts.Count(words[i:i+1]))
	}
	if never {
		rows = 0
	}
	l := newLookup(rows, n, neg, e.Arrays, func(out []uint64) {
		switch {
		case never:
			return
		case len(bools)+len(words) == 0 && len(numbers) > 0:
			e.Numbers.AddAtLeast(numbers, len(numbers), out)
			return
		case len(bools)+len(numbers) == 0 && len(words) > 0:
			e.Texts.AddAtLeast(words, len(words), out)
			return
		}
		sets := slices.Clone(bools)
		if len(numbers) > 0 {
			some := make([]uint64, len(out))
			e.Numbers.AddAtLeast(numbers, len(numbers), some)
			sets = append(sets, some)
		}
		if len(words) > 0 {
			some := make([]uint64, len(out))
			e.Texts.AddAtLeast(words, len(words), some)
			sets = append(sets, some)
		}
		for i, w := range e.Arrays {
			for _, s := range sets {
				w &= s[i]
			}
			out[i] |= w
		}
	})
	l.price += e.Numbers.Count(numbers) + e.Texts.Count(words)
	return l
}

// lookup asks the index of the path for the arrays that have an element which equals a value. If
// that has to be so of more than one, they are looked at.
func (p *jsonMatchPred) lookup(ix Indexes, n int) *lookup {
	list := equalTo(p.plan.root)
	least := p.mode == matchLeast || p.mode == matchExact && p.count > 0
	if list == nil || p.field.ID == derivedID || len(p.path) == 0 || len(p.path) > MaxPath || p.mode != matchAny && (!least || p.neg) {
		return nil
	}
	at := askPath(ix, p.field.ID, p.path)
	if at == nil {
		return nil
	}
	l := membersOf(at, list, false, p.neg, n)
	if l != nil {
		l.exact = p.mode == matchAny || p.mode == matchLeast && p.count == 1
	}
	return l
}

// equalTo returns the values of which a condition on elements wants one, nil if it wants
// something else.
func equalTo(root pred) []value {
	p, ok := root.(*jsonPred)
	if !ok || p.neg || len(p.path) > 0 {
		return nil
	}
	switch c := p.cond.(type) {
	case *jsonCompare:
		if v := c.all[0].val; len(c.all) == 1 && c.all[0].op == opEq && (v.k.numeric() || v.k == kString || v.k == kBool) {
			return []value{v}
		}
	case *jsonIn:
		if !c.set.kinds[kArray] {
			return c.set.list
		}
	}
	return nil
}
