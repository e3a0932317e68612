package expr

import (
	"regexp"
	"regexp/syntax"
)

// regex parses the pattern after =~ or !~, which p.tok is at.
func (p *parser) regex(left *node) (*node, error) {
	n := &node{kind: nRegex, pos: p.tok.pos, not: p.tok.text == "!~", depth: left.depth + 1}
	if err := p.advance(); err != nil {
		return nil, err
	}
	right, err := p.expr(bindBitOr)
	if err != nil {
		return nil, err
	}
	n.kids = []*node{left, right}
	return n, nil
}

func (b *binder) regex(n *node) error {
	n.typ = kCond
	l, r := n.kids[0], n.kids[1]
	if err := b.scalar(l); err != nil {
		return err
	}
	if l.kind != nName || l.typ != kString && l.typ != kDyn {
		return b.fail(n, "%s needs a VarChar field or a JSON path, not %s", pick(n.not, "!~", "=~"), b.describe(l))
	}
	if r.kind != nConst || r.val.k != kString {
		return b.fail(r, "%s needs a regular expression in quotes", pick(n.not, "!~", "=~"))
	}
	if len(r.val.s) > MaxPattern {
		return b.fail(r, "the regular expression has %d bytes, at most %d are allowed", len(r.val.s), MaxPattern)
	}
	size, err := programSize(r.val.s)
	if err != nil {
		return b.fail(r, "%s", err)
	}
	if size > MaxProgram {
		return b.fail(r, "the regular expression has %d steps, repetitions written out, at most %d are allowed", size, MaxProgram)
	}
	r.typ = kString
	return nil
}

// programSize is how many instructions a regular expression is compiled to: matching may
// take each of them for each byte of a text.
func programSize(s string) (int, error) {
	tree, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return 0, err
	}
	prog, err := syntax.Compile(tree.Simplify())
	if err != nil {
		return 0, err
	}
	return len(prog.Inst), nil
}

func (pl *planner) regex(n *node, neg bool) pred {
	re := regexp.MustCompile(n.kids[1].val.s) // the binder has tried it
	l := n.kids[0]
	if l.typ == kDyn {
		return pl.json(l, neg, &jsonRegex{re: re})
	}
	return &regexPred{ref: pl.ref(l), re: re, neg: neg}
}

// regexPred is text =~ a regular expression (RE2: time is linear in the text).
type regexPred struct {
	ref
	re  *regexp.Regexp
	neg bool
}

func (p *regexPred) eval(s *scratch, b block, in, out []uint64) {
	eachText(s.cols[p.slot].Str, p.ref, s, b, in, out, func(text string) bool {
		return p.re.MatchString(text) != p.neg
	})
}

func (p *regexPred) cost() int { return 400 }

func (p *regexPred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}

// jsonRegex is path =~ a regular expression. What is no text does not match, so
// that !~ is true for it, as in Milvus.
type jsonRegex struct{ re *regexp.Regexp }

func (j *jsonRegex) test(s *scratch, doc string, at int) tri {
	var v value
	if v, s.buf = readJSON(doc, at, s.buf); v.k != kString {
		return no
	}
	return triOf(j.re.MatchString(v.s))
}

func (j *jsonRegex) price() int { return 400 }
