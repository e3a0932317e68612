package segments

import (
	"context"
	"maps"
	"slices"
	"sort"
	"sync"

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

// DeleteBatch is keys with the timestamps of their deletes.
type DeleteBatch struct {
	Partition  int64 // 0 = all
	Keys       *schema.Column
	Timestamps []uint64
}

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
		flushed map[int64]bool // sealed in the catalog: their rows come from there
		dropped map[int64]bool // partitions
		buffer  deleteBuffer
		applied Position // everything up to here is in growing segments or the buffer
		pins    int      // loads under way: the buffer is not trimmed
		closed  bool
	}
	bufferMemory *Reservation
}

func newChannel(c *Collection, name string, from Position, flushed []int64) *Channel {
	ch := &Channel{coll: c, name: name, tsafe: newWatermark()}
	ch.mu.growing = map[int64]*holder{}
	ch.mu.flushed = map[int64]bool{}
	ch.mu.dropped = map[int64]bool{}
	for _, id := range flushed {
		ch.mu.flushed[id] = true
	}
	ch.mu.applied = from
	ch.bufferMemory = c.set.o.Ledger.Force(KindDeletes, 0)
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

// ApplyRows takes rows at position at. Rows at or before Applied were applied
// before and are dropped. On an error of class Exhausted nothing has changed and
// the same call may be repeated.
func (ch *Channel) ApplyRows(r Rows, at Position) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if at.Timestamp <= ch.mu.applied.Timestamp {
		return nil
	}
	skip := ch.mu.flushed[r.SegmentID] || ch.mu.dropped[r.PartitionID]
	if !skip {
		if err := ch.insertLocked(r, at); err != nil {
			return err
		}
	} else if r.Upsert {
		// Its rows come from the sealed segment, its delete still counts for older ones.
		ch.deleteLocked(upsertDeletes(ch.coll.Info().Schema, r, at.Timestamp))
	}
	ch.mu.applied = at
	return nil
}

func upsertDeletes(s *schema.Schema, r Rows, ts uint64) *DeleteBatch {
	keys := r.Batch.Column(s.Primary().ID)
	d := &DeleteBatch{Keys: keys, Timestamps: make([]uint64, keys.Rows())}
	for i := range d.Timestamps {
		d.Timestamps[i] = ts
	}
	return d
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
	if g.sealed.Load() {
		return errclass.New(errclass.Conflict, "segment %d is sealed since %d, rows came at %d", r.SegmentID, g.sealedAt.Load(), at.Timestamp)
	}
	if err := g.memory.Grow(r.Batch.Bytes() + 40*int64(r.Batch.Rows)); err != nil {
		if fresh {
			ch.coll.set.discard(h)
		}
		return err
	}
	if err := g.append(r.Batch, at.Timestamp); err != nil {
		if fresh {
			ch.coll.set.discard(h)
		}
		return err
	}
	if r.Upsert {
		// A delete hides only rows older than itself, so the new rows stay.
		ch.deleteLocked(upsertDeletes(ch.coll.Info().Schema, r, at.Timestamp))
	}
	if fresh {
		ch.mu.growing[r.SegmentID] = h
		ch.coll.swap([]*holder{h}, nil)
	}
	ch.coll.set.indexLater(h, g)
	return nil
}

func (ch *Channel) newGrowing(r Rows) (*holder, error) {
	set := ch.coll.set
	mem, err := set.o.Ledger.Reserve(KindGrowing, 0)
	if err != nil {
		return nil, err
	}
	m := Meta{ID: r.SegmentID, CollectionID: ch.coll.Info().ID, PartitionID: r.PartitionID, VChannel: ch.name}
	g, err := newGrowing(m, ch.coll.Info().Schema, ch.mu.applied, max(set.o.GrowingRows, r.Batch.Rows), mem)
	if err != nil {
		mem.Release()
		return nil, err
	}
	for _, v := range g.vectors {
		v.metric = ch.coll.Info().Indexes[v.fieldID].Metric
	}
	return &holder{segment: g, growing: true}, nil
}

// ApplyDeletes takes deletes at position at, all with its timestamp.
func (ch *Channel) ApplyDeletes(partition int64, keys *schema.Column, at Position) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if at.Timestamp <= ch.mu.applied.Timestamp {
		return
	}
	d := &DeleteBatch{Partition: partition, Keys: keys, Timestamps: make([]uint64, keys.Rows())}
	for i := range d.Timestamps {
		d.Timestamps[i] = at.Timestamp
	}
	ch.deleteLocked(d)
	ch.mu.applied = at
}

