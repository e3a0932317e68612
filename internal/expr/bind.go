package expr

import (
	"fmt"
	"strings"

	"github.com/querynode/querynode/internal/schema"
)

// binder resolves names against the schema and checks types.
type binder struct {
	text   string
	schema *schema.Schema
	zone   string // of times without an offset
	sample *node  // the one random_sample that is in its place
	last   *node  // what the filter ends in, see lastTerm
	// element is what $ stands for; nil outside of conditions on elements.
	element *schema.Field
}

func (b *binder) fail(n *node, format string, args ...any) error {
	return errAt(b.text, n.pos, nil, format, args...)
}

// condition binds n, which has to be a condition, and returns it; a bool field
// becomes a comparison with true.
func (b *binder) condition(n *node) (*node, error) {
	switch n.kind {
	case nAnd, nOr, nNot:
		n.typ = kCond
		for i, k := range n.kids {
			k, err := b.condition(k)
			if err != nil {
				return nil, err
			}
			n.kids[i] = k
		}
		return n.distinct(), nil
	case nCmp:
		return b.comparison(n)
	case nIn:
		return n, b.in(n)
	case nLike:
		return n, b.like(n)
	case nExists, nIsNull:
		return n, b.nullTest(n)
	case nContains:
		return n, b.contains(n)
	case nTextMatch, nPhraseMatch, nFuzzyMatch:
		return n, b.textMatch(n)
	case nMatch:
		return n, b.match(n)
	case nRegex:
		return n, b.regex(n)
	case nSample:
		if n != b.sample {
			return nil, b.fail(n, "random_sample stands alone or is joined to the rest by and")
		}
		n.typ = kCond
		return n, nil
	}
	if err := b.scalar(n); err != nil {
		return nil, err
	}
	switch {
	case n.kind == nConst && n.typ == kBool:
		return n, nil
	case n.kind == nName && n.typ == kBool:
		c := newNode(nCmp, n.pos, n, &node{kind: nConst, pos: n.pos, typ: kBool, val: boolValue(true)})
		c.typ, c.op = kCond, uint8(opEq)
		return c, nil
	}
	return nil, b.fail(n, "%s is no condition, compare it with something", b.describe(n))
}

// scalar binds n, which has to be a value.
func (b *binder) scalar(n *node) error {
	switch n.kind {
	case nConst:
		n.typ = n.val.k
		return nil
	case nName:
		return b.name(n)
	case nNeg:
		if err := b.scalar(n.kids[0]); err != nil {
			return err
		}
		n.typ = n.kids[0].typ
		if !n.typ.numeric() && n.typ != kDyn && n.typ != kSpan {
			return b.fail(n, "- needs a number, not %s", b.describe(n.kids[0]))
		}
		return nil
	case nArith:
		return b.arithmetic(n)
	case nLength:
		return b.length(n)
	}
	return b.fail(n, "a condition stands where a value is needed")
}

func (b *binder) arithmetic(n *node) error {
	op := arithOp(n.op)
	for _, k := range n.kids {
		if err := b.scalar(k); err != nil {
			return err
		}
	}
	if n.kids[0].typ.temporal() || n.kids[1].typ.temporal() {
		return b.temporalArithmetic(n)
	}
	for _, k := range n.kids {
		if !k.typ.numeric() && k.typ != kDyn {
			return b.fail(k, "%s needs numbers, not %s", op, b.describe(k))
		}
		if op.integral() && k.typ == kFloat {
			return b.fail(k, "%s is for integers, not %s", op, b.describe(k))
		}
	}
	l, r := n.kids[0].typ, n.kids[1].typ
	switch {
	case l == kDyn || r == kDyn:
		n.typ = kDyn
	case l == kFloat || r == kFloat || op == opPow:
		n.typ = kFloat
	default:
		n.typ = kInt
	}
	if c := n.kids[1]; (op == opDiv || op == opMod) && c.kind == nConst && c.val.float() == 0 {
		return b.fail(n, "division by zero")
	}
	return nil
}

// name resolves a name: a field, or a key of the dynamic field.
func (b *binder) name(n *node) error {
	if n.typ != kNone {
		return nil // shared by the two comparisons of a range
	}
	if b.element != nil {
		return b.elementOf(n)
	}
	f, ok := b.schema.Field(n.name)
	if !ok {
		if f, ok = b.schema.FieldByID(schema.DynamicFieldID); !ok || !b.schema.Dynamic {
			return b.fail(n, "unknown field %q%s", clip(n.name), b.suggest(n.name))
		}
		n.path = append([]step{newStep(n.name, true)}, n.path...)
	}
	n.field = f
	if f.Type == schema.Array {
		return b.array(n)
	}
	if f.Type != schema.JSON && len(n.path) > 0 {
		return b.fail(n, "%s field %q takes no path", f.Type, f.Name)
	}
	if n.typ = kindOf(f.Type); n.typ == kNone {
		return b.fail(n, "%s field %q cannot be filtered on%s", f.Type, f.Name, pick(f.Type.IsVector(), ", but for is null and is not null", ""))
	}
	return nil
}

