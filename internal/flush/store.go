package flush

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/segments"
)

// batchRows is how many rows are copied out of a growing segment at a time, and batchBytes about how many bytes, at most.
const batchRows, batchBytes = 8192, 8 << 20

// batchOf is how many rows of a segment are copied at a time that has so many, of so many bytes.
func batchOf(rows int, bytes int64) int {
	return int(min(max(batchBytes*int64(rows)/max(bytes, 1), 1), batchRows))
}

// flushSealed flushes every sealed growing segment whose seal has been applied.
func (f *Flusher) flushSealed(ctx context.Context, ch Channel, w *wal.WAL) (flushed bool, err error) {
	growing, release := ch.Growing()
	defer release()
	for _, g := range growing {
		id := g.Meta().ID
		sealedAt, sealed := g.Sealed()
		if !sealed || ch.Tsafe() < sealedAt || ch.IsFlushed(id) {
			continue
		}
		if err := f.flush(ctx, ch, g, w); err != nil {
			return flushed, errors.Wrapf(err, "flush segment %d", id)
		}
		flushed = true
		// Not only after the last: there may be many, and the process may be killed.
		if err := f.checkpoint(ctx, ch, w, true); err != nil {
			return flushed, err
		}
	}
	return flushed, nil
}

// flush builds, uploads and commits one segment.
func (f *Flusher) flush(ctx context.Context, ch Channel, g *segments.Growing, w *wal.WAL) error {
	meta, info, start := g.Meta(), ch.Collection().Info(), time.Now()
	// An earlier try may have ended without knowing that its commit had arrived, and
	// an earlier owner may have stored it.
	if done, err := f.committed(ctx, ch, g); err != nil || done {
		return err
	}
	dir := filepath.Join(f.o.Dir, strconv.FormatInt(meta.ID, 10))
	if err := os.RemoveAll(dir); err != nil {
		return errors.Wrapf(err, "remove leftovers %s", dir)
	}
	disk := ch.Collection().ForceDisk(0)
	defer disk.Release()
	defer func() { _ = os.RemoveAll(dir) }() // what stays is removed by the next try or the next start
	m, unindexed, err := f.build(ctx, ch, g, dir, disk)
	if err != nil {
		return err
	}
	disk.Commit(m.DiskBytes())
	prefix := segmentPath(info.ID, meta.ID, w.Term())
	if err := Upload(ctx, f.o.Bucket, dir, prefix, m, f.o.StepTimeout, func(done, total int64) {
		f.o.OnProgress(Progress{SegmentID: meta.ID, Phase: "upload", Done: done, Total: total})
	}); err != nil {
		return err
	}
	commit := catalog.FlushCommit{Term: w.Term(), AddSegments: []catalog.Segment{{
		ID: meta.ID, CollectionID: info.ID, PartitionID: meta.PartitionID, VChannel: meta.VChannel, Path: prefix,
		Rows: m.Rows, Bytes: m.DiskBytes(), MinTimestamp: m.MinTimestamp, MaxTimestamp: m.MaxTimestamp,
		StartPosition: m.StartPosition, EndPosition: m.EndPosition, Unindexed: unindexed,
	}}}
	if err := f.commitSynced(ctx, ch, w, commit); err != nil {
		return err
	}
	f.o.Logger.Info("flush: stored", "segment", meta.ID, "rows", m.Rows, "bytes", m.DiskBytes(), "took", time.Since(start))
	f.flushed(ch, Flushed{CollectionID: info.ID, VChannel: meta.VChannel, SegmentID: meta.ID, Rows: m.Rows, Bytes: m.DiskBytes()})
	return nil
}

