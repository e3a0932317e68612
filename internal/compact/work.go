package compact

import (
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/segments"
)

func (j *job) ids() []int64 {
	ids := make([]int64, 0, len(j.inputs))
	for _, s := range j.inputs {
		ids = append(ids, s.ID)
	}
	return ids
}

// bytes is the size of the inputs' files.
func (j *job) bytes() (n int64) {
	for _, s := range j.inputs {
		n += s.Bytes
	}
	return n
}

// rows is how many rows the inputs have, and about how many of them reads can still see.
func (j *job) rows(garbage map[int64]segments.Garbage) (all, left int64) {
	for _, s := range j.inputs {
		all += s.Rows
		left += max(0, s.Rows-int64(garbage[s.ID].Gone))
	}
	return all, left
}

// next does one thing on the channel; nil, nil if nothing is worth it. What would change
// nothing and what has no room is noted in out, and left alone: errSame, errNoRoom.
func (c *Compactor) next(ctx context.Context, ch Channel, all bool, out *leftOut) (*Done, error) {
	entry, err := c.entryOf(ctx, ch)
	if err != nil {
		return nil, err
	}
	c.putBack(entry)
	if entry, err = c.freeDeltas(ctx, ch, entry, out); err != nil {
		return nil, err
	}
	// After the newest manifest that the plan is made from: of a partition that came
	// later it has no segment.
	partitions, err := c.partitionsOf(ctx, entry.CollectionID)
	if err != nil {
		return nil, err
	}
	horizon, expired := c.horizon(ch.Collection().Info())
	// Deletes behind the checkpoint are all there is to apply.
	horizon = min(horizon, entry.CheckpointTimestamp)
	garbage := ch.Collection().Garbage(horizon, expired)
	j := c.o.Policy.plan(&situation{channel: entry, partitions: partitions, garbage: garbage, usable: c.usable(entry), all: all, same: out.same, noRoom: out.noRoom})
	if j == nil {
		return nil, nil
	}
	began := c.o.Now()
	done := &Done{CollectionID: entry.CollectionID, VChannel: entry.VChannel, PartitionID: j.partition, Why: j.why, Inputs: j.ids()}
	for _, s := range j.inputs {
		done.RowsIn += s.Rows
		done.BytesIn += s.Bytes
	}
	commit := catalog.FlushCommit{Term: ch.Term, RemoveSegments: j.ids(), Replace: true}
	if !j.drop {
		made, err := c.rewrite(ctx, ch, entry, j, garbage, horizon, expired)
		if errors.Is(err, errSame) {
			out.same[j.inputs[0].ID] = true
			return nil, err
		}
		if err != nil {
			err = errors.Wrapf(err, "rewrite segments %v", j.ids())
			if errors.Is(err, errNoRoom) {
				out.leave(j, err)
			}
			return nil, err
		}
		if made != nil {
			commit.AddSegments = []catalog.Segment{*made}
			done.Output, done.RowsOut, done.BytesOut = made.ID, made.Rows, made.Bytes
		}
	}
	c.phase(ch, j, "commit")
	step, cancel := c.o.step(ctx)
	defer cancel()
	if _, err := c.o.Catalog.CommitFlush(step, entry.VChannel, commit); err != nil {
		return nil, errors.Wrapf(err, "replace segments %v in the catalog", j.ids())
	}
	done.Took = c.o.Now().Sub(began)
	return done, nil
}

// entryOf reads the channel.
func (c *Compactor) entryOf(ctx context.Context, ch Channel) (*catalog.Channel, error) {
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	return c.o.Catalog.Channel(ctx, ch.Name())
}

// partitionsOf reads which partitions are left of a collection. One that is not in the list
// was dropped, if a segment of it was in a manifest that was read before the call: a
// partition is there before its rows.
func (c *Compactor) partitionsOf(ctx context.Context, collection int64) ([]int64, error) {
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	coll, err := c.o.Catalog.CollectionByID(ctx, collection)
	if err != nil {
		return nil, err
	}
	if coll.DroppedTimestamp != 0 {
		return nil, errclass.New(errclass.NotFound, "collection %d is dropped", coll.ID)
	}
	var parts []int64
	for _, p := range coll.Partitions {
		parts = append(parts, p.ID)
	}
	return parts, nil
}

