package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/segments"
)

// serving is a collection that this node serves, whole or in part.
type serving struct {
	turn    chan struct{}        // capacity 1: one change at a time, waiting ends with its context
	coll    *segments.Collection // nil until the first watch; set once, in turn, before any channel is there: read in turn, or once one was found
	version uint64               // of the catalog's entry that coll knows; guarded by turn
	gone    chan struct{}        // closed, in turn, once it is served no more: who waits for the turn begins anew
	whole   atomic.Bool          // every segment of the catalog is to be loaded, those to come too
	leaving atomic.Bool          // all of it is being let go of: reads are refused at once, not answered in part

	// Guarded by Node.mu.
	channels map[string]*watch    // by vchannel
	wanted   map[string]bool      // channels that were watched and that nobody has let go of
	broken   []Broken             // of the catalog, and cannot be loaded
	lost     map[string]LostTopic // channels that cannot begin, as what comes next of their log is gone
	released map[int64]bool       // by a caller, although whole is set
	absent   map[string]absent    // by vchannel: neither replayed nor loaded yet
	asked    map[int64]bool       // by a caller, and not loaded yet
	failing  map[int64]error      // of the last load, if it may pass
	news     chan struct{}        // closed when one of these changes
}

func newServing() *serving {
	return &serving{turn: make(chan struct{}, 1), gone: make(chan struct{}), channels: map[string]*watch{}, wanted: map[string]bool{}, lost: map[string]LostTopic{}, released: map[int64]bool{},
		absent: map[string]absent{}, asked: map[int64]bool{}, failing: map[int64]error{}, news: make(chan struct{})}
}

// enter takes the collection's turn; the caller gives it back with leave. It
// creates the entry if make is set.
func (n *Node) enter(ctx context.Context, coll *catalog.Collection, create bool) (s *serving, leave func(), err error) {
	n.mu.Lock()
	s, ok := n.mu.serving[coll.ID]
	made := !ok && create
	if made {
		s = newServing()
		n.mu.serving[coll.ID] = s
	}
	n.mu.Unlock()
	if s == nil {
		return nil, nil, notLoaded(coll)
	}
	select {
	case s.turn <- struct{}{}:
		leave = func() { <-s.turn }
		if made {
			// What the caller knows of the collection may be older than its end.
			if err := n.stillThere(ctx, coll.ID); err != nil {
				leave()
				return nil, nil, errors.CombineErrors(err, n.unserve(ctx, coll.ID))
			}
		}
		return s, leave, nil
	case <-s.gone:
		return nil, nil, errclass.New(errclass.Retryable, "collection %q was dropped or released meanwhile", coll.Name)
	case <-ctx.Done():
		return nil, nil, errclass.Wrap(ctx.Err(), errclass.Retryable, "another change of collection %q is under way", coll.Name)
	case <-n.group.Context().Done():
		return nil, nil, errclass.New(errclass.Closed, "the node is closing")
	}
}

func (n *Node) stillThere(ctx context.Context, id int64) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	_, err := n.o.Catalog.CollectionByID(ctx, id)
	return err
}

func notLoaded(coll *catalog.Collection) error {
	return errclass.With(errclass.New(errclass.Conflict, "collection %q is not loaded on this node: call LoadSegments", coll.Name), errclass.NotLoaded)
}

// unserve stops serving a collection that is gone. If ctx ends before it is the
// collection's turn, nothing has changed and the keeper tries again.
func (n *Node) unserve(ctx context.Context, id int64) error {
	n.mu.Lock()
	s := n.mu.serving[id]
	n.mu.Unlock()
	if s == nil {
		return nil
	}
	select {
	case s.turn <- struct{}{}: // kept: nothing more is to happen to it
	case <-s.gone:
		return nil
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "another change of the collection is under way")
	}
	s.leaving.Store(true)
	err := together(n.watchedOf(s), func(name string) (err error) {
		if w := n.takeOut(s, name); w != nil {
			// Whatever the flusher still does with it, its rows are not wanted any more.
			err = errors.Join(n.flusher.Forget(ctx, name), n.endWatch(ctx, s, w))
		}
		n.flusher.Drop(name)
		return err
	})
	n.o.Segments.Remove(id)
	// Last, so that nobody begins to serve it anew while its channels are watched.
	n.mu.Lock()
	delete(n.mu.serving, id)
	n.mu.Unlock()
	close(s.gone)
	return err
}

// mustRead returns the channels that a read of the collection must cover: all of
// one that is served whole, else what was asked for. A read that began before a channel
// was let go of, or while one cannot begin anew, fails rather than miss its rows.
func (n *Node) mustRead(coll *catalog.Collection) ([]string, error) {
	n.mu.Lock()
	s := n.mu.serving[coll.ID]
	lost, aside := s != nil && len(s.lost) > 0, n.mu.aside[coll.ID] != nil
	n.mu.Unlock()
	if s == nil {
		return nil, cmp.Or(n.asideOf(coll.ID), notLoaded(coll))
	}
	if s.leaving.Load() {
		return nil, notLoaded(coll)
	}
	var names []string
	if s.whole.Load() {
		names = make([]string, len(coll.VChannels))
		for i := range coll.VChannels {
			names[i] = coll.VChannels[i].Name
		}
	} else {
		names = n.wantedOf(s)
	}
	if aside && len(n.watchedOf(s)) < len(names) {
		if err := n.asideOf(coll.ID); err != nil {
			return nil, err
		}
	}
	if lost {
		return names, n.lostOf(s, names)
	}
	return names, nil
}

func (n *Node) unwatchAll(ctx context.Context) error {
	n.mu.Lock()
	ids := slices.Collect(maps.Keys(n.mu.serving))
	n.mu.Unlock()
	return together(ids, func(id int64) error { return n.unserve(ctx, id) })
}

// width is how many channels are left at a time: each may wait for a queue that
// does not answer, and the waits must not add up.
const width = 16

// together calls fn for all of them, width at a time, and waits until all are done.
func together[T any](all []T, fn func(T) error) error {
	group, ended := lifecycle.NewGroup(context.Background(), nil), make(chan error, len(all))
	var next atomic.Int64
	for range min(width, len(all)) {
		if err := group.Go("leave channels", func(context.Context) error {
			for i := next.Add(1) - 1; i < int64(len(all)); i = next.Add(1) - 1 {
				ended <- lifecycle.Call("leave a channel", func() error { return fn(all[i]) })
			}
			return nil
		}); err != nil {
			return err
		}
	}
	var errs []error
	for range all {
		errs = append(errs, <-ended)
	}
	return errors.Join(errs...)
}