// build writes the files of a growing segment to dir, once no other is being built:
// its threads are all there are, and memory for one is enough. It grows disk to the room
// of the files, which the caller releases, also after an error. unindexed says that there was no room for
// some index.
func (f *Flusher) build(ctx context.Context, ch Channel, g *segments.Growing, dir string, disk *segments.DiskRoom) (m *segfile.Manifest, unindexed bool, err error) {
	select {
	case f.building <- struct{}{}:
		defer func() { <-f.building }()
	case <-ctx.Done():
		return nil, false, errors.Wrap(ctx.Err(), "wait until another segment has been built")
	}
	// Whatever the limit: what is stored lets go of a part of the queue.
	disk.Commit(g.Bytes() + segments.BuildDisk(ch.Collection().Info(), g.Rows()))
	meta, info, at, total := g.Meta(), ch.Collection().Info(), 0, g.Rows()
	step := batchOf(total, g.Bytes())
	room, err := f.roomToBuild(ctx, g)
	if err != nil {
		return nil, false, err
	}
	defer room.Release()
	m, err = segments.Build(ctx, segments.BuildOptions{
		Dir: dir, Meta: meta, Info: info, Start: positionText(g.Start()), End: positionText(g.End()), Workers: f.o.Workers,
		Progress: func(done, total int) {
			f.o.OnProgress(Progress{SegmentID: meta.ID, Phase: "index", Done: int64(done), Total: int64(total)})
		},
		Room: room,
		NoRoom: func(field string, err error) {
			f.o.Logger.Warn("flush: a field is stored without its index, for which there is no room; it is scanned until a compaction has built it",
				"segment", meta.ID, "vchannel", ch.Name(), "field", field, "error", err)
			f.unindexed.Add(1)
			unindexed = true
		},
	}, func() (*schema.Batch, error) {
		if at == total {
			return nil, io.EOF
		}
		b := g.Batch(at, min(at+step, total))
		at += b.Rows
		return b, nil
	})
	return m, unindexed, err
}

// roomToBuild takes memory for building the indexes of a segment. Some may come soon, from reads that end or garbage that is collected; if it does
// not, the segment is stored all the same, without those that there is no room for, and the next one does not wait. The caller has the
// turn to build.
func (f *Flusher) roomToBuild(ctx context.Context, g *segments.Growing) (*segments.BuildRoom, error) {
	late, again := time.NewTimer(f.o.RoomTimeout), time.NewTicker(roomLook)
	defer late.Stop()
	defer again.Stop()
	for {
		room, err := g.Build(f.o.Workers, f.noRoom)
		if err == nil {
			f.noRoom = room.Short() != nil
			return room, nil
		}
		select {
		case <-again.C:
		case <-late.C:
			f.noRoom = true
		case <-ctx.Done():
			return nil, errors.Wrap(ctx.Err(), "wait for memory to build an index")
		}
	}
}

// roomLook is how often who waits for memory looks whether there is some.
const roomLook = 250 * time.Millisecond

// flushed tells everyone that the segment is in the catalog.
func (f *Flusher) flushed(ch Channel, done Flushed) {
	ch.MarkFlushed(done.SegmentID)
	f.assigner.Flushed(done.SegmentID)
	f.mu.Lock()
	if was := f.mu.failing[ch.Name()]; was != nil {
		was.delay = 0 // some things go: what does not is tried again soon
	}
	f.mu.Unlock()
	f.o.OnFlushed(done)
	f.answer()
}

// committed reports whether the catalog has the segment, or has had it: one that is not
// listed although the checkpoint has passed its first row was stored by an earlier owner
// and compacted since. To store it again would double its rows and bring back what was
// deleted of them.
//
// No row is lost by that. A checkpoint says that every row up to it is stored, and an
// owner stores a segment whole, after its seal; it puts the checkpoint before the first
// row of each one that it has not stored. Segments are compacted only behind the
// checkpoint, so one that was is always found so. The position before the first row
// would not do: it is what this node read last before it, another may have read more,
// and its checkpoint can be between the two.
func (f *Flusher) committed(ctx context.Context, ch Channel, g *segments.Growing) (bool, error) {
	id := g.Meta().ID
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	c, err := f.o.Catalog.Channel(ctx, ch.Name())
	if err != nil {
		return false, errors.Wrap(err, "read the catalog")
	}
	for _, s := range c.Segments {
		if s.ID == id {
			f.flushed(ch, Flushed{CollectionID: s.CollectionID, VChannel: s.VChannel, SegmentID: id, Rows: s.Rows, Bytes: s.Bytes})
			return true, nil
		}
	}
	if first := g.First(); first == 0 || first > c.CheckpointTimestamp {
		return false, nil
	}
	f.o.Logger.Info("flush: an earlier owner has stored this segment, and it was compacted since", "segment", id, "vchannel", ch.Name())
	f.flushed(ch, Flushed{CollectionID: c.CollectionID, VChannel: ch.Name(), SegmentID: id, Rows: int64(g.Rows())})
	return true, nil
}

