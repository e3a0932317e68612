package node

import (
	"context"
	"maps"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
)

// Flush seals the growing segments of a collection; with wait it returns once
// they are in object storage and in the catalog. It ends early, with an error of
// class Conflict, when the collection is dropped or released meanwhile.
func (n *Node) Flush(ctx context.Context, collection string, wait bool) (sealed, flushed []int64, err error) {
	coll, err := n.Collection(ctx, collection)
	if err != nil {
		return nil, nil, err
	}
	var waits []func() ([]int64, error)
	for _, w := range n.watchesOf(coll) {
		ids, waitFor, err := n.sealOne(ctx, w)
		if err != nil {
			return sealed, nil, err
		}
		sealed = append(sealed, ids...)
		waits = append(waits, waitFor)
	}
	if waits == nil {
		return nil, nil, notLoaded(coll)
	}
	if !wait {
		return sealed, nil, nil
	}
	for _, waitFor := range waits {
		ids, err := waitFor()
		if err != nil {
			return sealed, flushed, err
		}
		flushed = append(flushed, ids...)
	}
	return sealed, flushed, nil
}

// watchesOf returns the watched channels of a collection in order of their names.
func (n *Node) watchesOf(coll *catalog.Collection) (list []*watch) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.serving[coll.ID]
	if s == nil {
		return nil
	}
	for _, name := range slices.Sorted(maps.Keys(s.channels)) {
		list = append(list, s.channels[name])
	}
	return list
}

// sealOne seals what grows on a channel. wait returns once it is stored.
func (n *Node) sealOne(ctx context.Context, w *watch) (ids []int64, wait func() ([]int64, error), err error) {
	ch := flush.Channel{Channel: w.channel, PChannel: w.pchannel}
	if _, err := n.wals.Get(w.pchannel); err != nil {
		return nil, nil, n.noLog(w.pchannel, err)
	}
	// What is acknowledged must be seen here before it can be sealed.
	if _, err := ch.WaitTsafe(ctx, n.acknowledged(ch.Name(), ch.PChannel)); err != nil {
		return nil, nil, errors.Wrapf(err, "flush %s: what is acknowledged has yet to be read from the log", ch.Name())
	}
	// All of it is closed then, by this call or before: a segment that was full is sealed by
	// an entry that may still be on its way here.
	before := unstored(ch)
	ids, at, err := n.flusher.Seal(ctx, ch)
	return ids, func() ([]int64, error) {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(w.watched, cancel)()
		for _, id := range before {
			if !slices.Contains(ids, id) {
				ids = append(ids, id)
			}
		}
		err := n.flusher.Wait(ctx, ch, at, ids...)
		if err != nil && w.watched.Err() != nil {
			err = errclass.New(errclass.Conflict, "flush: channel %s is not watched on this node any more", ch.Name())
		}
		return ids, err
	}, err
}

// unstored returns the segments that rows are in and that are not stored yet.
func unstored(ch flush.Channel) (ids []int64) {
	growing, release := ch.Growing()
	defer release()
	for _, g := range growing {
		if id := g.Meta().ID; !ch.IsFlushed(id) {
			ids = append(ids, id)
		}
	}
	return ids
}
