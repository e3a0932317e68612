package segments

import (
	"slices"
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/vec"
)

// growingVectors holds one vector field of a growing segment in one contiguous
// piece of memory that the kernels can address, and the graph over its first rows.
type growingVectors struct {
	fieldID int64
	dim     int
	metric  index.Metric
	exact   bool // the index type is FLAT: never build a graph
	kernels vec.Kernels

	arena atomic.Pointer[arena]
	norms atomic.Pointer[arena] // Cosine: inverse norm per row; else nil
	old   []*arena              // outgrown ones that readers may still hold; writer only
	left  *arena                // of arena, outgrown by the rows that come next; writer only

	graph  atomic.Pointer[growingGraph] // nil until the builder made one
	ledger *Ledger
	notYet int // builder only: rows at which to ask again for memory that was refused
}

func newGrowingVectors(f schema.Field, ix VectorIndex, rows int, l *Ledger) (*growingVectors, error) {
	v := &growingVectors{fieldID: f.ID, dim: f.Dim, metric: ix.Metric, exact: ix.Type == indexFlat, kernels: vec.Detect(), ledger: l}
	a, err := newArena(rows * f.Dim)
	if err != nil {
		return nil, err
	}
	v.arena.Store(a)
	if v.metric == index.Cosine {
		n, err := newArena(rows)
		if err != nil {
			_ = a.close()
			return nil, err
		}
		v.norms.Store(n)
	}
	return v, nil
}

// data is the memory of all rows; only published ones may be read.
func (v *growingVectors) data() []float32 { return v.arena.Load().floats }

// invNorms is the inverse norm of each row, nil if the metric does not need it.
func (v *growingVectors) invNorms() []float32 {
	if n := v.norms.Load(); n != nil {
		return n.floats
	}
	return nil
}

// needs is the memory that n rows after the first take. A piece of memory that
// is outgrown stays until the segment is closed, so its copy counts again.
func (v *growingVectors) needs(first, n int) int64 {
	bytes := 4 * int64(n) * int64(v.dim)
	if v.metric == index.Cosine {
		bytes += 4 * int64(n)
	}
	if (first+n)*v.dim > len(v.data()) {
		bytes += 4 * int64(first) * int64(v.dim)
	}
	return bytes
}

// room makes room for n rows after the first.
func (v *growingVectors) room(first, n int) error {
	before := v.arena.Load()
	if err := v.widen(&v.arena, first*v.dim, (first+n)*v.dim); err != nil {
		return err
	}
	if v.arena.Load() != before {
		v.left = before
	}
	if v.norms.Load() == nil {
		return nil
	}
	return v.widen(&v.norms, first, first+n)
}

// widen replaces the memory by one of twice the size if need values do not fit.
func (v *growingVectors) widen(p *atomic.Pointer[arena], used, need int) error {
	a := p.Load()
	if need <= len(a.floats) {
		return nil
	}
	bigger, err := newArena(max(need, 2*len(a.floats)))
	if err != nil {
		return err
	}
	copy(bigger.floats, a.floats[:used])
	v.old = append(v.old, a)
	p.Store(bigger)
	return nil
}

// append copies rows to where room has made room for them.
func (v *growingVectors) append(col *schema.Column, first, n int) {
	base := v.data()
	copy(base[first*v.dim:(first+n)*v.dim], col.Float)
	if a := v.left; a != nil {
		// A graph over the memory that was left takes the rows that have room in it.
		if at := first * v.dim; at < len(a.floats) {
			copy(a.floats[at:], col.Float)
		}
		v.left = nil
	}
	if inv := v.invNorms(); inv != nil {
		for r := first; r < first+n; r++ {
			inv[r] = v.kernels.InvNorm(base[r*v.dim : (r+1)*v.dim])
		}
	}
}

// nearest merges what the graph finds among its rows with a scan of the others.
func (v *growingVectors) nearest(q *nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	rows := vectors{base: v.data(), inv: v.invNorms(), dim: v.dim}
	graph := v.graph.Load()
	if graph == nil || q.exact || v.metric != q.metric {
		return sc.scan(rows, q.from, n, q, allowed)
	}
	built := int(graph.rows.Load())
	if allowed == nil && built > n {
		allowed = sc.prefix(n) // a read in the past
	}
	found, err := sc.walk(graph.hnsw, q, allowed)
	if err != nil {
		return nil, err
	}
	if allowed == nil && slices.ContainsFunc(found, func(f index.Neighbor) bool { return int(f.Row) >= n }) {
		// The graph took rows meanwhile that the read must not see, and they have
		// pushed others out: once more, with a bound.
		if found, err = sc.walk(graph.hnsw, q, sc.prefix(n)); err != nil {
			return nil, err
		}
	}
	if built >= n {
		return found, nil
	}
	// Rows behind built are on their way into the graph: the scan covers them.
	found = slices.DeleteFunc(found, func(f index.Neighbor) bool { return int(f.Row) >= built })
	rest, err := sc.scan(rows, built, n, q, allowed)
	if err != nil {
		return nil, err
	}
	return sc.merge(found, rest, q.k), nil
}

func (v *growingVectors) graphBytes() int64 {
	if g := v.graph.Load(); g != nil {
		return g.memory.size()
	}
	return 0
}

func (v *growingVectors) close() error {
	if g := v.graph.Load(); g != nil {
		g.memory.Release()
	}
	var errs error
	for _, a := range append(v.old, v.arena.Load(), v.norms.Load()) {
		if a == nil {
			continue
		}
		if err := a.close(); err != nil {
			errs = errclass.Wrap(err, errclass.Internal, "vectors of field %d", v.fieldID)
		}
	}
	return errs
}
