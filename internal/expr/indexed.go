package expr

import (
	"cmp"
	"math"
	"slices"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// Indexes gives the indexes of one segment.
type Indexes interface {
	// Index returns the index of that kind of the field, over all rows of the
	// segment; nil if there is none.
	Index(fieldID int64, kind scalarindex.Kind) scalarindex.Index
	// Path returns the index of a path of a JSON field, which is written as in ["a"][0]; nil if there is none.
	Path(fieldID int64, path string) *scalarindex.Path
}

// Narrow asks indexes for the rows, of the first n of total that the indexes
// cover, that can match. It is false, and out undefined, if reading columns costs
// less. What out holds beyond the truth is for rest to find out, by Eval within it;
// rest is nil if out is the result.
func (p *Plan) Narrow(ix Indexes, n, total int, out *bitset.Set) (rest *Plan, ok bool) {
	terms := andTerms(p.root)
	if terms == nil {
		terms = []pred{p.root}
	}
	type answer struct {
		term pred
		*lookup
	}
	var found []answer
	var left []pred
	for _, t := range terms {
		if l := lookUp(t, ix, total); l != nil {
			found = append(found, answer{t, l})
		} else {
			left = append(left, t)
		}
	}
	slices.SortStableFunc(found, func(a, b answer) int { return cmp.Compare(a.rows, b.rows) })
	room := bitmaps{plan: p}
	defer room.done()
	var acc []uint64
	rows := n
	for _, f := range found {
		// Few rows left are looked at one by one.
		if f.price > min(n, 4*rows)*f.term.cost() {
			left = append(left, f.term)
			continue
		}
		to := acc
		switch {
		case ok:
			to = room.wide(1, total)
		case n == total:
			out.Reset(n)
			acc, to = out.Words(), out.Words()
		default:
			acc = room.wide(0, total)
			to = acc
		}
		f.set(&room, to)
		if ok {
			for i := range acc {
				acc[i] &= to[i]
			}
		}
		rows, ok = min(rows, f.rows), true
		if !f.exact {
			left = append(left, f.term)
		}
	}
	if !ok {
		return nil, false
	}
	if n != total {
		out.Reset(n)
		w := out.Words()
		copy(w, acc)
		if r := n & 63; r != 0 {
			w[len(w)-1] &= 1<<r - 1
		}
	}
	if len(left) == 0 {
		return nil, true
	}
	byCost(left)
	rest = &Plan{root: left[0], columns: p.columns, text: p.text, scans: p.scans, subs: p.subs, scratch: p.scratch}
	if len(left) > 1 {
		rest.root = newAnd(left)
	}
	return rest, true
}

// Wants calls want for each index that the plan would ask, with the number of
// nanoseconds that reading a row's column costs instead; path is "" but for those of paths.
func (p *Plan) Wants(want func(fieldID int64, kind scalarindex.Kind, path string, cost int)) {
	w := wishList{want: want}
	for _, t := range orAndTerms(p.root) {
		if q, ok := t.(indexed); ok {
			w.cost = t.cost()
			q.lookup(&w, 0)
		}
	}
}

// orAndTerms are the leaves of p.
func orAndTerms(p pred) (leaves []pred) {
	inner := andTerms(p)
	if inner == nil {
		inner = orTerms(p)
	}
	if inner == nil {
		return []pred{p}
	}
	for _, t := range inner {
		leaves = append(leaves, orAndTerms(t)...)
	}
	return leaves
}

// wishList is an Indexes that has none and notes what is asked for.
type wishList struct {
	want func(fieldID int64, kind scalarindex.Kind, path string, cost int)
	cost int
}

// Index notes the wish.
func (w *wishList) Index(fieldID int64, kind scalarindex.Kind) scalarindex.Index {
	w.want(fieldID, kind, "", w.cost)
	return nil
}

// Path notes the wish.
func (w *wishList) Path(fieldID int64, path string) *scalarindex.Path {
	w.want(fieldID, scalarindex.Paths, path, w.cost)
	return nil
}

func (r *rangePred[T]) lookup(ix Indexes, n int) *lookup {
	o, ok := find[*scalarindex.Ordered[T]](r.ref, ix, scalarindex.Order)
	if !ok {
		return nil
	}
	s := o.Span(r.lo, r.hi)
	return newLookup(s.Rows(), n, r.neg, o.Valid(), func(out []uint64) { o.AddSpan(s, out) })
}

// listed is a lookup of a list of values.
func listed[T scalarindex.Value](o *scalarindex.Ordered[T], list []T, neg bool, n int) *lookup {
	search := o.SearchCost()
	if len(list)*search > n {
		return nil
	}
	rows, spans := 0, make([]scalarindex.Span, len(list))
	for i, x := range list {
		spans[i] = o.Equal(x)
		rows += spans[i].Rows()
	}
	l := newLookup(rows, n, neg, o.Valid(), func(out []uint64) {
		for _, s := range spans {
			o.AddSpan(s, out)
		}
	})
	l.price += len(list) * search
	return l
}

func (p *intInPred) lookup(ix Indexes, n int) *lookup {
	o, ok := find[*scalarindex.Ordered[int64]](p.ref, ix, scalarindex.Order)
	if !ok {
		return nil
	}
	return listed(o, p.set.list, p.neg, n)
}

func (p *floatInPred) lookup(ix Indexes, n int) *lookup {
	if p.field.Type == schema.Double {
		o, ok := find[*scalarindex.Ordered[float64]](p.ref, ix, scalarindex.Order)
		if !ok {
			return nil
		}
		return listed(o, p.list, p.neg, n)
	}
	o, ok := find[*scalarindex.Ordered[float32]](p.ref, ix, scalarindex.Order)
	if !ok {
		return nil
	}
	list := make([]float32, len(p.list))
	for i, x := range p.list {
		list[i] = float32(x)
	}
	return listed(o, list, p.neg, n)
}

func (p *stringInPred) lookup(ix Indexes, n int) *lookup {
	o, ok := find[*scalarindex.Ordered[string]](p.ref, ix, scalarindex.Order)
	if !ok {
		return nil
	}
	return listed(o, p.set.list, p.neg, n)
}

func (p *stringPred) lookup(ix Indexes, n int) *lookup {
	o, ok := find[*scalarindex.Ordered[string]](p.ref, ix, scalarindex.Order)
	if !ok {
		return nil
	}
	switch next := p.val + "\x00"; p.op {
	case opEq, opNe:
		return listed(o, []string{p.val}, p.op == opNe, n)
	case opLt:
		return texts(o, "", &p.val, n)
	case opLe:
		return texts(o, "", &next, n)
	case opGt:
		return texts(o, next, nil, n)
	}
	return texts(o, p.val, nil, n)
}

// texts is a lookup of lo <= text < hi.
func texts(o *scalarindex.Ordered[string], lo string, hi *string, n int) *lookup {
	rows := o.From(lo)
	if hi != nil {
		rows -= o.From(*hi)
	}
	return newLookup(rows, n, false, nil, func(out []uint64) { o.AddBetween(lo, hi, out) })
}

func (p *likePred) lookup(ix Indexes, n int) *lookup {
	if p.neg {
		return nil
	}
	if l := p.prefix(ix, n); l != nil {
		return l
	}
	t, ok := find[*scalarindex.Trigrams](p.ref, ix, scalarindex.Grams)
	if !ok {
		return nil
	}
	pieces := p.pattern.literals()
	rows, ok := t.Candidates(pieces, nil)
	if !ok {
		return nil
	}
	l := newLookup(rows, n, false, nil, func(out []uint64) { t.Candidates(pieces, out) })
	l.exact = false
	return l
}

// prefix looks up the texts that begin as the pattern does.
func (p *likePred) prefix(ix Indexes, n int) *lookup {
	head := p.pattern.head
	begin := head.text[:head.lead]
	if begin == "" {
		return nil
	}
	o, ok := find[*scalarindex.Ordered[string]](p.ref, ix, scalarindex.Order)
	if !ok {
		return nil
	}
	return p.pattern.begins(o, n)
}

// begins looks up the texts that begin as the pattern does, with some text.
func (p *pattern) begins(o *scalarindex.Ordered[string], n int) *lookup {
	head := p.head
	begin := head.text[:head.lead]
	var hi *string
	if after, ok := successor(begin); ok {
		hi = &after
	}
	l := texts(o, begin, hi, n)
	l.exact = !p.exact && head.wild == nil && len(p.pieces) == 0 && p.tail.text == ""
	return l
}

// successor is the least text after all that begin with s; not ok if there is none.
func successor(s string) (string, bool) {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] < math.MaxUint8 {
			return s[:i] + string([]byte{s[i] + 1}), true
		}
	}
	return "", false
}