// segmentPath returns a path that nobody uploads to but this try: what an owner
// that was replaced still uploads does not get among the files of its successor,
// and what is taken for left behind is never in use again.
func segmentPath(collection, id int64, term uint64) string {
	return path.Join(catalog.SegmentFolder(collection), fmt.Sprintf("%d-%s", id, unique(term)))
}

// unique names a try of an owner.
func unique(term uint64) string { return fmt.Sprintf("t%d-%08x", term, rand.Uint32()) }

func positionText(p segments.Position) string { return mq.Position(p).String() }

func (f *Flusher) commit(ctx context.Context, ch Channel, c catalog.FlushCommit) error {
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	_, err := f.o.Catalog.CommitFlush(ctx, ch.Name(), c)
	return errors.Wrapf(err, "commit to the catalog")
}

// commitSynced is commit of what was read from the log. A log that ends before what is
// stored, after a power failure, is not opened any more: what is written there next
// would be taken for stored.
func (f *Flusher) commitSynced(ctx context.Context, ch Channel, w *wal.WAL, c catalog.FlushCommit) error {
	if err := w.Sync(ctx); err != nil {
		return errors.Wrap(err, "sync the log up to what is stored")
	}
	return f.commit(ctx, ch, c)
}

// Upload puts the files of the segment in dir under prefix, the manifest last:
// without it the segment does not exist. Each file has timeout.
func Upload(ctx context.Context, b objstore.Bucket, dir, prefix string, m *segfile.Manifest, timeout time.Duration, progress func(done, total int64)) error {
	var done int64
	total := m.DiskBytes()
	put := func(name string) error {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		n, err := putFile(ctx, b, path.Join(prefix, name), filepath.Join(dir, name))
		done += n
		if progress != nil {
			progress(min(done, total), total)
		}
		return err
	}
	for _, file := range m.Files {
		if err := put(file.Name); err != nil {
			return err
		}
	}
	return put(segfile.ManifestName)
}

