package node

import (
	"context"
	"maps"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

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
		delete(s.lost, name)
		n.mu.Unlock()
		released = append(released, s.coll.Release(s.coll.SealedIDs(name)...)...)
		gone = append(gone, name)
	}
	err = errors.Join(errs...)
	if err != nil && len(gone) == 0 {
		s.whole.Store(whole) // all is as it was
	}
	return gone, released, err
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
			return nil, errclass.With(errclass.New(errclass.NotFound, "collection %q has no channel %q", coll.Name, name), errclass.Channel)
		}
		if !slices.ContainsFunc(out, func(v catalog.VChannel) bool { return v.Name == name }) {
			out = append(out, coll.VChannels[i])
		}
	}
	return out, nil
}
