package expr

import (
	"context"
	"math"
	"strings"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/scalarindex"
	"github.com/querynode/querynode/internal/schema"
)

// pathText writes the steps of a path as in ["a"][0]; indexes of paths are known by it.
func pathText(path []step) string {
	var b strings.Builder
	(&node{path: path}).printName(&b)
	return b.String()
}

// maxExact is the largest integer of which float64 has all smaller ones.
const maxExact = 1 << 53

// IndexPath builds the index of a path, which is written as in ["a"][0], over a column of JSON; nil if a
// value is an integer that a float64 does not hold, or if its texts that have escapes take more than so many bytes. Where
// the elements of arrays take more than so many, it knows none of them. It takes scalarindex.PathRoom beside all
// these. The error is that of ctx, or of class Invalid if the path is none.
func IndexPath(ctx context.Context, c *schema.Column, path string, texts, elements int64) (*scalarindex.Path, error) {
	n, err := parse("x"+path, nil, "")
	if err != nil || n.kind != nName {
		return nil, errclass.New(errclass.Invalid, "%q is no path", clip(path))
	}
	v := scalarindex.NewPathValues(c.Rows(), texts)
	v.Elements = scalarindex.NewElementValues(c.Rows(), elements)
	var x value
	var decoded []byte
	var ok bool
	for i, doc := range c.Str {
		if i&4095 == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if c.Null(i) {
			continue
		}
		bit := uint64(1) << (i & 63)
		v.Valid[i>>6] |= bit
		at := findJSON(doc, n.path)
		if (jsonExists{}).test(nil, doc, at) == yes {
			v.Solid[i>>6] |= bit
		}
		x, decoded = readJSON(doc, at, decoded[:0])
		switch x.k {
		case kBool:
			v.Bool[x.i][i>>6] |= bit
		case kInt:
			if x.i > maxExact || x.i < -maxExact {
				return nil, nil
			}
			v.Number[i], v.IsNumber[i] = float64(x.i), true
		case kFloat:
			v.Number[i], v.IsNumber[i] = x.f, true
		case kString:
			if len(decoded) > 0 {
				if x.s, ok = v.Copy(x.s); !ok {
					return nil, nil
				}
			}
			v.Text[i], v.IsText[i] = x.s, true
		case kArray:
			if v.Elements != nil {
				if decoded, ok = indexElements(v, i, doc, at, decoded); !ok {
					v.Elements = nil
				}
			}
		}
	}
	return scalarindex.NewPath(ctx, v)
}

// maxPathText is the longest path that gets an index: segments keep the texts of those that filters name.
const maxPathText = 1024

// askPath returns the index of a path, nil if there is none.
func askPath(ix Indexes, fieldID int64, path []step) *scalarindex.Path {
	text := pathText(path)
	if len(text) > maxPathText {
		return nil
	}
	return ix.Path(fieldID, text)
}

// lookup asks the index of the path.
func (p *jsonPred) lookup(ix Indexes, n int) *lookup {
	if p.field.ID == derivedID || len(p.path) == 0 || len(p.path) > MaxPath {
		return nil
	}
	switch c := p.cond.(type) {
	case *jsonCompare:
		if !c.simple() {
			return nil
		}
	case *jsonIn, jsonExists:
	case *jsonContains:
		if c.set.kinds[kArray] {
			return nil
		}
	case *jsonLike:
		if p.neg || c.pattern.head.lead == 0 {
			return nil
		}
	default:
		return nil
	}
	at := askPath(ix, p.field.ID, p.path)
	if at == nil {
		return nil
	}
	switch c := p.cond.(type) {
	case *jsonCompare:
		return c.lookup(at, p.neg, n)
	case *jsonIn:
		return c.lookup(at, p.neg, n)
	case *jsonContains:
		return membersOf(at, c.set.list, c.mode == containsAll, p.neg, n)
	case *jsonLike:
		if at.Texts == nil {
			return newLookup(0, n, false, nil, func([]uint64) {})
		}
		return c.pattern.begins(at.Texts, n)
	}
	return newLookup(countBits(at.Solid, 0, n), n, p.neg, at.Valid, func(out []uint64) { or(out, at.Solid) })
}

func or(out, in []uint64) {
	for i, w := range in {
		out[i] |= w
	}
}

// simple reports whether an index may answer: comparisons with numbers, or one with a text or a bool.
func (j *jsonCompare) simple() bool {
	for i := range j.all {
		switch c := &j.all[i]; c.val.k {
		case kInt, kFloat:
			if c.op == opNe && len(j.all) > 1 {
				return false
			}
		case kString, kBool:
			if len(j.all) > 1 {
				return false
			}
		default:
			return false
		}
	}
	return true
}

func (j *jsonCompare) lookup(at *scalarindex.Path, neg bool, n int) *lookup {
	none := newLookup(0, n, false, nil, func([]uint64) {})
	first := j.all[0]
	neg = neg != (first.op == opNe)
	switch first.val.k {
	case kString:
		if at.Texts == nil {
			return none
		}
		return textLookup(at.Texts, first, neg, n)
	case kBool:
		rows := at.Bools[first.val.i]
		if neg {
			rows = at.Bools[1-first.val.i]
		}
		return newLookup(countBits(rows, 0, n), n, false, nil, func(out []uint64) { or(out, rows) })
	}
	if at.Numbers == nil {
		return none
	}
	iv := interval[float64]{lo: math.Inf(-1), hi: math.Inf(1)}
	for _, c := range j.all {
		op := c.op
		if op == opNe {
			op = opEq
		}
		iv = iv.and(doubleInterval(op, c.val))
	}
	if iv.empty() {
		return newLookup(0, n, neg, at.Numbers.Valid(), func([]uint64) {})
	}
	return newLookup(at.Numbers.Count(iv.lo, iv.hi), n, neg, at.Numbers.Valid(), func(out []uint64) { at.Numbers.Add(iv.lo, iv.hi, out) })
}

// textLookup looks up one comparison of texts, opNe being the negation of opEq.
func textLookup(o *scalarindex.Ordered[string], c comparison, neg bool, n int) *lookup {
	var l *lookup
	switch next := c.val.s + "\x00"; c.op {
	case opLt:
		l = texts(o, "", &c.val.s, n)
	case opLe:
		l = texts(o, "", &next, n)
	case opGt:
		l = texts(o, next, nil, n)
	case opGe:
		l = texts(o, c.val.s, nil, n)
	default:
		return listed(o, []string{c.val.s}, neg, n)
	}
	return newLookup(l.rows, n, neg, o.Valid(), l.add)
}

func (j *jsonIn) lookup(at *scalarindex.Path, neg bool, n int) *lookup {
	var floats []float64
	var words []string
	l := &lookup{exact: true}
	for _, v := range j.set.list {
		switch v.k {
		case kInt, kFloat:
			if iv := doubleInterval(opEq, v); !iv.empty() {
				floats = append(floats, iv.lo)
			}
		case kString:
			words = append(words, v.s)
		default:
			return nil
		}
	}
	if at.Numbers != nil && j.set.kinds[family(kInt)] {
		l.any = append(l.any, listed(at.Numbers, sortedUnique(floats), neg, n))
	}
	if at.Texts != nil && j.set.kinds[family(kString)] {
		l.any = append(l.any, listed(at.Texts, sortedUnique(words), neg, n))
	}
	for _, one := range l.any {
		if one == nil {
			return nil
		}
		l.rows, l.price = min(n, l.rows+one.rows), l.price+one.price
	}
	if l.any == nil {
		return newLookup(0, n, false, nil, func([]uint64) {})
	}
	return l
}
