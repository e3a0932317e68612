package index

import (
	"math"

	"github.com/querynode/querynode/internal/vec"
)

// plan is how a search goes about.
type plan struct {
	k, lists, rank int
	selected       int           // rows that are allowed
	enough         int           // candidates that are worth ranking; fewer, and more lists are read
	allowed        []uint64      // nil: all
	short          bool          // candidates are by short codes
	scan           bool          // look at all allowed rows
	dense          bool          // nearly all rows are allowed: hits are looked up, lists are not
	least, target  int           // with a filter: lists read at least, allowed rows met at least
	marks          *marks        // of the filter, if it is known
	expect         int           // allowed rows that the least lists have if they are spread evenly
	few            bool          // so few rows are allowed that those met are compared one by one, not codes of lists
	halves         *vec.HalfRows // what rows that are compared one by one are compared by first; nil: fine codes
	of             *rowList      // allowed rows are put to their lists by it; nil: they are looked up in these
	rows           []uint32      // that are allowed, if they are listed already; the lists of some are in the scratch then
	far            int           // allowed rows met at least where they are near one another; 0: not known
	more           float64       // how many times as many of these as by default, for the recall that is wanted
	deep           float64       // how many times as many lists as for the ten nearest
	near           int           // lists that would be read without a filter
	amid           int           // lists read at least by a query amid allowed rows; 0: none are near one another
	share          float64       // how many of a list are allowed at least then
	doubt          float64       // see weighDoubt
	ahead          int           // of so many of the nearest lists the codes are asked for already
}

// How many codes of a list are read in the time of one row at random.
const (
	rowParts = 40 // of product quantisation
	rowFine  = 4  // of the same, if rows are read by the first half of fine codes
	rowBytes = 12 // of a byte for each dimension
	rowRows  = 2  // rows of lists themselves
	// listPacked is how many are read in the time of a list whose allowed rows are packed.
	listPacked = 30
)

// How the lists that hold most of what is near grow; measured on word vectors.
const (
	deepMany   = 0.42 // with the rows that are wanted, as a power: many of the nearest lie further apart
	deepSparse = 0.28 // with the rows there are for one that is allowed: so do the nearest of few
)

// Of candidates by short codes, ranked at least: more of them promise more than they hold.
const (
	rankLeast = 48
	rankEach  = 8 // for each row wanted
	// rankMost is how many times as many are added where more than half of the lists are read, one for each of those: of rows that tell nothing
	// of one another (100,000 x 128, Gaussian) 0.99 of the nearest are not among 250 candidates, whatever is read.
	rankMost = 3
	// rankAlone is one of how many of these are worth it where each value has four bits.
	rankAlone = 2
)

// plan decides on the work for a query. What it learns meanwhile may take longer than that: then it ends when s is stopped.
func (x *ivf) plan(q *Query, s *Scratch) plan {
	p := plan{k: min(q.K, x.n), lists: q.Effort}
	if p.lists <= 0 && q.Recall > 0 {
		p.lists = x.efforts.of(float64(q.Recall))
	}
	if p.lists <= 0 {
		p.lists = x.effort
	}
	selected := x.n
	if q.Allowed != nil {
		selected = p.allow(q.Allowed.Words(), x, s)
	} else if least := x.efforts[0]; x.pq != nil && least <= leastMost && least == x.efforts[1] && least == x.efforts[3] {
		p.lists = max(p.lists, int(least)) // what was measured began there: fewer take longer, see leastLists
	}
	p.doubt = x.doubtOf(p.lists)
	p.deep = math.Pow(max(float64(p.k)/calibrateK, 1), deepMany)
	many := p.deep * float64(p.lists)
	p.more = math.Sqrt(float64(p.lists) / float64(max(x.effort, 1)))
	if q.Effort <= 0 && (q.Recall == 0 || q.Recall >= crowdRecall) {
		p.more = max(p.more, 1)
	}
	p.near = int(math.Ceil(many))
	p.lists = int(math.Ceil(many * math.Pow(float64(x.n)/float64(max(selected, 1)), deepSparse)))
	p.lists = max(p.lists, 3*p.k*x.n/max(selected, 1)/x.size())
	p.lists = min(p.lists, x.lists.n)
	p.rank = x.byteRank(p.k)
	if x.pq != nil {
		least := rankLeast + rankEach*p.k
		p.short = true
		if x.pq.each < pqDims {
			least /= rankAlone
		}
		p.rank = least + min(p.lists/2, least)
		if p.allowed == nil {
			p.rank += min(max(p.lists-x.lists.n/2, 0), rankMost*least)
		}
	}
	p.enough, p.selected = min((p.k+p.rank)/2, selected), selected
	p.scan = x.n == 0 || selected*p.rowCost(x) <= p.lists*x.size()+x.lists.n
	if m := p.marks; m != nil && m.packed != nil && x.fine.exists() {
		p.scan = selected*rowFine <= min(p.lists, m.lists)*listPacked
	}
	p.look(selected, x)
	if p.halves = x.halves.existing(); !p.looks() || p.scan && selected < marksLeast {
		return p
	}
	if p.marks == nil && selected*lookSparse <= x.n {
		p.halves = x.halvesOf(s)
	}
	if p.far = p.crowdTarget(x.crowdOfFilter(&p, s), x); p.far > 0 {
		p.target = p.far
		p.goAmid(x)
		p.lists = min(max(p.lists, 2*p.target*x.lists.n/max(selected, 1)), x.lists.n)
	}
	if p.marks == nil && x.fine.exists() && selected*lookSparse <= x.n && (p.far == 0 || p.halves != nil) {
		p.few = true // a block of codes has four of them at most, mostly, and by half a byte more of them are compared in that time
	}
	if !p.whole() && p.byRows(x) {
		p.of = x.listOf(s)
	}
	return p
}

