package catalog

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Channel returns the channel, or NotFound. Channels of dropped collections are
// there until Sweep removes them.
func (c *Catalog) Channel(ctx context.Context, vchannel string) (*Channel, error) {
	if err := checkVChannel(vchannel); err != nil {
		return nil, err
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.channelKey(vchannel)
	ch, _, err := load[Channel](ctx, c, key, maxChannelBytes)
	if err == nil {
		err = ch.checkName(key, vchannel)
	}
	if err != nil {
		return nil, errors.Wrapf(err, "channel %s", vchannel)
	}
	return ch, nil
}

func (c *Channel) checkName(key, vchannel string) error {
	if c.VChannel != vchannel {
		return errclass.New(errclass.Corrupt, "manifest %s is of channel %q, want %q", key, c.VChannel, vchannel)
	}
	return nil
}

// ListChannels returns the channels of a collection in order of its shards.
func (c *Catalog) ListChannels(ctx context.Context, collectionID int64) ([]*Channel, error) {
	col, err := c.CollectionByID(ctx, collectionID)
	if err != nil {
		return nil, err
	}
	all := make([]*Channel, 0, len(col.VChannels))
	for _, v := range col.VChannels {
		ch, err := c.Channel(ctx, v.Name)
		if errclass.Is(err, errclass.NotFound) {
			// Its collection's manifest says that it is there.
			err = errclass.Mark(err, errclass.Corrupt)
			if _, gone := c.CollectionByID(ctx, collectionID); errclass.Is(gone, errclass.NotFound) {
				err = gone // dropped and swept meanwhile
			}
		}
		if err != nil {
			return nil, err
		}
		all = append(all, ch)
	}
	return all, nil
}

// FlushCommit is a change of a channel that takes place as a whole or not at all.
type FlushCommit struct {
	// Term of the committer, from NextTerm. A lower one than the channel's is
	// fenced; a higher one fences the committers before. A new owner commits an
	// empty FlushCommit first, so that nothing of the old one can come after.
	Term           uint64
	AddSegments    []Segment // one that is there must be equal
	RemoveSegments []int64   // absent is no error; files stay until Sweep removes them
	// Replace says that AddSegments hold the rows of RemoveSegments: if one of these is
	// absent, and AddSegments are not all there already, nothing is changed, class Conflict.
	Replace bool
	// CheckpointAtMost, if not 0, is how far the channel's checkpoint may have come, unless
	// AddSegments are there already: beyond it nothing is changed, class Conflict. Deletes
	// after the checkpoint are never forgotten, so none after this timestamp was.
	CheckpointAtMost uint64
	AddDeltas        []Delta  // one that is there must be equal
	RemoveDeltas     []string // by path; absent is no error; files stay until Sweep removes them
	// Checkpoint is the text of a queue position; "" = leave it. It moves together
	// with what it covers, and only forward: one with a CheckpointTimestamp below
	// the stored one is ignored.
	Checkpoint          string
	CheckpointTimestamp uint64
}

// CommitFlush changes the channel by one conditional put and returns it. It can
// be repeated: what is done already is no error, and if that is all, nothing is
// written. Errors: Fenced (a newer owner has committed; stop), NotFound (the
// collection was dropped and swept), Conflict (a segment or delta of the same
// id or path but another content is there, or Sweep is about to remove its files:
// they were uploaded longer than FileGrace ago), Invalid. A path that was removed
// or refused must not be added again.
func (c *Catalog) CommitFlush(ctx context.Context, vchannel string, f FlushCommit) (*Channel, error) {
	if err := checkVChannel(vchannel); err != nil {
		return nil, err
	}
	if err := f.validate(); err != nil {
		return nil, errors.Wrapf(err, "commit to channel %s", vchannel)
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.channelKey(vchannel)
	var replaced []Segment
	ch, err := change(ctx, c, key, maxChannelBytes, func(m *Channel, _ bool) error {
		if err := m.checkName(key, vchannel); err != nil {
			return err
		}
		before := m.Segments
		if err := f.apply(m); err != nil {
			return err
		}
		replaced = gone(before, f.RemoveSegments)
		// Within the deadline of the put: see garbage.go.
		return c.checkUploads(ctx, m.CollectionID, &f)
	})
	if err != nil {
		return nil, errors.Wrapf(err, "commit to channel %s", vchannel)
	}
	c.condemnForeign(ctx, ch, replaced)
	return ch, nil
}

func (f *FlushCommit) validate() error {
	var p problems
	seen := map[int64]bool{}
	for _, s := range f.AddSegments {
		p.check(!seen[s.ID], "segment %d is added twice", s.ID)
		seen[s.ID] = true
	}
	for _, id := range f.RemoveSegments {
		p.check(!seen[id], "segment %d is added and removed", id)
	}
	paths := map[string]bool{}
	for _, d := range f.AddDeltas {
		p.check(!paths[d.Path], "delta %q is added twice", d.Path)
		paths[d.Path] = true
	}
	for _, path := range f.RemoveDeltas {
		p.check(!paths[path], "delta %q is added and removed", path)
	}
	p.check(len(f.Checkpoint) <= MaxPosition, "a checkpoint of %d bytes, at most %d", len(f.Checkpoint), MaxPosition)
	return p.join(errclass.Invalid)
}

// apply changes the channel, or returns errUnchanged if it is so already.
func (f *FlushCommit) apply(m *Channel) error {
	if f.Term < m.Term {
		return errclass.New(errclass.Fenced, "term %d is fenced: a newer owner has committed with term %d", f.Term, m.Term)
	}
	changed := f.Term > m.Term
	m.Term = f.Term
	for _, s := range f.AddSegments {
		if err := s.validate(m); err != nil {
			return err
		}
	}
	for i := range f.AddDeltas {
		if err := f.AddDeltas[i].validate(); err != nil {
			return err
		}
	}
	if err := f.mayReplace(m); err != nil {
		return err
	}
	if f.CheckpointAtMost != 0 && m.CheckpointTimestamp > f.CheckpointAtMost && !f.hasAdded(m) {
		return errclass.New(errclass.Conflict, "the checkpoint is at %d already, behind %d", m.CheckpointTimestamp, f.CheckpointAtMost)
	}
	segments, err := merge(m.Segments, f.AddSegments, func(a, b Segment) int { return cmp.Compare(a.ID, b.ID) }, func(s Segment) bool { return slices.Contains(f.RemoveSegments, s.ID) })
	if err != nil {
		return err
	}
	deltas, err := merge(m.Deltas, f.AddDeltas, func(a, b Delta) int { return strings.Compare(a.Path, b.Path) }, func(d Delta) bool { return slices.Contains(f.RemoveDeltas, d.Path) })
	if err != nil {
		return err
	}
	if len(segments) > MaxSegments || len(deltas) > MaxSegments {
		return errclass.With(errclass.New(errclass.Exhausted, "the channel would have %d segments and %d deltas, at most %d each: compact it", len(segments), len(deltas), MaxSegments), errclass.Limit)
	}
	changed = changed || !slices.Equal(segments, m.Segments) || !slices.Equal(deltas, m.Deltas)
	m.Segments, m.Deltas = segments, deltas
	if f.Checkpoint != "" && f.CheckpointTimestamp >= m.CheckpointTimestamp {
		changed = changed || f.Checkpoint != m.Checkpoint || f.CheckpointTimestamp != m.CheckpointTimestamp
		m.Checkpoint, m.CheckpointTimestamp = f.Checkpoint, f.CheckpointTimestamp
	}
	if !changed {
		return errUnchanged
	}
	return nil
}

// gone returns the segments of ids.
func gone(segments []Segment, ids []int64) (of []Segment) {
	for _, s := range segments {
		if slices.Contains(ids, s.ID) {
			of = append(of, s)
		}
	}
	return of
}

func (c *Channel) has(id int64) bool {
	return slices.ContainsFunc(c.Segments, func(s Segment) bool { return s.ID == id })
}

// hasAdded reports whether the segments are there already, by an earlier call whose
// answer was lost.
func (f *FlushCommit) hasAdded(m *Channel) bool {
	return len(f.AddSegments) > 0 && !slices.ContainsFunc(f.AddSegments, func(s Segment) bool { return !m.has(s.ID) })
}

// mayReplace refuses to add rows that were removed otherwise meanwhile.
func (f *FlushCommit) mayReplace(m *Channel) error {
	if !f.Replace || f.hasAdded(m) {
		return nil
	}
	for _, id := range f.RemoveSegments {
		if !m.has(id) {
			return errclass.New(errclass.Conflict, "segment %d, which is to be replaced, is not there any more", id)
		}
	}
	return nil
}

// merge returns have without those removed and with those of add, in order. An
// element of add that is there must be equal.
func merge[T comparable](have, add []T, order func(a, b T) int, removed func(T) bool) ([]T, error) {
	out := make([]T, 0, len(have)+len(add))
	for _, h := range have {
		if !removed(h) {
			out = append(out, h)
		}
	}
	for _, a := range add {
		i, there := slices.BinarySearchFunc(out, a, order)
		if there && out[i] != a {
			return nil, errclass.New(errclass.Conflict, "there is %+v, which differs from %+v", out[i], a)
		}
		if !there {
			out = slices.Insert(out, i, a)
		}
	}
	return out, nil
}
