package expr

import (
	"math/bits"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/schema"
)

// Conditions on the elements of an array: match_any(tags, $ like "a%"). The condition
// inside is a plan of its own over one column, the elements of all rows in their order.
// For arrays in JSON text, match_any(meta["tags"], $ > 1), that is a column of JSON.

// elementName stands for the element inside of such a condition.
const elementName = "$"

// matchMode says how many elements have to meet the condition.
type matchMode uint8

const (
	matchAny   matchMode = iota // one or more
	matchAll                    // all; an empty array has none that does not
	matchLeast                  // count or more
	matchMost                   // count or fewer
	matchExact                  // count
)

var matchNames = [...]string{"match_any", "match_all", "match_least", "match_most", "match_exact"}

func matchModeOf(fn string) (matchMode, bool) {
	if fn == "element_filter" {
		return matchAny, true
	}
	for i, name := range matchNames {
		if fn == name {
			return matchMode(i), true
		}
	}
	return 0, false
}

// match parses the arguments of match_any and its kind; p.tok is at the bracket.
func (p *parser) match(name *node, fn string, mode matchMode) (*node, error) {
	if p.element {
		return nil, p.fail(name.pos, "%s cannot stand inside a condition on elements", fn)
	}
	if err := p.nest(p.tok.pos); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	n := &node{kind: nMatch, op: uint8(mode), pos: name.pos, not: fn == "element_filter"}
	if err := p.advance(); err != nil {
		return nil, err
	}
	field, err := p.primary()
	if err != nil {
		return nil, err
	}
	if !p.tok.isOp(",") {
		return nil, p.expected(`"," and a condition on the elements, such as $ > 1`)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	p.element = true
	cond, err := p.expr(0)
	p.element = false
	if err != nil {
		return nil, err
	}
	n.kids = []*node{field, cond}
	n.depth = max(field.depth, cond.depth) + 1
	if mode < matchLeast {
		return n, p.take(")")
	}
	if !p.tok.isOp(",") {
		return nil, p.expected(`"," and threshold=N`)
	}
	return n, p.threshold(n)
}

// threshold parses `, threshold=2)` or `, 2)`.
func (p *parser) threshold(n *node) error {
	if err := p.advance(); err != nil {
		return err
	}
	if p.tok.isWord("threshold") {
		if err := p.advance(); err != nil {
			return err
		}
		if err := p.take("="); err != nil {
			return err
		}
	}
	c, err := p.primary()
	if err != nil {
		return err
	}
	if least := b2i(matchMode(n.op) == matchLeast); c.kind != nConst || c.val.k != kInt || c.val.i < least {
		return p.fail(c.pos, "want how many elements, a number from %d", least)
	}
	n.count = c.val.i
	return p.take(")")
}

func (n *node) printMatch(b *strings.Builder) {
	b.WriteString(matchNames[n.op] + "(")
	n.kids[0].print(b, 0)
	b.WriteString(", ")
	n.kids[1].print(b, 0)
	if matchMode(n.op) >= matchLeast {
		b.WriteString(", threshold=" + strconv.FormatInt(n.count, 10))
	}
	b.WriteByte(')')
}

// match binds a condition on elements.
func (b *binder) match(n *node) error {
	n.typ = kCond
	fn := matchNames[n.op]
	if n.not {
		fn = "element_filter"
	}
	name := n.kids[0]
	if name.kind == nName {
		if err := b.name(name); err != nil {
			return err
		}
	}
	if name.kind != nName || name.typ != kArray && name.typ != kDyn {
		return b.fail(name, "%s needs an array field or a JSON path", fn)
	}
	if n.not && n != b.last {
		return b.fail(n, "element_filter stands alone or comes last, joined to the rest by and; match_any may stand anywhere")
	}
	b.element = &schema.Field{ID: derivedID, Name: elementName, Type: schema.JSON}
	if name.typ == kArray {
		b.element.Type = name.base.Element
	}
	cond, err := b.condition(n.kids[1])
	b.element = nil
	n.kids[1] = cond
	return err
}

// elementOf binds a name inside a condition on elements.
func (b *binder) elementOf(n *node) error {
	switch {
	case n.name != elementName:
		return b.fail(n, "only $, the element, can stand in a condition on elements, not %q", clip(n.name))
	case len(n.path) > 0:
		return b.fail(n, "elements are values, $ takes no path")
	}
	n.field = *b.element
	n.typ = kindOf(n.field.Type)
	return nil
}

// lastTerm is what a filter ends in: the last term of the outermost and, past constants.
func lastTerm(n *node) *node {
	if n.kind != nAnd && n.kind != nOr {
		return n
	}
	var rest []*node
	for _, k := range n.kids {
		if k.kind != nConst {
			rest = append(rest, k)
		}
	}
	if len(rest) == 0 || n.kind == nOr && len(rest) > 1 {
		return n
	}
	return lastTerm(rest[len(rest)-1])
}

// subPlan is the condition on the elements of one array.
type subPlan struct {
	root    pred
	columns []column
	scans   []analyze.Analyzer
}

func (pl *planner) match(n *node, neg bool) pred {
	name, mode := n.kids[0], matchMode(n.op)
	var some pred // the arrays with an element that meets the condition, where that is to equal a value
	if list, ok := oneOf(n.kids[1]); ok && name.typ == kArray {
		some = newArrayPred(pl.ref(name), arrayAny, list, neg && mode == matchAny)
		if mode == matchAny {
			return some
		}
	}
	inner := &planner{}
	sub := &subPlan{root: inner.plan(n.kids[1], false)}
	sub.columns, sub.scans = inner.used(sub.root), inner.scans
	pl.subs = append(pl.subs, sub)
	p := matchPred{ref: pl.ref(name), sub: len(pl.subs) - 1, plan: sub, mode: mode, count: n.count, neg: neg, some: some}
	if name.typ == kDyn {
		return &jsonMatchPred{matchPred: p, path: name.path}
	}
	return &p
}

// oneOf returns the values of which a condition on elements wants one; !ok if it wants something else.
func oneOf(n *node) (list []value, ok bool) {
	if (n.kind != nCmp || cmpOp(n.op) != opEq) && n.kind != nIn || n.not {
		return nil, false
	}
	l, r := n.kids[0], n.kids[1]
	if l.kind != nName || len(l.path) > 0 || r.kind != nConst {
		return nil, false
	}
	if n.kind == nIn {
		return r.val.list, true
	}
	return []value{r.val}, true
}

// matchPred counts the elements that meet a condition; unknown for a null array.
type matchPred struct {
	ref
	sub   int // into scratch.subs
	plan  *subPlan
	mode  matchMode
	count int64
	neg   bool
	some  pred // of which an index finds the arrays that may hold; nil = no index does
}

func (p *matchPred) eval(s *scratch, b block, in, out []uint64) {
	c, e := s.cols[p.slot], s.subs[p.sub]
	for w, m := range in {
		lo, hi := b.rows(w)
		if m != 0 {
			m &= validWord(c, lo, hi)
		}
		if m == 0 {
			out[w] = 0
			continue
		}
		first, _ := c.List(lo + bits.TrailingZeros64(m))
		_, end := c.List(lo + 63 - bits.LeadingZeros64(m))
		met := p.elements(e, c, first, end)
		if e.err != nil {
			s.err, s.work = e.err, 0
			return
		}
		var r uint64
		for m != 0 {
			i := nextBit(&m)
			from, to := c.List(lo + i)
			if p.holds(countBits(met, from-first, to-first), to-from) != p.neg {
				r |= 1 << i
			}
		}
		out[w] = r
	}
}

// elements returns which of the elements [from, to) of the array meet the condition.
func (p *matchPred) elements(e *scratch, array *schema.Column, from, to int) []uint64 {
	for i := range e.cols {
		e.cols[i] = elementsAsRows(&e.view, array, from, to)
	}
	return p.plan.met(e, to-from)
}

// met returns which of the n rows of the columns of e meet the condition.
func (p *subPlan) met(e *scratch, n int) []uint64 {
	met := e.wide(0, n)
	for lo := 0; lo < n; lo += blockWords * 64 {
		b := block{lo: lo, hi: min(lo+blockWords*64, n)}
		w := met[lo>>6 : (b.hi+63)>>6]
		in := e.push(len(w))
		for i := range in {
			in[i] = ^uint64(0)
		}
		if r := b.hi & 63; r != 0 {
			in[len(in)-1] = 1<<r - 1
		}
		p.root.eval(e, b, in, w)
		e.pop()
		if e.err != nil {
			break
		}
	}
	return met
}

// elementsAsRows makes dst a view of the elements [from, to).
func elementsAsRows(dst, array *schema.Column, from, to int) *schema.Column {
	*dst = schema.Column{Type: array.Element}
	switch t := dst.Type; {
	case t == schema.Bool:
		dst.Bool = array.Bool[from:to]
	case t.IsInt():
		dst.Int = array.Int[from:to]
	case t == schema.Float:
		dst.Float = array.Float[from:to]
	case t == schema.Double:
		dst.Double = array.Double[from:to]
	default:
		dst.Str = array.Str[from:to]
	}
	return dst
}

// countBits counts the bits [from, to).
func countBits(words []uint64, from, to int) (n int) {
	for from < to {
		w := words[from>>6] >> (from & 63)
		if k := to - from; k < 64 {
			w &= 1<<k - 1
		}
		n += bits.OnesCount64(w)
		from = (from | 63) + 1
	}
	return n
}

// holds decides for an array of size elements.
func (p *matchPred) holds(met, size int) bool {
	switch p.mode {
	case matchAny:
		return met > 0
	case matchAll:
		return met == size
	case matchLeast:
		return int64(met) >= p.count
	case matchMost:
		return int64(met) <= p.count
	}
	return int64(met) == p.count
}

func (p *matchPred) cost() int { return 30 + 4*p.plan.root.cost() }

func (p *matchPred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}
