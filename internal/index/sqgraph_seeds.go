package index

import (
	"context"
	"encoding/binary"
	"math"
	"math/rand/v2"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// A graph may have parts that a walk does not get to from where it begins: many equal rows in
// the middle of far heaps are one row to the graph, which is nearer to each heap than the
// others are, and has links for few. Walks begin at rows near the query then, too: one of each of
// the nearest lists.
const (
	// seedLists is how many lists have a row that a walk begins at.
	seedLists = 8
	// seedBlock is how many lists are compared at a time.
	seedBlock = 8 * vec.PanelRows
	// seedQueries are walked for to find out whether it pays, with an ef of seedEf: places halfway between two
	// rows, of which seedGain more of the ten nearest must be found.
	seedQueries, seedEf, seedGain = 128, 64, 0.05
	// seedLoss is the part of them that walks may miss which begin near the query only.
	seedLoss = 0.01
)

// begin has a walk of an effort begin where the graph does and near the query, or near it only: where either finds as much, getting near it
// from one row is a third of the work.
func (g *sqGraph) begin(w *sqWalk, q sqQuery, ef int, s *Scratch) {
	if g.nearOnly && g.beginNearOnly(w, q, noRow, ef, s) {
		return
	}
	row, d := g.descend(&q, 0, s)
	w.begin(g, q, row, d, ef, 0)
	g.beginNear(w, s)
}

// beginNearOnly has a walk begin at rows near the query, which was prepared last, as if a row were not there; false: there are none.
func (g *sqGraph) beginNearOnly(w *sqWalk, q sqQuery, beside uint32, ef int, s *Scratch) bool {
	w.pool = w.pool[:0]
	w.again(g, q, ef, 0)
	if int(beside) < g.rows {
		w.seen.add(beside)
	}
	g.seedNear(w, s)
	return len(w.pool) > 0
}

// beginNear has a walk that has begun begin at rows near the query, too; the query is the last that
// was prepared.
func (g *sqGraph) beginNear(w *sqWalk, s *Scratch) {
	if g.seeded {
		g.seedNear(w, s)
	}
}

func (g *sqGraph) seedNear(w *sqWalk, s *Scratch) {
	var rows [seedLists]uint32
	w.n = 0
	for _, row := range rows[:g.seeds(rows[:min(seedLists, len(w.ids))], s)] {
		if w.seen.add(row) {
			w.ids[w.n] = row
			w.n++
		}
	}
	g.fetch(w.ids[:w.n])
	w.score(g)
	w.at = 0
}

// entry is the row that a walk begins at which begins at one, and its distance by code.
func (g *sqGraph) entry(q *sqQuery, s *Scratch) (uint32, float32) {
	row, d := g.descend(q, 0, s)
	if g.seeded {
		n := g.seeds(s.ids[:seedLists], s)
		g.code.distances(q, g.records, s.ids[:n], s.dist)
		s.stats.Distances += n
		for i, other := range s.ids[:n] {
			if s.dist[i] < d {
				row, d = other, s.dist[i]
			}
		}
	}
	return row, d
}

// seeds writes a row of each of the lists nearest to the query to rows, as many as there is
// room for, and returns how many.
func (g *sqGraph) seeds(rows []uint32, s *Scratch) int {
	g.centreDots(nil, s)
	f := &s.lists
	var near [seedLists]uint64
	n, limit := 0, float32(math.MaxFloat32)
	for from := 0; from < g.lists.n; from += seedBlock { // few of a block are nearer than those before
		sums := f.sums[from:min(from+seedBlock, len(f.bias))]
		hits := g.kern.SumsBelow(sums, f.bias[from:], f.aff, limit, f.rows, f.dist)
		for i, l := range f.rows[:hits] {
			key := vec.Key(f.dist[i], uint32(from)+l)
			if from+int(l) >= g.lists.n || n == len(near) && key > near[n-1] {
				continue
			}
			n = min(n+1, len(near))
			at := n - 1
			for ; at > 0 && near[at-1] > key; at-- {
				near[at] = near[at-1]
			}
			near[at] = key
		}
		if n == len(near) {
			limit = vec.Unkey(near[n-1]).Distance
		}
	}
	found := 0
	for _, key := range near[:min(n, len(rows))] {
		for _, link := range g.lists.list(uint32(key)) {
			// Of equal rows only the first is linked.
			if row := link - 1; int(row) < g.rows && atomic.LoadUint32(&g.list(row, 0)[0]) != 0 {
				rows[found] = row
				found++
				break
			}
		}
	}
	return found
}

// learnSeeds finds out whether walks are to begin near the query, too, and notes it in the image.
func (b *sqBuilt) learnSeeds(ctx context.Context, workers int) error {
	g := b.g
	if g.lists == nil || g.lists.n < 2*seedLists || g.rows < endRowsLeast {
		return nil
	}
	r := rand.New(rand.NewPCG(g.seed, uint64(g.rows)))
	queries := make([]float32, seedQueries*g.dim)
	for i := range seedQueries {
		from, to := g.vector(uint32(r.IntN(g.rows))), g.vector(uint32(r.IntN(g.rows)))
		for d := range g.dim {
			queries[i*g.dim+d] = (from[d] + to[d]) / 2
		}
	}
	var more, only, all atomic.Int64
	err := parallel(ctx, workers, seedQueries, 8, func() func(from, to int) error {
		s := &Scratch{}
		return func(from, to int) error {
			for i := from; i < to; i++ {
				q := queries[i*g.dim:][:g.dim]
				plain := slices.Clone(g.walkFrom(q, beginsFar, s))
				seeded := slices.Clone(g.walkFrom(q, beginsFar|beginsNear, s))
				near := g.walkFrom(q, beginsNear, s)
				k := min(calibrateK, len(seeded), len(plain))
				more.Add(int64(nearer(seeded[:k], plain[k-1]) - nearer(plain[:k], seeded[k-1])))
				if n := min(k, len(near)); n > 0 {
					only.Add(int64(nearer(near[:n], seeded[n-1]) - nearer(seeded[:n], near[n-1])))
				}
				only.Add(int64(min(len(near)-k, 0)))
				all.Add(int64(k))
			}
			return nil
		}
	})
	if err != nil {
		return errors.Wrap(err, "measure where walks begin")
	}
	if float64(more.Load()) > seedGain*float64(all.Load()) {
		g.seeded = true
		g.nearOnly = float64(only.Load()) >= -seedLoss*float64(all.Load())
		b.noteSeeds()
	}
	return nil
}

// noteSeeds writes where walks begin to the header.
func (b *sqBuilt) noteSeeds() {
	h, le := b.mem.bytes, binary.LittleEndian
	flags := le.Uint32(h[44:])
	if b.g.seeded {
		flags |= sqSeeded
	}
	if b.g.nearOnly {
		flags |= sqNearOnly
		le.PutUint32(h[8:], 8) // builds before do not know of that
	}
	le.PutUint32(h[44:], flags)
	le.PutUint32(h[124:], castagnoli(h[:124]))
}

// nearer is how many keys are nearer than another.
func nearer(keys []uint64, than uint64) (n int) {
	for _, key := range keys {
		if key|1 < than&^1 {
			n++
		}
	}
	return n
}

// Where a walk begins.
const (
	beginsFar  = 1 << iota // at the row that is nearest on the level above
	beginsNear             // near the query
)

// walkFrom walks for a query from where it is told to, and returns what is found.
func (g *sqGraph) walkFrom(query []float32, from int, s *Scratch) []uint64 {
	s.begin(g.m0)
	q := g.prepare(query, s)
	if from == beginsNear {
		g.beginNearOnly(&s.walk, q, noRow, seedEf, s)
	} else {
		row, d := g.descend(&q, 0, s)
		s.walk.begin(g, q, row, d, seedEf, 0)
		if from&beginsNear != 0 {
			g.seedNear(&s.walk, s)
		}
	}
	s.walk.run(g, s)
	return s.walk.pool
}
