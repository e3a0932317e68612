package expr

import (
	"math"

	"github.com/querynode/querynode/internal/schema"
)

// rowOp is an instruction of the row-at-a-time machine, which takes what the
// faster leaves do not: JSON values on both sides or in arithmetic, columns
// compared with columns. It works on a stack of values.
type rowOp struct {
	code rowCode
	op   arithOp
	slot int
	path []step
	val  value
}

type rowCode uint8

const (
	rColumn rowCode = iota
	rConst
	rPath
	rLength // number of elements of the array at path
	rNeg
	rArith
)

// rowPred runs its code, which leaves one value or two, and applies a test.
type rowPred struct {
	refs []ref
	code []rowOp
	op   cmpOp     // compares the two values left
	set  *valueSet // not nil: is the one value left a member
	neg  bool
}

func (p *rowPred) eval(s *scratch, b block, in, out []uint64) {
	want := yes
	if p.neg {
		want = no
	}
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		for i := range p.refs {
			m &= validWord(s.cols[p.refs[i].slot], lo, hi)
		}
		var r uint64
		for m != 0 {
			i := nextBit(&m)
			if p.row(s, lo+i) == want {
				r |= 1 << i
			}
		}
		out[w] = r
	}
}

func (p *rowPred) cost() int { return 60 + 40*len(p.code) }

func (p *rowPred) row(s *scratch, row int) tri {
	s.buf = s.buf[:0]
	st := s.stack[:0]
	for k := range p.code {
		o := &p.code[k]
		switch o.code {
		case rColumn:
			st = append(st, cell(s.cols[o.slot], row))
		case rConst:
			st = append(st, o.val)
		case rPath:
			doc := s.cols[o.slot].Str[row]
			var v value
			v, s.buf = readJSON(doc, findJSON(doc, o.path), s.buf)
			st = append(st, v)
		case rLength:
			doc := s.cols[o.slot].Str[row]
			st = append(st, arrayLength(doc, findJSON(doc, o.path)))
		case rNeg:
			top := &st[len(st)-1]
			*top = negate(*top)
		case rArith:
			a, b := &st[len(st)-2], st[len(st)-1]
			*a = arith(o.op, *a, b)
			st = st[:len(st)-1]
		}
	}
	s.stack = st[:0]
	if p.set == nil {
		return compareValues(p.op, st[0], st[1])
	}
	if v := st[0]; p.set.kinds[family(v.k)] {
		return triOf(p.set.index(v) >= 0)
	}
	return unknown
}

func negate(v value) value {
	switch {
	case v.k == kFloat:
		return floatValue(-v.f)
	case v.k == kInt && v.i != math.MinInt64:
		return intValue(-v.i)
	}
	return value{}
}

// cell is the value of one row of a column that is no JSON column.
func cell(c *schema.Column, row int) value {
	switch {
	case c.Type == schema.Bool:
		return boolValue(c.Bool[row])
	case c.Type == schema.Float:
		return floatValue(float64(c.Float[row]))
	case c.Type == schema.Double:
		return floatValue(c.Double[row])
	case c.Type == schema.VarChar:
		return stringValue(c.Str[row])
	}
	return intValue(c.Int[row])
}

// compile appends the instructions that push n's value.
func (p *rowPred) compile(pl *planner, n *node) {
	switch n.kind {
	case nConst:
		p.code = append(p.code, rowOp{code: rConst, val: n.val})
	case nName, nLength:
		name, code := n, rPath
		switch {
		case n.typ != kDyn:
			code = rColumn
		case n.kind == nLength:
			name, code = n.kids[0], rLength
		}
		r := pl.ref(name)
		p.refs = append(p.refs, r)
		p.code = append(p.code, rowOp{code: code, slot: r.slot, path: name.path})
	case nNeg:
		p.compile(pl, n.kids[0])
		p.code = append(p.code, rowOp{code: rNeg})
	case nArith:
		p.compile(pl, n.kids[0])
		p.compile(pl, n.kids[1])
		p.code = append(p.code, rowOp{code: rArith, op: arithOp(n.op)})
	}
}
