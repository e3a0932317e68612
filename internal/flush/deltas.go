package flush

import (
	"context"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
	"github.com/querynode/querynode/segments"
)

// How much goes into one file of deletes. Storage that was away for long leaves more
// of them than segfile takes in one, and who loads a segment reads them one by one.
const (
	deltaRows  = 4 << 20
	deltaBytes = 128 << 20
)

// deltaFile is a file of deletes to be: batches that are limited to one partition, or to none, in their order.
type deltaFile struct {
	partition int64
	batches   []*segments.DeleteBatch
	rows      int
	bytes     int64 // of the keys
}

// filesOf arranges deletes in files to be, none of which goes beyond rows and bytes unless one batch does so alone.
func filesOf(batches []*segments.DeleteBatch, rows int, bytes int64) (files []*deltaFile) {
	last := map[int64]*deltaFile{} // by partition
	for _, b := range batches {
		f, n := last[b.Partition], len(b.Timestamps)
		if f == nil || f.rows+n > rows || f.bytes+b.Keys.Bytes() > bytes {
			f = &deltaFile{partition: b.Partition}
			last[b.Partition] = f
			files = append(files, f)
		}
		f.batches = append(f.batches, b)
		f.rows += n
		f.bytes += b.Keys.Bytes()
	}
	return files
}

// whole returns the deletes of the file as one batch.
func (d *deltaFile) whole(pk schema.Field) *segments.DeleteBatch {
	out := &segments.DeleteBatch{Partition: d.partition, Keys: schema.NewColumn(pk, d.rows), Timestamps: make([]uint64, 0, d.rows)}
	for _, b := range d.batches {
		out.Keys.AppendRange(b.Keys, 0, len(b.Timestamps))
		out.Timestamps = append(out.Timestamps, b.Timestamps...)
	}
	return out
}

// memory is what it takes to write the file: its deletes as one batch, the file that is made of them, which grows by being copied,
// and what is being encoded.
func (d *deltaFile) memory() int64 {
	const encoder = 4 << 20
	return 3*(d.bytes+8*int64(d.rows)) + encoder
}

// deleteShare is the part of the memory limit, 1/deleteShare, that the deletes of a channel may take before they are written to
// files, and half of that the keys of one file: to write them takes memory, too, which cannot be refused.
const deleteShare = 16

// maxDeletes is how many bytes of deletes a channel keeps in memory.
func (f *Flusher) maxDeletes(l *segments.Ledger) int64 {
	return shareOf(f.o.MaxDeleteBytes, l, deleteShare)
}

// shareOf is most, or a part of the ledger's limit if that is less.
func shareOf(most int64, l *segments.Ledger, part int64) int64 {
	const least = 1 << 20
	if limit := l.Limit(); limit > 0 {
		return min(most, max(limit/part, least))
	}
	return most
}

// storeDeletes writes the deletes in (from, to] to object storage; see filesOf.
func (f *Flusher) storeDeletes(ctx context.Context, ch Channel, term uint64, batches []*segments.DeleteBatch, from, to uint64) ([]catalog.Delta, error) {
	var deltas []catalog.Delta
	ledger := ch.Collection().Ledger()
	for _, d := range filesOf(batches, deltaRows, shareOf(deltaBytes, ledger, 2*deleteShare)) {
		delta, err := f.storeDelta(ctx, ch, d, fmt.Sprintf("%d-%d-p%d-%s.parquet", from, to, d.partition, unique(term)))
		if err != nil {
			return nil, err
		}
		deltas = append(deltas, delta)
	}
	return deltas, nil
}

// storeDelta writes one file of deletes to object storage.
func (f *Flusher) storeDelta(ctx context.Context, ch Channel, d *deltaFile, name string) (catalog.Delta, error) {
	info := ch.Collection().Info()
	memory := ch.Collection().Ledger().Force(segments.KindDeletes, d.memory())
	defer memory.Release()
	all, file := d.whole(info.Schema.Primary()), filepath.Join(f.o.Dir, "delta-"+name)
	if err := segfile.WriteDeletes(file, all.Keys, all.Timestamps); err != nil {
		return catalog.Delta{}, errors.Wrap(err, "write deletes")
	}
	key := path.Join(catalog.DeltaFolder(info.ID), ch.Name(), name)
	step, cancel := f.o.step(ctx)
	bytes, err := putFile(step, f.o.Bucket, key, file)
	cancel()
	if err = errors.CombineErrors(err, os.Remove(file)); err != nil {
		return catalog.Delta{}, err
	}
	return catalog.Delta{Path: key, PartitionID: d.partition, Rows: int64(d.rows), Bytes: bytes,
		MinTimestamp: all.Timestamps[0], MaxTimestamp: all.Timestamps[d.rows-1]}, nil
}
