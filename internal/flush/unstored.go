package flush

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// Unstored is a vchannel with rows or deletes in its log that nobody stores: this node
// owns the log, so that no other does, and does not watch the vchannel, so that it has
// not got them. The log keeps them, and all behind them. Once the vchannel is watched here
// they are replayed and stored, and it is one until they are.
type Unstored struct {
	VChannel string
	PChannel string
	Segments int       // at least so many are sealed; 0 = none is known to be
	Since    time.Time // of the seal, or of the oldest change that is not stored
	Watched  bool      // by now
}

// unstored is one, and when the log was told of it.
type unstored struct {
	Unstored
	ids   map[int64]bool // sealed
	upTo  uint64         // all of it is in the log up to here
	shown time.Time      // an owner that watches may keep rows for so long
	told  time.Time
}

// notStored notes that segments are sealed on a vchannel that nobody watches here.
func (f *Flusher) notStored(log Log, at uint64, ids ...int64) {
	f.noteUnstored(log, time.Now(), time.Time{}, at, ids)
}

// Found notes what a Survey of a log that this node owns has found: changes since the
// timestamp first that are not stored, up to upTo. If no segment of them is known to be
// sealed, it counts once an owner that watches would have stored them.
func (f *Flusher) Found(log Log, first, upTo uint64, sealed []int64) {
	since := wal.Time(first)
	shown := since.Add(f.o.SealAge)
	if len(sealed) > 0 {
		shown = time.Time{}
	}
	f.noteUnstored(log, since, shown, upTo, sealed)
}

// Nothing moves the checkpoint of a vchannel that nobody watches to a position up to which all of its log
// is stored, as a Survey has found, so that it does not hold back the trim of the log. w is the log.
func (f *Flusher) Nothing(ctx context.Context, log Log, w *wal.WAL, upTo mq.Position) error {
	if err := w.Sync(ctx); err != nil {
		return errors.Wrap(err, "sync the log up to what is stored")
	}
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	_, err := f.o.Catalog.CommitFlush(ctx, log.VChannel, catalog.FlushCommit{Term: w.Term(), Checkpoint: upTo.String(), CheckpointTimestamp: upTo.Timestamp})
	if err != nil {
		return errors.Wrap(err, "move the checkpoint")
	}
	f.trimLater(log.PChannel)
	return nil
}

func (f *Flusher) noteUnstored(log Log, since, shown time.Time, upTo uint64, sealed []int64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.mu.unstored[log.VChannel]
	if u == nil {
		u = &unstored{Unstored: Unstored{VChannel: log.VChannel, PChannel: log.PChannel, Since: since}, ids: map[int64]bool{}, shown: shown}
		f.mu.unstored[log.VChannel] = u
	}
	if shown.Before(u.shown) {
		u.shown = shown
	}
	if since.Before(u.Since) {
		u.Since = since
	}
	u.upTo = max(u.upTo, upTo)
	for _, id := range sealed {
		u.ids[id] = true
	}
}

// tellUnstored forgets those that have been stored by now, or are of a log that is not this
// node's any more, and tells the log of the others now and then.
func (f *Flusher) tellUnstored(watched map[string]Channel) {
	f.mu.Lock()
	all := slices.Collect(maps.Values(f.mu.unstored))
	f.mu.Unlock()
	for _, u := range all {
		_, err := f.o.WAL(u.PChannel)
		ch, again := watched[u.VChannel]
		f.mu.Lock()
		upTo := u.upTo
		f.mu.Unlock()
		stored := again && caughtUp(ch, upTo)
		f.mu.Lock()
		now := time.Now()
		switch u.Watched = again; {
		case f.mu.unstored[u.VChannel] != u || u.upTo != upTo:
		case err != nil:
			delete(f.mu.unstored, u.VChannel)
		case stored:
			delete(f.mu.unstored, u.VChannel)
			if !u.told.IsZero() {
				f.o.Logger.Info("flush: what nobody stored is stored", "vchannel", u.VChannel, "since", u.Since)
			}
		case !again && !now.Before(u.shown) && now.Sub(u.told) >= repeat:
			u.told = now
			f.o.Logger.Warn("flush: rows are not stored, as this node owns their log and does not watch their channel; the log keeps them. Load the collection on this node, or assign the log to the one that serves it",
				"vchannel", u.VChannel, "sealed_segments", len(u.ids), "since", u.Since)
		}
		f.mu.Unlock()
	}
}

// caughtUp reports whether a watched channel has all changes up to a timestamp, and has
// stored each segment of them that is sealed. What grows is stored as ever.
func caughtUp(ch Channel, upTo uint64) bool {
	if ch.Tsafe() < upTo {
		return false
	}
	growing, release := ch.Growing()
	defer release()
	return !slices.ContainsFunc(growing, func(g *segments.Growing) bool {
		at, sealed := g.Sealed()
		return sealed && at <= upTo && !ch.IsFlushed(g.Meta().ID)
	})
}

// Live says which vchannels there are: of others nothing is to be stored.
func (f *Flusher) Live(vchannels map[string]bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.mu.unstored, func(name string, _ *unstored) bool { return !vchannels[name] })
}

// KnowsUnstored reports whether a vchannel is noted as one with something that is not stored,
// be it listed by now or not.
func (f *Flusher) KnowsUnstored(vchannel string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mu.unstored[vchannel] != nil
}

// Unstored lists the vchannels with changes that nobody stores, by name.
func (f *Flusher) Unstored() (all []Unstored) {
	now := time.Now()
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.mu.unstored)) {
		u := f.mu.unstored[name]
		if now.Before(u.shown) {
			continue
		}
		one := u.Unstored
		one.Segments = len(u.ids)
		all = append(all, one)
	}
	return all
}
