package segments

import (
	"context"
	"sync"

	"github.com/querynode/querynode/internal/lifecycle"
)

const (
	// leastStep is the number of rows that enter lists at once if there are no more,
	// and mostStep if there are; the state is published once for them. A turn is
	// turnSteps of them, then it is another segment's.
	leastStep = 64
	mostStep  = 1024
	turnSteps = 16
)

// listBuilder puts the rows of growing segments into their lists, one segment
// at a time, in a goroutine of the Set. Searches see what is built so far.
type listBuilder struct {
	set    *Set
	wake   chan struct{} // capacity 1
	writer listWriter    // of the one goroutine

	mu struct {
		sync.Mutex
		pending map[*holder]*Growing // each holds one reference
		closed  bool
	}
}

func newListBuilder(s *Set) *listBuilder {
	b := &listBuilder{set: s, wake: make(chan struct{}, 1)}
	b.mu.pending = map[*holder]*Growing{}
	return b
}

// indexLater asks for the rows of g to be put into its lists. The caller holds h.
func (s *Set) indexLater(h *holder, g *Growing) {
	if g.sealed.Load() || !g.wantsLists(s.listsAfter) {
		return
	}
	s.builder.put(h, g)
}

// put adds a segment to those that wait, with a reference of its own.
func (b *listBuilder) put(h *holder, g *Growing) {
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

func (b *listBuilder) take() (*holder, *Growing) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for h, g := range b.mu.pending {
		delete(b.mu.pending, h)
		return h, g
	}
	return nil, nil
}

// releaseAll lets go of what is pending; nothing is taken on afterwards.
func (b *listBuilder) releaseAll() {
	b.mu.Lock()
	b.mu.closed = true
	b.mu.Unlock()
	for h, _ := b.take(); h != nil; h, _ = b.take() {
		b.set.unref(h)
	}
}

func (b *listBuilder) run(ctx context.Context) error {
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

// turn builds on the lists of one segment for a while and lets go of it.
func (b *listBuilder) turn(ctx context.Context, h *holder, g *Growing) {
	defer b.set.unref(h)
	for _, v := range g.vectors() {
		more := false
		err := lifecycle.Call("build growing lists", func() (err error) {
			more, err = v.build(ctx, g, &b.writer)
			return err
		})
		if err != nil {
			// Lists that cannot be built costs speed, not answers.
			v.notYet = 2 * g.Rows()
			b.set.o.Logger.Warn("segments: growing segment has no lists for now", "segment", g.meta.ID, "field", v.fieldID, "error", err)
		}
		if more {
			b.put(h, g)
		}
	}
}

// wantsLists reports whether there is something to build: lists, which a field has
// from so many rows on, or rows that are not in them.
func (g *Growing) wantsLists(after int) bool {
	rows := g.Rows()
	for _, v := range g.vectors() {
		if v.exact || rows < after {
			continue
		}
		if x := v.lists.Load(); x == nil || rows-x.rows() >= leastStep {
			return true
		}
	}
	return false
}

// build puts published rows that are not in lists yet into them, a turn's worth. It
// reports whether there are more.
func (v *growingVectors) build(ctx context.Context, g *Growing, w *listWriter) (more bool, err error) {
	if v.exact || g.Rows() < v.notYet || g.sealed.Load() {
		return false, nil
	}
	x := v.lists.Load()
	if x == nil || x.stale() {
		return v.replace(ctx, g, x, w)
	}
	for range turnSteps {
		from := x.rows()
		n := min(g.Rows()-from, mostStep)
		if n < leastStep || g.sealed.Load() || ctx.Err() != nil {
			return false, nil
		}
		if err := v.add(x, from, from+n, w); err != nil {
			return false, err
		}
		if x.stale() {
			break
		}
	}
	return true, nil
}

// stale reports whether everything is to be learnt anew: there are many more rows
// than there were, or many that are not like those.
func (x *growingLists) stale() bool {
	st := x.state.Load()
	return st.rows >= listsGrowth*x.trained || len(st.loose)*looseShare > st.rows && st.rows > x.trained+x.trained/looseShare
}

// replace learns anew and puts all rows into new lists. The old ones serve until
// then.
func (v *growingVectors) replace(ctx context.Context, g *Growing, old *growingLists, w *listWriter) (more bool, err error) {
	n := g.Rows()
	x := v.trainLists(n)
	if x.memory, err = v.ledger.Reserve(KindGrowing, x.middles.bytes()+x.borders.bytes()); err != nil {
		return false, err
	}
	defer func() {
		if v.lists.Load() != x {
			x.memory.Release()
		}
	}()
	for from := 0; from < n; from = x.rows() {
		if ctx.Err() != nil || g.sealed.Load() {
			return false, nil
		}
		if err := v.add(x, from, min(from+mostStep, n), w); err != nil {
			return false, err
		}
	}
	v.lists.Store(x)
	if old != nil {
		old.memory.Release()
	}
	return true, nil
}
