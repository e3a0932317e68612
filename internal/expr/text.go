package expr

import (
	"slices"
	"strconv"
	"strings"

	"github.com/querynode/querynode/internal/analyze"
)

// textForm is what the three functions on words differ in, besides what they do.
type textForm struct {
	fn          string
	kind        nodeKind
	option      string // its name, "" if the third argument is the number alone
	must        bool   // there has to be a third argument
	count       int64  // if it is left out
	least, most int64
	words       int // how many the text may have
}

var textForms = [...]textForm{
	{fn: "text_match", kind: nTextMatch, option: "minimum_should_match", count: 1, least: 1, most: maxTextWords, words: maxTextWords},
	{fn: "phrase_match", kind: nPhraseMatch, most: maxTextWords, words: maxPhraseWords},
	{fn: "text_match_fuzzy", kind: nFuzzyMatch, option: "max_edit_distance", must: true, most: maxEdits, words: maxPhraseWords},
}

func textFormOf(kind nodeKind) *textForm {
	for i := range textForms {
		if textForms[i].kind == kind {
			return &textForms[i]
		}
	}
	return nil
}

// textCall parses the arguments of a function on words; p.tok is at the bracket.
func (p *parser) textCall(name *node, fn string) (*node, error) {
	form := &textForms[slices.IndexFunc(textForms[:], func(f textForm) bool { return f.fn == fn })]
	n := &node{kind: form.kind, pos: name.pos, depth: 1, count: form.count}
	for i := range 2 {
		if i > 0 && !p.tok.isOp(",") {
			return nil, p.expected(`"," and the words that ` + fn + " looks for")
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		a, err := p.primary()
		if err != nil {
			return nil, err
		}
		n.kids = append(n.kids, a)
	}
	if !p.tok.isOp(",") {
		if form.must {
			return nil, p.expected(strconv.Quote(", " + form.option + "=N"))
		}
		return n, p.take(")")
	}
	if err := p.advance(); err != nil {
		return nil, err
	}
	if form.option != "" {
		if !p.tok.isWord(form.option) {
			return nil, p.expected(strconv.Quote(form.option))
		}
		if err := p.advance(); err != nil {
			return nil, err
		}
		if err := p.take("="); err != nil {
			return nil, err
		}
	}
	c, err := p.primary()
	if err != nil {
		return nil, err
	}
	if c.kind != nConst || c.val.k != kInt || c.val.i < form.least || c.val.i > form.most {
		return nil, p.fail(c.pos, "want a number from %d to %d", form.least, form.most)
	}
	n.count = c.val.i
	return n, p.take(")")
}

// How many words text_match and phrase_match take; also the largest slop.
const (
	maxTextWords   = 1000
	maxPhraseWords = 100
)

func (n *node) printText(b *strings.Builder) {
	form := textFormOf(n.kind)
	b.WriteString(form.fn + "(")
	n.kids[0].print(b, 0)
	b.WriteString(", ")
	n.kids[1].print(b, 0)
	if form.must || n.count != form.count {
		b.WriteString(", " + pick(form.option == "", "", form.option+"=") + strconv.FormatInt(n.count, 10))
	}
	b.WriteByte(')')
}

func (b *binder) textMatch(n *node) error {
	n.typ = kCond
	form := textFormOf(n.kind)
	fn := form.fn
	name, words := n.kids[0], n.kids[1]
	if name.kind == nName {
		if err := b.name(name); err != nil {
			return err
		}
	}
	if name.kind != nName || name.typ != kString || name.base != nil {
		return b.fail(name, "%s needs a VarChar field", fn)
	}
	if words.kind != nConst || words.val.k != kString {
		return b.fail(words, "%s needs words in quotes", fn)
	}
	words.typ = kString
	a, err := analyze.New(name.field.Analyzer)
	if err != nil {
		return b.fail(name, "field %q: %s", name.field.Name, err)
	}
	if k := len(a.Tokens(words.val.s)); k > form.words {
		return b.fail(words, "%d words, at most %d are allowed", k, form.words)
	}
	return nil
}

func (pl *planner) textMatch(n *node, neg bool) pred {
	f := pl.ref(n.kids[0])
	a, _ := analyze.New(f.field.Analyzer) // the binder has checked it
	words := n.kids[1].val.s
	pl.scans = append(pl.scans, a)
	scan := len(pl.scans) - 1
	switch n.kind {
	case nPhraseMatch:
		return newPhrasePred(f, scan, a, words, n.count, neg)
	case nFuzzyMatch:
		return newFuzzyPred(f, scan, a, words, n.count, neg)
	}
	p := &textPred{ref: f, scan: scan, neg: neg, words: map[string]int{}}
	for _, w := range a.Tokens(words) {
		if _, ok := p.words[w]; !ok {
			p.words[w] = len(p.words)
		}
	}
	p.need = int(n.count)
	return p
}

// textPred is text_match: the text holds need of the words.
type textPred struct {
	ref
	scan  int // into scratch.scans
	neg   bool
	words map[string]int
	need  int
}

func (p *textPred) eval(s *scratch, b block, in, out []uint64) {
	sc := s.scans[p.scan]
	eachText(s.cols[p.slot].Str, p.ref, s, b, in, out, func(text string) bool {
		return p.holds(s, sc, text) != p.neg
	})
}

// eachText sets out to the rows of in that are not null and for whose text holds is true.
func eachText(texts []string, f ref, s *scratch, b block, in, out []uint64, holds func(string) bool) {
	c := s.cols[f.slot]
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		var r uint64
		for m &= validWord(c, lo, hi); m != 0; {
			i := nextBit(&m)
			if s.over(len(texts[lo+i])) {
				return
			}
			if holds(texts[lo+i]) {
				r |= 1 << i
			}
		}
		out[w] = r
	}
}

