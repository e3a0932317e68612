package compact

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"path"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/segments"
)

// maxMergedDeletes bounds a file of deletes that several are made: larger ones are
// left alone.
const maxMergedDeletes = 1 << 20

// readDelta reads a file of deletes of a channel, for keys of the type of pk. The memory
// it takes is released by free.
func (c *Compactor) readDelta(ctx context.Context, ledger *segments.Ledger, vchannel string, pk schema.Type, d catalog.Delta) (b *segments.DeleteBatch, free func(), err error) {
	room, err := ledger.Reserve(segments.KindCompaction, 4*d.Bytes)
	if err != nil {
		return nil, nil, noRoom(err)
	}
	defer func() {
		if err != nil {
			room.Release()
		}
	}()
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	keys, ts, err := c.decodeDelta(ctx, pk, d.Path)
	if err != nil {
		return nil, nil, c.setAside(Aside{VChannel: vchannel, Path: d.Path}, errors.Wrapf(err, "deletes %s", d.Path))
	}
	return &segments.DeleteBatch{Partition: d.PartitionID, Keys: keys, Timestamps: ts}, room.Release, nil
}

func (c *Compactor) decodeDelta(ctx context.Context, pk schema.Type, path string) (*schema.Column, []uint64, error) {
	raw, err := objstore.ReadAll(ctx, c.o.Bucket, path, segfile.MaxDeletesBytes)
	if err != nil {
		return nil, nil, err
	}
	keys, ts, err := segfile.DecodeDeletes(raw)
	if err != nil {
		return nil, nil, err
	}
	if keys.Type != pk {
		return nil, nil, errclass.New(errclass.Corrupt, "keys of type %s, want %s", keys.Type, pk)
	}
	return keys, ts, nil
}

// applyDeltas hides the rows of the sources that files of deletes name.
func (c *Compactor) applyDeltas(ctx context.Context, pk schema.Type, entry *catalog.Channel, j *job, sources []*segments.Source) error {
	if len(sources) == 0 {
		return nil
	}
	for _, d := range entry.Deltas {
		if !slices.ContainsFunc(j.inputs, func(s catalog.Segment) bool { return concerns(&d, &s) }) {
			continue
		}
		b, free, err := c.readDelta(ctx, sources[0].Ledger(), entry.VChannel, pk, d)
		if err != nil {
			return err
		}
		for _, s := range sources {
			if err := s.ApplyDeletes(b); err != nil {
				free()
				return errors.Wrapf(err, "deletes %s", d.Path)
			}
		}
		free()
	}
	return nil
}

// freeDeltas takes files of deletes out of the catalog that nobody needs, and
// makes many of them one, unless that is left out. It returns the channel as it is then.
func (c *Compactor) freeDeltas(ctx context.Context, ch Channel, entry *catalog.Channel, out *leftOut) (*catalog.Channel, error) {
	if dead := deadDeltas(entry); len(dead) > 0 {
		next, err := c.commitDeltas(ctx, ch, entry, catalog.FlushCommit{Term: ch.Term, RemoveDeltas: dead})
		if err != nil {
			return nil, errors.Wrap(err, "remove files of deletes from the catalog")
		}
		entry = next
	}
	if out.deltas || len(entry.Deltas) <= c.o.Policy.MaxDeltas {
		return entry, nil
	}
	byPartition := map[int64][]catalog.Delta{}
	for _, d := range entry.Deltas {
		if d.Rows <= maxMergedDeletes/2 && !c.isAside(d.Path) {
			byPartition[d.PartitionID] = append(byPartition[d.PartitionID], d)
		}
	}
	for part, list := range byPartition {
		if len(list) < 2 {
			continue
		}
		commit, err := c.mergeDeltas(ctx, ch, entry, part, list)
		if err != nil {
			err = errors.Wrap(err, "merge files of deletes")
			if errors.Is(err, errNoRoom) {
				out.leaveDeltas(err)
			}
			return nil, err
		}
		if entry, err = c.commitDeltas(ctx, ch, entry, commit); err != nil {
			return nil, errors.Wrap(err, "merge files of deletes")
		}
	}
	return entry, nil
}

func (c *Compactor) commitDeltas(ctx context.Context, ch Channel, entry *catalog.Channel, f catalog.FlushCommit) (*catalog.Channel, error) {
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	next, err := c.o.Catalog.CommitFlush(ctx, entry.VChannel, f)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.stats.DeltasFreed += int64(len(f.RemoveDeltas) - len(f.AddDeltas))
	return next, nil
}

// mergeDeltas writes one file with the deletes of several that still matter.
func (c *Compactor) mergeDeltas(ctx context.Context, ch Channel, entry *catalog.Channel, part int64, list []catalog.Delta) (catalog.FlushCommit, error) {
	slices.SortFunc(list, func(a, b catalog.Delta) int { return cmp.Compare(a.MinTimestamp, b.MinTimestamp) })
	floor := deltaFloor(entry)
	commit := catalog.FlushCommit{Term: ch.Term}
	pk := ch.Collection().Info().Schema.Primary()
	all := &segments.DeleteBatch{Keys: schema.NewColumn(pk, 0)}
	for _, d := range list {
		if int64(len(all.Timestamps))+d.Rows > maxMergedDeletes {
			break
		}
		b, free, err := c.readDelta(ctx, ch.Collection().Ledger(), entry.VChannel, pk.Type, d)
		if err != nil {
			return commit, err
		}
		defer free() // its keys are in the merged ones
		for i, ts := range b.Timestamps {
			if ts > floor {
				all.Keys.AppendRow(b.Keys, i)
				all.Timestamps = append(all.Timestamps, ts)
			}
		}
		commit.RemoveDeltas = append(commit.RemoveDeltas, d.Path)
	}
	if len(all.Timestamps) == 0 {
		return commit, nil
	}
	raw, err := segfile.EncodeDeletes(all.Keys, all.Timestamps)
	if err != nil {
		return commit, err
	}
	id, err := c.newID(ctx)
	if err != nil {
		return commit, err
	}
	lo, hi := slices.Min(all.Timestamps), slices.Max(all.Timestamps)
	key := path.Join(catalog.DeltaFolder(entry.CollectionID), entry.VChannel, fmt.Sprintf("%d-%d-p%d-m%d.parquet", lo, hi, part, id))
	step, cancel := c.o.step(ctx)
	defer cancel()
	if _, err := c.o.Bucket.Put(step, key, bytes.NewReader(raw), int64(len(raw)), objstore.PutOptions{}); err != nil {
		return commit, errors.Wrapf(err, "upload %s", key)
	}
	commit.AddDeltas = []catalog.Delta{{Path: key, PartitionID: part, Rows: int64(len(all.Timestamps)), Bytes: int64(len(raw)), MinTimestamp: lo, MaxTimestamp: hi}}
	return commit, nil
}
