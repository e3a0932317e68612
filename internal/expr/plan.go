package expr

import (
	"slices"
	"strings"
	"sync"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/schema"
)

// Plan is a compiled filter. It is immutable and may be used by any number of
// goroutines.
type Plan struct {
	root    pred
	columns []column // what root reads, by slot
	text    string
	scans   []analyze.Analyzer // of the text conditions, see textPred.scan
	subs    []*subPlan         // of the conditions on elements
	scratch *sync.Pool         // of *scratch
}

// Compile compiles a filter for collections with schema s. Blank text matches
// all rows. vars are the values of {name} in the text: bool, int64, float64,
// string, slices of them and []any (int, int32 and float32 are taken too). Plan and
// vars share nothing afterwards but strings. zone is an IANA name such as Asia/Shanghai:
// times in text or vars without an offset are of that; "" = UTC. Errors are of class
// Invalid and hold an *Error.
func Compile(text string, s *schema.Schema, vars map[string]any, zone string) (*Plan, error) {
	n, err := parse(text, vars, zone)
	if err != nil {
		return nil, err
	}
	return compile(n, text, s, zone)
}

// compile makes a plan of a parsed filter; nil matches all rows.
func compile(n *node, text string, s *schema.Schema, zone string) (_ *Plan, err error) {
	p := &Plan{root: &constPred{value: true}}
	if n != nil {
		if n, err = (&binder{text: text, schema: s, zone: zone, sample: sampleOf(n), last: lastTerm(n)}).condition(n); err != nil {
			return nil, err
		}
		var b strings.Builder
		b.Grow(min(len(text), MaxText) + 64) // about; values of variables come on top
		n.print(&b, 0)
		p.text = b.String()
		pl := &planner{}
		p.root = pl.plan(n, false)
		p.columns, p.scans, p.subs = pl.used(p.root), pl.scans, pl.subs
	}
	p.scratch = &sync.Pool{New: func() any { return newScratch(p.columns, p.scans, p.subs) }}
	return p, nil
}

// All reports whether every row matches, whatever it holds.
func (p *Plan) All() bool {
	c, ok := p.root.(*constPred)
	return ok && c.value
}

// String returns the filter in normal form: names resolved, variables replaced
// by their values, constants folded. It compiles to the same plan; "" matches all rows.
func (p *Plan) String() string { return p.text }

// Fields returns the ids of the fields the plan reads, always in the same order.
func (p *Plan) Fields() []int64 { return p.AppendFields(make([]int64, 0, len(p.columns))) }

// AppendFields appends them.
func (p *Plan) AppendFields(ids []int64) []int64 {
	for i := range p.columns {
		if c := &p.columns[i]; !c.derived() {
			ids = append(ids, c.field.ID)
		}
	}
	return ids
}

// planner turns a bound tree into a plan.
type planner struct {
	columns []column
	scans   []analyze.Analyzer
	subs    []*subPlan
}

// ref gives the column of n, a field or what is derived from one, its slot.
func (pl *planner) ref(n *node) ref {
	if n.base == nil || n.typ == kArray {
		return ref{slot: pl.slot(column{field: n.field, of: -1}), field: n.field}
	}
	c := column{field: n.field, of: pl.slot(column{field: *n.base, of: -1}), index: lengthOf}
	if n.kind == nName {
		c.index = n.path[0].index
	}
	return ref{slot: pl.slot(c), field: c.field}
}

func (pl *planner) slot(c column) int {
	for i := range pl.columns {
		if o := &pl.columns[i]; o.field.ID == c.field.ID && o.of == c.of && o.index == c.index {
			return i
		}
	}
	pl.columns = append(pl.columns, c)
	return len(pl.columns) - 1
}

// used returns the columns; slots of leaves that were folded away stay, unless all were.
func (pl *planner) used(root pred) []column {
	if _, ok := root.(*constPred); ok {
		return nil
	}
	return pl.columns
}