func (p *textPred) holds(s *scratch, sc *analyze.Scanner, text string) bool {
	if p.need > len(p.words) {
		return false
	}
	s.seen = append(s.seen[:0], make([]uint64, (len(p.words)+63)/64)...)
	found := 0
	for sc.Reset(text); sc.Next(); {
		i, ok := p.words[string(sc.Token())]
		if !ok || s.seen[i>>6]>>(i&63)&1 != 0 {
			continue
		}
		s.seen[i>>6] |= 1 << (i & 63)
		if found++; found >= p.need {
			return true
		}
	}
	return false
}

func (p *textPred) cost() int { return 500 }

func (p *textPred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}

// phrasePred is phrase_match: the words in their order, where moving them costs at most slop.
//
// Each word of the phrase has places in the text. A place less the word's own
// place in the phrase is where the phrase would begin. The text matches when there is
// one such beginning for each word so that the latest is at most slop behind
// the first, which is Lucene's sloppy phrase. A word that is twice in the phrase
// may be found once in the text if slop allows it.
type phrasePred struct {
	ref
	scan  int
	neg   bool
	words map[string]int // number of a word
	terms []phraseTerm
	slop  int
}

// phraseTerm is a word of the phrase: its number and its place.
type phraseTerm struct{ word, place int }

// phraseScratch is where the words are in a text, and how far each term has come.
type phraseScratch struct {
	places [][]int // by number of the word
	next   []int   // by term, into places
}

func newPhrasePred(f ref, scan int, a analyze.Analyzer, phrase string, slop int64, neg bool) pred {
	p := &phrasePred{ref: f, scan: scan, neg: neg, words: map[string]int{}, slop: int(slop)}
	sc := a.Scan()
	for sc.Reset(phrase); sc.Next(); {
		w, ok := p.words[string(sc.Token())]
		if !ok {
			w = len(p.words)
			p.words[string(sc.Token())] = w
		}
		p.terms = append(p.terms, phraseTerm{word: w, place: sc.Position()})
	}
	return p
}

func (p *phrasePred) eval(s *scratch, b block, in, out []uint64) {
	sc := s.scans[p.scan]
	ps := &phraseScratch{places: make([][]int, len(p.words)), next: make([]int, len(p.terms))}
	eachText(s.cols[p.slot].Str, p.ref, s, b, in, out, func(text string) bool {
		return p.holds(sc, text, ps) != p.neg
	})
}

func (p *phrasePred) holds(sc *analyze.Scanner, text string, ps *phraseScratch) bool {
	for i := range ps.places {
		ps.places[i] = ps.places[i][:0]
	}
	for sc.Reset(text); sc.Next(); {
		if w, ok := p.words[string(sc.Token())]; ok {
			ps.places[w] = append(ps.places[w], sc.Position())
		}
	}
	if len(p.terms) == 0 || slices.ContainsFunc(ps.places, func(l []int) bool { return len(l) == 0 }) {
		return false
	}
	return p.narrow(ps)
}

// narrow looks for one beginning of each term so that all lie within slop: the
// term that begins first moves on, until one has no more.
func (p *phrasePred) narrow(ps *phraseScratch) bool {
	clear(ps.next)
	for {
		first, least, most := 0, 0, 0
		for i, t := range p.terms {
			begin := ps.places[t.word][ps.next[i]] - t.place
			if i == 0 || begin < least {
				first, least = i, begin
			}
			if i == 0 || begin > most {
				most = begin
			}
		}
		if most-least <= p.slop {
			return true
		}
		if ps.next[first]++; ps.next[first] == len(ps.places[p.terms[first].word]) {
			return false
		}
	}
}

func (p *phrasePred) cost() int { return 600 }

func (p *phrasePred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}
