package expr

import (
	"cmp"
	"math"

	"github.com/querynode/querynode/internal/schema"
)

// register holds the values of 64 rows, as integers or as floats, and which of
// them there are.
type register struct {
	i     [64]int64
	f     [64]float64
	valid uint64
}

// vectorOp is an instruction of arithmetic on numeric columns: it works on the
// top of a stack of registers, 64 rows at a time.
type vectorOp struct {
	code vectorCode
	op   arithOp
	slot int
	i    int64
	f    float64
	div  divisor // of vArithBy that divides
}

type vectorCode uint8

const (
	vColumn   vectorCode = iota // push a column
	vInt                        // push the constant i
	vFloat                      // push the constant f
	vToFloat                    // top becomes float
	vUnder                      // the one below the top becomes float
	vNeg                        // negate an integer
	vNegF                       // negate a float
	vMonths                     // add i months to a time
	vArith                      // integer arithmetic of the two on top
	vArithF                     // float arithmetic of the two on top
	vArithBy                    // integer arithmetic of the top and the constant i
	vDivideBy                   // the top divided by div
	vRestBy                     // what is left of that
	vArithByF                   // float arithmetic of the top and the constant f
)

// vectorPred compares the results of two programs, which stand one after the
// other in code.
type vectorPred struct {
	refs   []ref
	code   []vectorOp
	depth  int // registers the code needs
	lf, rf bool
	op     cmpOp
	neg    bool

	// The right side is a constant: the left side is compared with an interval,
	// and the code is that of the left side alone.
	constant bool
	ints     interval[int64]
	floats   interval[float64]
}

func (p *vectorPred) eval(s *scratch, b block, in, out []uint64) {
	for len(s.regs) < p.depth {
		s.regs = append(s.regs, register{})
	}
	for w, m := range in {
		if m == 0 {
			out[w] = 0
			continue
		}
		lo, hi := b.rows(w)
		top := 0
		for k := range p.code {
			top = p.code[k].run(s, top, lo, hi)
		}
		l := &s.regs[0]
		m &= l.valid
		var r uint64
		switch {
		case !p.constant:
			m &= s.regs[1].valid
			r = p.compare(l, &s.regs[1], m)
		case p.lf:
			s.kern.WithinFloat64(l.f[:], p.floats.lo, p.floats.hi, s.found[:])
			r = s.found[0]
		default:
			s.kern.WithinInt64(l.i[:], p.ints.lo, p.ints.hi, s.found[:])
			r = s.found[0]
		}
		out[w] = (r ^ maskOf(p.neg)) & m
	}
}

func (p *vectorPred) cost() int { return 5 * len(p.code) }

// run executes the instruction with top registers in use; it returns how many are then.
func (v *vectorOp) run(s *scratch, top, lo, hi int) int {
	switch v.code {
	case vColumn:
		s.regs[top].load(s.cols[v.slot], lo, hi)
		return top + 1
	case vInt, vFloat:
		r := &s.regs[top]
		r.valid = ^uint64(0)
		if v.code == vFloat {
			fill(&r.f, v.f)
		} else {
			fill(&r.i, v.i)
		}
		return top + 1
	case vToFloat:
		s.regs[top-1].toFloat()
		return top
	case vUnder:
		s.regs[top-2].toFloat()
		return top
	case vNeg:
		r := &s.regs[top-1]
		for i, x := range r.i {
			r.i[i] = -x
			r.valid &^= uint64(b2i(x == math.MinInt64)) << i
		}
		return top
	case vNegF:
		r := &s.regs[top-1]
		for i, x := range r.f {
			r.f[i] = -x
		}
		return top
	case vMonths:
		r := &s.regs[top-1]
		for m := r.valid; m != 0; {
			i := nextBit(&m)
			var ok bool
			if r.i[i], ok = addMonths(r.i[i], int(v.i)); !ok {
				r.valid &^= 1 << i
			}
		}
		return top
	}
	if v.code >= vArithBy {
		v.by(&s.regs[top-1])
		return top
	}
	a, b := &s.regs[top-2], &s.regs[top-1]
	a.valid &= b.valid
	if v.code == vArith {
		a.arithInt(v.op, b)
	} else {
		a.arithFloat(v.op, b)
	}
	return top - 1
}