// plan builds the plan of n, or of its negation.
func (pl *planner) plan(n *node, neg bool) pred {
	switch n.kind {
	case nNot:
		return pl.plan(n.kids[0], !neg)
	case nAnd, nOr:
		terms := make([]pred, len(n.kids))
		for i, k := range n.kids {
			terms[i] = pl.plan(k, neg)
		}
		// De Morgan's laws hold in three-valued logic.
		if (n.kind == nAnd) != neg {
			return joinAnd(terms)
		}
		return joinOr(terms)
	case nCmp:
		return pl.comparison(n, neg)
	case nIn:
		return pl.in(n, neg != n.not)
	case nLike:
		return pl.like(n, neg != n.not)
	case nExists:
		return pl.json(n.kids[0], neg, jsonExists{})
	case nIsNull:
		return pl.isNull(n, neg == n.not)
	case nContains:
		return pl.contains(n, neg)
	case nTextMatch, nPhraseMatch, nFuzzyMatch:
		return pl.textMatch(n, neg)
	case nMatch:
		return pl.match(n, neg)
	case nRegex:
		return pl.regex(n, neg != n.not)
	case nSample:
		return newSample(n.val.f)
	}
	return &constPred{value: (n.val.i != 0) != neg}
}

func (pl *planner) json(name *node, neg bool, t jsonTest) pred {
	return &jsonPred{ref: pl.ref(name), path: name.path, neg: neg, cond: t}
}

func (pl *planner) isNull(n *node, null bool) pred {
	k := n.kids[0]
	if k.typ == kVector && !k.field.MayBeAbsent() {
		return &constPred{value: !null}
	}
	if k.typ == kDyn && (len(k.path) > 0 || k.field.ID == derivedID) {
		return &jsonNullPred{ref: pl.ref(k), path: k.path, null: null}
	}
	return &nullPred{ref: pl.ref(k), null: null}
}

func (pl *planner) comparison(n *node, neg bool) pred {
	l, r, op := n.kids[0], n.kids[1], cmpOp(n.op)
	if l.isColumn() && r.kind == nConst {
		return pl.withConstant(l, op, r.val, neg)
	}
	if l.typ.numeric() && r.typ.numeric() || l.typ.temporal() {
		return pl.newVector(l, op, r, neg)
	}
	p := &rowPred{op: op, neg: neg}
	p.compile(pl, l)
	p.compile(pl, r)
	return p
}

// withConstant plans the comparison of a field or a path with a constant.
func (pl *planner) withConstant(l *node, op cmpOp, v value, neg bool) pred {
	if l.typ == kDyn {
		return pl.json(l, neg, &jsonCompare{all: []comparison{{op, v}}})
	}
	f := pl.ref(l)
	switch l.typ {
	case kArray:
		return newArrayPred(f, arrayEqual, v.list, neg != (op == opNe))
	case kBool:
		return &boolPred{ref: f, want: (v.i != 0) == (op == opEq) != neg}
	case kString:
		if neg {
			op = negated(op)
		}
		return &stringPred{ref: f, op: op, val: v.s}
	}
	// Numbers: != is the negation of ==, which NaN satisfies.
	if op == opNe {
		op, neg = opEq, !neg
	}
	switch l.field.Type {
	case schema.Float:
		return newRange(f, floatInterval(op, v), neg)
	case schema.Double:
		return newRange(f, doubleInterval(op, v), neg)
	}
	if neg && op != opEq { // integers have a total order
		op, neg = negated(op), false
	}
	return newRange(f, intInterval(op, v), neg)
}

// negated is the opposite of op where values have a total order.
func negated(op cmpOp) cmpOp {
	return [...]cmpOp{opEq: opNe, opNe: opEq, opLt: opGe, opLe: opGt, opGt: opLe, opGe: opLt}[op]
}

func newRange[T number](f ref, iv interval[T], neg bool) pred {
	if iv.empty() {
		if !neg {
			return &constPred{}
		}
		return &nullPred{ref: f} // true for every value, unknown for a null
	}
	return &rangePred[T]{ref: f, lo: iv.lo, hi: iv.hi, neg: neg}
}

