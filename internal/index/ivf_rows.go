package index

import (
	"math"
	"sync/atomic"

	"github.com/querynode/querynode/internal/vec"
)

// Of searches that go by the allowed rows.
const (
	// rowsMost is how many rows are allowed at most.
	rowsMost = 1 << 16
	// rowsSample is how many of the rows that are wanted a sample has, about, that tells how near their lists are.
	rowsSample = 32
	// scanWords is how many words of a filter are made rows of at a time where all are compared.
	scanWords = 1 << 14
)

// What searches with a filter that is new cost, in nanoseconds: for each list that there is where all are
// compared, for each word of the filter, for each allowed row that is put to its list; for each list whose rows are looked up, or are known;
// for each line of a fine code that is compared, and of the codes of a list.
const (
	costCentre, costWord, costPut, costLookUp, costKnown, costFine, costLine = 1.3, 0.5, 0.8, 220, 75, 2.5, 3.0
)

// byRows reports whether rows are sooner put to their lists than they are all compared, or lists are read.
func (p *plan) byRows(x *ivf) bool {
	if p.selected > rowsMost || !x.fine.exists() || p.dense {
		return false
	}
	row := costFine * float64(x.fine.stride/coarseLine+1)
	put := costCentre*float64(x.lists.n) + costWord*float64(x.n)/64 + costPut*float64(p.selected) + row*float64(p.target)
	if m := p.marks; m != nil {
		return !p.scan && put < costKnown*float64(min(p.target*m.lists/max(p.selected, 1), m.lists))
	}
	if p.scan {
		return put < costWord*float64(x.n)/64+row*float64(p.selected)
	}
	lists := float64(max(p.least, min(p.target*x.lists.n/max(p.selected, 1), x.lists.n)))
	if p.few || x.pq == nil {
		return put < lists*costLookUp+row*float64(p.target)
	}
	return put < lists*(costLookUp+costLine*float64(x.size()*x.blockBytes())/(coarseLine*vec.FastScanBlock))
}

// rowList says which list each row is in. It takes two bytes a row.
type rowList struct {
	list []uint16
	even float64 // see evenly
}

// rowLists has a rowList once a search has wanted it. It is safe for concurrent use, and
// nothing waits in it.
type rowLists struct {
	of     atomic.Pointer[rowList]
	making atomic.Bool // a search is, now
}

// listOf returns the list of each row, nil if another search is making that just now or there
// is no memory for it.
func (x *ivf) listOf() *rowList {
	if of := x.listed.of.Load(); of != nil {
		return of
	}
	if x.marks == nil || !x.listed.making.CompareAndSwap(false, true) {
		return nil
	}
	defer x.listed.making.Store(false)
	if of := x.listed.of.Load(); of != nil {
		return of
	}
	bytes := 2 * int64(x.n)
	if !x.marks.take(bytes) {
		return nil
	}
	kept := false
	defer func() { // ids may be in a mapped file that cannot be read
		if !kept {
			x.marks.take(-bytes)
		}
	}()
	of := &rowList{list: make([]uint16, x.n), even: x.evenly()}
	for l := range x.lists.n {
		for _, row := range x.ids[x.first[l]*vec.PanelRows : x.first[l+1]*vec.PanelRows] {
			if int(row) < x.n {
				of.list[row] = uint16(l)
			}
		}
	}
	x.listed.of.Store(of)
	kept = true
	return of
}

// forgetRows drops what listOf has kept.
func (x *ivf) forgetRows() {
	if of := x.listed.of.Swap(nil); of != nil {
		x.marks.take(-2 * int64(len(of.list)))
	}
}

