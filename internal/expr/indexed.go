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
// less. What out holds beyond the truth is for rest to find out, by EvalWithin;
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
	s := p.scratch.Get().(*scratch)
	defer p.scratch.Put(s)
	acc, rows := s.wide(0, total), n
	for _, f := range found {
		// Few rows left are looked at one by one.
		if f.price > min(n, 4*rows)*f.term.cost() {
			left = append(left, f.term)
			continue
		}
		to := acc
		if ok {
			to = s.wide(1, total)
		}
		f.set(s, to)
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
	out.Reset(n)
	w := out.Words()
	copy(w, acc)
	if r := n & 63; r != 0 {
		w[len(w)-1] &= 1<<r - 1
	}
	if len(left) == 0 {
		return nil, true
	}
	byCost(left)
	rest = &Plan{root: left[0], columns: p.columns, text: p.text, scans: p.scans, subs: p.subs, scratch: p.scratch}
	if len(left) > 1 {
		rest.root = &andPred{terms: left}
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

// wide returns the i-th bitmap for n rows, empty.
func (s *scratch) wide(i, n int) []uint64 {
	words := (n + 63) / 64
	s.rows[i] = resize(s.rows[i], words)
	clear(s.rows[i])
	return s.rows[i]
}

// lookup is what an index knows of a leaf.
type lookup struct {
	rows  int // at most so many rows
	price int // nanoseconds, about
	exact bool
	add   func(out []uint64) // adds the rows
	// With except, the rows are those of except that add does not add.
	except []uint64
	any    []*lookup // instead of add: the rows of all of these
}

// set writes the rows to out, which is empty.
func (l *lookup) set(s *scratch, out []uint64) {
	if l.any != nil {
		for _, a := range l.any {
			if a.except == nil {
				a.add(out)
				continue
			}
			one := s.wide(2, len(out)*64)
			a.set(s, one)
			for i, w := range one {
				out[i] |= w
			}
		}
		return
	}
	l.add(out)
	if l.except != nil {
		for i, w := range l.except {
			out[i] = w &^ out[i]
		}
	}
}

// indexed is a leaf that an index may answer.
type indexed interface {
	pred
	// lookup asks ix; nil if it does not have the index, or that is of no use. n is
	// the rows it covers.
	lookup(ix Indexes, n int) *lookup
}

// lookUp is lookup for a leaf, or a disjunction of leaves that all have answers.
func lookUp(p pred, ix Indexes, n int) *lookup {
	if q, ok := p.(indexed); ok {
		return q.lookup(ix, n)
	}
	terms := orTerms(p)
	if terms == nil {
		return nil
	}
	l := &lookup{exact: true}
	for _, t := range terms {
		q, ok := t.(indexed)
		if !ok {
			return nil
		}
		one := q.lookup(ix, n)
		if one == nil {
			return nil
		}
		if one.any != nil {
			l.any = append(l.any, one.any...)
		} else {
			l.any = append(l.any, one)
		}
		l.rows, l.price, l.exact = min(n, l.rows+one.rows), l.price+one.price, l.exact && one.exact
	}
	return l
}

// newLookup prices an answer of rows rows: passes over the bitmaps, and rows set
// one by one, of which an ordered index has few.
func newLookup(rows, n int, neg bool, valid []uint64, add func([]uint64)) *lookup {
	l := &lookup{rows: rows, exact: true, add: add, price: n/64 + 2*min(rows, n/16)}
	if neg {
		l.rows, l.except, l.price = n-rows, valid, l.price+n/64
	}
	return l
}

// find asks for an index of a field's own column.
func find[I scalarindex.Index](f ref, ix Indexes, kind scalarindex.Kind) (found I, ok bool) {
	if f.field.ID == derivedID {
		return found, false
	}
	found, ok = ix.Index(f.field.ID, kind).(I)
	return found, ok
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
	const search = 500 // nanoseconds
	if len(list)*search > n {
		return nil
	}
	rows, spans := 0, make([]scalarindex.Span, len(list))
	for i, x := range list {
		spans[i] = o.Span(x, x)
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
