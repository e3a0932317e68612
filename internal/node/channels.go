package node

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/ingest"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// serving is a collection that this node serves, whole or in part.
type serving struct {
	turn     chan struct{} // capacity 1: one change at a time, waiting ends with its context
	coll     *segments.Collection
	version  uint64        // of the catalog's entry that coll knows; guarded by turn
	gone     chan struct{} // closed, in turn, once it is served no more: who waits for the turn begins anew
	whole    atomic.Bool   // every segment of the catalog is to be loaded, those to come too
	leaving  atomic.Bool   // all of it is being let go of: reads are refused at once, not answered in part
	channels map[string]*watch

	// Guarded by Node.mu.
	wanted   map[string]bool   // channels that were watched and that nobody has let go of
	broken   []Broken          // of the catalog, and cannot be loaded
	released map[int64]bool    // by a caller, although whole is set
	absent   map[string]absent // by vchannel: neither replayed nor loaded yet
	asked    map[int64]bool    // by a caller, and not loaded yet
	failing  map[int64]error   // of the last load, if it may pass
	news     chan struct{}     // closed when one of these changes
}

func newServing() *serving {
	return &serving{turn: make(chan struct{}, 1), gone: make(chan struct{}), channels: map[string]*watch{}, wanted: map[string]bool{}, released: map[int64]bool{},
		absent: map[string]absent{}, asked: map[int64]bool{}, failing: map[int64]error{}, news: make(chan struct{})}
}

// watch is a vchannel that this node follows.
type watch struct {
	pchannel string
	channel  *segments.Channel
	handle   *dispatcher.Handle
	from     uint64 // timestamp of the checkpoint at which it began
	sink     *ingest.Sink
	watched  context.Context // until it is not watched any more
	end      context.CancelFunc
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
	return errclass.New(errclass.Conflict, "collection %q is not loaded on this node: call LoadSegments", coll.Name)
}

// WatchChannels follows vchannels of a collection; none named = all. It returns
// those that are watched then.
func (n *Node) WatchChannels(ctx context.Context, collection string, vchannels []string) ([]string, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	s, leave, err := n.enter(ctx, coll, true)
	if err != nil {
		return nil, err
	}
	defer leave()
	if err := n.finishRelease(ctx, s); err != nil {
		return nil, err
	}
	if err := n.watch(ctx, s, coll, vchannels); err != nil {
		return nil, err
	}
	return n.watchedOf(s), nil
}

// wantedOf returns the channels that are to be watched, those too that just are not, since
// to begin them anew has failed.
func (n *Node) wantedOf(s *serving) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(s.wanted))
}

func (n *Node) watchedOf(s *serving) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Sorted(maps.Keys(s.channels))
}

// pick returns the named vchannels of the collection, each once, all if none is named.
func pick(coll *catalog.Collection, names []string) ([]catalog.VChannel, error) {
	if len(names) == 0 {
		return coll.VChannels, nil
	}
	var out []catalog.VChannel
	for _, name := range names {
		i := slices.IndexFunc(coll.VChannels, func(v catalog.VChannel) bool { return v.Name == name })
		if i < 0 {
			return nil, errclass.New(errclass.NotFound, "collection %q has no channel %q", coll.Name, name)
		}
		if !slices.ContainsFunc(out, func(v catalog.VChannel) bool { return v.Name == name }) {
			out = append(out, coll.VChannels[i])
		}
	}
	return out, nil
}

// watch follows what is not followed yet. The caller has the turn.
func (n *Node) watch(ctx context.Context, s *serving, coll *catalog.Collection, names []string) error {
	vchannels, err := pick(coll, names)
	if err != nil {
		return err
	}
	if s.coll == nil || coll.Version > s.version {
		info, err := collectionInfo(coll)
		if err != nil {
			return err
		}
		if s.coll == nil {
			s.coll = n.o.Segments.Add(info)
		} else {
			s.coll.Update(info) // changed through another node, perhaps
		}
		s.version = coll.Version
	}
	if err := n.letGoOfDropped(ctx, s, coll); err != nil {
		return err
	}
	for _, v := range vchannels {
		n.mu.Lock()
		w, again := s.channels[v.Name], s.wanted[v.Name]
		n.mu.Unlock()
		if w != nil && w.handle.State() != dispatcher.Failed {
			continue
		}
		var err error
		if !again {
			err = n.watchOne(ctx, s, coll, v)
		} else {
			err = n.watchAnew(ctx, s, coll, v)
		}
		if unreadable(err) {
			err = errors.Wrap(err, "restore the manifest that is damaged, or update this node if it is of a newer one")
		}
		if err != nil {
			return errors.Wrapf(err, "watch channel %s", v.Name)
		}
	}
	return nil
}

