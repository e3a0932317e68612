package segments

import (
	"math"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/vec"
)

// growingLists is an inverted file over the first rows of a growing segment: a row
// costs about a microsecond to put in, a hundredth of what a graph takes, and a search
// reads the lists that may have something near. Codes of a byte a dimension tell what
// is worth an exact distance.
//
// Whether a list may have something is learnt from the rows. For a row x in a list
// with the middle c, and a query q,
//
//	|q-x|² = |q-c|² + |x-c|² - 2 |q-c| |x-c| cos(q-c, x-c)
//
// and the cosine is that of near rows at most. So a list is read if with that
// cosine it could have a row nearer than the worst that is wanted: few lists of
// rows that lie in heaps, all lists of rows that lie anywhere.
//
// One goroutine writes; readers take the state that was published last, which
// does not change.
type growingLists struct {
	codes   *byteCodes
	middles *centres
	cosine  float32 // of near rows, at most
	metric  index.Metric
	trained int  // rows there were
	coarse  bool // the codes do not tell near rows apart: those of a list are looked at themselves
	state   atomic.Pointer[listsState]
	memory  *Reservation
}

// listsState is what readers see.
type listsState struct {
	rows  int      // [0, rows) are in lists, or loose
	loose []uint32 // rows that the codes do not reach
	lists []codeList
}

// codeList is one list. What is behind the ends of its slices may be written.
type codeList struct {
	codes     []byte // whole panels
	bias      []float32
	rows      []uint32
	last      *panel  // the panel that is not full, never changed; nil = none
	near, far float32 // distances of rows from the middle: the least, the most
}

// panel is vec.PanelRows codes or fewer.
type panel struct {
	n     int
	codes []byte
	bias  [vec.PanelRows]float32 // +Inf behind n
	rows  [vec.PanelRows]uint32
}

// rows is how many rows are in lists that readers see.
func (x *growingLists) rows() int { return x.state.Load().rows }

// listScratch is what a search of lists works in.
type listScratch struct {
	unit  []float32
	z     []int8
	sums  []int32
	hits  []uint32
	dist  []float32
	order []uint64 // lists, by the least distance they may have
	near  vec.TopK // rows by estimate
	found []index.Neighbor
}

const (
	// listChunk is how many panels are multiplied in one go.
	listChunk = 8
	// kernelQueries is how many queries Panels wants room for, where there is one.
	kernelQueries = 16
	// fewAllowed: where no more than one of so many rows is allowed, these are scanned.
	fewAllowed = 12
)

// listRank is how many rows are looked at exactly, for k that are wanted.
func listRank(k int) int { return k + k/2 + 16 }

// listSearch is a search of lists under way.
type listSearch struct {
	x       *growingLists
	st      *listsState
	q       *nearestQuery
	base    vectors
	inv     float32
	sc      *scratch
	n       int         // rows that count
	allowed *bitset.Set // nil = all
	aff     vec.Affine
	most    float32 // estimates that are not below it are of no use
	read    int     // rows
}

// nearestIn finds the nearest of the first n rows that are in lists. The result is
// valid until the next one.
func (sc *scratch) nearestIn(x *growingLists, st *listsState, rows vectors, q *nearestQuery, n int, allowed *bitset.Set) ([]index.Neighbor, error) {
	s := &listSearch{x: x, st: st, q: q, sc: sc, n: n, allowed: allowed, most: float32(math.Inf(1))}
	l := &sc.coded
	l.near.Reset(listRank(q.k))
	inv, err := sc.prepare(&rows, q)
	if err != nil {
		return nil, err
	}
	s.base, s.inv = rows, inv
	s.prepare(q)
	hops := s.readLists(q)
	if q.stop != nil && q.stop.Load() {
		return nil, errors.Wrap(q.ctx.Err(), "search")
	}
	l.found = l.near.AppendSorted(l.found[:0])
	ids := sc.ids[:0]
	for _, f := range l.found {
		ids = append(ids, f.Row)
	}
	for _, row := range st.loose {
		if s.counts(row) {
			ids = append(ids, row)
		}
	}
	sc.top.Reset(q.k)
	for all := ids; len(all) > 0; {
		sc.ids = all[:min(len(all), scanBlock)]
		out := sc.out[:len(sc.ids)]
		sc.idDistances(q, inv, rows, out)
		sc.top.PushAll(sc.ids, out)
		all = all[len(sc.ids):]
	}
	sc.ids = ids
	sc.work.note(wayLists, s.read+len(ids), hops)
	l.found = sc.top.AppendSorted(l.found[:0])
	return l.found, nil
}

// counts reports whether a row may be found.
func (s *listSearch) counts(row uint32) bool {
	return int(row) < s.n && (s.allowed == nil || s.allowed.Has(int(row)))
}