// deleteLocked hides rows in every segment of the channel and remembers the
// deletes for segments that are loaded later.
func (ch *Channel) deleteLocked(d *DeleteBatch) {
	ch.mu.buffer.add(d)
	ch.bufferMemory.Commit(ch.mu.buffer.bytes)
	snap := ch.coll.Acquire()
	defer snap.Release()
	for _, h := range snap.view.segments {
		if h.Meta().VChannel != ch.name {
			continue
		}
		switch s := h.segment.(type) {
		case *Growing:
			s.applyDeletes(d)
		case *Sealed:
			s.applyDeletes(d)
		}
	}
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
			g := h.segment.(*Growing)
			g.sealedAt.Store(at.Timestamp)
			g.end.Store(&at)
			g.sealed.Store(true)
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
	ch.tsafe.advance(at.Timestamp)
}

// PinDeletes keeps the delete buffer from being trimmed until the returned
// function is called. A load pins it before it asks the catalog which deletes
// are in files, so that each delete is in one of the two.
func (ch *Channel) PinDeletes() (unpin func()) {
	ch.mu.Lock()
	ch.mu.pins++
	ch.mu.Unlock()
	var once sync.Once
	return func() {
		once.Do(func() {
			ch.mu.Lock()
			ch.mu.pins--
			ch.mu.Unlock()
		})
	}
}

// publish applies the buffered deletes to s and puts it into the view, instead
// of the growing segment of the same id if there is one, in one step.
func (ch *Channel) publish(h *holder) error {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	s := h.segment.(*Sealed)
	if ch.mu.closed || ch.mu.dropped[s.meta.PartitionID] {
		return errclass.New(errclass.Conflict, "channel %s: not watched any more, or the partition is dropped", ch.name)
	}
	for _, d := range ch.mu.buffer.batches {
		s.applyDeletes(d)
	}
	delete(ch.mu.growing, s.meta.ID)
	ch.mu.flushed[s.meta.ID] = true
	ch.coll.swap([]*holder{h}, nil)
	return nil
}

// MarkFlushed tells the channel that the catalog has the segment.
func (ch *Channel) MarkFlushed(ids ...int64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	for _, id := range ids {
		ch.mu.flushed[id] = true
	}
}

// IsFlushed reports whether the catalog has the segment, as far as the channel was told.
func (ch *Channel) IsFlushed(id int64) bool {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.mu.flushed[id]
}

// Forget drops the growing copy of a segment that the catalog has, without
// loading it: for collections that are not searched on this node.
func (ch *Channel) Forget(id int64) {
	ch.mu.Lock()
	_, ok := ch.mu.growing[id]
	delete(ch.mu.growing, id)
	ch.mu.flushed[id] = true
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
	slices.SortFunc(held, func(a, b *holder) int {
		if a.Meta().ID < b.Meta().ID {
			return -1
		}
		return 1
	})
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
		if g.start.Timestamp < at.Timestamp && !ch.mu.flushed[g.meta.ID] {
			at = g.start
		}
	}
	return at
}

// DeletesUpTo returns the buffered deletes with timestamps in (after, upTo].
func (ch *Channel) DeletesUpTo(after, upTo uint64) []*DeleteBatch {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	return ch.mu.buffer.between(after, upTo)
}

// TrimDeletes forgets buffered deletes up to upTo, which are in files, unless a
// load is under way.
func (ch *Channel) TrimDeletes(upTo uint64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	if ch.mu.pins == 0 {
		ch.mu.buffer.trim(upTo)
		ch.bufferMemory.Commit(ch.mu.buffer.bytes)
	}
}

func (ch *Channel) dropPartition(id int64) {
	ch.mu.Lock()
	defer ch.mu.Unlock()
	ch.mu.dropped[id] = true
	for sid, h := range ch.mu.growing {
		if h.Meta().PartitionID == id {
			delete(ch.mu.growing, sid)
		}
	}
}

func (ch *Channel) close() {
	ch.mu.Lock()
	ch.mu.closed = true
	clear(ch.mu.growing)
	ch.mu.buffer = deleteBuffer{}
	ch.bufferMemory.Release()
	ch.mu.Unlock()
	ch.tsafe.fail(errclass.New(errclass.Conflict, "channel %s is not watched on this node any more", ch.name))
}

// deleteBuffer holds deletes in timestamp order; all of a batch have one timestamp.
type deleteBuffer struct {
	batches []*DeleteBatch
	bytes   int64
}

func (b *deleteBuffer) add(d *DeleteBatch) {
	if len(d.Timestamps) == 0 {
		return
	}
	b.batches = append(b.batches, d)
	b.bytes += d.bytes()
}

func (d *DeleteBatch) bytes() int64 { return d.Keys.Bytes() + 8*int64(len(d.Timestamps)) + 64 }

func (b *deleteBuffer) after(ts uint64) int {
	return sort.Search(len(b.batches), func(i int) bool { return b.batches[i].Timestamps[0] > ts })
}

func (b *deleteBuffer) between(after, upTo uint64) []*DeleteBatch {
	return slices.Clone(b.batches[b.after(after):max(b.after(after), b.after(upTo))])
}

func (b *deleteBuffer) trim(upTo uint64) {
	n := b.after(upTo)
	for _, d := range b.batches[:n] {
		b.bytes -= d.bytes()
	}
	b.batches = slices.Clone(b.batches[n:])
}