// kindOf is the kind of a field's values; kNone if it has none that conditions know.
func kindOf(t schema.Type) kind {
	switch {
	case t == schema.Bool:
		return kBool
	case t == schema.Timestamptz:
		return kTime
	case t.IsInt():
		return kInt
	case t == schema.Float, t == schema.Double:
		return kFloat
	case t == schema.VarChar:
		return kString
	case t == schema.JSON:
		return kDyn
	}
	return kNone
}

func (b *binder) comparison(n *node) (*node, error) {
	n.typ = kCond
	for _, k := range n.kids {
		if err := b.scalar(k); err != nil {
			return nil, err
		}
	}
	l, r, op := n.kids[0], n.kids[1], cmpOp(n.op)
	if l.kind == nConst && r.kind != nConst {
		l, r, op = r, l, op.flipped()
		n.kids, n.op = []*node{l, r}, uint8(op)
	}
	if err := b.readTimes(l, r); err != nil {
		return nil, err
	}
	order := op != opEq && op != opNe
	switch {
	case l.val.months != 0 || r.val.months != 0:
		return nil, b.fail(n, "an interval of years or months cannot be compared, only added to a time")
	case l.typ == kArray && l.base != nil && !order:
		return n, b.arrayConstant(n, l, r)
	case r.typ == kArray && r.base != nil && !order:
		return nil, b.fail(n, "cannot compare %s with %s, only with a list such as [1, 2]", b.describe(l), b.describe(r))
	case order && (l.typ == kBool || r.typ == kBool), order && (l.typ == kArray || r.typ == kArray):
		odd := l
		if l.typ != kBool && l.typ != kArray {
			odd = r
		}
		return nil, b.fail(n, "%s has no order, %s cannot compare it", b.describe(odd), op)
	case l.typ.temporal() != r.typ.temporal():
		return nil, b.fail(n, "cannot compare %s with %s", b.describe(l), b.describe(r))
	case l.typ == kDyn, r.typ == kDyn, l.typ.numeric() && r.typ.numeric():
	case l.typ != r.typ, l.typ == kArray:
		return nil, b.fail(n, "cannot compare %s with %s", b.describe(l), b.describe(r))
	}
	if (l.typ == kArray || r.typ == kArray) && l.kind != nName {
		return nil, b.fail(n, "cannot compare %s with %s", b.describe(l), b.describe(r))
	}
	if l.kind == nConst {
		t := compareValues(op, l.val, r.val)
		return &node{kind: nConst, pos: n.pos, typ: kBool, val: boolValue(t == yes)}, nil
	}
	return n, nil
}

func (b *binder) in(n *node) error {
	n.typ = kCond
	l, r := n.kids[0], n.kids[1]
	if err := b.scalar(l); err != nil {
		return err
	}
	if r.kind != nConst {
		if err := b.scalar(r); err == nil && (r.typ == kDyn || r.typ == kArray) {
			return b.fail(n, "in needs a list of constants; for what an array holds use %s", pick(r.typ == kDyn, "json_contains", "array_contains"))
		}
	}
	if r.kind != nConst || r.val.k != kArray {
		return b.fail(r, "in needs a list such as [1, 2]")
	}
	if l.kind == nConst {
		return b.fail(n, "in needs a field on its left, not %s", b.describe(l))
	}
	r.typ = kArray
	if l.typ == kArray {
		return b.fail(n, "in does not compare arrays; for members of %s use array_contains_any", b.describe(l))
	}
	if err := b.readTimeList(l, r); err != nil {
		return err
	}
	for i, e := range r.val.list {
		ok := e.k == l.typ || e.k.numeric() && l.typ.numeric() || l.typ == kDyn
		if !ok {
			return b.fail(r, "element %d of the list is %s, %s cannot be that", i, e.k, b.describe(l))
		}
		if e.k == kArray && l.kind != nName {
			return b.fail(r, "element %d of the list is an array, %s cannot be that", i, b.describe(l))
		}
	}
	return nil
}

