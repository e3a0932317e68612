package segments

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/lifecycle"
)

const (
	// graphAfter is the number of rows from which a growing segment gets a graph
	// in any case. From graphEarly on, where a scan takes as long as a walk, it gets
	// one when searches have spent on scans what the graph would have cost.
	graphAfter = 10_000
	graphEarly = 1_000
	// insertScans is how many rows are scanned in the time that one is inserted.
	insertScans = 3_000
	// graphGrowth is how much room a graph has, as a multiple of the rows there
	// are when it is begun. A full one is replaced: rows are inserted 1.33 times
	// on average, and memory is not reserved for rows that may never come.
	graphGrowth = 4
	// buildStep is the number of rows that enter a graph before their number is
	// published, and buildTurn before the next segment has its turn.
	buildStep = 256
	buildTurn = 4096
	// growingEf is smaller than a sealed segment's: the graph lives until the
	// flush, and has to keep up with the inserts.
	growingEf = 80
)

// growingGraph is a graph over the first rows of a growing segment.
type growingGraph struct {
	hnsw   *index.HNSW
	rows   atomic.Int64 // rows [0, rows) are in the graph; later ones may be
	memory *Reservation
}

// graphBuilder puts the rows of growing segments into their graphs, one segment
// at a time, in a goroutine of the Set. Searches see what is built so far.
type graphBuilder struct {
	set     *Set
	wake    chan struct{} // capacity 1
	scratch index.Scratch // of the one goroutine

	mu struct {
		sync.Mutex
		pending map[*holder]*Growing // each holds one reference
		closed  bool
	}
}

func newGraphBuilder(s *Set) *graphBuilder {
	b := &graphBuilder{set: s, wake: make(chan struct{}, 1)}
	b.mu.pending = map[*holder]*Growing{}
	return b
}

// indexLater asks for the rows of g to be put into its graphs. The caller holds h.
func (s *Set) indexLater(h *holder, g *Growing) {
	if g.sealed.Load() || !g.wantsGraph(s.graphAfter) {
		return
	}
	s.builder.put(h, g)
}

// put adds a segment to those that wait, with a reference of its own.
func (b *graphBuilder) put(h *holder, g *Growing) {
	b.mu.Lock()
	if _, ok := b.mu.pending[h]; !ok && !b.mu.closed {
		h.refs.Add(1)
		b.mu.pending[h] = g
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

func (b *graphBuilder) take() (*holder, *Growing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for h, g := range b.mu.pending {
		delete(b.mu.pending, h)
		return h, g
	}
	return nil, nil
}

// releaseAll lets go of what is pending; nothing is taken on afterwards.
func (b *graphBuilder) releaseAll() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	for h, _ := b.take(); h != nil; h, _ = b.take() {
		b.set.unref(h)
	}
}

func (b *graphBuilder) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-b.wake:
		}
		for h, g := b.take(); h != nil; h, g = b.take() {
			b.turn(ctx, h, g)
		}
	}
}

// turn builds on the graphs of one segment for a while and lets go of it.
func (b *graphBuilder) turn(ctx context.Context, h *holder, g *Growing) {
	defer b.set.unref(h)
	for _, v := range g.vectors {
		more := false
		err := lifecycle.Call("build growing graph", func() (err error) {
			more, err = v.build(ctx, g, &b.scratch)
			return err
		})
		if err != nil {
			// A graph that cannot be built costs speed, not answers.
			v.notYet = 2 * g.Rows()
			b.set.o.Logger.Warn("segments: growing segment has no graph for now", "segment", g.meta.ID, "field", v.fieldID, "error", err)
		}
		if more {
			b.put(h, g)
		}
	}
}

// wantsGraph reports whether a field of g is to be searched by graph, which it is
// from so many rows on, or earlier if it is searched often.
func (g *Growing) wantsGraph(after int) bool {
	rows := g.Rows()
	for _, v := range g.vectors {
		if rows >= graphEarly && v.scanned.Load() >= int64(rows)*insertScans {
			v.often.Store(true) // for good: with the graph there are no scans to count
		}
		if !v.exact && (rows >= after || v.often.Load()) {
			return true
		}
	}
	return false
}

// build inserts published rows that are not in the graph yet, a turn's worth. It
// reports whether there are more.
func (v *growingVectors) build(ctx context.Context, g *Growing, sc *index.Scratch) (more bool, err error) {
	if v.exact || g.Rows() < v.notYet {
		return false, nil
	}
	graph := v.graph.Load()
	if graph == nil || graph.full() {
		return v.replace(ctx, g, graph, sc)
	}
	for range buildTurn / buildStep {
		ok, err := v.step(ctx, g, graph, sc)
		if err != nil {
			return false, err
		}
		if !ok {
			return graph.full() && outgrown(g, graph), nil
		}
	}
	return true, nil
}

func (g *growingGraph) full() bool { return int(g.rows.Load()) == g.hnsw.Capacity() }

// outgrown reports whether a full graph is to be replaced. The rows behind it are
// scanned until it is worth the work.
func outgrown(g *Growing, graph *growingGraph) bool {
	has := int(graph.rows.Load())
	return g.Rows() >= has+has/16+buildStep
}

// step inserts the next rows; ok is false if there are not enough, or the
// segment or the Set ends.
func (v *growingVectors) step(ctx context.Context, g *Growing, graph *growingGraph, sc *index.Scratch) (ok bool, err error) {
	row := int(graph.rows.Load())
	end := min(row+buildStep, graph.hnsw.Capacity())
	if row == end || end > g.Rows() || g.sealed.Load() || ctx.Err() != nil {
		return false, nil
	}
	for ; row < end; row++ {
		if err := graph.hnsw.Insert(uint32(row), sc); err != nil {
			return false, err
		}
	}
	graph.rows.Store(int64(row))
	return true, nil
}

// replace makes a graph with room for more rows. The old one serves until the
// new one has as many.
func (v *growingVectors) replace(ctx context.Context, g *Growing, old *growingGraph, sc *index.Scratch) (more bool, err error) {
	base, has := v.data(), 0
	if old != nil {
		if has = int(old.rows.Load()); !outgrown(g, old) {
			return false, nil
		}
	}
	o := index.HNSWOptions{Dim: v.dim, Metric: v.metric, Capacity: min(graphGrowth*g.Rows(), len(base)/v.dim), EfConstruction: growingEf}
	if o.Capacity <= has {
		return false, nil // the reserved space is full
	}
	memory, err := v.ledger.Reserve(KindGrowing, o.Bytes())
	if err != nil {
		return false, err
	}
	graph := &growingGraph{memory: memory}
	defer func() {
		if v.graph.Load() != graph {
			memory.Release()
		}
	}()
	if graph.hnsw, err = index.NewHNSW(o, base); err != nil {
		return false, err
	}
	for int(graph.rows.Load()) < has {
		if ok, err := v.step(ctx, g, graph, sc); !ok || err != nil {
			return false, err
		}
	}
	v.graph.Store(graph)
	if old != nil {
		old.memory.Release()
	}
	return true, nil
}
