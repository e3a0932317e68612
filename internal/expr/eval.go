package expr

import (
	"math/bits"
	"unsafe"

	"github.com/querynode/querynode/internal/analyze"
	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// blockWords is how many words of rows go through the whole plan at a time:
// few enough that the columns' part and the scratch stay in the L1/L2 cache.
const blockWords = 64

// pred is a node of a plan. A row is in its result when the condition is
// definitely true; negations are inside the leaves, so false and unknown need
// no telling apart.
type pred interface {
	// eval sets out to the rows of in for which the condition is true. Both have
	// a word per 64 rows of b; they may be the same slice.
	eval(s *scratch, b block, in, out []uint64)
	// cost is about the price of one row, in nanoseconds.
	cost() int
	// mayMatch reports whether a row may match where the columns have these statistics.
	mayMatch(st statistics) bool
}

// block is the rows [lo, hi); lo is a multiple of 64.
type block struct{ lo, hi int }

// rows is the number of rows of word w.
func (b block) rows(w int) (lo, hi int) {
	lo = b.lo + w<<6
	return lo, min(lo+64, b.hi)
}

// Columns gives the columns of one segment or chunk.
type Columns interface {
	// Column returns the column of a field; not nil for those in Plan.Fields. Of a vector
	// field it needs no vectors: only Valid is read.
	Column(fieldID int64) *schema.Column
}

// scratch is what one Eval needs to write to. A plan keeps some.
type scratch struct {
	cols  []*schema.Column // as Plan.columns
	own   []*schema.Column // of the derived columns, by slot; else nil
	scans []*analyze.Scanner
	words [][]uint64 // a stack of bitmaps of one block
	top   int
	buf   []byte // decoded strings
	seen  []uint64
	regs  []register
	found [1]uint64 // what a kernel finds in a register
	stack []value
	rows  [3][]uint64 // bitmaps of a whole segment, see Narrow
	subs  []*scratch  // of the plans for elements, see matchPred.sub
	view  schema.Column
	kern  vec.Kernels

	stop func() error // says why the Eval is to end; nil = it is not asked
	err  error        // what stop said
	work int          // until stop is asked again, in bytes of text
}

// workAPoll is after how many bytes of text stop is asked: a regular expression may take
// ten microseconds for one.
const workAPoll = 16 << 10

// Of texts up to shortText the work is not counted one by one, but that of 64 as aWord.
const (
	shortText = 128
	aWord     = workAPoll / 2
)

// begin sets what may end the Eval.
func (s *scratch) begin(stop func() error) {
	s.stop, s.err, s.work = stop, nil, workAPoll
	for _, e := range s.subs {
		e.begin(stop)
	}
}

// over notes that n bytes of text are about to be read, and reports whether the Eval is to
// end. What it has found is of no use then.
func (s *scratch) over(n int) bool {
	if s.work -= n + 16; s.work > 0 {
		return false
	}
	return s.poll()
}

func (s *scratch) poll() bool {
	if s.err == nil && s.stop != nil {
		s.err = s.stop()
	}
	if s.err != nil {
		return true
	}
	s.work = workAPoll
	return false
}

// push returns a bitmap of n words with any content; pop gives it back.
func (s *scratch) push(n int) []uint64 {
	if s.top == len(s.words) {
		s.words = append(s.words, make([]uint64, blockWords))
	}
	s.top++
	return s.words[s.top-1][:n]
}

func (s *scratch) pop() { s.top-- }

func newScratch(columns []column, scans []analyze.Analyzer, subs []*subPlan) *scratch {
	s := &scratch{cols: make([]*schema.Column, len(columns)), own: make([]*schema.Column, len(columns)), kern: vec.Detect()}
	for i := range columns {
		if columns[i].derived() {
			s.own[i] = &schema.Column{Type: columns[i].field.Type}
		}
	}
	for _, a := range scans {
		s.scans = append(s.scans, a.Scan())
	}
	for _, p := range subs {
		s.subs = append(s.subs, newScratch(p.columns, p.scans, nil))
	}
	return s
}

// release drops what the scratch points to outside of itself.
func (s *scratch) release() {
	clear(s.cols)
	clear(s.stack)
	for _, c := range s.own {
		if c != nil {
			clear(c.Str)
		}
	}
	for _, sc := range s.scans {
		sc.Reset("")
	}
	for _, e := range s.subs {
		e.release()
	}
	s.view = schema.Column{}
	s.top, s.stop = 0, nil
	const keep = 1 << 20
	if cap(s.buf) > keep {
		s.buf = nil
	}
}

// Eval sets out to the rows, of the first n of cols, that match and that within has, which
// has a word for each 64 of the n rows and none beyond them; nil is all rows, and within may be
// the words of out. Columns may hold more rows than n, not fewer. Any number of goroutines may
// evaluate a plan at once. stop is asked now and then whether to go on, each 4,096 rows and
// 16 KiB of text: an error of it ends the evaluation, which returns it; nil is not asked. Other
// errors are of class Internal: the columns are not those of the plan's schema.
func (p *Plan) Eval(cols Columns, n int, within []uint64, stop func() error, out *bitset.Set) error {
	if within == nil {
		out.Reset(n)
	}
	switch c := p.root.(type) {
	case *constPred:
		switch {
		case within != nil && c.value:
			copy(out.Words(), within)
		case within != nil:
			clear(out.Words())
		case c.value:
			out.Fill()
		}
		return nil
	}
	s := p.scratch.Get().(*scratch)
	defer p.scratch.Put(s)
	defer s.release()
	for i := range p.columns {
		f := &p.columns[i]
		if f.derived() {
			s.cols[i] = f.derive(s.own[i], s.cols[f.of], n)
			continue
		}
		c := cols.Column(f.field.ID)
		if err := checkColumn(c, f.field, n); err != nil {
			return err
		}
		s.cols[i] = c
	}
	words := out.Words()
	full := s.push(blockWords)
	defer s.pop()
	s.begin(stop)
	for lo := 0; lo < n; lo += blockWords * 64 {
		if s.poll() {
			return s.err
		}
		b := block{lo: lo, hi: min(lo+blockWords*64, n)}
		w := words[lo>>6 : (b.hi+63)>>6]
		in := full[:len(w)]
		if within != nil {
			copy(in, within[lo>>6:])
			if allZero(in) {
				clear(w)
				continue
			}
			p.root.eval(s, b, in, w)
			continue
		}
		for i := range in {
			in[i] = ^uint64(0)
		}
		if r := b.hi & 63; r != 0 {
			in[len(in)-1] = 1<<r - 1
		}
		p.root.eval(s, b, in, w)
	}
	return s.err
}

func checkColumn(c *schema.Column, f schema.Field, n int) error {
	switch {
	case c == nil: // the field was dropped after the filter was compiled
		return errclass.New(errclass.Retryable, "filter: field %q (id %d) is not there any more", f.Name, f.ID)
	case c.Type != f.Type, c.Element != f.Element:
		return errclass.New(errclass.Internal, "filter: column of field %q (id %d) is %s %s, want %s %s", f.Name, f.ID, c.Type, c.Element, f.Type, f.Element)
	case c.Rows() < n && !f.Type.IsVector() || c.Valid != nil && len(c.Valid) < n:
		return errclass.New(errclass.Internal, "filter: column of field %q (id %d) has %d rows (%d validity flags), want %d", f.Name, f.ID, c.Rows(), len(c.Valid), n)
	}
	return nil
}

// constPred is true, or not true, for every row.
type constPred struct{ value bool }

func (c *constPred) eval(_ *scratch, _ block, in, out []uint64) {
	if c.value {
		copy(out, in)
	} else {
		clear(out)
	}
}

func (c *constPred) cost() int                { return 0 }
func (c *constPred) mayMatch(statistics) bool { return c.value }

// andPred is true where all of its terms are. Each sees only the rows that the
// ones before it left.
type andPred struct {
	terms []pred
	steps []pred // as they are evaluated, see steps
}

func newAnd(terms []pred) *andPred { return &andPred{terms, steps(terms, true)} }

func (a *andPred) eval(s *scratch, b block, in, out []uint64) {
	a.steps[0].eval(s, b, in, out)
	for _, t := range a.steps[1:] {
		if allZero(out) {
			return
		}
		t.eval(s, b, out, out)
	}
}

func (a *andPred) cost() int { return sumCost(a.terms) }

func (a *andPred) mayMatch(st statistics) bool {
	for _, t := range a.terms {
		if !t.mayMatch(st) {
			return false
		}
	}
	return true
}

// orPred is true where one of its terms is. Each sees only the rows for which
// none before it was true.
type orPred struct {
	terms []pred
	steps []pred // as they are evaluated, see steps
}

func newOr(terms []pred) *orPred { return &orPred{terms, steps(terms, false)} }

func (o *orPred) eval(s *scratch, b block, in, out []uint64) {
	rest, found := s.push(len(in)), s.push(len(in))
	copy(rest, in)
	for _, t := range o.steps {
		t.eval(s, b, rest, found)
		left := uint64(0)
		for i := range rest {
			rest[i] &^= found[i]
			left |= rest[i]
		}
		if left == 0 {
			break
		}
	}
	for i := range out {
		out[i] = in[i] &^ rest[i]
	}
	s.pop()
	s.pop()
}

func (o *orPred) cost() int { return sumCost(o.terms) }

func (o *orPred) mayMatch(st statistics) bool {
	for _, t := range o.terms {
		if t.mayMatch(st) {
			return true
		}
	}
	return false
}

func sumCost(terms []pred) int {
	c := 0
	for _, t := range terms {
		c += t.cost()
	}
	return c
}

func allZero(w []uint64) bool {
	for _, x := range w {
		if x != 0 {
			return false
		}
	}
	return true
}

// validWord returns the rows [lo, hi) of c that are not null.
func validWord(c *schema.Column, lo, hi int) uint64 {
	if c.Valid == nil {
		return ^uint64(0)
	}
	return packBools(c.Valid[lo:hi])
}

// validBits is validWord for the rows of m.
func validBits(c *schema.Column, lo int, m uint64) (r uint64) {
	if c.Valid == nil {
		return m
	}
	for m != 0 {
		i := nextBit(&m)
		r |= uint64(b2i(c.Valid[lo+i])) << i
	}
	return r
}

// packBools returns a word with bit i set where b[i] is; at most 64.
func packBools(b []bool) uint64 {
	if len(b) == 0 {
		return 0
	}
	var w uint64
	p := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(b))), len(b))
	i := 0
	for ; i+8 <= len(p); i += 8 {
		q := p[i : i+8 : i+8]
		x := uint64(q[0]) | uint64(q[1])<<8 | uint64(q[2])<<16 | uint64(q[3])<<24 |
			uint64(q[4])<<32 | uint64(q[5])<<40 | uint64(q[6])<<48 | uint64(q[7])<<56
		// Byte k of x is 0 or 1; the product gathers them in its top byte, bit k.
		w |= (x * 0x0102040810204080 >> 56) << i
	}
	for ; i < len(p); i++ {
		w |= uint64(p[i]&1) << i
	}
	return w
}

// nextBit returns the lowest set bit of *m and clears it.
func nextBit(m *uint64) int {
	i := bits.TrailingZeros64(*m)
	*m &= *m - 1
	return i
}

// view is b as a string, without a copy: valid while b is not written.
func view(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }
