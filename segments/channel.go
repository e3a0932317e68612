package segments

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// Channel is one vchannel on this node. Its Apply methods are called by one
// goroutine, in queue order; everything else is safe for concurrent use.
type Channel struct {
	coll  *Collection
	name  string
	tsafe *watermark

	// mu orders what changes the channel's rows and deletes against what
	// publishes segments, so that no segment misses a delete.
	mu struct {
		sync.Mutex
		growing map[int64]*holder
		flushed map[int64]uint64 // sealed in the catalog: their rows come from there; up to which timestamp, Latest = unknown
		buffer  deleteBuffer
		told    int64     // bytes of it in memory that the set knows of
		unspilt time.Time // it could not be written to the local disk, and is not before
		whole   uint64    // the buffer has every delete after this timestamp
		applied Position  // everything up to here is in growing segments or the buffer
		pins    int       // loads under way: the buffer is not trimmed
		trimTo  uint64    // asked for while it was pinned
		closed  bool

		builders int       // workers that build indexes of growing segments here; 0 = none do
		held     time.Time // rows of the log have had no room since; zero = they have had some
		beyond   bool      // since then they have gone beyond the limit
	}
	bufferMemory *Reservation
	spilling     chan struct{} // capacity 1: who has it writes deletes to the local disk
	gone         chan struct{} // closed when the channel is
	coming       *coming
}

func newChannel(c *Collection, name string, from Position, flushed map[int64]uint64) *Channel {
	ch := &Channel{coll: c, name: name, tsafe: newWatermark(), spilling: make(chan struct{}, 1), gone: make(chan struct{})}
	ch.mu.growing = map[int64]*holder{}
	ch.mu.flushed = map[int64]uint64{}
	maps.Copy(ch.mu.flushed, flushed)
	ch.mu.applied, ch.mu.whole = from, from.Timestamp
	ch.bufferMemory = c.set.o.Ledger.Force(KindDeletes, 0)
	c.set.watched.Add(1)
	ch.coming = newComing(c.set.o.Ledger, c.Info, from.Timestamp)
	ch.tsafe.advance(from.Timestamp)
	return ch
}

// Name is the vchannel.
func (ch *Channel) Name() string { return ch.name }

// Collection is what the channel is a shard of.
func (ch *Channel) Collection() *Collection { return ch.coll }

// Tsafe is the timestamp up to which everything has been applied.
func (ch *Channel) Tsafe() uint64 { return ch.tsafe.now() }

// WaitTsafe returns Tsafe once it is at ts or later, or an error when ctx ends
// or the channel is not watched any more.
func (ch *Channel) WaitTsafe(ctx context.Context, ts uint64) (uint64, error) {
	return ch.tsafe.wait(ctx, ts)
}

// Applied is the position up to which everything has been applied.
func (ch *Channel) Applied() Position {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.mu.applied
}

// Watched reports whether the channel still takes messages.
func (ch *Channel) Watched() bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return !ch.mu.closed
}

func (ch *Channel) unwatched() error {
	return errclass.New(errclass.Closed, "channel %s is not watched on this node any more", ch.name)
}

// ApplySeal marks segments: no more rows will come for them after at.
func (ch *Channel) ApplySeal(ids []int64, at Position) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if at.Timestamp <= ch.mu.applied.Timestamp {
		return
	}
	for _, id := range ids {
		if h, ok := ch.mu.growing[id]; ok {
			h.segment.(*Growing).seal(at)
		}
	}
	ch.mu.applied = at
}

// Advance says that everything up to at has been applied: tsafe moves there.
func (ch *Channel) Advance(at Position) {
	ch.mu.Lock()
	if at.Timestamp > ch.mu.applied.Timestamp {
		ch.mu.applied = at
	}
	ch.mu.Unlock()
	ch.coming.read(at.Timestamp)
	ch.tsafe.advance(at.Timestamp)
}

// publish applies the buffered deletes to the segments of add, Sealed ones that
// nobody else has yet, and puts them into the view, each instead of the growing
// segment of the same id if there is one, and without those of drop, in one step.
// The caller has pinned the buffer. The files of deletes that the loads have seen
// reach up to the timestamp deltas; 0 = unknown.
func (ch *Channel) publish(ctx context.Context, add []*holder, drop []int64, deltas uint64) error {
	// Most of the buffer without the lock, so that the channel's messages do not
	// wait for it: while it is pinned, it only gets longer.
	done, err := ch.applyBuffered(ctx, add, 0)
	if err != nil {
		return err
	}
	var left []slog.Attr // growing segments that nothing of the same id takes the place of
	defer func() {       // once the channel is unlocked
		for _, g := range left {
			ch.coll.set.o.Logger.Info("segments: let go of a growing segment whose rows the catalog has in others, as far as any are left",
				"vchannel", ch.name, g, "instead", len(add))
		}
	}()
	var batches []*DeleteBatch
	for { // until what has come meanwhile is in memory
		var files []*DeleteFile
		ch.mu.Lock()
		if files, batches = ch.mu.buffer.since(done); len(files) == 0 {
			break
		}
		ch.mu.Unlock()
		if done, err = ch.applyBuffered(ctx, add, done); err != nil {
			return err
		}
	}
	defer ch.mu.Unlock()
	switch {
	case ch.mu.closed:
		return errclass.Mark(ch.unwatched(), errclass.Conflict)
	case deltas != 0 && deltas < ch.mu.whole:
		return errclass.New(errclass.Retryable, "deletes after %d are in files that the load has not seen: read the catalog again", deltas)
	}
	for _, h := range add {
		if p := h.Meta().PartitionID; ch.coll.Dropped(p) {
			return errclass.New(errclass.Conflict, "partition %d is dropped", p)
		}
		for _, d := range batches {
			h.applyDeletes(d)
		}
	}
	for _, h := range add {
		ch.flushedLocked(h.Meta().ID)
	}
	for _, id := range drop {
		if h, ok := ch.mu.growing[id]; ok {
			_, sealed := h.segment.(*Growing).Sealed()
			left = append(left, slog.Group("growing", "segment", id, "rows", h.visible(Latest), "sealed", sealed, "applied", ch.mu.applied.Timestamp))
		}
		ch.flushedLocked(id)
	}
	ch.coll.swap(add, func(h *holder) bool { m := h.Meta(); return m.VChannel == ch.name && slices.Contains(drop, m.ID) })
	return nil
}

// Superseded is a segment in the view whose rows the catalog has in others.
type Superseded struct {
	Meta
	MinTimestamp uint64 // of its rows
	MaxTimestamp uint64
	Growing      bool
}

// Superseded lists the segments of the channel in the view whose rows the catalog
// has in others: sealed ones that it does not list any more, and growing ones that
// it must have had, since its checkpoint is behind their first row: it may be behind the
// position before that while they are not stored. listed are the ids that it lists
// for the channel, all read at one time with the checkpoint.
func (ch *Channel) Superseded(listed []int64, checkpoint uint64) (old []Superseded) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	snap := ch.coll.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		m := h.Meta()
		if m.VChannel != ch.name || slices.Contains(listed, m.ID) {
			continue
		}
		g, grows := h.segment.(*Growing)
		if grows && g.First() > checkpoint {
			continue
		}
		s := Superseded{Meta: m, Growing: grows}
		if sealed, ok := h.segment.(*Sealed); ok {
			s.MinTimestamp, s.MaxTimestamp = sealed.oldest, sealed.newest
		} else if n := h.visible(Latest); n > 0 {
			s.MinTimestamp, s.MaxTimestamp = h.timestamp(0), h.timestamp(uint32(n-1))
		}
		old = append(old, s)
	}
	return old
}

// MarkFlushed tells the channel that the catalog has the segment.
func (ch *Channel) MarkFlushed(ids ...int64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, id := range ids {
		ch.storedLocked(id)
	}
}

// storedLocked notes that the catalog has a segment: nobody builds its index here any more.
func (ch *Channel) storedLocked(id int64) {
	ch.mu.flushed[id] = ch.endLocked(id)
	ch.coming.stored(id)
}

// flushedLocked lets go of the growing copy of a segment that the catalog has, if there is one.
func (ch *Channel) flushedLocked(id int64) {
	ch.storedLocked(id)
	delete(ch.mu.growing, id)
}

// endLocked is a timestamp after which no rows of a segment can come: that of its seal, if it has been applied, or what was
// known before; else Latest.
func (ch *Channel) endLocked(id int64) uint64 {
	if h, ok := ch.mu.growing[id]; ok {
		if at, sealed := h.segment.(*Growing).Sealed(); sealed {
			return at
		}
	}
	if end, ok := ch.mu.flushed[id]; ok {
		return end
	}
	return Latest
}

// IsFlushed reports whether the catalog has the segment, as far as the channel was told.
func (ch *Channel) IsFlushed(id int64) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	_, flushed := ch.mu.flushed[id]
	return flushed
}

// Forget drops the growing copy of a segment that the catalog has, without
// loading it: for collections that are not searched on this node.
func (ch *Channel) Forget(id int64) {
	ch.mu.Lock()
	_, ok := ch.mu.growing[id]
	ch.flushedLocked(id)
	ch.mu.Unlock()
	if ok {
		ch.coll.swap(nil, func(h *holder) bool { return h.growing && h.Meta().ID == id })
	}
}

// Growing returns the growing segments in order of their ids, each held until
// release is called.
func (ch *Channel) Growing() (list []*Growing, release func()) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	held := slices.Collect(maps.Values(ch.mu.growing))
	slices.SortFunc(held, func(a, b *holder) int { return cmp.Compare(a.Meta().ID, b.Meta().ID) })
	for _, h := range held {
		h.refs.Add(1)
		list = append(list, h.segment.(*Growing))
	}
	return list, func() {
		for _, h := range held {
			ch.coll.set.unref(h)
		}
	}
}

// Checkpoint is the position from which a replay rebuilds everything that is not
// in the catalog once the deletes up to it are in files: right before the first
// row of the oldest growing segment, or Applied.
func (ch *Channel) Checkpoint() Position {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	at := ch.mu.applied
	for _, h := range ch.mu.growing {
		g := h.segment.(*Growing)
		if _, flushed := ch.mu.flushed[g.meta.ID]; g.start.Timestamp < at.Timestamp && !flushed {
			at = g.start
		}
	}
	return at
}

func (ch *Channel) dropPartition(id int64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	maps.DeleteFunc(ch.mu.growing, func(_ int64, h *holder) bool { return h.Meta().PartitionID == id })
}

// close refuses what comes later. It returns the growing segments, which the
// caller takes out of the view, and how far the channel had come.
func (ch *Channel) close() (growing []*holder, applied Position) {
	var files []*DeleteFile
	defer func() { ch.coll.set.removeFiles(files) }() // once the channel is unlocked
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.mu.closed = true
	close(ch.gone)
	ch.coll.set.watched.Add(-1)
	growing = slices.Collect(maps.Values(ch.mu.growing))
	clear(ch.mu.growing)
	files = ch.mu.buffer.files
	ch.mu.buffer.clear()
	ch.tellBufferLocked()
	ch.bufferMemory.Release()
	ch.coming.close()
	ch.tsafe.fail(errclass.New(errclass.Conflict, "channel %s is not watched on this node any more", ch.name))
	return growing, ch.mu.applied
}