// watchAnew begins a channel again, whose subscription has ended for good, from
// the checkpoint.
func (n *Node) watchAnew(ctx context.Context, s *serving, coll *catalog.Collection, v catalog.VChannel) error {
	over := s.coll.Anew()
	defer over()
	had := append(sealedOf(s.coll, v.Name), n.askedOf(s)...) // those of an earlier try, too
	n.mu.Lock()
	before := s.channels[v.Name]
	n.mu.Unlock()
	if err := n.unwatch(ctx, s, v.Name); err != nil {
		return err
	}
	n.ask(s, had...)
	if err := n.watchOne(ctx, s, coll, v); err != nil {
		return err
	}
	if before == nil || errclass.Is(before.handle.Err(), errclass.Position) {
		if err := n.begins(ctx, s, v); err != nil {
			return err
		}
	}
	over() // what is still to be loaded, reads wait for elsewhere
	return errors.Wrap(n.loadAgain(ctx, s, coll, had), "load its segments again")
}

// loadAgain loads those of segments that a channel had and that were dropped when
// it began anew, because deletes have passed them by. Until then reads wait.
func (n *Node) loadAgain(ctx context.Context, s *serving, coll *catalog.Collection, had []int64) error {
	had = slices.DeleteFunc(had, func(id int64) bool {
		loaded := s.coll.Loaded(id)
		if loaded {
			n.arrived(s, id)
		}
		return loaded
	})
	if len(had) == 0 || s.whole.Load() {
		return nil // who serves all of it loads what is missing
	}
	_, err := n.load(ctx, s, coll, had)
	return err
}

func (n *Node) watchOne(ctx context.Context, s *serving, coll *catalog.Collection, v catalog.VChannel) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	over, err := n.noLooks(ctx, v.Name)
	if err != nil {
		return err
	}
	defer over()
	c, err := n.o.Catalog.Channel(ctx, v.Name)
	if err != nil {
		return err
	}
	from, err := n.checkpointOf(ctx, c, v.PChannel)
	if err != nil {
		return err
	}
	var flushed []int64
	for _, seg := range c.Segments {
		flushed = append(flushed, seg.ID)
	}
	// Before a read can find the channel.
	n.expect(s, v.Name, c.Segments)
	ch, err := s.coll.Watch(v.Name, segments.Position(from), flushed)
	if err != nil {
		n.expect(s, v.Name, nil)
		return err
	}
	sink := ingest.NewSink(ch, ingest.Options{Logger: n.o.Logger, Refresh: n.refreshSchema, OnDropCollection: func(int64) { n.names.forget(); n.Kick() }})
	h, err := n.o.Dispatcher.Subscribe(ctx, dispatcher.Subscription{PChannel: v.PChannel, VChannel: v.Name, From: from, Sink: sink})
	if err != nil {
		s.coll.Unwatch(v.Name)
		n.expect(s, v.Name, nil)
		return err
	}
	watched, end := context.WithCancel(context.Background())
	n.mu.Lock()
	defer n.mu.Unlock()
	s.wanted[v.Name] = true
	s.channels[v.Name] = &watch{pchannel: v.PChannel, channel: ch, handle: h, from: from.Timestamp, sink: sink, watched: watched, end: end}
	n.changedLocked()
	return nil
}

// unwatch ends one subscription and drops the channel's growing segments. If ctx
// ends before the flusher has let go of the channel, it stays as it was.
func (n *Node) unwatch(ctx context.Context, s *serving, vchannel string) error {
	w := n.takeOut(s, vchannel)
	if w == nil {
		return nil
	}
	if err := n.flusher.Forget(ctx, vchannel); err != nil {
		n.mu.Lock()
		defer n.mu.Unlock()
		s.channels[vchannel] = w
		n.changedLocked()
		return errors.Wrapf(err, "unwatch channel %s", vchannel)
	}
	return n.endWatch(ctx, s, w)
}

// takeOut takes a channel off the list, so that nobody begins anything with it.
func (n *Node) takeOut(s *serving, vchannel string) *watch {
	n.mu.Lock()
	defer n.mu.Unlock()
	w := s.channels[vchannel]
	if w != nil {
		delete(s.channels, vchannel)
		n.changedLocked()
	}
	return w
}

func (n *Node) endWatch(ctx context.Context, s *serving, w *watch) error {
	w.end()
	err := w.handle.Close(ctx)
	s.coll.Unwatch(w.channel.Name())
	n.expect(s, w.channel.Name(), nil)
	return errors.Wrapf(err, "unwatch channel %s", w.channel.Name())
}

// UnwatchChannels stops following vchannels, all if none is named, and releases
// their sealed segments too: without the channel they would miss deletes.
func (n *Node) UnwatchChannels(ctx context.Context, collection string, vchannels []string) ([]string, error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, err
	}
	picked, err := pick(coll, vchannels)
	if err != nil {
		return nil, err
	}
	s, leave, err := n.enter(ctx, coll, false)
	if err != nil {
		return nil, err
	}
	defer leave()
	watched := n.wantedOf(s)
	picked = slices.DeleteFunc(slices.Clone(picked), func(v catalog.VChannel) bool { return !slices.Contains(watched, v.Name) })
	names := make([]string, 0, len(picked))
	for _, v := range picked {
		names = append(names, v.Name)
	}
	gone, _, err := n.leaveChannels(ctx, s, names)
	return gone, err
}

