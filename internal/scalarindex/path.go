package scalarindex

import (
	"context"
	"strings"
)

// Path is an index of the values at one path of JSON documents: numbers and texts in order,
// and which rows hold true, false, or anything that is not empty.
type Path struct {
	Numbers *Ordered[float64] // nil = no row has a number there
	Texts   *Ordered[string]  // nil = no row has a text there
	Bools   [2][]uint64       // rows with false, rows with true
	Solid   []uint64          // rows for which exists holds
	Valid   []uint64          // rows whose document is not null

	Elements *PathElements // of the arrays there; nil = they are too many, or not all numbers are exact
	own      int64
}

// PathValues collects the values of one path, row by row.
type PathValues struct {
	Number           []float64
	Text             []string
	IsNumber, IsText []bool
	Bool             [2][]uint64
	Solid, Valid     []uint64
	Elements         *ElementValues  // nil = they are given up
	texts            int64           // bytes that copies of texts may still take
	copied           int64           // bytes that they take
	copies           strings.Builder // the last of them, with room for more
}

// PathRoom is the most memory that building the index of a path of so many rows takes, without copies of texts:
// and without elements of arrays: for each row its values, and the largest of what sorts them.
func PathRoom(rows int) int64 { return 112 * int64(rows) }

// NewPathValues returns values of n rows, none of which has any. Copies of texts may take so many bytes.
func NewPathValues(n int, texts int64) *PathValues {
	w := (n + 63) / 64
	return &PathValues{texts: texts, Number: make([]float64, n), Text: make([]string, n), IsNumber: make([]bool, n), IsText: make([]bool, n),
		Bool: [2][]uint64{make([]uint64, w), make([]uint64, w)}, Solid: make([]uint64, w), Valid: make([]uint64, w)}
}

// copyPiece is how much memory is taken at once for copies of texts: each for itself takes up to a half more.
const copyPiece = 64 << 10

// Copy copies a text that is no part of the column; false if copies would take more than they may.
func (v *PathValues) Copy(text string) (string, bool) {
	if len(text) > v.copies.Cap()-v.copies.Len() {
		if int64(len(text)) > v.texts {
			return "", false
		}
		v.copies = strings.Builder{}
		v.copies.Grow(max(len(text), int(min(copyPiece, v.texts))))
		v.texts -= int64(v.copies.Cap())
		v.copied += int64(v.copies.Cap())
	}
	from := v.copies.Len()
	v.copies.WriteString(text)
	return v.copies.String()[from:], true
}

// NewPath builds the index; the error is that of ctx. It keeps v.
func NewPath(ctx context.Context, v *PathValues) (*Path, error) {
	n := len(v.Number)
	p := &Path{Bools: v.Bool, Solid: v.Solid, Valid: v.Valid, own: v.copied + 4*8*int64(len(v.Solid))}
	var err error
	if some(v.IsNumber) {
		if p.Numbers, err = NewOrdered(ctx, v.Number, v.IsNumber); err != nil {
			return nil, err
		}
		p.own += 8*int64(n) + p.Numbers.Bytes()
	}
	if some(v.IsText) {
		if p.Texts, err = NewOrdered(ctx, v.Text, v.IsText); err != nil {
			return nil, err
		}
		p.own += 16*int64(n) + p.Texts.Bytes()
	}
	if v.Elements != nil {
		p.Elements = v.Elements.finish()
		p.own += p.Elements.bytes
	}
	return p, ctx.Err()
}

func some(b []bool) bool {
	for _, x := range b {
		if x {
			return true
		}
	}
	return false
}

// Bytes is the memory the index takes, with the values that it has in order.
func (p *Path) Bytes() int64 { return p.own }