func putFile(ctx context.Context, b objstore.Bucket, key, name string) (n int64, err error) {
	in, err := os.Open(name)
	if err != nil {
		return 0, errors.Wrapf(err, "upload %s", key)
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	st, err := in.Stat()
	if err != nil {
		return 0, errors.Wrapf(err, "upload %s", key)
	}
	_, err = b.Put(ctx, key, in, st.Size(), objstore.PutOptions{})
	return st.Size(), errors.Wrapf(err, "upload %s", key)
}

// checkpoint moves the channel's checkpoint as far as it can: deletes before it
// go to a file, then one conditional put moves it; the queue is trimmed later.
func (f *Flusher) checkpoint(ctx context.Context, ch Channel, w *wal.WAL, flushed bool) error {
	last, err := f.saved(ctx, ch)
	if err != nil {
		return err
	}
	to := ch.Checkpoint()
	if to.Timestamp <= last.timestamp || to.ID == "" {
		return nil
	}
	if !ch.Watched() {
		return nil // it has let go of its rows: to is of nothing
	}
	if !flushed && !tooManyDeletes(ch) && time.Since(last.at) < f.o.CheckpointInterval {
		return nil
	}
	defer ch.PinDeletes()()
	commit := catalog.FlushCommit{Term: w.Term(), Checkpoint: positionText(to), CheckpointTimestamp: to.Timestamp}
	commit.AddDeltas, err = f.storeDeletes(ctx, ch, w.Term(), last.timestamp, to.Timestamp)
	if !ch.Watched() {
		return nil // it has let go of its deletes: these may be too few
	}
	if err != nil {
		return err
	}
	if err := f.commitSynced(ctx, ch, w, commit); err != nil {
		return err
	}
	f.mu.Lock()
	f.mu.saved[ch.Name()] = saved{timestamp: to.Timestamp, at: time.Now()}
	f.mu.Unlock()
	ch.TrimDeletes(to.Timestamp)
	f.trimLater(ch.PChannel)
	return nil
}

// claim fences earlier owners in the catalog, once a term, before anything is
// decided by what the catalog says: none of their commits can come after it.
func (f *Flusher) claim(ctx context.Context, ch Channel, w *wal.WAL) (claim, error) {
	f.mu.Lock()
	c, ok := f.mu.claimed[ch.Name()]
	f.mu.Unlock()
	if ok && c.term == w.Term() {
		return c, nil
	}
	c = claim{term: w.Term(), end: w.LastTimestamp()}
	if err := f.commit(ctx, ch, catalog.FlushCommit{Term: c.term}); err != nil {
		return claim{}, errors.Wrapf(err, "claim %s for term %d", ch.Name(), c.term)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mu.claimed[ch.Name()] = c
	return c, nil
}

// saved returns the channel's checkpoint, from the catalog the first time.
func (f *Flusher) saved(ctx context.Context, ch Channel) (saved, error) {
	f.mu.Lock()
	s, ok := f.mu.saved[ch.Name()]
	f.mu.Unlock()
	if ok {
		return s, nil
	}
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	c, err := f.o.Catalog.Channel(ctx, ch.Name())
	if err != nil {
		return saved{}, errors.Wrap(err, "read the checkpoint")
	}
	s = saved{timestamp: c.CheckpointTimestamp, at: time.Now()}
	f.mu.Lock()
	f.mu.saved[ch.Name()] = s
	f.mu.Unlock()
	return s, nil
}

// trim lets the queue drop what no channel on the pchannel needs any more.
func (f *Flusher) trim(ctx context.Context, pchannel string, w *wal.WAL) error {
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	lowest, ok, err := lowestCheckpoint(ctx, f.o.Catalog, pchannel)
	if err != nil || !ok {
		return err
	}
	return errors.Wrapf(w.Trim(ctx, lowest), "trim %s", pchannel)
}

// lowestCheckpoint returns the position from which every vchannel on the
// pchannel can be rebuilt; ok is false while one of them has no checkpoint yet.
func lowestCheckpoint(ctx context.Context, c *catalog.Catalog, pchannel string) (lowest mq.Position, ok bool, err error) {
	lowest, _, ok, err = Checkpoints(ctx, c, pchannel)
	if err != nil || !ok {
		return mq.Position{}, false, err
	}
	return lowest, true, nil
}

// Checkpoints returns the lowest and the highest checkpoint that vchannels on the pchannel
// have, zero = none has one; all is false if one of them has none, or there is no channel:
// the queue is needed whole then, whatever the lowest is. The timestamp of the highest is
// that of the newest that is stored of all their logs, see catalog.Checkpoint. With an error
// it returns what it has found in those that can be read.
func Checkpoints(ctx context.Context, c *catalog.Catalog, pchannel string) (lowest, highest mq.Position, all bool, err error) {
	list, err := c.Checkpoints(ctx, pchannel)
	all = len(list) > 0
	for _, ch := range list {
		highest.Timestamp = max(highest.Timestamp, ch.Newest)
		if ch.Position == "" {
			all = false
			continue
		}
		var p mq.Position
		if bad := p.UnmarshalText([]byte(ch.Position)); bad != nil {
			err = errors.CombineErrors(err, errclass.Wrap(bad, errclass.Corrupt, "checkpoint of %s", ch.VChannel))
			continue
		}
		if lowest.IsZero() || p.Before(lowest) {
			lowest = p
		}
		if highest.Before(p) {
			highest.ID = p.ID
		}
		highest.Timestamp = max(highest.Timestamp, p.Timestamp)
	}
	return lowest, highest, all, err
}
