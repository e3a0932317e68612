package expr

import "strconv"

// parser is a Pratt parser: each operator has a binding strength, and an
// operand takes in all that binds tighter than what stands on its left. Only
// prefixes, brackets and arguments recurse, and those are counted.
type parser struct {
	lex       lexer
	tok       token // the one to look at
	vars      map[string]any
	zone      string // of times without an offset
	depth     int    // open prefixes and brackets
	lists     int    // open lists
	element   bool   // inside of a condition on elements, where $ stands for one
	listBytes int    // text spent on lists that are closed
}

// parse returns the syntax tree of text, nil when it is blank.
func parse(text string, vars map[string]any, zone string) (*node, error) {
	p := &parser{lex: lexer{text: text}, vars: vars, zone: zone}
	if len(text) > MaxTextWithLists {
		return nil, p.fail(0, "the filter has %d bytes, at most %d are allowed", len(text), MaxTextWithLists)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.kind == tEOF {
		return nil, nil
	}
	n, err := p.expr(0)
	if err != nil {
		return nil, err
	}
	if p.tok.kind != tEOF {
		if p.tok.isOp("=") {
			return nil, p.expected(`"=="`)
		}
		if hint := insteadOfWord(p.tok); hint != "" {
			return nil, p.expected(hint)
		}
		return nil, p.expected("an operator", "the end")
	}
	return n, nil
}

func (p *parser) advance() (err error) {
	p.tok, err = p.lex.next()
	if err == nil && p.tok.kind != tEOF && p.lists == 0 && p.tok.end-p.listBytes > MaxText {
		return p.fail(p.tok.pos, "the filter is longer than %d bytes (lists not counted)", MaxText)
	}
	return err
}

func (p *parser) fail(pos int, format string, args ...any) error {
	return errAt(p.lex.text, pos, nil, format, args...)
}

func (p *parser) expected(what ...string) error {
	return errAt(p.lex.text, p.tok.pos, what, "unexpected %s", p.tok.describe())
}

// take consumes the operator op.
func (p *parser) take(op string) error {
	if !p.tok.isOp(op) {
		return p.expected(strconv.Quote(op))
	}
	return p.advance()
}

// nest counts one level of nesting; the caller undoes it with p.depth--.
func (p *parser) nest(pos int) error {
	if p.depth++; p.depth > MaxDepth {
		return p.fail(pos, "nested more than %d levels deep", MaxDepth)
	}
	return nil
}

// infix describes the operator at p.tok.
type infix struct {
	bind int
	kind nodeKind
	op   uint8
	bad  string // the operator exists in Milvus' grammar, but is not offered
}

var infixOps = map[string]infix{
	"||": {bind: bindOr, kind: nOr}, "&&": {bind: bindAnd, kind: nAnd},
	"==": {bind: bindEq, kind: nCmp, op: uint8(opEq)}, "!=": {bind: bindEq, kind: nCmp, op: uint8(opNe)},
	"<": {bind: bindRel, kind: nCmp, op: uint8(opLt)}, "<=": {bind: bindRel, kind: nCmp, op: uint8(opLe)},
	">": {bind: bindRel, kind: nCmp, op: uint8(opGt)}, ">=": {bind: bindRel, kind: nCmp, op: uint8(opGe)},
	"+": {bind: bindAdd, kind: nArith, op: uint8(opAdd)}, "-": {bind: bindAdd, kind: nArith, op: uint8(opSub)},
	"*": {bind: bindMul, kind: nArith, op: uint8(opMul)}, "/": {bind: bindMul, kind: nArith, op: uint8(opDiv)},
	"%": {bind: bindMul, kind: nArith, op: uint8(opMod)}, "**": {bind: bindPow, kind: nArith, op: uint8(opPow)},
	"=~": {bind: bindIn, kind: nRegex}, "!~": {bind: bindIn, kind: nRegex},
	"&": {bind: bindBitAnd, kind: nArith, op: uint8(opBitAnd)}, "|": {bind: bindBitOr, kind: nArith, op: uint8(opBitOr)},
	"^":  {bind: bindBitXor, kind: nArith, op: uint8(opBitXor)},
	"<<": {bind: bindAdd, bad: "shifts are not supported"}, ">>": {bind: bindAdd, bad: "shifts are not supported"},
}

func (p *parser) infix() (infix, bool) {
	switch {
	case p.tok.kind == tOp:
		op, ok := infixOps[p.tok.text]
		return op, ok
	case p.tok.kind != tIdent:
	case p.tok.isWord("or"):
		return infixOps["||"], true
	case p.tok.isWord("and"):
		return infixOps["&&"], true
	case p.tok.isWord("in"), p.tok.isWord("not"):
		return infix{bind: bindIn, kind: nIn}, true
	case p.tok.isWord("like"):
		return infix{bind: bindIn, kind: nLike}, true
	case p.tok.isWord("is"):
		return infix{bind: bindIn, kind: nIsNull}, true
	}
	return infix{}, false
}

// expr parses an expression of operators that bind at least as strong as least.
func (p *parser) expr(least int) (*node, error) {
	left, err := p.prefix()
	if err != nil {
		return nil, err
	}
	for {
		op, ok := p.infix()
		if !ok || op.bind < least {
			return left, nil
		}
		if op.bad != "" {
			return nil, p.fail(p.tok.pos, "%s", op.bad)
		}
		switch op.kind {
		case nAnd, nOr:
			left, err = p.chain(left, op)
		case nCmp:
			left, err = p.comparison(left, op)
		case nArith:
			left, err = p.arithmetic(left, op)
		default:
			left, err = p.wordOp(left)
		}
		if err != nil {
			return nil, err
		}
	}
}

// chain parses all of `a or b or c` into one node.
func (p *parser) chain(left *node, op infix) (*node, error) {
	n := newNode(op.kind, p.tok.pos, left)
	if left.kind == op.kind {
		n = left
	}
	for {
		if err := p.advance(); err != nil {
			return nil, err
		}
		k, err := p.expr(op.bind + 1)
		if err != nil {
			return nil, err
		}
		if k.kind == op.kind {
			n.kids = append(n.kids, k.kids...)
		} else {
			n.kids = append(n.kids, k)
		}
		n.depth = max(n.depth, k.depth+1)
		if next, ok := p.infix(); !ok || next.kind != op.kind || next.bad != "" {
			return n, nil
		}
	}
}

// comparison parses `a < b` and the chain `a < b <= c`, which is two
// comparisons that share b.
func (p *parser) comparison(left *node, op infix) (*node, error) {
	var all []*node
	first := cmpOp(op.op)
	for {
		pos := p.tok.pos
		if err := p.advance(); err != nil {
			return nil, err
		}
		right, err := p.expr(op.bind + 1)
		if err != nil {
			return nil, err
		}
		n := newNode(nCmp, pos, left, right)
		n.op = op.op
		all = append(all, n)
		next, ok := p.infix()
		if !ok || next.kind != nCmp || next.bind != op.bind || next.bad != "" {
			break
		}
		if op.bind != bindRel {
			return nil, p.fail(p.tok.pos, "%s cannot be chained, join comparisons with and", cmpOp(next.op))
		}
		if o := cmpOp(next.op); (o == opLt || o == opLe) != (first == opLt || first == opLe) {
			return nil, p.fail(p.tok.pos, "a range is written a < x <= b or a > x >= b, %s does not fit here", o)
		}
		left, op = right, next
	}
	if len(all) == 1 {
		return all[0], nil
	}
	return newNode(nAnd, all[0].pos, all...), nil
}

func (p *parser) arithmetic(left *node, op infix) (*node, error) {
	pos := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.expr(op.bind + 1)
	if err != nil {
		return nil, err
	}
	if left.kind == nConst && right.kind == nConst && left.val.k.numeric() && right.val.k.numeric() {
		v, bad := foldArith(arithOp(op.op), left.val, right.val)
		if bad != "" {
			return nil, p.fail(pos, "%s", bad)
		}
		return &node{kind: nConst, pos: left.pos, val: v}, nil
	}
	n := newNode(nArith, pos, left, right)
	n.op = op.op
	if n.depth > MaxDepth {
		return nil, p.fail(pos, "more than %d steps of arithmetic", MaxDepth)
	}
	return n, nil
}

// wordOp parses in, not in, like, not like, is null and is not null.
func (p *parser) wordOp(left *node) (*node, error) {
	pos := p.tok.pos
	not := p.tok.isWord("not")
	if not {
		if err := p.advance(); err != nil {
			return nil, err
		}
		if !p.tok.isWord("in") && !p.tok.isWord("like") {
			return nil, p.expected(`"in"`, `"like"`)
		}
	}
	if p.tok.isWord("is") {
		return p.isNull(left)
	}
	if p.tok.kind == tOp {
		return p.regex(left)
	}
	kind := nIn
	if p.tok.isWord("like") {
		kind = nLike
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.expr(bindBitOr)
	if err != nil {
		return nil, err
	}
	n := newNode(kind, pos, left, right)
	n.not = not
	return n, nil
}

func (p *parser) isNull(left *node) (*node, error) {
	n := newNode(nIsNull, p.tok.pos, left)
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.isWord("not") {
		n.not = true
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	if !p.tok.isWord("null") {
		return nil, p.expected(`"null"`, `"not null"`)
	}
	return n, p.advance()
}

// prefix parses an operand with the operators in front of it.
func (p *parser) prefix() (*node, error) {
	t := p.tok
	switch {
	case t.isOp("!"), t.isWord("not"):
		k, err := p.operand(bindEq)
		if err != nil {
			return nil, err
		}
		return newNode(nNot, t.pos, k), nil
	case t.isWord("exists"):
		k, err := p.operand(bindPrimary)
		if err != nil {
			return nil, err
		}
		return newNode(nExists, t.pos, k), nil
	case t.isOp("-"):
		return p.negative()
	case t.isOp("+"):
		k, err := p.operand(bindPow)
		if err == nil && k.kind == nConst && !k.val.k.numeric() {
			return nil, p.fail(t.pos, "+ needs a number, not %s", k.val.k)
		}
		return k, err
	}
	return p.primary()
}

// operand skips the prefix at p.tok and parses what it applies to.
func (p *parser) operand(bind int) (*node, error) {
	if err := p.nest(p.tok.pos); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	if err := p.advance(); err != nil {
		return nil, err
	}
	return p.expr(bind)
}

func (p *parser) negative() (*node, error) {
	pos := p.tok.pos
	ahead := p.lex
	if t, err := ahead.next(); err == nil && t.kind == tInt && t.i == 1<<63 {
		// The one integer that has no positive counterpart.
		if after, err := ahead.next(); err == nil && !after.isOp("**") {
			if err = p.advance(); err != nil {
				return nil, err
			}
			return &node{kind: nConst, pos: pos, val: intValue(-1 << 63)}, p.advance()
		}
	}
	k, err := p.operand(bindPow)
	if err != nil {
		return nil, err
	}
	if k.kind != nConst {
		return newNode(nNeg, pos, k), nil
	}
	switch {
	case k.val.k == kInt && k.val.i != -1<<63:
		k.val.i = -k.val.i
	case k.val.k == kFloat:
		k.val.f = -k.val.f
	case k.val.k == kInt:
		return nil, p.fail(pos, "the result does not fit a 64-bit integer")
	default:
		return nil, p.fail(pos, "- needs a number, not %s", k.val.k)
	}
	k.pos = pos
	return k, nil
}

func (p *parser) primary() (*node, error) {
	t := p.tok
	switch {
	case t.kind == tInt && t.i == 1<<63:
		return nil, p.fail(t.pos, "number %q does not fit a 64-bit integer", t.text)
	case t.kind == tInt:
		return p.constant(intValue(int64(t.i)))
	case t.kind == tFloat:
		return p.constant(floatValue(t.f))
	case t.kind == tString:
		return p.constant(stringValue(t.str))
	case t.isWord("true"), t.isWord("false"):
		return p.constant(boolValue(t.isWord("true")))
	case t.isOp("("):
		n, err := p.operand(0)
		if err != nil {
			return nil, err
		}
		if p.tok.isOp(",") {
			return nil, p.expected(`")"`, "a list in [ ]")
		}
		return n, p.take(")")
	case t.isOp("["):
		return p.list()
	case t.isOp("{"):
		return p.variable()
	case t.isWord("null"):
		return nil, errAt(p.lex.text, t.pos, []string{`"is null"`, `"is not null"`}, "null cannot be compared with")
	case t.kind == tIdent && !isKeyword(t.text):
		return p.name()
	}
	if t.isOp(">") && t.pos > 0 && p.lex.text[t.pos-1] == '<' {
		return nil, p.expected(`"!=" for "<>"`)
	}
	if t.isOp("~") {
		return nil, p.fail(t.pos, "~ is not supported")
	}
	return nil, p.expected("a field, value or condition")
}

func (p *parser) constant(v value) (*node, error) {
	n := &node{kind: nConst, pos: p.tok.pos, val: v}
	return n, p.advance()
}

func (p *parser) variable() (*node, error) {
	pos := p.tok.pos
	if err := p.advance(); err != nil {
		return nil, err
	}
	name := p.tok
	if name.kind != tIdent {
		return nil, p.expected("the name of a variable")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	x, ok := p.vars[name.text]
	if !ok {
		return nil, p.fail(pos, "no value given for {%s}", clip(name.text))
	}
	v, bad := variableValue(x, 0)
	if bad != "" {
		return nil, p.fail(pos, "value of {%s}: %s", clip(name.text), bad)
	}
	n := &node{kind: nConst, pos: pos, val: v}
	return n, p.take("}")
}