// literals are pieces of text that a match holds.
func (p *pattern) literals() []string {
	all := append([]piece{p.head, p.tail}, p.pieces...)
	var out []string
	for i := range all {
		q := &all[i]
		from := 0
		for k := range len(q.text) + 1 {
			if k == len(q.text) || q.wild != nil && q.wild[k] {
				out = append(out, q.text[from:k])
				from = k + 1
			}
		}
	}
	return out
}

func (p *regexPred) lookup(ix Indexes, n int) *lookup {
	t, ok := find[*scalarindex.Trigrams](p.ref, ix, scalarindex.Grams)
	if !ok || p.neg {
		return nil
	}
	begin, _ := p.re.LiteralPrefix()
	rows, ok := t.Candidates([]string{begin}, nil)
	if !ok {
		return nil
	}
	l := newLookup(rows, n, false, nil, func(out []uint64) { t.Candidates([]string{begin}, out) })
	l.exact = false
	return l
}

func (p *textPred) lookup(ix Indexes, n int) *lookup {
	t, ok := find[*scalarindex.Text](p.ref, ix, scalarindex.Words)
	if !ok {
		return nil
	}
	words := make([]string, 0, len(p.words))
	for w := range p.words {
		words = append(words, w)
	}
	rows := 0
	if p.need <= len(words) {
		rows = min(n, t.Count(words))
	}
	l := newLookup(rows, n, p.neg, t.Valid(), func(out []uint64) { t.AddAtLeast(words, p.need, out) })
	l.price += 4 * p.need * t.Count(words)
	return l
}

