package expr

import (
	"strings"
	"unicode/utf8"
)

// pattern is a compiled like pattern: pieces of text separated by %. A value
// matches when the first piece stands at its start, the last at its end, and
// those between follow one another.
type pattern struct {
	pieces []piece
	exact  bool // no % at all: the one piece is the whole value
	head   piece
	tail   piece
}

// piece is text with no % in it. Where one is true in wild, any one character
// stands instead of the byte.
type piece struct {
	text string
	wild []bool // nil: no _ in it
	lead int    // bytes before the first _
	// Between two % characters are skipped before text, and after it, that may be any.
	// Neither text nor wild has the _ for them then.
	before, after int
	bits          *bitPiece // of a long text with _ in it; else nil
}

// between makes q one between two %: where it is found first does not depend on which
// characters stand at its ends, so that these need not be tried at each place.
func (q piece) between() piece {
	if q.wild == nil {
		return q
	}
	for len(q.text) > 0 && q.wild[0] {
		q.text, q.wild, q.before = q.text[1:], q.wild[1:], q.before+1
	}
	for n := len(q.text); n > 0 && q.wild[n-1]; n-- {
		q.text, q.wild, q.after = q.text[:n-1], q.wild[:n-1], q.after+1
	}
	if q.lead = strings.IndexByte(boolText(q.wild), 1); q.lead < 0 {
		q.lead, q.wild = len(q.text), nil
	}
	q.bits = newBitPiece(&q)
	return q
}

// skip returns the length of the first n characters of s, -1 if it has fewer.
func skip(s string, n int) int {
	at := 0
	for ; n > 0; n-- {
		if at == len(s) {
			return -1
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
	return at
}

const escapeChar = '\\'

// compileLike compiles a pattern. A backslash takes the next character
// literally; a last one stands for itself.
func compileLike(s string) *pattern {
	p := &pattern{}
	var text []byte
	var wild []bool
	any := false
	flush := func() {
		q := piece{text: string(text), lead: len(text)}
		if any {
			q.wild = append([]bool(nil), wild...)
			q.lead = strings.IndexByte(boolText(wild), 1)
		}
		p.pieces = append(p.pieces, q)
		text, wild, any = text[:0], wild[:0], false
	}
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '%':
			flush()
			continue
		case c == '_':
			any = true
		case c == escapeChar && i+1 < len(s):
			i++
			c = s[i]
			text, wild = append(text, c), append(wild, false)
			continue
		}
		text, wild = append(text, c), append(wild, c == '_')
	}
	flush()
	last := len(p.pieces) - 1
	p.exact = last == 0
	p.head, p.tail = p.pieces[0], p.pieces[last]
	if p.exact {
		p.pieces = nil
		return p
	}
	inner := p.pieces[1:last]
	p.pieces = nil
	for _, q := range inner {
		if q.text != "" {
			p.pieces = append(p.pieces, q.between())
		}
	}
	return p
}

func boolText(b []bool) string {
	t := make([]byte, len(b))
	for i, x := range b {
		if x {
			t[i] = 1
		}
	}
	return string(t)
}

// match reports whether s matches. It takes time len(s) for pieces without _ between
// other characters, with at worst len(s) times 64, or the piece's length if that is less.
func (p *pattern) match(s string) bool {
	n := p.head.matchAt(s)
	if n < 0 {
		return false
	}
	if p.exact {
		return n == len(s)
	}
	s = s[n:]
	end := p.tail.matchEnd(s)
	if end < 0 {
		return false
	}
	s = s[:end]
	for i := range p.pieces {
		if n = p.pieces[i].find(s); n < 0 {
			return false
		}
		s = s[n:]
	}
	return true
}

// matchAt returns the length of the match at the start of s, -1 if none.
func (q *piece) matchAt(s string) int {
	if q.wild == nil {
		if strings.HasPrefix(s, q.text) {
			return len(q.text)
		}
		return -1
	}
	at := 0
	for i := 0; i < len(q.text); i++ {
		switch {
		case at >= len(s):
			return -1
		case q.wild[i]:
			_, size := utf8.DecodeRuneInString(s[at:])
			at += size
		case s[at] != q.text[i]:
			return -1
		default:
			at++
		}
	}
	return at
}

// matchEnd returns where the match that ends s starts, -1 if none.
func (q *piece) matchEnd(s string) int {
	if q.wild == nil {
		if strings.HasSuffix(s, q.text) {
			return len(s) - len(q.text)
		}
		return -1
	}
	at := len(s)
	for i := len(q.text) - 1; i >= 0; i-- {
		switch {
		case at == 0:
			return -1
		case q.wild[i]:
			_, size := utf8.DecodeLastRuneInString(s[:at])
			at -= size
		case s[at-1] != q.text[i]:
			return -1
		default:
			at--
		}
	}
	return at
}

// find returns where the first match in s ends, -1 if there is none.
func (q *piece) find(s string) int {
	if q.before == 0 && q.after == 0 {
		return q.findText(s)
	}
	from := skip(s, q.before)
	if from < 0 {
		return -1
	}
	to := q.findText(s[from:])
	if to < 0 {
		return -1
	}
	end := skip(s[from+to:], q.after)
	if end < 0 {
		return -1
	}
	return from + to + end
}

// findText is find for the text alone. It begins and ends with what is no _.
func (q *piece) findText(s string) int {
	if q.wild == nil {
		if i := strings.Index(s, q.text); i >= 0 {
			return i + len(q.text)
		}
		return -1
	}
	for at, tries := 0, 0; ; tries++ {
		i := strings.Index(s[at:], q.text[:q.lead])
		if i < 0 {
			return -1
		}
		at += i
		if tries == bitsAfter && q.bits != nil && utf8.ValidString(s[at:]) {
			if i = q.bits.find(s[at:]); i < 0 {
				return -1
			}
			return at + i
		}
		if n := q.matchAt(s[at:]); n >= 0 {
			return at + n
		}
		if at >= len(s) {
			return -1
		}
		_, size := utf8.DecodeRuneInString(s[at:])
		at += size
	}
}
