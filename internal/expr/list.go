package expr

import "strings"

// list parses a list of constants; p.tok is at the bracket.
func (p *parser) list() (*node, error) {
	start := p.tok.pos
	n := &node{kind: nConst, pos: start, val: value{k: kArray}}
	if err := p.nest(start); err != nil {
		return nil, err
	}
	p.lists++
	p.plain(&n.val)
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
		p.plain(&n.val)
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

// plain takes the elements that stand next and are decimal integers or texts without a
// backslash, as nearly all are: lists may be long, and tokens cost several times as much. What is
// written in any other way, right or wrong, is left, from its element on. Then comes an
// element or the bracket.
func (p *parser) plain(list *value) {
	text := p.lex.text
	if list.list == nil {
		list.list = make([]value, 0, guessLength(text[p.lex.pos:]))
	}
	for len(list.list) < MaxList {
		at := p.lex.pos
		for at < len(text) && isSpace(text[at]) {
			at++
		}
		v, end := plainText(text, at)
		if end < 0 {
			v, end = plainInt(text, at)
		}
		for end >= 0 && end < len(text) && isSpace(text[end]) {
			end++
		}
		if end < 0 || end == len(text) || text[end] != ',' && text[end] != ']' {
			return
		}
		list.list = append(list.list, v)
		if p.lex.pos = end; text[end] == ']' {
			return
		}
		p.lex.pos++
	}
}

// guessLength is how many elements a list may have whose text begins so: as many as commas come
// before a bracket, which texts may hold, too. It looks at the beginning only and guesses low,
// since lists may be nested.
func guessLength(text string) int {
	const look, most = 4 << 10, 256
	text = text[:min(len(text), look)]
	if end := strings.IndexByte(text, ']'); end >= 0 {
		text = text[:end]
	}
	return min(strings.Count(text, ",")+1, most)
}

// plainInt reads the digits at text[at:], fewer than may overflow, perhaps after a minus; end
// is behind them, -1 if there is something else.
func plainInt(text string, at int) (v value, end int) {
	neg := at < len(text) && text[at] == '-'
	if neg {
		at++
	}
	const most = 18
	i, from := int64(0), at
	for at < len(text) && isDigit(text[at]) && at-from <= most {
		i = 10*i + int64(text[at]-'0')
		at++
	}
	if n := at - from; n == 0 || n > most || n > 1 && text[from] == '0' { // 010 is octal
		return v, -1
	}
	if neg {
		i = -i
	}
	return intValue(i), at
}

// plainText reads the text in quotes at text[at:].
func plainText(text string, at int) (v value, end int) {
	if at == len(text) || text[at] != '"' && text[at] != '\'' {
		return v, -1
	}
	quote, from := text[at], at+1
	for at = from; at < len(text); at++ {
		switch text[at] {
		case quote:
			return stringValue(text[from:at]), at + 1
		case '\\', '\n', '\r':
			return v, -1
		}
	}
	return v, -1
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
