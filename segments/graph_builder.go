package segments

import (
	"context"
	"sync"

	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/lifecycle"
)

// buildStep is the number of rows that enter a growing graph before their
// number is published; a multiple of 64, so that a filter over the rest is whole words.
const buildStep = 256

// graphBuilder puts the rows of growing segments into their graphs, one segment
// at a time, in a goroutine of the Set. Searches see what is built so far.
type graphBuilder struct {
	set  *Set
	wake chan struct{} // capacity 1

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
	if g.Rows() < graphAfter || g.sealed.Load() {
		return
	}
	b := s.builder
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
		for h, g := b.take(); h != nil && ctx.Err() == nil; h, g = b.take() {
			// A graph that cannot be built costs speed, not answers.
			if err := lifecycle.Call("build growing graph", func() error { return g.buildGraphs(ctx) }); err != nil {
				b.set.o.Logger.Error("segments: growing segment stays without a graph", "segment", g.meta.ID, "error", err)
			}
			b.set.unref(h)
		}
	}
}

// buildGraphs inserts the published rows that are not in the graphs yet.
func (g *Growing) buildGraphs(ctx context.Context) error {
	for _, v := range g.vectors {
		if v.exact {
			continue
		}
		if err := v.buildGraph(ctx, g); err != nil {
			return err
		}
	}
	return nil
}

func (v *growingVectors) buildGraph(ctx context.Context, g *Growing) error {
	graph := v.graph.Load()
	if graph == nil {
		base := v.data()
		made, err := index.NewHNSW(index.HNSWOptions{Dim: v.dim, Metric: v.metric, Capacity: len(base) / v.dim, EfConstruction: growingEf}, base)
		if err != nil {
			return err
		}
		graph = made
		v.graph.Store(made)
	}
	sc := &index.Scratch{}
	for row := int(v.built.Load()); row < graph.Capacity(); {
		end := min(row+buildStep, graph.Capacity())
		if end > g.Rows() || g.sealed.Load() || ctx.Err() != nil {
			return nil
		}
		for ; row < end; row++ {
			if err := graph.Insert(uint32(row), sc); err != nil {
				return err
			}
		}
		v.built.Store(int64(row))
	}
	return nil
}

// growingEf is smaller than a sealed segment's: the graph lives until the flush,
// and has to keep up with the inserts.
const growingEf = 80
