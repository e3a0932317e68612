package index

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/vec"
)

// Of the measuring of shares.
const (
	// shareRows is how many rows stand for queries, one of sharePart at most, and
	// shareBlock how many of them at a time. Where distances are slow there are as many as calibrateSlow
	// allows, but shareLeast.
	shareRows, shareLeast, sharePart, shareBlock = 256, 64, 64, 32
	// Queries are no rows: shareMore, a part, and shareSome lists are read beyond those
	// that hold as much.
	shareMore, shareSome = 8, 1
	// shareTruth is how many rows by code the nearest are known of: codes are coarse.
	shareTruth = 6 * shareWanted
)

// holdBack takes rows that are to stand for queries out of rows, all on level 0 only. They enter the graph last: one from
// which a row is taken that came before others lacks the links that it stood in the way of.
func (b *sqBuilder) holdBack(rows []uint32) (rest []uint32) {
	g := b.g
	n := min(shareRows, g.rows/sharePart)
	if g.kern.Level() != vec.AVX512 && n > 0 {
		n = min(n, max(calibrateSlow/(g.rows*g.dim), shareLeast))
	}
	if g.code.listDims(g.rows) == 0 || n == 0 || len(rows) < 2*n {
		return rows
	}
	held := make([]bool, len(rows))
	for i := range n {
		at := (2*i + 1) * len(rows) / (2 * n)
		held[at] = true
		b.held = append(b.held, rows[at])
	}
	for i, row := range rows {
		if !held[i] {
			rest = append(rest, row)
		}
	}
	return rest
}

// measureShares fills the table of shares: what walks find of the nearest rows of some rows, which stand for
// queries, and how many lists these are in. Walks do not meet the rows that they are for, by whose links they would be led.
func (g *sqGraph) measureShares(ctx context.Context, workers int, rows []uint32) error {
	if len(g.shares) == 0 {
		return nil
	}
	points := measuredShares()
	copy(g.shares, points)
	m := newShareMeasure(g, points)
	m.of, m.half = make([]uint32, g.rows), halfOf(g.rows, rows)
	for l := range g.lists.n {
		for _, row := range g.linked(g.lists.list(uint32(l)), nil) {
			m.of[row] = uint32(l)
		}
	}
	var mu sync.Mutex
	err := parallel(ctx, workers, len(rows), shareBlock, func() func(from, to int) error {
		w := newShareMeasure(g, points)
		w.of, w.half = m.of, m.half
		var s Scratch
		return func(from, to int) error {
			w.look(rows[from:to], &s)
			mu.Lock()
			defer mu.Unlock()
			m.take(w)
			return nil
		}
	})
	if err != nil {
		return errors.Wrap(err, "measure what walks find")
	}
	m.fill()
	g.usual, g.likely = g.shares.usual(), m.likely(usualRecall)
	return m.dropLossy(ctx, workers)
}

// halfOf is half of so many rows, without some.
func halfOf(rows int, without []uint32) *bitset.Set {
	half := bitset.New(rows)
	for row := range rows {
		if uint32(row)*halfBits>>31 == 0 {
			half.Add(row)
		}
	}
	for _, row := range without {
		half.Remove(int(row))
	}
	return half
}

// halfBits makes neighbours in number differ (Knuth, The Art of Computer Programming, 6.4).
const halfBits = 2654435769

// shareMeasure is what is known of some rows that stand for queries.
type shareMeasure struct {
	g      *sqGraph
	points shareTable
	of     []uint32    // the list of each row
	walks  []walksSeen // of each of the points
	halves []walksSeen // where a filter leaves half of the rows
	half   *bitset.Set // that half, without those that stand for queries
	place  []int       // for the row that is looked at, how many lists are nearer than each
	near   visited     // rows that a walk has met
	probes []probe
	ranks  [][]int // of the first of the points for so many rows wanted: of each of the nearest rows, how many lists are nearer than its own
}

// probe is what walks for one row have found.
type probe struct {
	row   uint32
	kth   []float32 // by point: how far the last of the nearest rows is, for so many wanted
	found []int     // by point; -1: nothing is known
}

// walksSeen is what walks have found in sum.
type walksSeen struct {
	walks   int
	met     int // of the nearest rows
	found   int // of them, when what was met is ranked
	squares int // of found, by walk
}

func newShareMeasure(g *sqGraph, points shareTable) *shareMeasure {
	n := len(points)
	return &shareMeasure{
		g: g, points: points, walks: make([]walksSeen, n), halves: make([]walksSeen, n),
		ranks: make([][]int, n), place: make([]int, g.lists.n),
	}
}

// take takes what another has seen.
func (m *shareMeasure) take(w *shareMeasure) {
	m.probes, w.probes = append(m.probes, w.probes...), w.probes[:0]
	for i := range w.walks {
		m.walks[i].take(&w.walks[i])
		m.halves[i].take(&w.halves[i])
		m.ranks[i] = append(m.ranks[i], w.ranks[i]...)
		w.ranks[i] = w.ranks[i][:0]
	}
}

