package catalog

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// Checkpoint is how far a channel has been stored.
type Checkpoint struct {
	VChannel  string
	Position  string // as Channel.Checkpoint; "" = nothing of it is stored, or it begins anew
	Timestamp uint64 // hybrid
	// Newest is the newest that is stored of what was written to the log, hybrid: of rows and
	// deletes. It is at Timestamp or, as segments are not stored in the order of their
	// rows, behind it.
	Newest uint64
}

// newest is Checkpoint.Newest. Segments that were built elsewhere do not count: the clock
// there may have been ahead, and their rows are not seen before that time. Compaction takes
// those only that are up to Timestamp.
func (c *Channel) newest() uint64 {
	ts := c.CheckpointTimestamp
	for i := range c.Segments {
		if s := &c.Segments[i]; s.ID < FirstForeignID {
			ts = max(ts, s.MaxTimestamp)
		}
	}
	for i := range c.Deltas {
		ts = max(ts, c.Deltas[i].MaxTimestamp)
	}
	return ts
}

// checkpointTries is how often Checkpoints looks again while collections come.
const checkpointTries = 8

// Checkpoints returns those of the channels of all collections that a pchannel
// carries: of all that can have a row on it that is older than any of them. What comes
// later begins behind them, so the topic is not needed before the lowest. It costs
// some listings, and reads of what has changed. Where manifests cannot be read for good
// (Corrupt, Unimplemented), the error comes with what the others say.
func (c *Catalog) Checkpoints(ctx context.Context, pchannel string) ([]Checkpoint, error) {
	if err := checkPChannel(pchannel); err != nil {
		return nil, err
	}
	for try := 0; ; try++ {
		// The channels first: rows of a collection that is not in a list that is made
		// after that are behind what was read of them.
		there, err := c.channelsOn(ctx, pchannel)
		if err != nil {
			return nil, err
		}
		colls, bad := c.collections(ctx)
		if bad != nil && !unreadable(bad) {
			return nil, bad
		}
		out, err := c.checkpointsOf(colls, pchannel, there)
		if bad != nil && (err == nil || unreadable(err)) {
			return out, errclass.Mark(errors.Wrapf(errors.Join(bad, err), "checkpoints of pchannel %s", pchannel), errclass.Of(bad))
		}
		if err == nil || !errclass.Is(err, errclass.NotFound) || try+1 >= checkpointTries {
			return out, errors.Wrapf(err, "checkpoints of pchannel %s", pchannel)
		}
	}
}

// channelOrError is a channel that is not to be changed, or why it cannot be read.
type channelOrError struct {
	*Channel
	err error
}

// channelsOn reads the channels of a pchannel, by key, those of dropped collections too.
func (c *Catalog) channelsOn(ctx context.Context, pchannel string) (map[string]channelOrError, error) {
	found, err := c.list(ctx, "channels/"+pchannel+"_") // and those of others that begin so
	if err != nil {
		return nil, err
	}
	out := make(map[string]channelOrError, len(found))
	for _, info := range found {
		ch, _, err := loadListed[Channel](ctx, c, info, maxChannelBytes)
		if ctx.Err() != nil {
			return nil, c.late(ctx, info.Key, err)
		}
		out[info.Key] = channelOrError{ch, err} // which matters if its collection is live
	}
	return out, nil
}

// checkpointsOf are the checkpoints of the channels of collections that a pchannel
// carries. One that is not there is of class NotFound.
func (c *Catalog) checkpointsOf(colls []*Collection, pchannel string, there map[string]channelOrError) (out []Checkpoint, bad error) {
	for _, col := range colls {
		for _, v := range col.VChannels {
			if v.PChannel != pchannel {
				continue
			}
			key := c.channelKey(v.Name)
			ch, ok := there[key]
			if !ok {
				return nil, errclass.With(errclass.New(errclass.NotFound, "channel %s of collection %d is not there", v.Name, col.ID), errclass.Channel)
			}
			if ch.err == nil {
				ch.err = ch.checkName(key, v.Name)
			}
			if unreadable(ch.err) {
				bad = errors.CombineErrors(bad, errors.Wrapf(ch.err, "channel %s", v.Name))
				continue
			}
			if ch.err != nil {
				return nil, errors.Wrapf(ch.err, "channel %s", v.Name)
			}
			out = append(out, Checkpoint{v.Name, ch.Checkpoint, ch.CheckpointTimestamp, ch.newest()})
		}
	}
	return out, bad
}

// unreadable reports whether manifests cannot be read for good.
func unreadable(err error) bool {
	return errclass.Is(err, errclass.Corrupt) || errclass.Is(err, errclass.Unimplemented)
}
