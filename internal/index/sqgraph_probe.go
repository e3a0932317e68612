package index

import (
	"context"
	"slices"
	"sync"

	"github.com/querynode/querynode/internal/vec"
)

// Of the measuring of shares.
const (
	// shareRows is how many rows stand for queries, one of sharePart at most, and
	// shareBlock how many of them at a time.
	shareRows, sharePart, shareBlock = 256, 64, 32
	// Queries are no rows: shareMore, a part, and shareSome lists are read beyond those
	// that hold as much.
	shareMore, shareSome = 8, 1
)

// shareProbe are rows that stand for queries, and what walks of some efforts found of them
// before they were part of the graph: a walk that meets its own row is led by its links, and
// a graph from which a row is taken lacks those that it stood in the way of.
type shareProbe struct {
	rows  []uint32
	pools [len(sharesMeasured)][][]uint32 // of each of these and each row, the rows found
}

// holdBack takes some of the rows that are on level 0 only out of rows, to be looked for
// before they are inserted.
func (b *sqBuilder) holdBack(rows []uint32) (rest []uint32) {
	n := min(shareRows, b.g.rows/sharePart)
	slow := b.g.kern.Level() != vec.AVX512 && n*b.g.rows*b.g.dim > calibrateSlow // where batches do not read lists anyway
	if b.g.code.listDims(b.g.rows) == 0 || n == 0 || len(rows) < 2*n || slow {
		return rows
	}
	held := make([]bool, len(rows))
	for i := range n {
		at := (2*i + 1) * len(rows) / (2 * n)
		held[at] = true
		b.probe.rows = append(b.probe.rows, rows[at])
	}
	for i, row := range rows {
		if !held[i] {
			rest = append(rest, row)
		}
	}
	return rest
}

// lookForHeld walks for the rows that were held back.
func (b *sqBuilder) lookForHeld(ctx context.Context, workers int) error {
	g, p := b.g, &b.probe
	if len(p.rows) == 0 {
		return nil
	}
	if err := b.cutAll(ctx, workers); err != nil {
		return err
	}
	var err error
	if g.ending, err = g.measureEnding(ctx, workers); err != nil {
		return err
	}
	defer func() { g.ending = ending{} }() // of the graph as it will be, another is measured
	for i := range p.pools {
		p.pools[i] = make([][]uint32, len(p.rows))
	}
	return parallel(ctx, workers, len(p.rows), shareBlock, func() func(from, to int) error {
		s := &Scratch{}
		return func(from, to int) error {
			for i := from; i < to; i++ {
				s.begin(g.m0 + 1)
				q := g.prepare(g.vector(p.rows[i]), s)
				start, d := g.descend(&q, 0, s)
				for j, m := range sharesMeasured {
					if g.scans(m.ef) {
						continue
					}
					s.walk.begin(g, q, start, d, m.ef, 0)
					s.walk.endBy(g, g.vector(p.rows[i]), m.k, m.ef, s)
					s.walk.run(g, s)
					for _, key := range s.walk.pool {
						p.pools[j][i] = append(p.pools[j][i], poolRow(key))
					}
				}
			}
			return nil
		}
	})
}

// measureShares fills the table of shares: what walks have found of the nearest rows of those that
// were held back is compared with how many lists these are in.
func (g *sqGraph) measureShares(ctx context.Context, workers int, p *shareProbe) error {
	if len(g.shares) == 0 || len(p.rows) == 0 {
		return nil
	}
	m := shareMeasure{g: g, p: p, of: make([]uint32, g.rows), held: map[uint32]bool{}}
	for _, row := range p.rows {
		m.held[row] = true
	}
	for l := range g.lists.n {
		for _, row := range g.linked(g.lists.list(uint32(l)), nil) {
			m.of[row] = uint32(l)
		}
	}
	var mu sync.Mutex
	err := parallel(ctx, workers, len(p.rows), shareBlock, func() func(from, to int) error {
		w := shareMeasure{g: g, p: p, of: m.of, held: m.held}
		var s Scratch
		return func(from, to int) error {
			w.look(from, to, &s)
			mu.Lock()
			defer mu.Unlock()
			m.take(&w)
			return nil
		}
	})
	if err == nil {
		m.fill()
	}
	return err
}

// shareMeasure is what is known of the rows of a probe.
type shareMeasure struct {
	g     *sqGraph
	p     *shareProbe
	of    []uint32                   // the list of each row
	held  map[uint32]bool            // the rows of p
	ranks [len(sharesMeasured)][]int // of each of the nearest rows, how many lists are nearer than its own
	found [len(sharesMeasured)]int   // how many of these walks found
}

func (m *shareMeasure) take(w *shareMeasure) {
	for i := range w.ranks {
		m.ranks[i] = append(m.ranks[i], w.ranks[i]...)
		m.found[i] += w.found[i]
		w.ranks[i], w.found[i] = w.ranks[i][:0], 0
	}
}

// look looks at some of the rows.
func (m *shareMeasure) look(from, to int, s *Scratch) {
	g, rows := m.g, m.p.rows[from:to]
	var vectors []float32
	for _, row := range rows {
		vectors = append(vectors, g.vector(row)...)
	}
	const most = shareWanted + shareWanted/10
	near := make([][]Neighbor, len(rows))
	g.shareBatch(vectors, &Query{K: most}, most, g.lists.n, s, func(i int, found []Neighbor) { near[i] = slices.Clone(found) })
	place, in := make([]int, g.lists.n), map[uint32]bool{}
	for i := range rows {
		m.places(vectors[i*g.dim:][:g.dim], place, s)
		near[i] = slices.DeleteFunc(near[i], func(n Neighbor) bool { return m.held[n.Row] }) // walks could not find those
		for j, p := range sharesMeasured {
			pool := m.p.pools[j][from+i]
			if len(near[i]) < p.k || len(pool) == 0 {
				continue
			}
			clear(in)
			for _, row := range pool {
				in[row] = true
				for twin, n := row, p.k; n > 0 && g.twins != nil; n-- {
					if twin = g.twins[twin] - 1; int(twin) >= g.rows {
						break
					}
					in[twin] = true
				}
			}
			for _, n := range near[i][:p.k] {
				m.ranks[j] = append(m.ranks[j], place[m.of[n.Row]])
				if in[n.Row] {
					m.found[j]++
				}
			}
		}
	}
}

// places writes to place how many lists are nearer to a vector than each list.
func (m *shareMeasure) places(vector []float32, place []int, s *Scratch) {
	g, f := m.g, &s.lists
	g.prepare(vector, s)
	g.centreDots(nil, s)
	var keys []uint64
	for l := range place {
		keys = append(keys, vec.Key(float32(f.sums[l])*f.aff.Scale+f.bias[l], uint32(l)))
	}
	slices.Sort(keys)
	for i, key := range keys {
		place[uint32(key)] = i
	}
}

// fill writes the table.
func (m *shareMeasure) fill() {
	t, last := m.g.shares, 0
	for i, p := range sharesMeasured {
		if i > 0 && p.k != sharesMeasured[i-1].k {
			last = 0
		}
		t[sharePoint*i], t[sharePoint*i+1], t[sharePoint*i+2] = uint32(p.k), uint32(p.ef), 0
		ranks := m.ranks[i]
		if len(ranks) == 0 {
			continue
		}
		slices.Sort(ranks)
		lists := ranks[max(m.found[i], 1)-1] + 1
		lists += lists/shareMore + shareSome
		last = max(last, min(lists, m.g.lists.n))
		t[sharePoint*i+2] = uint32(last)
	}
}