func (x *walksSeen) take(y *walksSeen) {
	x.walks, x.met, x.found, x.squares = x.walks+y.walks, x.met+y.met, x.found+y.found, x.squares+y.squares
	*y = walksSeen{}
}

// look looks at what walks for some rows find.
func (m *shareMeasure) look(rows []uint32, s *Scratch) {
	g := m.g
	var vectors []float32
	for _, row := range rows {
		vectors = append(vectors, g.vector(row)...)
	}
	near := make([][]Neighbor, len(rows))
	most := min(shareTruth/3, g.rows)
	g.shareBatch(vectors, &Query{K: most}, most, shareTruth, g.lists.n, s, func(i int, found []Neighbor) {
		near[i] = slices.Clone(found[:min(shareWanted+shareWanted/10, len(found))])
	})
	for i, row := range rows {
		m.places(g.vector(row), s)
		near := m.exact(row, m.further(row, near[i], s), s)
		seen := newProbe(row, len(m.points))
		for at := 0; at < len(m.points); {
			part, _ := m.points[at:].part()
			if k := int(part[0].rows); len(near) >= k {
				for _, n := range near[:k] {
					m.ranks[at] = append(m.ranks[at], m.place[m.of[n.Row]])
				}
				m.note(m.walks[at:], part, k, seen.found[at:], g.scans, func(ef int) (met, found int) { return m.walk(row, near[:k], ef, s) })
				for j := range part {
					seen.kth[at+j] = near[k-1].Distance
				}
			}
			at += len(part)
		}
		m.probes = append(m.probes, seen)
		some := slices.DeleteFunc(near, func(n Neighbor) bool { return !m.half.Has(int(n.Row)) })
		if part, _ := m.points.part(); len(some) >= calibrateK {
			m.note(m.halves, part, calibrateK, nil, m.scansHalf, func(ef int) (met, found int) { return m.filtered(row, some[:calibrateK], ef, s) })
		}
	}
}

// further adds what the longest walk finds that is not among rows found by code: where rows lie closer to one another
// than codes tell, the nearest are not among the nearest by code.
func (m *shareMeasure) further(row uint32, near []Neighbor, s *Scratch) []Neighbor {
	g, k, ef := m.g, shareWanted+shareWanted/10, int(m.points[len(m.points)-1].effort)
	if g.scans(ef) {
		return near
	}
	s.begin(g.m0)
	w := g.walkBeside(row, k, ef, s)
	known := make(map[uint32]bool, len(near))
	for _, n := range near {
		known[n.Row] = true
	}
	for _, n := range g.end(g.vector(row), w, k, nil, s) {
		if !known[n.Row] {
			near = append(near, n)
		}
	}
	return near
}

// exact puts rows near to a row in order, without it and those equal to it.
func (m *shareMeasure) exact(row uint32, near []Neighbor, s *Scratch) []Neighbor {
	g, v := m.g, m.g.vector(row)
	s.begin(g.m0)
	for equal, ok := row, true; ok; equal, ok = g.follow(equal, s) {
		near = slices.DeleteFunc(near, func(n Neighbor) bool { return n.Row == equal })
	}
	for i := range near {
		near[i].Distance = g.exactly(v, near[i].Row, s)
	}
	slices.SortFunc(near, Neighbor.Compare)
	return near
}

// note notes what is found of k rows with the efforts of some points, up to the one with which all rows are looked at. If
// all are found, they are with more effort, too.
func (m *shareMeasure) note(seen []walksSeen, points shareTable, k int, each []int, scans func(ef int) bool, look func(ef int) (met, found int)) {
	met, found := 0, 0
	for i, p := range points {
		if int(p.effort) > m.g.rows || scans(int(p.effort)) {
			return
		}
		if met < k || found < k {
			met, found = look(int(p.effort))
		}
		seen[i].take(&walksSeen{walks: 1, met: met, found: found, squares: found * found})
		if each != nil {
			each[i] = found
		}
	}
}

// walk walks for a row and counts which of the nearest it meets, and which are found then.
func (m *shareMeasure) walk(row uint32, near []Neighbor, ef int, s *Scratch) (met, found int) {
	g, v, k := m.g, m.g.vector(row), len(near)
	s.begin(g.m0)
	w := g.walkBeside(row, k, ef, s)
	met = m.met(near, w)
	return met, g.asNear(v, g.end(v, w, k, nil, s), near[k-1].Distance, s)
}

// filtered is walk for a search in lists with a filter.
func (m *shareMeasure) filtered(row uint32, near []Neighbor, ef int, s *Scratch) (met, found int) {
	g, v, k, c := m.g, m.g.vector(row), len(near), m.half.Count()
	s.begin(g.m0)
	sq := g.prepare(v, s)
	found = g.asNear(v, g.searchLists(v, &sq, k, ef, ef, c, m.half.Words(), nil, s), near[k-1].Distance, s)
	return k, found
}

