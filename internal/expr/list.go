package expr

// list parses a list of constants; p.tok is at the bracket.
func (p *parser) list() (*node, error) {
	start := p.tok.pos
	n := &node{kind: nConst, pos: start, val: value{k: kArray}}
	if err := p.nest(start); err != nil {
		return nil, err
	}
	p.lists++
	if err := p.advance(); err != nil {
		return nil, err
	}
	for !p.tok.isOp("]") {
		pos := p.tok.pos
		v, ok, err := p.literal()
		if err != nil {
			return nil, err
		}
		if !ok {
			e, err := p.expr(0)
			if err != nil {
				return nil, err
			}
			if e.kind != nConst {
				return nil, p.fail(e.pos, "a list holds constants only")
			}
			pos, v = e.pos, e.val
		}
		if len(n.val.list) == MaxList {
			return nil, p.fail(pos, "a list has at most %d elements", MaxList)
		}
		n.val.list = append(n.val.list, v)
		if p.tok.isOp("]") {
			break
		}
		if !p.tok.isOp(",") {
			return nil, p.expected(`","`, `"]"`)
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
	}
	p.depth--
	if p.lists--; p.lists == 0 {
		p.listBytes += p.tok.end - start
	}
	return n, p.advance()
}

// literal takes a number or a text that is a whole element of a list, as nearly all are,
// without a node for it; false = it is not one, and nothing was taken.
func (p *parser) literal() (v value, ok bool, err error) {
	switch t := &p.tok; {
	case t.kind == tInt && t.i < 1<<63:
		v = intValue(int64(t.i))
	case t.kind == tFloat:
		v = floatValue(t.f)
	case t.kind == tString:
		v = stringValue(t.str)
	default:
		return v, false, nil
	}
	tok, lex := p.tok, p.lex
	if err := p.advance(); err != nil {
		return v, false, err
	}
	if ok = p.tok.isOp(",") || p.tok.isOp("]"); !ok {
		p.tok, p.lex = tok, lex
	}
	return v, ok, nil
}
