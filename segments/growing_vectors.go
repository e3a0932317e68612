package segments

import (
	"sync/atomic"

	"github.com/querynode/querynode/internal/bitset"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/schema"
)

// graphAfter is the number of rows from which a growing segment gets a graph:
// below it an exact scan is faster than the walk and costs nothing to keep.
const graphAfter = 10_000

// growingVectors holds one vector field of a growing segment in one contiguous
// piece of memory that the kernels can address, and the graph over its first rows.
type growingVectors struct {
	fieldID int64
	dim     int

	arena  atomic.Pointer[arena]
	old    []*arena // outgrown ones that readers may still hold; writer only
	metric index.Metric
	exact  bool // the index type is FLAT: never build a graph

	graph atomic.Pointer[index.HNSW] // nil until the builder made one
	built atomic.Int64               // rows [0, built) are in the graph
}

func newGrowingVectors(f schema.Field, capacity int) (*growingVectors, error) {
	a, err := newArena(capacity * f.Dim)
	if err != nil {
		return nil, err
	}
	v := &growingVectors{fieldID: f.ID, dim: f.Dim}
	v.arena.Store(a)
	return v, nil
}

// data is the memory of all rows; only published ones may be read.
func (v *growingVectors) data() []float32 { return v.arena.Load().floats }

func (v *growingVectors) append(col *schema.Column, first, n int) error {
	a := v.arena.Load()
	if need := (first + n) * v.dim; need > len(a.floats) {
		bigger, err := newArena(max(need, 2*len(a.floats)))
		if err != nil {
			return err
		}
		copy(bigger.floats, a.floats[:first*v.dim])
		v.old = append(v.old, a)
		v.arena.Store(bigger)
		a = bigger
	}
	copy(a.floats[first*v.dim:], col.Float)
	return nil
}

// nearest merges what the graph finds among its rows with a scan of the others.
func (v *growingVectors) nearest(q nearestQuery, n int, allowed *bitset.Set, sc *scratch) ([]index.Neighbor, error) {
	graph, built := v.graph.Load(), int(v.built.Load())
	if graph == nil || built > n || graph.Metric() != q.metric {
		return sc.scan(v.data(), v.dim, 0, n, q, allowed)
	}
	found, err := sc.walk(graph, q, allowed, n)
	if err != nil || built == n {
		return found, err
	}
	rest, err := sc.scan(v.data(), v.dim, built, n, q, allowed)
	if err != nil {
		return nil, err
	}
	return sc.merge(found, rest, q.k), nil
}

func (v *growingVectors) bytes(rows int) int64 {
	n := 4 * int64(rows) * int64(v.dim)
	if g := v.graph.Load(); g != nil {
		n += g.Bytes()
	}
	return n
}

func (v *growingVectors) close() error {
	first := v.arena.Load().close()
	for _, a := range v.old {
		if err := a.close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}