// scansHalf says whether all rows of half are looked at with an effort.
func (m *shareMeasure) scansHalf(ef int) bool { return m.g.scansAllowed(m.half.Count(), ef) }

// asNear counts rows that are as near as a distance by their vectors.
func (g *sqGraph) asNear(v []float32, rows []Neighbor, distance float32, s *Scratch) (n int) {
	for _, x := range rows {
		if g.exactly(v, x.Row, s) <= distance {
			n++
		}
	}
	return n
}

// exactly is the distance of a row by its vector, which does not depend on the rows beside it.
func (g *sqGraph) exactly(v []float32, row uint32, s *Scratch) float32 {
	s.ids[0] = row
	g.byID(v, g.scale(v), s.ids[:1], s.dist)
	return s.dist[0]
}

// walkBeside walks for a row as if the graph did not have it.
func (g *sqGraph) walkBeside(row uint32, k, ef int, s *Scratch) *sqWalk {
	w := &s.walk
	if !g.nearOnly || !g.beginNearOnly(w, g.prepare(g.vector(row), s), row, ef, s) {
		w = g.beginBeside(row, ef, s)
		g.beginNear(w, s)
	}
	w.endBy(g, g.vector(row), k, ef, s)
	w.run(g, s)
	return w
}

// beginBeside begins a walk of an effort for a row that does not meet it.
func (g *sqGraph) beginBeside(row uint32, ef int, s *Scratch) *sqWalk {
	sq := g.prepare(g.vector(row), s)
	from, d := g.descend(&sq, 0, s)
	if from == row {
		from = g.list(row, 0)[0] - 1
		s.ids[0] = from
		g.code.distances(&sq, g.records, s.ids[:1], s.dist)
		d = s.dist[0]
	}
	w := &s.walk
	w.begin(g, sq, from, d, ef, 0)
	w.seen.add(row)
	return w
}

// met counts which of the nearest rows a walk has met.
func (m *shareMeasure) met(near []Neighbor, w *sqWalk) (n int) {
	m.near.reset(m.g.rows)
	for _, key := range w.pool {
		row := poolRow(key)
		for steps := len(near); steps >= 0 && int(row) < m.g.rows; steps-- {
			m.near.add(row)
			if m.g.twins == nil {
				break
			}
			row = m.g.twins[row]&^twinEqual - 1
		}
	}
	for _, x := range near {
		if !m.near.add(x.Row) {
			n++
		}
	}
	return n
}

// places notes how many lists are nearer to a vector than each list.
func (m *shareMeasure) places(vector []float32, s *Scratch) {
	g, f := m.g, &s.lists
	g.prepare(vector, s)
	g.centreDots(nil, s)
	var keys []uint64
	for l := range m.place {
		keys = append(keys, vec.Key(float32(f.sums[l])*f.aff.Scale+f.bias[l], uint32(l)))
	}
	slices.Sort(keys)
	for i, key := range keys {
		m.place[uint32(key)] = i
	}
}

// fill writes the table.
func (m *shareMeasure) fill() {
	var ranks []int
	var last share
	for i, x := range m.walks {
		p := &m.g.shares[i]
		if p.rows != last.rows {
			ranks, last = m.ranks[i], share{}
			slices.Sort(ranks)
		}
		if x.walks > 0 {
			lists := ranks[max(x.met*len(ranks)/(x.walks*int(p.rows)), 1)-1] + 1
			lists += lists/shareMore + shareSome
			p.lists = max(last.lists, uint32(min(lists, m.g.lists.n)))
			p.found = max(last.found, x.surely(int(p.rows)), 1)
		}
		if x := m.halves[i]; x.walks > 0 {
			p.half = max(last.half, x.surely(int(p.rows)), 1)
		}
		last = *p
	}
}

// likely is the effort that finds a share of calibrateK rows in the mean of the walks, with nothing to be sure of it; 0: it is not known.
func (m *shareMeasure) likely(recall float64) float64 {
	part, _ := m.points.part()
	t, last := slices.Clone(part), uint32(1)
	for i := range t {
		x := m.walks[i]
		if x.walks == 0 {
			break
		}
		last = max(last, uint32(shareAll*float64(x.found)/float64(x.walks*int(t[i].rows))))
		t[i].found = last
	}
	return t.misses(1-recall, share.all)
}

// surely is the share of so many rows that is found, less the standard error of its mean, in parts of shareAll.
func (x *walksSeen) surely(rows int) uint32 {
	n := float64(x.walks)
	mean := float64(x.found) / n
	spread := max(float64(x.squares)/n-mean*mean, 0)
	return uint32(shareAll * max(mean-math.Sqrt(spread/n), 0) / float64(rows))
}
