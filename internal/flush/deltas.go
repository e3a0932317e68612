package flush

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/segments"
)

// storeDeletes puts the deletes in (from, to] into object storage: the files of them that the channel has, or one for several or for a
// part. The caller has pinned them.
func (f *Flusher) storeDeletes(ctx context.Context, ch Channel, term, from, to uint64) (deltas []catalog.Delta, err error) {
	files, err := ch.DeleteFiles(ctx, from, to)
	if err != nil {
		return nil, err
	}
	for _, d := range segments.SplitDeletes(files, ch.Collection().Ledger()) {
		name := fmt.Sprintf("%d-%d-p%d-%s.parquet", from, to, d[0].Partition, unique(term))
		if len(d) == 1 && d[0].MinTimestamp > from && d[0].MaxTimestamp <= to {
			deltas, err = f.storeDelta(ctx, ch, d[0], name, deltas)
		} else {
			deltas, err = f.storeJoined(ctx, ch, d, name, from, to, deltas)
		}
		if err != nil {
			return nil, err
		}
	}
	return deltas, nil
}

// storeJoined is storeDelta of those of several files' deletes that are in (from, to].
func (f *Flusher) storeJoined(ctx context.Context, ch Channel, files []*segments.DeleteFile, name string, from, to uint64, deltas []catalog.Delta) (_ []catalog.Delta, err error) {
	memory := ch.Collection().Ledger().Force(segments.KindDeletes, segments.DeleteFileMemory)
	one, err := segments.JoinDeletes(filepath.Join(f.o.Dir, "delta-"+name), ch.Collection().Info().Schema.Primary(), files, from, to)
	memory.Release()
	if err != nil || one == nil {
		return deltas, err
	}
	disk := ch.Collection().ForceDisk(one.Size)
	defer disk.Release()
	defer func() { err = errors.CombineErrors(err, os.Remove(one.Path)) }()
	return f.storeDelta(ctx, ch, one, name, deltas)
}

// storeDelta puts one file of deletes into object storage and appends it to deltas.
func (f *Flusher) storeDelta(ctx context.Context, ch Channel, d *segments.DeleteFile, name string, deltas []catalog.Delta) ([]catalog.Delta, error) {
	key := path.Join(catalog.DeltaFolder(ch.Collection().Info().ID), ch.Name(), name)
	ctx, cancel := f.o.step(ctx)
	defer cancel()
	bytes, err := putFile(ctx, f.o.Bucket, key, d.Path)
	if err != nil {
		return nil, err
	}
	return append(deltas, catalog.Delta{Path: key, PartitionID: d.Partition, Rows: int64(d.Rows), Bytes: bytes,
		MinTimestamp: d.MinTimestamp, MaxTimestamp: d.MaxTimestamp}), nil
}
