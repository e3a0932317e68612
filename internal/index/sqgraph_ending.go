package index

import (
	"context"
	"encoding/binary"
	"math"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/vec"
)

// A walk that follows the ef nearest rows does too much for queries whose nearest rows are
// far nearer than the others, and too little for those with many rows at nearly the same
// distance. So a walk ends by distance (as in Al-Jazzazi et al., arXiv:2505.15636): no row is followed that is farther than
//
//	d + e*s
//
// d being the distance of the k-th nearest row found, s what there is to compare distances
// with, and e = (ef/k)^p - 1. Where distances are Euclidean, s is d: the k-th and
// the ef-th nearest rows are at squared distances of (ef/k)^(2/D) in D dimensions. p is measured as a graph is
// built: with it, walks compute as many distances in the mean as those that follow ef rows.
const (
	// endFrom times k is the ef from which on walks end by distance: it gains little below.
	endFrom = 2.5
	// endLeast is the least k: fewer rows tell little of how near rows are around a query.
	endLeast = 10
	// endFewest is how many rows are followed in any case, and endMost how many at
	// most, for an ef of 1. Queries that are unlike the rows have many at nearly the same distance.
	endFewest, endMost = 0.5, 1.5
	// endFloor is the part of the usual s that it is at least: very near rows are told apart by little more than the codes' error.
	endFloor = 0.25
	// endUnit is what p is stored in.
	endUnit = 1.0 / 32768
)

// How p is measured: by up to endRows rows as queries, for ef of endNear and endFar times k,
// in graphs of endRowsLeast rows or more.
const (
	endRows, endRowsLeast = 128, 4096
	endNear, endFar       = 2, 16
	endLow                = 512  // least p, in endUnit
	endClose              = 1.02 // p is as good as times that
)

// ending is how walks of a graph end by distance. The zero ending is that they do not.
type ending struct {
	near, far uint16  // p for endNear and endFar times k, in endUnit
	typical   float32 // median of s, IP: for a query of length 1
}

func (e *ending) exists() bool { return e.near != 0 && e.far != 0 && e.typical > 0 }

// valid reports whether an image may have e.
func (e *ending) valid() bool { return e.typical >= 0 && e.typical <= math.MaxFloat32 }

// by returns e for an ef of so many times k.
func (e *ending) by(times float64) float32 {
	x := math.Log(times)
	at := (min(x, math.Log(2*endFar)) - math.Log(endNear)) / math.Log(endFar/endNear)
	p := endUnit * (float64(e.near) + at*(float64(e.far)-float64(e.near)))
	return float32(math.Expm1(max(p, 0) * x))
}

// reach is where a walk ends. The zero reach is that of one that follows ef rows.
type reach struct {
	k            int
	by           float32 // e
	scale, shift float32 // s is scale times the distance of the k-th row by code, plus shift
	floor        float32 // but at least that
	fewest       int     // rows that are followed whatever their distance
}

// limit returns the key behind which no row is followed if the k-th nearest found has key.
func (r *reach) limit(key uint64) uint64 {
	d := poolDistance(key)
	if d += r.by * max(r.scale*d+r.shift, r.floor); d <= math.MaxFloat32 {
		return vec.Key(d, math.MaxUint32)
	}
	return noLimit
}

// noLimit is behind every row.
const noLimit = math.MaxUint64

// endBy has a walk that is to follow ef rows, and has begun, end by distance if that pays.
func (w *sqWalk) endBy(g *sqGraph, vector []float32, k, ef int, s *Scratch) {
	if k = max(k, endLeast); float64(ef) < endFrom*float64(k) || !g.ending.exists() {
		return
	}
	w.endAt(g, g.reach(&g.ending, vector, &w.q, k, ef, s), ef)
}

func (w *sqWalk) endAt(g *sqGraph, r reach, ef int) {
	w.reach = r
	w.ef = min(int(endMost*float64(ef)), g.rows)
	w.room = w.ef
}

// reach is where a walk for a query ends.
func (g *sqGraph) reach(e *ending, vector []float32, q *sqQuery, k, ef int, s *Scratch) reach {
	r := reach{k: k, by: e.by(float64(ef) / float64(k)), fewest: max(k, int(endFewest*float64(ef)))}
	r.scale, r.shift = g.code.compared(vector, q, s.sq.coded)
	r.floor = endFloor * e.typical
	if g.metric == IP {
		// Long rows may be the nearest of all queries of a direction, so that s says less of a query.
		usual := e.typical * float32(math.Sqrt(float64(g.kern.Dot(vector, vector))))
		r.scale, r.shift, r.floor = r.scale/2, (r.shift+usual)/2, endFloor*usual
	}
	return r
}

// compared returns what makes s of a distance by code: the distance (twice that for Cosine), or the product with
// the row less the mean for IP.
func (c *coder) compared(vector []float32, q *sqQuery, w *coded) (scale, shift float32) {
	if c.metric == IP {
		return -1, -q.add
	}
	own, mean, both := c.kern.Dot(vector, vector), c.kern.Dot(c.mean, c.mean), c.kern.Dot(vector, c.mean)
	if c.metric == Cosine && own > 0 {
		own, both = 1, both/float32(math.Sqrt(float64(own)))
	}
	square := own + mean - 2*both
	if !(square > 1e-3*(own+mean)) || c.metric == Cosine && own != 1 {
		square = c.centre(vector, w) // a difference of large numbers
	}
	return 1, square + q.add
}