// by does the arithmetic with a constant.
func (v *vectorOp) by(r *register) {
	switch v.code {
	case vDivideBy:
		v.div.quotients(&r.i)
	case vRestBy:
		v.div.rests(&r.i)
	case vArithByF:
		for i, x := range r.f {
			r.f[i] = arithFloat(v.op, x, v.f)
		}
	default:
		r.arithIntBy(v.op, v.i)
	}
}

// arithIntBy is arithInt with a constant, for what does not divide by it. Rows are looked at
// one by one only where the result of one of them is too large.
func (r *register) arithIntBy(op arithOp, y int64) {
	bad := int64(0)
	switch op {
	case opAdd:
		for i, x := range r.i {
			z := x + y
			bad |= (x ^ z) & (y ^ z)
			r.i[i] = z
		}
		if bad < 0 {
			for i, z := range r.i {
				r.valid &^= uint64((z-y^z)&(y^z)) >> 63 << i
			}
		}
	case opSub:
		for i, x := range r.i {
			z := x - y
			bad |= (x ^ y) & (x ^ z)
			r.i[i] = z
		}
		if bad < 0 {
			for i, z := range r.i {
				r.valid &^= uint64((z+y^y)&(z+y^z)) >> 63 << i
			}
		}
	case opMul:
		least, most := r.i[0], r.i[0]
		for _, x := range r.i {
			least, most = min(least, x), max(most, x)
		}
		_, low := mulInt(least, y)
		if _, high := mulInt(most, y); !low || !high {
			r.arithIntSlowly(op, y)
			return
		}
		for i := range r.i {
			r.i[i] *= y
		}
	case opBitAnd:
		for i := range r.i {
			r.i[i] &= y
		}
	case opBitOr:
		for i := range r.i {
			r.i[i] |= y
		}
	case opBitXor:
		for i := range r.i {
			r.i[i] ^= y
		}
	default:
		r.arithIntSlowly(op, y)
	}
}

func (r *register) arithIntSlowly(op arithOp, y int64) {
	for i, x := range r.i {
		z, ok := arithInt(op, x, y)
		r.i[i] = z
		r.valid &^= uint64(1-b2i(ok)) << i
	}
}

func fill[T any](r *[64]T, x T) {
	for i := range r {
		r[i] = x
	}
}

func (r *register) load(c *schema.Column, lo, hi int) {
	r.valid = validWord(c, lo, hi)
	switch {
	case c.Type == schema.Float:
		for i, x := range c.Float[lo:hi] {
			r.f[i] = float64(x)
		}
	case c.Type == schema.Double:
		copy(r.f[:], c.Double[lo:hi])
	default:
		copy(r.i[:], c.Int[lo:hi])
	}
}

func (r *register) toFloat() {
	for i, x := range r.i {
		r.f[i] = float64(x)
	}
}

func (r *register) arithInt(op arithOp, o *register) {
	switch op {
	case opAdd:
		for i, x := range r.i {
			y := o.i[i]
			z := x + y
			r.valid &^= uint64((x^z)&(y^z)) >> 63 << i
			r.i[i] = z
		}
	case opSub:
		for i, x := range r.i {
			y := o.i[i]
			z := x - y
			r.valid &^= uint64((x^y)&(x^z)) >> 63 << i
			r.i[i] = z
		}
	case opBitAnd:
		for i := range r.i {
			r.i[i] &= o.i[i]
		}
	case opBitOr:
		for i := range r.i {
			r.i[i] |= o.i[i]
		}
	case opBitXor:
		for i := range r.i {
			r.i[i] ^= o.i[i]
		}
	case opMul:
		for i, x := range r.i {
			z, ok := mulInt(x, o.i[i])
			r.i[i] = z
			r.valid &^= uint64(1-b2i(ok)) << i
		}
	default:
		for i, x := range r.i {
			y := o.i[i]
			if uint64(y+1) <= 1 { // 0 or -1: the cases that can fail
				z, ok := arithInt(op, x, y)
				r.i[i] = z
				r.valid &^= uint64(1-b2i(ok)) << i
			} else if op == opDiv {
				r.i[i] = x / y
			} else {
				r.i[i] = x % y
			}
		}
	}
}

func (r *register) arithFloat(op arithOp, o *register) {
	switch op {
	case opAdd:
		for i, x := range r.f {
			r.f[i] = x + o.f[i]
		}
	case opMul:
		for i, x := range r.f {
			r.f[i] = x * o.f[i]
		}
	default:
		for i, x := range r.f {
			r.f[i] = arithFloat(op, x, o.f[i])
		}
	}
}