// allow has only the rows of words found, and returns how many these are. A filter that
// comes again is known, or learnt here.
func (p *plan) allow(words []uint64, x *ivf, s *Scratch) (selected int) {
	p.allowed = nonNil(words)
	if p.marks = x.marks.find(p.allowed); p.marks != nil {
		selected = min(p.marks.selected, x.n)
	} else {
		selected = min(x.kern.CountBits(p.allowed), x.n)
		if selected >= marksLeast && float64(selected) < lookDense*float64(x.n) {
			p.marks = x.learn(p.allowed, selected, s)
		}
	}
	p.k = min(p.k, selected)
	return selected
}

// rowCost is how many codes of a list are read in the time of one row, looked at by itself.
func (p *plan) rowCost(x *ivf) int {
	cost := rowRows
	switch {
	case x.pq != nil:
		cost = rowParts
	case x.bytes != nil:
		cost = rowBytes
	}
	if x.fine.exists() && p.allowed != nil {
		cost = min(cost, rowFine)
	}
	return cost
}

// How a search with a filter goes on where the lists near the query hold fewer
// allowed rows than their share: it reads more lists, and wants to meet more rows,
// for from outside the nearest are less near to one another.
const (
	lookMost  = 3   // times the lists that would do
	lookMore  = 3   // times the rows
	lookDense = 0.9 // part of all rows from which on they are not looked up before
	lookLess  = 0.7 // part of the rows expected below which more are wanted
	lookFew   = 24  // one of how many rows is allowed at most for those of lists to be compared one by one
	// lookSparse is the same as lookFew of rows that are anywhere: where they are near one another some blocks have many.
	lookSparse = 9
	lookMany   = 5 // times the candidates worth ranking that are met at least
	fewMore    = 7 // the same of so few: the lists they lie in are many
)

// look sets how far a search with a filter goes.
func (p *plan) look(selected int, x *ivf) {
	if p.allowed == nil {
		return
	}
	p.dense = float64(selected) >= lookDense*float64(x.n)
	p.few = x.fine.exists() && p.marks == nil && selected*lookFew <= x.n
	p.least = p.lists
	p.expect = p.lists * selected / x.lists.n
	p.target = p.expect
	if !p.dense {
		p.target = max(p.target, p.enough)
	}
	most := lookMost * p.lists
	if x.fine.exists() && !p.dense {
		more := lookMany * math.Sqrt(p.deep)
		if selected*lookFew <= x.n {
			more = fewMore
		}
		p.target = max(p.target, min(int(more*p.more*float64(p.enough)), selected))
	}
	most = max(most, 5*p.target/4*x.lists.n/max(selected, 1))
	p.lists = min(most, x.lists.n)
}

// byteRank is how many of the best rows by codes of a byte are looked at.
func (x *ivf) byteRank(k int) int { return k + k/2 + 16 }