// readAllowed leaves the nearest of the allowed rows in s.top by the upper halves of their fine codes: of those in the
// lists nearest to the query, as many as are wanted.
func (x *ivf) readAllowed(vector []float32, p *plan, s *Scratch) {
	v := &s.ivf
	near := x.listDistances(s)
	words := p.allowed[:min((x.n+63)/64, len(p.allowed))]
	rows := x.rowsOf(words, 0, s)
	v.by = grown(v.by, len(rows))
	by, list := v.by, p.of.list
	for i, row := range rows {
		by[i] = near[list[row]]
	}
	if p.target < len(rows) {
		n := x.kern.Below(rows, by, v.reach(x.kern, by, p.target))
		if rows = rows[:n]; n < p.enough { // a sample can be wrong
			rows = x.rowsOf(words, 0, s)
		}
	}
	v.cands.reset(coarseRows(p.k))
	x.coarsest(vector, rows, s)
	x.coarseTop(s)
}

// rowsOf lists the rows that words of a filter allow, of which the first is word first.
func (x *ivf) rowsOf(words []uint64, first int, s *Scratch) []uint32 {
	s.ivf.found = grown(s.ivf.found, x.kern.CountBits(words)+vec.ListRoom)
	n := x.kern.ListBits(words, first, s.ivf.found)
	for n > 0 && int(s.ivf.found[n-1]) >= x.n {
		n--
	}
	return s.ivf.found[:n]
}

// coarsest adds rows to the candidates by the upper halves of their fine codes.
func (x *ivf) coarsest(vector []float32, rows []uint32, s *Scratch) {
	c := &s.ivf.cands
	for len(rows) > 0 && !s.stopped() {
		ids := rows[:min(len(rows), scanChunk)]
		rows = rows[len(ids):]
		s.stats.Distances += len(ids)
		x.fine.coarse(&x.space, vector, x.scale(vector), ids, s.dist, s)
		n := len(ids)
		if c.limit < math.MaxFloat32 {
			n = x.kern.Below(ids, s.dist, c.limit)
		}
		for i, row := range ids[:n] {
			c.keys = append(c.keys, vec.Key(s.dist[i], row))
		}
		c.trim(x.kern)
	}
}

// coarseTop leaves the best of the candidates, which are rows, in s.top.
func (x *ivf) coarseTop(s *Scratch) {
	c := &s.ivf.cands
	c.cut(x.kern)
	s.top.Reset(c.want)
	for _, key := range c.keys {
		s.top.PushKey(key)
	}
}

// listDistances returns the distance of each list.
func (x *ivf) listDistances(s *Scratch) []float32 {
	x.roomForLists(s)
	v := &s.ivf
	sums, aff := x.allLists(s)
	if n := x.kern.SumsBelow(sums, x.lists.codes.bias, aff, math.MaxFloat32, v.rows, v.dist); n == x.lists.n && int(v.rows[n-1]) == n-1 {
		return v.dist[:n]
	}
	for l := range x.lists.n { // numbers too large
		v.dist[l] = float32(sums[l])*aff.Scale + aff.Base + x.lists.codes.bias[l]
	}
	return v.dist[:x.lists.n]
}

// reach returns below which of the values about as many are as are wanted, by a sample: one by lot of each run
// of them, for rows of several kinds may come by turns.
func (v *ivfScratch) reach(kern vec.Kernels, values []float32, want int) float32 {
	step, l := max(want/rowsSample, 1), lot(1)
	v.near = v.near[:0]
	for i := 0; i < len(values); i += step {
		v.near = append(v.near, vec.Key(values[min(i+l.below(step), len(values)-1)], 0))
	}
	at := want*len(v.near)/len(values) + 1
	if at >= len(v.near) {
		return math.MaxFloat32
	}
	partition(kern, v.near, at)
	limit := v.near[0]
	for _, key := range v.near[:at] {
		limit = max(limit, key)
	}
	return math.Nextafter32(vec.Unkey(limit).Distance, math.MaxFloat32)
}

// lot draws numbers that follow no period of rows (a linear congruential generator, by Numerical Recipes).
type lot uint32

// below draws one from 0 to n-1.
func (l *lot) below(n int) int {
	*l = *l*1664525 + 1013904223
	return int(uint64(*l) * uint64(n) >> 32)
}