func (pl *planner) in(n *node, neg bool) pred {
	l, list := n.kids[0], n.kids[1].val.list
	if len(list) == 0 {
		return &constPred{value: neg}
	}
	if l.kind == nName && l.typ == kDyn {
		return pl.json(l, neg, &jsonIn{set: newValueSet(list)})
	}
	if !l.isColumn() && l.typ == kTime {
		return pl.inTimes(l, list, neg)
	}
	if !l.isColumn() {
		p := &rowPred{set: newValueSet(list), neg: neg}
		p.compile(pl, l)
		return p
	}
	f := pl.ref(l)
	switch {
	case l.typ == kBool:
		return newBoolIn(f, list, neg)
	case l.typ == kString:
		words := make([]string, len(list))
		for i, v := range list {
			words[i] = v.s
		}
		return newStringIn(f, words, neg)
	case l.typ == kInt, l.typ == kTime:
		ints := make([]int64, 0, len(list))
		for i := range list {
			switch v := &list[i]; v.k {
			case kInt, kTime:
				ints = append(ints, v.i)
			case kFloat:
				if v := integral(*v); v.k == kInt {
					ints = append(ints, v.i)
				}
			}
		}
		return newIntIn(f, ints, neg)
	}
	return newFloatIn(f, list, neg)
}

// inTimes plans in for a time that is calculated.
func (pl *planner) inTimes(l *node, list []value, neg bool) pred {
	terms := make([]pred, len(list))
	for i, v := range list {
		terms[i] = pl.newVector(l, opEq, &node{kind: nConst, typ: kTime, val: v}, neg)
	}
	if neg {
		return joinAnd(terms)
	}
	return joinOr(terms)
}

func newBoolIn(f ref, list []value, neg bool) pred {
	has := [2]bool{}
	for _, v := range list {
		has[v.i] = true
	}
	if has[0] && has[1] {
		if neg {
			return &constPred{}
		}
		return &nullPred{ref: f}
	}
	return &boolPred{ref: f, want: has[1] != neg}
}

func newStringIn(f ref, words []string, neg bool) pred {
	words = sortedUnique(words)
	if len(words) == 1 {
		op := opEq
		if neg {
			op = opNe
		}
		return &stringPred{ref: f, op: op, val: words[0]}
	}
	return &stringInPred{ref: f, set: newStringSet(words), neg: neg}
}

func newIntIn(f ref, ints []int64, neg bool) pred {
	ints = sortedInts(ints)
	if n := len(ints); n == 0 || uint64(ints[n-1])-uint64(ints[0]) == uint64(n-1) {
		// Nothing, one number, or numbers without a gap.
		iv := interval[int64]{1, 0}
		if n > 0 {
			iv = interval[int64]{ints[0], ints[n-1]}
		}
		return newRange(f, iv, neg)
	}
	return &intInPred{ref: f, set: newIntSet(ints), neg: neg}
}

func newFloatIn(f ref, list []value, neg bool) pred {
	var floats []float64
	for _, v := range list {
		if f.field.Type == schema.Float {
			if iv := floatInterval(opEq, v); !iv.empty() {
				floats = append(floats, float64(iv.lo))
			}
		} else if iv := doubleInterval(opEq, v); !iv.empty() {
			floats = append(floats, iv.lo)
		}
	}
	if len(floats) == 0 {
		return newRange(f, interval[float64]{1, 0}, neg)
	}
	return &floatInPred{ref: f, list: sortedUnique(floats), neg: neg}
}

func (pl *planner) like(n *node, neg bool) pred {
	l, pat := n.kids[0], compileLike(n.kids[1].val.s)
	if l.typ == kDyn {
		return pl.json(l, neg, &jsonLike{pattern: pat})
	}
	f := pl.ref(l)
	if pat.exact && pat.head.wild == nil {
		return newStringIn(f, []string{pat.head.text}, neg)
	}
	return &likePred{ref: f, pattern: pat, neg: neg}
}

func (pl *planner) contains(n *node, neg bool) pred {
	j := &jsonContains{mode: containsMode(n.op)}
	list := n.kids[1].val.list
	if name := n.kids[0]; name.typ == kArray {
		return pl.arrayContains(name, j.mode, n.kids[1].val, neg)
	}
	if j.mode == containsOne {
		j.mode, list = containsAny, []value{n.kids[1].val}
	}
	j.set = newValueSet(list)
	return pl.json(n.kids[0], neg, j)
}

// byCost puts cheap terms first; the order does not change the result.
func byCost(terms []pred) {
	slices.SortStableFunc(terms, func(a, b pred) int { return a.cost() - b.cost() })
}