// learnEnding measures how walks are to end, and notes it in the image. Graphs where that is not to be told end as they did.
func (b *sqBuilt) learnEnding(ctx context.Context, workers int) error {
	e, err := b.g.measureEnding(ctx, workers)
	if err != nil || !e.exists() {
		return err
	}
	b.g.ending = e
	e.put(b.mem.bytes)
	binary.LittleEndian.PutUint32(b.mem.bytes[124:], castagnoli(b.mem.bytes[:124]))
	return nil
}

// measureEnding measures how walks are to end; the zero ending if that is not to be told.
func (g *sqGraph) measureEnding(ctx context.Context, workers int) (ending, error) {
	if g.rows < endRowsLeast {
		return ending{}, nil
	}
	l := newEndLearner(g)
	near, err := l.learn(ctx, workers, endNear*endLeast)
	if err != nil {
		return ending{}, err
	}
	far, err := l.learn(ctx, workers, endFar*endLeast)
	if err != nil || near == 0 || far == 0 {
		return ending{}, err
	}
	return ending{near: near, far: far, typical: l.typical}, nil
}

// put writes e to a header.
func (e *ending) put(header []byte) {
	le := binary.LittleEndian
	le.PutUint16(header[108:], e.near)
	le.PutUint16(header[110:], e.far)
	le.PutUint32(header[112:], math.Float32bits(e.typical))
}

func endingOf(header []byte) ending {
	le := binary.LittleEndian
	return ending{near: le.Uint16(header[108:]), far: le.Uint16(header[110:]), typical: math.Float32frombits(le.Uint32(header[112:]))}
}

// endLearner measures walks for rows as queries, which do not find themselves.
type endLearner struct {
	g       *sqGraph
	rows    []uint32
	typical float32
}

func newEndLearner(g *sqGraph) *endLearner {
	l := &endLearner{g: g}
	n := min(max(g.rows/512, endRows/2), endRows)
	pickRows(g.rows, n, func(row int) {
		if g.list(uint32(row), 0)[0] != 0 { // twins have no links
			l.rows = append(l.rows, uint32(row))
		}
	})
	return l
}

// learn returns p for an ef: the least with which walks compute as many distances as those
// that follow ef rows. 0: there is none.
func (l *endLearner) learn(ctx context.Context, workers, ef int) (uint16, error) {
	want, err := l.cost(ctx, workers, ef, nil)
	if err != nil {
		return 0, err
	}
	low, high := float64(endLow), float64(math.MaxUint16)
	if len(l.rows) < endRows/8 || !(l.typical > 0 && l.typical <= math.MaxFloat32) {
		return 0, nil
	}
	for at := low; high > endClose*low; at = math.Sqrt(low * high) {
		p := uint16(at)
		cost, err := l.cost(ctx, workers, ef, &ending{near: p, far: p, typical: l.typical})
		switch {
		case err != nil:
			return 0, err
		case cost >= want && at == low:
			return 0, nil
		case cost >= want:
			high = at
		default:
			low = at
		}
	}
	if high == math.MaxUint16 {
		return 0, nil
	}
	return uint16(high), nil
}

// cost counts the distances computed by walks for all rows that end so (nil: after ef rows). Without an
// end, it finds the typical s.
func (l *endLearner) cost(ctx context.Context, workers, ef int, e *ending) (int, error) {
	costs, tells := make([]int, len(l.rows)), make([]float32, len(l.rows))
	err := parallel(ctx, workers, len(l.rows), 8, func() func(from, to int) error {
		s := &Scratch{}
		return func(from, to int) error {
			for i := from; i < to; i++ {
				costs[i], tells[i] = l.walk(l.rows[i], ef, e, s)
			}
			return nil
		}
	})
	if err != nil {
		return 0, errors.Wrap(err, "measure walks")
	}
	sum := 0
	for _, n := range costs {
		sum += n
	}
	if e == nil && len(tells) > 0 {
		slices.Sort(tells)
		l.typical = tells[len(tells)/2]
	}
	return sum, nil
}

// walk walks for a row. It returns how many distances that took and s.
func (l *endLearner) walk(row uint32, ef int, e *ending, s *Scratch) (int, float32) {
	g := l.g
	s.begin(g.m0)
	v, w := g.vector(row), g.beginBeside(row, ef, s)
	if e != nil {
		w.endAt(g, g.reach(e, v, &w.q, endLeast, ef, s), ef)
	}
	w.run(g, s)
	scale, shift := g.code.compared(v, &w.q, s.sq.coded)
	tells := scale*poolDistance(w.pool[min(endLeast, len(w.pool))-1]) + shift
	if g.metric == IP {
		tells *= g.kern.InvNorm(v)
	}
	return w.distances, tells
}