// horizon returns the timestamp of the oldest read that must be right, and the
// timestamp up to which rows are too old for it.
func (c *Compactor) horizon(info segments.CollectionInfo) (horizon, expired uint64) {
	keep := c.o.Retention
	if info.Retention != nil {
		keep = *info.Retention
	}
	oldest := c.o.Now().Add(-keep - c.o.ReadSlack)
	horizon = mq.FromTime(oldest)
	if info.TTL > 0 {
		expired = mq.FromTime(oldest.Add(-info.TTL))
	}
	return horizon, expired
}

// rewrite makes and uploads the segment that takes the place of the inputs; nil
// if no row is left.
func (c *Compactor) rewrite(ctx context.Context, ch Channel, entry *catalog.Channel, j *job, garbage map[int64]segments.Garbage, horizon, expired uint64) (_ *catalog.Segment, err error) {
	// All room is taken before anything is fetched; the disk's last, for which files of others have to go.
	info, ledger := ch.Collection().Info(), ch.Collection().Ledger()
	rows, left := j.rows(garbage)
	room, err := ledger.Reserve(segments.KindCompaction, rows*bytesPerRow)
	if err != nil {
		return nil, noRoom(err)
	}
	defer room.Release()
	reckoned := segments.BuildBytes(info, int(left), c.o.Workers)
	building, err := ledger.Reserve(segments.KindBuild, reckoned)
	if err != nil {
		return nil, noRoom(err)
	}
	defer building.Release()
	disk, err := ch.Collection().ReserveDisk(2*j.bytes() + segments.BuildDisk(info, int(left))) // what comes in, and what is made of it
	if err != nil {
		return nil, noRoom(err)
	}
	defer disk.Release()
	dir, err := os.MkdirTemp(c.o.Dir, "job-")
	if err != nil {
		return nil, errors.Wrap(err, "create a folder for the job")
	}
	defer func() { err = errors.CombineErrors(err, errors.Wrap(os.RemoveAll(dir), "remove the job's folder")) }()
	c.phase(ch, j, "fetch")
	sources, err := c.open(ctx, ch, j, dir)
	defer func() {
		for _, s := range sources {
			err = errors.CombineErrors(err, s.Close())
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := c.applyDeltas(ctx, info.Schema.Primary().Type, entry, j, sources); err != nil {
		return nil, err
	}
	merged, err := segments.Merge(info, sources, horizon, expired)
	if err != nil || merged.Rows() == 0 {
		return nil, err
	}
	if len(sources) == 1 && merged.Dropped == 0 && !j.inputs[0].Unindexed {
		return nil, errSame // rather than rewrite it for ever
	}
	c.phase(ch, j, "index")
	// Now it is known how many rows are left.
	if err := building.Grow(segments.BuildBytes(info, merged.Rows(), c.o.Workers) - reckoned); err != nil {
		return nil, noRoom(err)
	}
	id, err := c.newID(ctx)
	if err != nil {
		return nil, err
	}
	out := filepath.Join(dir, "out")
	meta := segments.Meta{ID: id, CollectionID: info.ID, PartitionID: j.partition, VChannel: entry.VChannel}
	m, err := segments.Build(ctx, segments.BuildOptions{Dir: out, Meta: meta, Info: info, Workers: c.o.Workers, Deletes: merged.Deletes()}, merged.Next)
	if err != nil {
		return nil, err
	}
	building.Release() // an upload takes long, and none of it
	c.phase(ch, j, "upload")
	prefix := path.Join(catalog.SegmentFolder(info.ID), strconv.FormatInt(id, 10)) // an id of this try alone
	if err := flush.Upload(ctx, c.o.Bucket, out, prefix, m, c.o.StepTimeout, nil); err != nil {
		return nil, err
	}
	return &catalog.Segment{ID: id, CollectionID: info.ID, PartitionID: j.partition, VChannel: entry.VChannel, Path: prefix,
		Rows: m.Rows, Bytes: m.DiskBytes(), MinTimestamp: m.MinTimestamp, MaxTimestamp: m.MaxTimestamp,
		FoldedTimestamp: entry.CheckpointTimestamp}, nil
}

// errSame says that a job would change nothing; there may be others.
var errSame = errors.New("no row would be dropped")

// bytesPerRow is what a merge takes besides the rows: their order, and what hides them.
const bytesPerRow = 56

func (c *Compactor) newID(ctx context.Context) (int64, error) {
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	return c.o.Catalog.AllocateIDs(ctx, 1)
}

// open fetches and opens the inputs. What it returns is to be closed, also after an error.
func (c *Compactor) open(ctx context.Context, ch Channel, j *job, dir string) (sources []*segments.Source, err error) {
	for _, in := range j.inputs {
		to := filepath.Join(dir, strconv.FormatInt(in.ID, 10))
		if err := c.fetch(ctx, in, to); err != nil {
			return sources, c.segmentAside(in, errors.Wrapf(err, "fetch segment %d from %s", in.ID, in.Path))
		}
		s, err := ch.Collection().OpenSource(ctx, to, in.MinTimestamp)
		if err != nil {
			return sources, c.segmentAside(in, noRoom(err))
		}
		sources = append(sources, s)
	}
	return sources, nil
}

func (c *Compactor) segmentAside(in catalog.Segment, err error) error {
	return c.setAside(Aside{VChannel: in.VChannel, SegmentID: in.ID, Path: in.Path}, err)
}

// fetch copies the files of a segment and verifies them on the way.
func (c *Compactor) fetch(ctx context.Context, in catalog.Segment, dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return errors.Wrap(err, "create folder")
	}
	step, cancel := c.o.step(ctx)
	raw, err := objstore.ReadAll(step, c.o.Bucket, path.Join(in.Path, segfile.ManifestName), segfile.MaxManifestBytes)
	cancel()
	if err != nil {
		return err
	}
	m, err := segfile.ParseManifest(raw)
	if err != nil {
		return err
	}
	if m.SegmentID != in.ID || m.CollectionID != in.CollectionID || m.VChannel != in.VChannel || m.PartitionID != in.PartitionID {
		return errclass.New(errclass.Corrupt, "the manifest is of segment %d of collection %d", m.SegmentID, m.CollectionID)
	}
	for _, f := range m.Files {
		if f.Kind == segfile.KindIndex {
			// It is built anew; a segment without it is one all the same.
			continue
		}
		if err := c.fetchFile(ctx, path.Join(in.Path, f.Name), filepath.Join(dir, f.Name), m, f.Name); err != nil {
			return err
		}
	}
	m.Files = withoutIndexes(m.Files)
	if raw, err = m.Encode(); err != nil {
		return err
	}
	return errors.Wrap(os.WriteFile(filepath.Join(dir, segfile.ManifestName), raw, 0o644), "write manifest")
}

func withoutIndexes(files []segfile.File) (rest []segfile.File) {
	for _, f := range files {
		if f.Kind != segfile.KindIndex {
			rest = append(rest, f)
		}
	}
	return rest
}

func (c *Compactor) fetchFile(ctx context.Context, key, dst string, m *segfile.Manifest, name string) (err error) {
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	in, err := c.o.Bucket.Get(ctx, key, 0, -1)
	if err != nil {
		return errors.Wrapf(err, "get %s", key)
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	sum, err := m.Checker(name)
	if err != nil {
		return err
	}
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return errors.Wrap(err, "create file")
	}
	defer func() { err = errors.CombineErrors(err, errors.Wrap(out.Close(), "close file")) }()
	// Summed before it is written: bytes too many do not reach the disk.
	if _, err := io.Copy(out, io.TeeReader(in, sum)); err != nil {
		return errors.Wrapf(err, "copy %s", key)
	}
	return errors.Wrapf(sum.Close(), "copy %s", key)
}
