package sparse

import (
	"cmp"
	"slices"
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// Term is one dimension of a query.
type Term struct {
	List
	Weight float32 // the query's value, not negative
}

// Scorer is what a term gives a row, if that is not weight times value: for text,
// where the value is how often a word is in a row. Bound is the most that Score can
// be for any row of the term.
type Scorer interface {
	Bound(t *Term) float32
	Score(t *Term, row uint32, value float32) float32
}

// Query says what is wanted of the rows of the terms.
type Query struct {
	K        int
	From, To int                         // only rows [From, To)
	Allowed  *bitset.Set                 // only these rows; nil = all
	Keeps    func(distance float32) bool // only rows at such a distance; nil = any
	Scorer   Scorer                      // nil = the inner product
	Stop     *atomic.Bool                // polled; once true the result is not complete. nil = never
}

// cursor walks one list.
type cursor struct {
	*Term
	pos   int
	bound float64 // of this term
	upTo  float64 // of this term and those before it
}

func (c *cursor) row() (uint32, bool) {
	if c.pos < len(c.Rows) {
		return c.Rows[c.pos], true
	}
	return 0, false
}

// Searcher is the memory of searches. It is reused, by one goroutine at a time.
type Searcher struct {
	cursors []cursor
	top     vec.TopK
	found   []vec.Neighbor
	scored  int

	rows      []uint32 // of Each
	distances []float32
}

// Scored is the number of rows that the last search computed a score of.
func (s *Searcher) Scored() int { return s.scored }

// slack keeps rounding from cutting a row that has exactly the score it needs.
const slack = 1 + 1e-6

// stopEvery is how many rows are looked at between two looks at Query.Stop.
const stopEvery = 1 << 12

// Search returns the nearest rows, at the distance of minus their score: larger
// scores first, of equal ones the lower row. Only rows with a score above 0 are
// found. The result is valid until the next search.
func (s *Searcher) Search(terms []Term, q *Query) []vec.Neighbor {
	s.begin(terms, q)
	s.order()
	s.top.Reset(q.K)
	s.scored = 0
	first, limit := 0, 0.0 // lists before first cannot make a row that is near enough by themselves
	for looked := 1; first < len(s.cursors) && q.K > 0; looked++ {
		if looked%stopEvery == 0 && q.Stop != nil && q.Stop.Load() {
			break
		}
		row, ok := s.next(first)
		if !ok || int(row) >= q.To {
			break
		}
		if q.Allowed != nil && !q.Allowed.Has(int(row)) {
			to := q.Allowed.Next(int(row))
			if to < 0 || to >= q.To {
				break
			}
			s.skip(first, uint32(to))
			continue
		}
		score, ok := s.score(row, first, limit, q)
		if !ok || score <= 0 {
			continue
		}
		d := -float32(score)
		if q.Keeps != nil && !q.Keeps(d) || !s.top.Push(row, d) || !s.top.Full() {
			continue
		}
		limit = -float64(s.top.Bound())
		for first < len(s.cursors) && s.cursors[first].upTo*slack <= limit {
			first++
		}
	}
	s.found = s.top.AppendSorted(s.found[:0])
	return s.found
}

// begin sets the cursors.
func (s *Searcher) begin(terms []Term, q *Query) {
	s.cursors = s.cursors[:0]
	for i := range terms {
		t := &terms[i]
		if len(t.Rows) == 0 || t.Weight <= 0 {
			continue
		}
		c := cursor{Term: t, bound: float64(t.Weight) * float64(t.Max)}
		if q.Scorer != nil {
			c.bound = float64(q.Scorer.Bound(t))
		}
		if q.From > 0 {
			c.pos = seek(t.Rows, 0, uint32(q.From))
		}
		s.cursors = append(s.cursors, c)
	}
}

// order puts the cursors that can add little first.
func (s *Searcher) order() {
	slices.SortFunc(s.cursors, func(a, b cursor) int { return cmp.Compare(a.bound, b.bound) })
	sum := 0.0
	for i := range s.cursors {
		sum += s.cursors[i].bound
		s.cursors[i].upTo = sum
	}
}

// next is the lowest row in the lists from first on.
func (s *Searcher) next(first int) (lowest uint32, ok bool) {
	for i := first; i < len(s.cursors); i++ {
		if row, there := s.cursors[i].row(); there && (!ok || row < lowest) {
			lowest, ok = row, true
		}
	}
	return lowest, ok
}

// skip moves the lists from first on to row.
func (s *Searcher) skip(first int, row uint32) {
	for i := first; i < len(s.cursors); i++ {
		c := &s.cursors[i]
		c.pos = seek(c.Rows, c.pos, row)
	}
}

// score adds up what the lists give row, and moves those from first on behind it.
// ok is false if the score was found to be no more than limit.
func (s *Searcher) score(row uint32, first int, limit float64, q *Query) (sum float64, ok bool) {
	s.scored++
	for i := first; i < len(s.cursors); i++ {
		c := &s.cursors[i]
		if at, there := c.row(); there && at == row {
			sum += c.give(row, q)
			c.pos++
		}
	}
	for i := first - 1; i >= 0; i-- {
		c := &s.cursors[i]
		if (sum+c.upTo)*slack <= limit {
			return sum, false
		}
		c.pos = seek(c.Rows, c.pos, row)
		if at, there := c.row(); there && at == row {
			sum += c.give(row, q)
		}
	}
	return sum, true
}

func (c *cursor) give(row uint32, q *Query) float64 {
	v := c.Values[c.pos]
	if q.Scorer != nil {
		return float64(q.Scorer.Score(c.Term, row, v))
	}
	return float64(c.Weight) * float64(v)
}

// eachBlock is how many rows Each hands over at a time.
const eachBlock = 512

// Each calls see with the rows that have a score above 0, ascending, and their
// distances, some at a time; K and Keeps are not looked at. A row has the same
// distance to the last bit in every index.
func (s *Searcher) Each(terms []Term, q *Query, see func(rows []uint32, distances []float32) error) error {
	s.begin(terms, q) // and left in the order of the terms, in which parts are added up
	s.scored = 0
	s.rows, s.distances = s.rows[:0], s.distances[:0]
	for looked := 1; ; looked++ {
		if looked%stopEvery == 0 && q.Stop != nil && q.Stop.Load() {
			return nil
		}
		row, ok := s.next(0)
		if !ok || int(row) >= q.To {
			break
		}
		score, _ := s.score(row, 0, 0, q)
		if score <= 0 || q.Allowed != nil && !q.Allowed.Has(int(row)) {
			continue
		}
		s.rows, s.distances = append(s.rows, row), append(s.distances, -float32(score))
		if len(s.rows) == eachBlock {
			if err := see(s.rows, s.distances); err != nil {
				return err
			}
			s.rows, s.distances = s.rows[:0], s.distances[:0]
		}
	}
	if len(s.rows) == 0 {
		return nil
	}
	return see(s.rows, s.distances)
}
