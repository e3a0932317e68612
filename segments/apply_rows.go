package segments

import (
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// Rows is one insert or upsert as it comes from the queue.
type Rows struct {
	SegmentID   int64
	PartitionID int64
	Batch       *schema.Batch // columns of the collection's schema; Timestamps unused
	Upsert      bool          // older rows of the same keys are deleted by the same message
}

// ApplyRows takes rows at position at. Rows at or before Applied were applied
// before and are dropped, as are those of segments that the catalog has. On an error of
// class Exhausted nothing has changed and the same call may be repeated; class Closed
// says that the channel is not watched any more; class Conflict that the rows came after the
// end of their segment, which whoever wrote them must not do: they are nowhere, and what an
// upsert among them would have replaced stays.
func (ch *Channel) ApplyRows(r Rows, at Position) error {
	if r.Upsert {
		defer ch.spillDue()
	}
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if at.Timestamp <= ch.mu.applied.Timestamp {
		return nil
	}
	if ch.mu.closed {
		return ch.unwatched()
	}
	if !ch.coll.Dropped(r.PartitionID) {
		newest, flushed := ch.mu.flushed[r.SegmentID]
		if flushed && at.Timestamp > newest {
			return errclass.New(errclass.Conflict, "rows came at %d for segment %d, which is stored with rows up to %d", at.Timestamp, r.SegmentID, newest)
		}
		if !flushed {
			if err := ch.insertLocked(r, at); err != nil {
				return err
			}
		}
	}
	if r.Upsert {
		// A delete hides only rows older than itself, so the new rows stay. It
		// counts as well when they come from the sealed segment.
		ch.deleteLocked(deletesAt(0, r.Batch.Column(ch.coll.Info().Schema.Primary().ID), at.Timestamp))
	}
	ch.mu.applied = at
	ch.coming.read(at.Timestamp)
	return nil
}

func (ch *Channel) insertLocked(r Rows, at Position) error {
	h := ch.mu.growing[r.SegmentID]
	fresh := h == nil
	if fresh {
		created, err := ch.newGrowing(r)
		if err != nil {
			return err
		}
		h = created
	}
	g := h.segment.(*Growing)
	if since, sealed := g.Sealed(); sealed {
		return errclass.New(errclass.Conflict, "segment %d is sealed since %d, rows came at %d", r.SegmentID, since, at.Timestamp)
	}
	if err := ch.appendLocked(g, r.Batch, at.Timestamp); err != nil {
		if fresh {
			ch.coll.set.discard(h)
		}
		return err
	}
	if fresh {
		ch.mu.growing[r.SegmentID] = h
		ch.coll.swap([]*holder{h}, nil)
	}
	ch.coll.set.indexLater(h, g)
	return nil
}

// heldFor is how long rows of the log wait for room that does not come from storing segments, before they go beyond the
// limit. Twice as long as it takes until somebody has looked what can be made cold.
const heldFor = 2 * time.Second

// loadFor is how long they wait after a segment has been stored: it is loaded then, and its growing copy goes.
const loadFor = 10 * time.Second

// appendLocked adds rows to a segment. If there is no room for them, they wait while some may come: while a segment is sealed
// that is stored here, and a moment longer, since it goes then; or while others store what they have; or until what the process has too much is
// garbage no longer. Else they are taken beyond the limit: what makes room then is their seal, which is behind them in the log, and nobody
// would get there.
func (ch *Channel) appendLocked(g *Growing, b *schema.Batch, ts uint64) error {
	err := g.append(b, ts, false)
	if !errclass.Is(err, errclass.Exhausted) {
		ch.mu.held, ch.mu.beyond = time.Time{}, false
		return err
	}
	now := time.Now()
	if ch.mu.held.IsZero() {
		ch.mu.held = now
	}
	ledger := ch.coll.set.o.Ledger
	if now.Sub(ch.mu.held) < heldFor || ledger.Leaving() > 0 || now.Sub(ledger.lastLeft()) < loadFor || !ch.coming.here() {
		return err
	}
	if full := err; g.append(b, ts, true) != nil {
		return full
	}
	if !ch.mu.beyond {
		ch.mu.beyond = true
		ch.coll.set.o.Logger.Warn("segments: rows of the log are taken beyond the memory limit, since the seal that will make room is behind them and no segment is being stored",
			"vchannel", ch.name, "segment", g.meta.ID, "used", ledger.Total(), "limit", ledger.Limit())
	}
	return nil
}

func (ch *Channel) newGrowing(r Rows) (*holder, error) {
	set := ch.coll.set
	g, err := newGrowing(growingOptions{
		meta:   Meta{ID: r.SegmentID, CollectionID: ch.coll.Info().ID, PartitionID: r.PartitionID, VChannel: ch.name},
		info:   ch.coll.Info,
		start:  ch.mu.applied,
		rows:   max(set.o.GrowingRows, r.Batch.Rows),
		ledger: set.o.Ledger,
		coming: ch.coming,
	})
	if err != nil {
		return nil, err
	}
	g.toBuild(ch.mu.builders)
	return set.hold(g, true), nil
}

// ToBuild says with how many workers this node will build the indexes of the channel's growing segments, so that the ledger has room for
// it; 0 = it will not.
func (ch *Channel) ToBuild(workers int) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.mu.builders = workers
	ch.coming.builders(workers)
	for id, h := range ch.mu.growing {
		if _, flushed := ch.mu.flushed[id]; !flushed {
			h.segment.(*Growing).toBuild(workers)
		}
	}
}
