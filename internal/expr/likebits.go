package expr

import "unicode/utf8"

// bitPiece finds a long piece with _ in it in one pass (shift-and, Baeza-Yates and Gonnet 1992): bit n of
// the state says that the last n+1 characters of the text are the first n+1 of the piece.
type bitPiece struct {
	words int // of a state
	last  int // number of the last character
	// masks has a state for each character of the piece, the places where it may stand; the
	// first is that of all other characters, where there is a _.
	masks []uint64
	ascii [utf8.RuneSelf]uint16 // which of masks
	runes map[rune]uint16
}

const (
	// bitsFrom is the length in bytes from which a piece has a bitPiece. Shorter ones
	// cost less than so many comparisons a byte without.
	bitsFrom = 65
	// bitsAfter is after how many places where a piece did not match its bitPiece goes on.
	bitsAfter = 64
)

// newBitPiece returns nil if q is short or no valid text.
func newBitPiece(q *piece) *bitPiece {
	if q.wild == nil || len(q.text) < bitsFrom || !utf8.ValidString(q.text) {
		return nil
	}
	n := utf8.RuneCountInString(q.text)
	b := &bitPiece{words: (n + 63) / 64, last: n - 1, runes: map[rune]uint16{}}
	b.masks = make([]uint64, b.words)
	n = 0
	for i := range q.text {
		if q.wild[i] {
			b.masks[n>>6] |= 1 << (n & 63)
		}
		n++
	}
	n = 0
	for i, r := range q.text {
		if !q.wild[i] {
			b.row(r)[n>>6] |= 1 << (n & 63)
		}
		n++
	}
	return b
}

// row returns the mask of r, which it makes.
func (b *bitPiece) row(r rune) []uint64 {
	k := b.number(r)
	if k == 0 {
		k = uint16(len(b.masks) / b.words)
		b.masks = append(b.masks, b.masks[:b.words]...)
		if r < utf8.RuneSelf {
			b.ascii[r] = k
		} else {
			b.runes[r] = k
		}
	}
	return b.masks[int(k)*b.words:][:b.words]
}

func (b *bitPiece) number(r rune) uint16 {
	if r < utf8.RuneSelf {
		return b.ascii[r]
	}
	return b.runes[r]
}

// find returns where the first match in s, which is valid text, ends; -1 if there is none.
func (b *bitPiece) find(s string) int {
	var state [MaxPattern / 64]uint64
	d := state[:b.words]
	for at, r := range s {
		mask := b.masks[int(b.number(r))*b.words:][:len(d)]
		carry := uint64(1)
		for w, x := range d {
			d[w] = (x<<1 | carry) & mask[w]
			carry = x >> 63
		}
		if d[b.last>>6]>>(b.last&63)&1 != 0 {
			return at + utf8.RuneLen(r)
		}
	}
	return -1
}