func (p *phrasePred) lookup(ix Indexes, n int) *lookup {
	t, ok := find[*scalarindex.Text](p.ref, ix, scalarindex.Words)
	if !ok || p.neg || len(p.words) == 0 {
		return nil
	}
	words := make([]string, 0, len(p.words))
	rows := n
	for w := range p.words {
		words = append(words, w)
		rows = min(rows, t.Count([]string{w}))
	}
	l := newLookup(rows, n, false, nil, func(out []uint64) { t.AddAtLeast(words, len(words), out) })
	l.exact = false
	return l
}

// lookup asks the index of elements for the arrays that have one which meets the condition. If that
// has to be so of more than one, they are looked at.
func (p *matchPred) lookup(ix Indexes, n int) *lookup {
	some, ok := p.some.(indexed)
	if !ok || p.neg || p.mode != matchLeast && (p.mode != matchExact || p.count == 0) {
		return nil
	}
	l := some.lookup(ix, n)
	if l != nil {
		l.exact = p.mode == matchLeast && p.count == 1
	}
	return l
}

func (p *arrayPred[T]) lookup(ix Indexes, n int) *lookup {
	if p.test == arrayEqual {
		return nil
	}
	m, ok := find[*scalarindex.Members[T]](p.ref, ix, scalarindex.Elements)
	if !ok {
		return nil
	}
	keys := make([]T, 0, len(p.index))
	for k := range p.index {
		keys = append(keys, k)
	}
	rows := min(n, m.Count(keys))
	add := func(out []uint64) { m.AddAny(keys, out) }
	switch {
	case p.never:
		rows, add = 0, func([]uint64) {}
	case p.test == arrayAll:
		if len(keys) == 0 {
			rows = n
		}
		add = func(out []uint64) { m.AddAtLeast(keys, len(keys), out) }
	}
	return newLookup(rows, n, p.neg, m.Valid(), add)
}
