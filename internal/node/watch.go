package node

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/ingest"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/segments"
)

// watch is a vchannel that this node follows.
type watch struct {
	pchannel string
	channel  *segments.Channel
	handle   *dispatcher.Handle
	from     uint64 // timestamp of the checkpoint at which it began
	sink     *ingest.Sink
	watched  context.Context // until it is not watched any more
	end      context.CancelFunc
	proven   atomic.Bool           // it reads all of its log: see prove
	lost     atomic.Bool           // it does not, and begins anew
	settled  chan struct{}         // closed once it is known which, or nobody finds out any more
	since    time.Time             // it began
	doubt    atomic.Pointer[error] // why it is not known which; nil = the queue has not been asked, or has answered
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
		if w != nil && w.handle.State() != dispatcher.Failed && !w.lost.Load() {
			continue
		}
		var err error
		if !again {
			err = n.watchOne(ctx, s, coll, v)
		} else {
			err = n.watchAnew(ctx, s, coll, v)
		}
		n.notePlace(s, v, err)
		if unreadable(err) {
			err = errors.Wrap(err, remedy)
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
	had := append(s.coll.SealedIDs(v.Name), n.askedOf(s)...) // those of an earlier try, too
	n.mu.Lock()
	before := s.channels[v.Name]
	n.mu.Unlock()
	if err := n.unwatch(ctx, s, v.Name); err != nil {
		return err
	}
	n.ask(s, had...)
	gone := before == nil || errclass.Is(before.handle.Err(), errclass.Position)
	for again, tries := true, 1; again; tries++ {
		if err := n.watchOne(ctx, s, coll, v); err != nil {
			return err
		}
		if again = false; gone {
			var err error
			if again, err = n.begins(ctx, s, v, tries < movesMost); err != nil {
				return err
			}
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
	c, from, err := n.beginning(ctx, v)
	if err != nil {
		return err
	}
	flushed := map[int64]uint64{}
	for _, seg := range c.Segments {
		flushed[seg.ID] = cmp.Or(seg.MaxTimestamp, segments.Latest) // 0 = whoever wrote the catalog did not know
	}
	// Before a read can find the channel.
	n.expect(s, v.Name, c.Segments)
	ch, err := s.coll.Watch(v.Name, segments.Position(from), flushed)
	if err != nil {
		n.expect(s, v.Name, nil)
		return err
	}
	sink := ingest.NewSink(ch, ingest.Options{Logger: n.o.Logger, Refresh: n.refreshSchema, OnDropCollection: func(int64) { n.names.forget(); n.Kick() }})
	watched, end := context.WithCancel(context.Background())
	w := &watch{pchannel: v.PChannel, channel: ch, from: from.Timestamp, sink: sink, watched: watched, end: end, settled: make(chan struct{}), since: n.o.Now()}
	_, private := n.o.Queue.(mq.Private)
	w.proven.Store(!from.IsZero() || private || n.o.Sole)
	to := dispatcher.Sink(sink)
	if !w.proven.Load() {
		to = &fromOldest{Sink: sink, look: func(ctx context.Context) error { return n.stillUnstored(ctx, w) }}
	}
	w.handle, err = n.o.Dispatcher.Subscribe(ctx, dispatcher.Subscription{PChannel: v.PChannel, VChannel: v.Name, From: from, Sink: to})
	if err != nil {
		end()
		s.coll.Unwatch(v.Name)
		n.expect(s, v.Name, nil)
		return err
	}
	prove := func(ctx context.Context) error {
		defer close(w.settled)
		n.prove(ctx, w)
		return nil
	}
	if w.proven.Load() {
		close(w.settled)
	} else if n.group.Go("prove that "+v.Name+" is read whole", prove) != nil {
		close(w.settled)
		n.o.Logger.Debug("node: closing, a channel is not stored any more", "vchannel", v.Name)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	s.wanted[v.Name] = true
	s.channels[v.Name] = w
	n.changedLocked()
	return nil
}

// beginning reads the manifest of a channel, and finds the position in its log from which it is
// read by that. The owner of the log may store more, and trim it, after the one is read and
// before the queue is asked for the other: what is gone then is stored, and a later manifest says so.
func (n *Node) beginning(ctx context.Context, v catalog.VChannel) (c *catalog.Channel, from mq.Position, err error) {
	c, err = n.o.Catalog.Channel(ctx, v.Name)
	for tries := 1; err == nil; tries++ {
		if from, err = n.checkpointOf(ctx, c, v.PChannel); !errclass.Is(err, errclass.Position) || tries == movesMost {
			break
		}
		now, failed := n.o.Catalog.Channel(ctx, v.Name)
		switch {
		case failed != nil:
			return nil, from, failed // not known to be lost
		case now.Checkpoint == c.Checkpoint:
			return nil, from, err
		}
		c, err = now, nil
	}
	return c, from, err
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

// watched lists the channels for the flusher.
func (n *Node) watched() []flush.Channel {
	n.mu.Lock()
	defer n.mu.Unlock()
	var out []flush.Channel
	for _, s := range n.mu.serving {
		for _, w := range s.channels {
			out = append(out, flush.Channel{Channel: w.channel, PChannel: w.pchannel, Unproven: !w.proven.Load()})
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