// leaveChannels stops following channels and then releases their sealed segments: reads that
// find these without their channel fail, those that found the channel without them would
// lack rows and not know. A channel that could not be left keeps its segments.
func (n *Node) leaveChannels(ctx context.Context, s *serving, names []string) (gone []string, released []int64, err error) {
	whole := s.whole.Swap(false)
	var errs []error
	for _, name := range names {
		errs = append(errs, n.unwatch(ctx, s, name))
		if slices.Contains(n.watchedOf(s), name) {
			continue
		}
		n.mu.Lock()
		delete(s.wanted, name)
		n.mu.Unlock()
		released = append(released, s.coll.Release(sealedOf(s.coll, name)...)...)
		gone = append(gone, name)
	}
	err = errors.Join(errs...)
	if err != nil && len(gone) == 0 {
		s.whole.Store(whole) // all is as it was
	}
	return gone, released, err
}

// sealedOf returns the ids of the loaded sealed segments; vchannel "" = of all channels.
func sealedOf(c *segments.Collection, vchannel string) (ids []int64) {
	for _, st := range c.Segments() {
		if (vchannel == "" || st.VChannel == vchannel) && st.State != "growing" && st.State != "sealed" {
			ids = append(ids, st.ID)
		}
	}
	return ids
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
	n.mu.Unlock()
	if s == nil {
		return nil, cmp.Or(n.asideOf(coll.ID), notLoaded(coll))
	}
	if s.leaving.Load() {
		return nil, notLoaded(coll)
	}
	names := n.wantedOf(s)
	if s.whole.Load() {
		names = names[:0]
		for _, v := range coll.VChannels {
			names = append(names, v.Name)
		}
	}
	if err := n.asideOf(coll.ID); err != nil && len(n.watchedOf(s)) < len(names) {
		return nil, err
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

// watched lists the channels for the flusher.
func (n *Node) watched() []flush.Channel {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []flush.Channel
	for _, s := range n.mu.serving {
		for _, w := range s.channels {
			out = append(out, flush.Channel{Channel: w.channel, PChannel: w.pchannel})
		}
	}
	slices.SortFunc(out, func(a, b flush.Channel) int {
		if a.Name() < b.Name() {
			return -1
		}
		return 1
	})
	return out
}

// AssignChannel makes this node the owner of a pchannel's log for a term; 0 = the
// next one from the catalog. It returns the term and whether the command was too late.
func (n *Node) AssignChannel(ctx context.Context, pchannel string, term uint64) (uint64, bool, error) {
	if pchannel == "" {
		return 0, false, errclass.New(errclass.Invalid, "pchannel: the name is missing")
	}
	if _, err := n.queueOf(ctx, pchannel); err != nil {
		return 0, false, err // before anybody is told of a new owner
	}
	if term == 0 {
		call, cancel := n.call(ctx)
		defer cancel()
		next, err := n.o.Catalog.NextTerm(call, pchannel, n.o.Name)
		if err != nil {
			return 0, false, errors.Wrapf(err, "next term of %s", pchannel)
		}
		term = next
	}
	outcome, err := n.wals.Assign(ctx, pchannel, term)
	return term, outcome == wal.Ignored, err
}

// RemoveChannel ends the ownership of a pchannel's log; term 0 = whatever is in force.
func (n *Node) RemoveChannel(ctx context.Context, pchannel string, term uint64) (ignored bool, err error) {
	if term == 0 {
		w, err := n.wals.Get(pchannel)
		if err != nil {
			return false, err
		}
		term = w.Term()
	}
	outcome, err := n.wals.Remove(ctx, pchannel, term)
	return outcome == wal.Ignored, err
}

// walOptions says how the log of a pchannel is opened: replay begins at the
// lowest checkpoint of the channels it carries.
func (n *Node) walOptions(ctx context.Context, pchannel string, _ uint64) (wal.Options, error) {
	o := n.o.WAL
	o.TailOnly = true // the channels read the log themselves, from their checkpoints
	o.Queue, o.Owner, o.Logger, o.Now, o.Clock = n.o.Queue, n.o.Name, n.o.Logger, n.o.Now, &n.clock
	begin, err := n.queueOf(ctx, pchannel)
	if err != nil {
		return o, err
	}
	lowest, highest, all, err := flush.Checkpoints(ctx, n.o.Catalog, pchannel)
	switch {
	case unreadable(err):
		// Of some collection, which does not hold up the others. Nothing is read from here,
		// see TailOnly; the log is not trimmed until all can be read.
		n.o.Logger.Error("node: the log is opened without its checkpoint", "pchannel", pchannel, "error", err)
	case err != nil:
		return o, errors.Wrapf(err, "checkpoint of %s", pchannel)
	}
	// Of all channels: what is written before the checkpoint of one is taken for stored. That
	// another has none says nothing of what this one needs.
	if err := n.has(ctx, pchannel, lowest, highest); err != nil {
		return o, err
	}
	o.Checkpoint = begin
	if all {
		o.Checkpoint = later(lowest, begin)
	}
	// What is written next is newer than all that is stored, also where nothing is left of it.
	o.Checkpoint.Timestamp = max(o.Checkpoint.Timestamp, highest.Timestamp)
	return o, nil
}
