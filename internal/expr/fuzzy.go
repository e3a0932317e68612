package expr

import (
	"unicode/utf8"

	"github.com/querynode/querynode/internal/analyze"
)

// maxEdits is the largest max_edit_distance of text_match_fuzzy.
const maxEdits = 2

// fuzzyPred is text_match_fuzzy: one word of the text is one of the words but for at
// most edits characters that are added, left out, replaced or swapped with the next.
type fuzzyPred struct {
	ref
	scan  int // into scratch.scans
	neg   bool
	edits int
	words [][]rune
}

func newFuzzyPred(f ref, scan int, a analyze.Analyzer, words string, edits int64, neg bool) pred {
	p := &fuzzyPred{ref: f, scan: scan, neg: neg, edits: int(edits)}
	seen := map[string]bool{}
	for _, w := range a.Tokens(words) {
		if !seen[w] {
			seen[w] = true
			p.words = append(p.words, []rune(w))
		}
	}
	return p
}

func (p *fuzzyPred) eval(s *scratch, b block, in, out []uint64) {
	sc := s.scans[p.scan]
	var e editor
	eachText(s.cols[p.slot].Str, p.ref, s, b, in, out, func(text string) bool {
		return p.holds(&e, sc, text) != p.neg
	})
}

func (p *fuzzyPred) holds(e *editor, sc *analyze.Scanner, text string) bool {
	for sc.Reset(text); sc.Next(); {
		e.word = e.word[:0]
		for t := sc.Token(); len(t) > 0; {
			r, n := utf8.DecodeRune(t)
			e.word = append(e.word, r)
			t = t[n:]
		}
		for _, w := range p.words {
			if e.within(w, p.edits) {
				return true
			}
		}
	}
	return false
}

func (p *fuzzyPred) cost() int { return 500 + 60*min(len(p.words), 20) }

func (p *fuzzyPred) mayMatch(st statistics) bool {
	_, _, some, _ := p.bounds(st)
	return some
}

// editor tells how far words are from one another.
type editor struct {
	word []rune
	rows [3][]int
}

// within reports whether the restricted Damerau-Levenshtein distance (an edit is
// one character added, removed, replaced, or two neighbours swapped) of w and
// e.word is at most limit.
func (e *editor) within(w []rune, limit int) bool {
	if d := len(w) - len(e.word); d > limit || -d > limit {
		return false
	}
	for i := range e.rows {
		e.rows[i] = resize(e.rows[i], len(e.word)+1)
	}
	before, last, row := e.rows[0], e.rows[1], e.rows[2]
	for j := range last {
		last[j] = j
	}
	for i, a := range w {
		row[0] = i + 1
		least := row[0]
		for j, b := range e.word {
			d := last[j] + int(b2i(a != b))
			d = min(d, row[j]+1, last[j+1]+1)
			if i > 0 && j > 0 && a == e.word[j-1] && w[i-1] == b {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = d
			least = min(least, d)
		}
		if least > limit {
			return false
		}
		before, last, row = last, row, before
	}
	return last[len(e.word)] <= limit
}
