package expr

import (
	"fmt"
	"strconv"
	"strings"
)

// name parses a field, a JSON path or a function call.
func (p *parser) name() (*node, error) {
	n := &node{kind: nName, pos: p.tok.pos, name: p.tok.text}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if p.tok.isOp("(") {
		return p.call(n)
	}
	if n.name == elementName {
		if p.tok.isOp("[") {
			return nil, p.fail(n.pos, "arrays of structs are not supported; $ stands for an element of an array field")
		}
		if !p.element {
			return nil, errAt(p.lex.text, n.pos, []string{"$meta"}, `a lone "$"`)
		}
		return n, nil
	}
	if isTemporalWord(n.name) && (p.tok.kind == tString || p.tok.isOp("{")) {
		return p.temporal(n)
	}
	for p.tok.isOp("[") {
		if len(n.path) == MaxPath {
			return nil, p.fail(p.tok.pos, "a path has at most %d steps", MaxPath)
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		switch t := p.tok; {
		case t.kind == tString:
			n.path = append(n.path, newStep(t.str, true))
		case t.kind == tInt && t.i < 1<<31:
			n.path = append(n.path, newStep(strconv.FormatUint(t.i, 10), false))
		case t.kind == tIdent && len(n.path) < 2: // chunks[section], chunks[0][section]
			return nil, p.expected("a key in quotes", "an index; arrays of structs are not supported")
		default:
			return nil, p.expected("a key in quotes", "an index")
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		if err := p.take("]"); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// newStep makes a path step. A key that is a number in its shortest form is an
// index as well.
func newStep(key string, quoted bool) step {
	s := step{key: key, index: -1, quoted: quoted}
	if i, err := strconv.ParseInt(key, 10, 32); err == nil && i >= 0 && strconv.FormatInt(i, 10) == key {
		s.index = int(i)
	}
	return s
}

// functions are those that there are, for errors.
var functions = [...]string{
	"array_contains", "array_contains_all", "array_contains_any", "array_length", "element_filter", "empty",
	"json_contains", "json_contains_all", "json_contains_any", "match_all", "match_any", "match_exact", "match_least", "match_most",
	"phrase_match", "random_sample", "starts_with", "text_match", "text_match_fuzzy",
}

// refusal says why a function of Milvus is not there; "" = it is none of Milvus' either.
func refusal(fn string) string {
	switch {
	case strings.HasPrefix(fn, "st_"):
		return "there are no geometry fields"
	case strings.HasPrefix(fn, "mol_"):
		return "there are no fields of molecules"
	case fn == "bloom_match", fn == "roaring_match":
		return "send the values as a list, as in id in {ids}"
	}
	return ""
}

func (p *parser) call(n *node) (*node, error) {
	fn := strings.ToLower(n.name)
	if mode, ok := matchModeOf(fn); ok {
		return p.match(n, fn, mode)
	}
	kind, mode, args := nContains, containsOne, 2
	switch fn {
	case "json_contains", "array_contains":
	case "json_contains_any", "array_contains_any":
		mode = containsAny
	case "json_contains_all", "array_contains_all":
		mode = containsAll
	case "array_length":
		kind, args = nLength, 1
	case "text_match", "phrase_match", "text_match_fuzzy":
		return p.textCall(n, fn)
	case "random_sample":
		return p.sample(n)
	case "empty", "starts_with":
		return p.textTest(n, fn)
	default:
		if why := refusal(fn); why != "" {
			return nil, p.fail(n.pos, "%s is not supported: %s", fn, why)
		}
		return nil, errAt(p.lex.text, n.pos, []string{"one of " + strings.Join(functions[:], ", ")}, "unknown function %q", clip(n.name))
	}
	if err := p.nest(p.tok.pos); err != nil {
		return nil, err
	}
	defer func() { p.depth-- }()
	c := &node{kind: kind, op: uint8(mode), pos: n.pos, depth: 1, not: strings.HasPrefix(fn, "array_")}
	for i := range args {
		if i > 0 && !p.tok.isOp(",") {
			return nil, p.expected(fmt.Sprintf("\",\" and argument %d of %s", i+1, fn))
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		a, err := p.expr(0)
		if err != nil {
			return nil, err
		}
		c.kids = append(c.kids, a)
		c.depth = max(c.depth, a.depth+1)
	}
	return c, p.take(")")
}

// textTest parses empty(a), which is a == "", and starts_with(a, "x"), which is a like "x%".
func (p *parser) textTest(name *node, fn string) (*node, error) {
	if err := p.advance(); err != nil {
		return nil, err
	}
	field, err := p.primary()
	if err != nil {
		return nil, err
	}
	if fn == "empty" {
		n := newNode(nCmp, name.pos, field, &node{kind: nConst, pos: name.pos, val: stringValue("")})
		return n, p.take(")")
	}
	if !p.tok.isOp(",") {
		return nil, p.expected(`"," and what starts_with looks for`)
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	text, err := p.primary()
	if err != nil {
		return nil, err
	}
	if text.kind != nConst || text.val.k != kString {
		return nil, p.fail(text.pos, "starts_with needs a text in quotes")
	}
	text.val.s = strings.NewReplacer("%", `\%`, "_", `\_`, `\`, `\\`).Replace(text.val.s) + "%"
	return newNode(nLike, name.pos, field, text), p.take(")")
}