// prepare sets how far what each list has is from the query at least, in order.
func (s *listSearch) prepare(q *nearestQuery) {
	l, x := &s.sc.coded, s.x
	c := x.middles.codes
	l.unit = grown(l.unit, len(q.vector))
	norm := float32(1)
	if x.metric == index.Cosine {
		c.kern.Normalize(l.unit, q.vector)
	} else {
		copy(l.unit, q.vector)
		norm = c.kern.Norm(q.vector)
	}
	all := len(x.middles.bias)
	l.z = grown(l.z, kernelQueries*4*max(c.quads, x.codes.quads))
	l.sums = grown(l.sums, kernelQueries*max(all, listChunk*vec.PanelRows))
	l.hits, l.dist = grown(l.hits, listChunk*vec.PanelRows), grown(l.dist, listChunk*vec.PanelRows)
	aff := x.middles.distances(l.unit, l.z, l.sums)
	l.order = l.order[:0]
	for i := range s.st.lists {
		list := &s.st.lists[i]
		if len(list.rows) == 0 && list.last == nil {
			continue
		}
		square := max(float32(l.sums[i])*aff.Scale+aff.Base+x.middles.bias[i], 0)
		least := x.least(list, square, norm, x.middles.bias[i]) - c.doubt(aff, index.L2, square, norm)
		l.order = append(l.order, vec.Key(least, uint32(i)))
	}
	s.aff = x.codes.query(l.z[:4*x.codes.quads], l.unit, x.metric)
	if q.limited {
		s.most = q.limit + x.codes.doubt(s.aff, x.metric, q.limit, norm)
	}
}

// least is how far at least what is near in a list is from a query of length
// norm, whose distance from the middle has the given square, in the metric's terms.
func (x *growingLists) least(l *codeList, square, norm, middle float32) float32 {
	if x.metric == index.IP {
		product := (norm*norm + middle - square) / 2
		return -product - x.cosine*norm*l.far
	}
	along := x.cosine * float32(math.Sqrt(float64(square)))
	by := min(max(along, l.near), l.far)
	d := square + by*by - 2*along*by
	if x.metric == index.Cosine {
		return d / 2
	}
	return d
}

// readLists reads the lists that may have something, and returns how many they were.
func (s *listSearch) readLists(q *nearestQuery) (hops int) {
	l := &s.sc.coded
	first := 0
	for i, key := range l.order { // the best one first: it tells which others are worth it
		if key < l.order[first] {
			first = i
		}
	}
	if len(l.order) == 0 || vec.Unkey(l.order[first]).Distance >= s.limit() {
		return 0
	}
	best := l.order[first]
	l.order = slices.Delete(l.order, first, first+1)
	s.readList(&s.st.lists[uint32(best)])
	hops = 1
	limit := s.limit()
	l.order = slices.DeleteFunc(l.order, func(key uint64) bool { return vec.Unkey(key).Distance >= limit })
	slices.Sort(l.order)
	for _, key := range l.order {
		if vec.Unkey(key).Distance >= s.limit() || q.stop != nil && q.stop.Load() {
			break
		}
		s.readList(&s.st.lists[uint32(key)])
		hops++
	}
	return hops
}

// limit is what an estimate has to be below.
func (s *listSearch) limit() float32 { return min(s.most, s.sc.coded.near.Bound()) }

func (s *listSearch) readList(list *codeList) {
	size := s.x.codes.panelBytes()
	for from, panels := 0, len(list.codes)/size; from < panels; from += listChunk {
		n := min(listChunk, panels-from)
		at := from * vec.PanelRows
		s.readPanels(list.codes[from*size:], n, list.bias[at:], list.rows[at:])
	}
	if p := list.last; p != nil {
		s.readPanels(p.codes, 1, p.bias[:], p.rows[:])
	}
}

func (s *listSearch) readPanels(codes []byte, n int, bias []float32, rows []uint32) {
	l, c := &s.sc.coded, s.x.codes
	if s.x.coarse {
		s.readRows(bias[:n*vec.PanelRows], rows)
		return
	}
	c.kern.Panels(l.z, 1, c.quads, codes, n, l.sums)
	hits := c.kern.SumsBelow(l.sums[:n*vec.PanelRows], bias, s.aff, s.limit(), l.hits, l.dist)
	s.read += n * vec.PanelRows
	for i, at := range l.hits[:hits] {
		if row := rows[at]; s.counts(row) {
			l.near.Push(row, l.dist[i])
		}
	}
}

// readRows looks at the rows of panels themselves.
func (s *listSearch) readRows(bias []float32, rows []uint32) {
	sc := s.sc
	sc.ids = sc.ids[:0]
	for i, b := range bias {
		if row := rows[i]; b < float32(math.Inf(1)) && s.counts(row) {
			sc.ids = append(sc.ids, row)
		}
	}
	out := sc.out[:len(sc.ids)]
	sc.idDistances(s.q, s.inv, s.base, out)
	sc.coded.near.PushAll(sc.ids, out)
	s.read += len(sc.ids)
}