// compare returns the rows of m for which the comparison holds.
func (p *vectorPred) compare(l, r *register, m uint64) (out uint64) {
	switch {
	case !p.lf && !p.rf:
		for i, x := range l.i {
			out |= uint64(b2i(p.op.holds(cmp.Compare(x, r.i[i])))) << i
		}
	case p.lf && p.rf:
		for i, x := range l.f {
			out |= uint64(b2i(floatHolds(p.op, x, r.f[i]))) << i
		}
	default:
		for m != 0 {
			i := nextBit(&m)
			a, b := value{k: kInt, i: l.i[i]}, value{k: kInt, i: r.i[i]}
			if p.lf {
				a = floatValue(l.f[i])
			}
			if p.rf {
				b = floatValue(r.f[i])
			}
			out |= uint64(b2i(compareValues(p.op, a, b) == yes)) << i
		}
	}
	return out
}

func floatHolds(op cmpOp, a, b float64) bool {
	switch op {
	case opEq:
		return a == b
	case opNe:
		return a != b
	case opLt:
		return a < b
	case opLe:
		return a <= b
	case opGt:
		return a > b
	}
	return a >= b
}

// newVector plans l op r, both numbers.
func (pl *planner) newVector(l *node, op cmpOp, r *node, neg bool) pred {
	p := &vectorPred{lf: l.typ == kFloat, rf: r.typ == kFloat, op: op, neg: neg}
	p.compile(pl, l, 0)
	if r.kind != nConst {
		p.compile(pl, r, 1)
		return p
	}
	p.constant = true
	if op == opNe {
		op, p.neg = opEq, !neg
	}
	if p.lf {
		p.floats = doubleInterval(op, r.val)
	} else {
		p.ints = intInterval(op, r.val)
	}
	return p
}

// compile appends the instructions that push n's value; used counts the
// registers in use before.
func (p *vectorPred) compile(pl *planner, n *node, used int) {
	p.depth = max(p.depth, used+1)
	switch n.kind {
	case nName, nLength:
		r := pl.ref(n)
		p.refs = append(p.refs, r)
		p.code = append(p.code, vectorOp{code: vColumn, slot: r.slot})
	case nConst:
		if n.typ == kFloat {
			p.code = append(p.code, vectorOp{code: vFloat, f: n.val.f})
		} else {
			p.code = append(p.code, vectorOp{code: vInt, i: n.val.i})
		}
	case nNeg:
		p.compile(pl, n.kids[0], used)
		code := vNeg
		if n.typ == kFloat {
			code = vNegF
		}
		p.code = append(p.code, vectorOp{code: code})
	case nArith:
		l, r := n.kids[0], n.kids[1]
		if l.val.months != 0 {
			l, r = r, l // an interval plus a time
		}
		p.compile(pl, l, used)
		if m := int64(r.val.months); m != 0 {
			if arithOp(n.op) == opSub {
				m = -m
			}
			p.code = append(p.code, vectorOp{code: vMonths, i: m})
		}
		if r.kind == nConst && r.val.months == 0 && p.by(n, r.val, l.typ) {
			return
		}
		p.compile(pl, r, used+1)
		code := vArith
		if n.typ == kFloat {
			code = vArithF
			if l.typ == kInt {
				p.code = append(p.code, vectorOp{code: vUnder})
			}
			if r.typ == kInt {
				p.code = append(p.code, vectorOp{code: vToFloat})
			}
		}
		p.code = append(p.code, vectorOp{code: code, op: arithOp(n.op)})
	}
}

// by appends the arithmetic of n with a constant, what it is done to being compiled; false =
// there is no instruction for it.
func (p *vectorPred) by(n *node, c value, left kind) bool {
	v := vectorOp{code: vArithBy, op: arithOp(n.op), i: c.i}
	switch {
	case n.typ == kFloat:
		v.code, v.f = vArithByF, c.float()
		if left == kInt {
			p.code = append(p.code, vectorOp{code: vToFloat})
		}
	case v.op != opDiv && v.op != opMod, uint64(c.i+1) <= 2: // by -1, 0 and 1 there are no divisors
	case v.op == opDiv:
		v.code, v.div = vDivideBy, newDivisor(c.i)
	default:
		v.code, v.div = vRestBy, newDivisor(c.i)
	}
	p.code = append(p.code, v)
	return true
}