func (b *binder) like(n *node) error {
	n.typ = kCond
	l, r := n.kids[0], n.kids[1]
	if err := b.scalar(l); err != nil {
		return err
	}
	if l.kind != nName || l.typ != kString && l.typ != kDyn {
		return b.fail(n, "like needs a VarChar field or a JSON path, not %s", b.describe(l))
	}
	if r.kind != nConst || r.val.k != kString {
		return b.fail(r, "like needs a pattern in quotes")
	}
	if len(r.val.s) > MaxPattern {
		return b.fail(r, "the pattern has %d bytes, at most %d are allowed", len(r.val.s), MaxPattern)
	}
	r.typ = kString
	return nil
}

func (b *binder) nullTest(n *node) error {
	n.typ = kCond
	k := n.kids[0]
	what := pick(n.kind == nExists, "exists", "is null")
	if k.kind != nName && k.kind != nLength {
		return b.fail(k, "%s needs a field or a JSON path", what)
	}
	if n.kind == nIsNull && b.vector(k) {
		return nil
	}
	if err := b.scalar(k); err != nil {
		return err
	}
	if !k.isColumn() {
		return b.fail(k, "%s needs a field or a JSON path", what)
	}
	if n.kind == nExists && (len(k.path) == 0 || k.typ != kDyn) {
		return b.fail(k, "exists needs a JSON path, not %s", b.describe(k))
	}
	return nil
}

// vector binds the name of a vector field; false if n is none. All that can be asked of
// one is whether it is null.
func (b *binder) vector(n *node) bool {
	if n.kind != nName || len(n.path) > 0 || b.element != nil {
		return false
	}
	f, ok := b.schema.Field(n.name)
	if !ok || !f.Type.IsVector() {
		return false
	}
	n.field, n.typ = f, kVector
	return true
}

func (b *binder) contains(n *node) error {
	n.typ = kCond
	fn := pick(n.not, arrayContainsNames[n.op], containsNames[n.op])
	name, arg := n.kids[0], n.kids[1]
	if name.kind == nName {
		if err := b.name(name); err != nil {
			return err
		}
	}
	if name.kind != nName || name.typ != kDyn && name.typ != kArray {
		return b.fail(name, "%s needs an array field or a JSON path", fn)
	}
	if arg.kind != nConst {
		return b.fail(arg, "the second argument of %s is a constant", fn)
	}
	arg.typ = arg.val.k
	if name.typ == kArray {
		fn = arrayContainsNames[n.op]
	}
	if containsMode(n.op) != containsOne && arg.typ != kArray {
		return b.fail(arg, "the second argument of %s is a list, not %s", fn, arg.typ)
	}
	if name.typ == kArray {
		return b.members(n, name, arg)
	}
	return nil
}

// length binds array_length.
func (b *binder) length(n *node) error {
	k := n.kids[0]
	if k.kind == nName {
		if err := b.name(k); err != nil {
			return err
		}
	}
	switch {
	case k.kind == nName && k.typ == kDyn:
		n.typ = kDyn
	case k.kind == nName && k.typ == kArray:
		n.typ, n.base = kInt, k.base
		n.field = schema.Field{Name: n.base.Name, Type: schema.Int64}
	default:
		return b.fail(k, "array_length needs an array field or a JSON path")
	}
	return nil
}

// describe names a bound node in an error.
func (b *binder) describe(n *node) string {
	switch {
	case n.kind == nConst && n.val.k == kArray:
		return "a list"
	case n.kind == nConst:
		return n.val.k.String() + " (" + clip(n.val.String()) + ")"
	case n.kind == nName && n.typ == kDyn:
		var sb strings.Builder
		n.print(&sb, 0)
		return "JSON value " + clip(sb.String())
	case n.kind == nName && n.field.ID == derivedID && n.field.Name == elementName:
		return fmt.Sprintf("an element ($) of type %s", n.field.Type)
	case n.kind == nName && n.base != nil && n.typ != kArray:
		return fmt.Sprintf("an element of %s of Array field %q", n.field.Type, n.field.Name)
	case n.kind == nName:
		return fmt.Sprintf("%s field %q", n.field.Type, n.field.Name)
	case n.kind == nNeg, n.kind == nArith, n.kind == nLength:
		return "the result of arithmetic"
	}
	return "a condition"
}

// suggest proposes the field whose name is nearest, if one is near enough.
func (b *binder) suggest(name string) string {
	best, limit := "", min(2, len(name)/2)
	for i := range b.schema.Fields {
		f := b.schema.Fields[i].Name
		if d := editDistance(strings.ToLower(name), strings.ToLower(f), limit); d <= limit {
			best, limit = f, d-1
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(" (did you mean %q?)", best)
}

// editDistance is Levenshtein's distance, or more than limit when it exceeds it.
func editDistance(a, b string, limit int) int {
	if d := len(a) - len(b); d > limit || -d > limit || len(a) > schema.MaxNameBytes {
		return limit + 1
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j+1]+1, row[j]+1)
		}
	}
	return row[len(b)]
}
