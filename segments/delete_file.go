package segments

import (
	"context"
	"os"
	"path/filepath"
	"sort"
	"strconv"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// DeleteFile is deletes of a channel in a file on the local disk, as segfile.CreateDeletes makes it. It belongs to the channel,
// which removes it.
type DeleteFile struct {
	Path         string
	Partition    int64 // 0 = all
	Rows         int
	Size         int64  // bytes of the file
	MinTimestamp uint64 // of its deletes, inclusive
	MaxTimestamp uint64

	memory int64  // what they took in memory
	end    uint64 // number after that of its last batch
}

// How much goes into one file of deletes. Who loads a segment reads them one by one.
const (
	deleteFileRows  = 4 << 20
	deleteFileBytes = 128 << 20
)

// DeleteFileMemory is what it takes to write a file of deletes, be it read from another: a row group and what is being encoded. Half
// of it takes the first one.
const DeleteFileMemory = 8 << 20

// sized is deletes of one partition, or of none.
type sized interface {
	size() (partition int64, rows int, bytes int64)
}

func (d *DeleteBatch) size() (partition int64, rows int, bytes int64) {
	return d.Partition, len(d.Timestamps), d.bytes()
}

func (f *DeleteFile) size() (partition int64, rows int, bytes int64) {
	return f.Partition, f.Rows, f.memory
}

// split arranges deletes in files to be, each with those of one partition, or of none, in their order; none goes beyond rows
// and bytes, as they are in memory, unless one of the parts does so alone.
func split[T sized](parts []T, rows int, bytes int64) (files [][]T) {
	type filling struct {
		file, rows int
		bytes      int64
	}
	last := map[int64]*filling{} // by partition
	for _, p := range parts {
		partition, n, size := p.size()
		f := last[partition]
		if f == nil || f.rows+n > rows || f.bytes+size > bytes {
			f = &filling{file: len(files)}
			last[partition] = f
			files = append(files, nil)
		}
		files[f.file] = append(files[f.file], p)
		f.rows += n
		f.bytes += size
	}
	return files
}

// SplitDeletes arranges files in groups that can be one file each, for a node with such a ledger: deletes that went to the local disk a
// few at a time are not as many files in object storage.
func SplitDeletes(files []*DeleteFile, l *Ledger) [][]*DeleteFile {
	return split(files, deleteFileRows, maxDeleteFile(l))
}

// maxDeleteFile is what the deletes of one file take in memory: who compacts them reads it whole.
func maxDeleteFile(l *Ledger) int64 { return l.ShareOf(deleteFileBytes, 32) }

// writeDeletes writes batches of one partition to a file. After an error it is not there.
func writeDeletes(path string, pk schema.Field, batches []*DeleteBatch) (f *DeleteFile, err error) {
	w, err := segfile.CreateDeletes(path, pk)
	if err != nil {
		return nil, diskError(err, "write deletes to the local disk")
	}
	f = &DeleteFile{Path: path, Partition: batches[0].Partition, MinTimestamp: batches[0].Timestamps[0]}
	for _, b := range batches {
		if err := w.Write(b.Keys, b.Timestamps); err != nil {
			return nil, diskError(errors.CombineErrors(err, w.Abort()), "write deletes to the local disk")
		}
		f.Rows += len(b.Timestamps)
		f.memory += b.bytes()
		f.MaxTimestamp = b.Timestamps[0]
	}
	f.Size, err = w.Close()
	return f, diskError(err, "write deletes to the local disk")
}

// Each calls fn with a few of the file's deletes at a time, until fn fails; fn must not keep them.
func (f *DeleteFile) Each(fn func(d *DeleteBatch) error) (err error) {
	in, err := os.Open(f.Path)
	if err != nil {
		return diskError(err, "read deletes from the local disk")
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	deletes, err := segfile.OpenDeletes(in, f.Size)
	if err != nil {
		return errors.Wrapf(err, "deletes %s", f.Path)
	}
	return deletes.Each(func(keys *schema.Column, ts []uint64) error {
		return fn(&DeleteBatch{Partition: f.Partition, Keys: keys, Timestamps: ts})
	})
}

// JoinDeletes writes those deletes of files of one partition, in their order, that have timestamps in (after, upTo] to a file of the
// caller's; nil = there are none.
func JoinDeletes(path string, pk schema.Field, files []*DeleteFile, after, upTo uint64) (*DeleteFile, error) {
	w, err := segfile.CreateDeletes(path, pk)
	if err != nil {
		return nil, diskError(err, "join deletes")
	}
	out := &DeleteFile{Path: path, Partition: files[0].Partition}
	for _, f := range files {
		err = f.Each(func(d *DeleteBatch) error {
			from := sort.Search(len(d.Timestamps), func(i int) bool { return d.Timestamps[i] > after })
			to := sort.Search(len(d.Timestamps), func(i int) bool { return d.Timestamps[i] > upTo })
			if from >= to {
				return nil
			}
			if out.Rows == 0 {
				out.MinTimestamp = d.Timestamps[from]
			}
			out.Rows, out.MaxTimestamp = out.Rows+to-from, d.Timestamps[to-1]
			return w.Write(d.Keys.Slice(from, to), d.Timestamps[from:to])
		})
		if err != nil {
			break
		}
	}
	if err != nil || out.Rows == 0 {
		return nil, diskError(errors.CombineErrors(err, w.Abort()), "join deletes")
	}
	out.Size, err = w.Close()
	return out, diskError(err, "join deletes")
}

// applySpilled hides the rows of a segment that nobody reads yet which a file of deletes on the local disk names.
func (s *Sealed) applySpilled(ctx context.Context, f *DeleteFile) error {
	if f.MaxTimestamp <= s.oldest || f.Partition != 0 && f.Partition != s.meta.PartitionID {
		return nil // older than every row, or of others
	}
	return errors.Wrapf(s.applyFile(ctx, f.Path, f.Size, f.Partition), "deletes %s", f.Path)
}

// deletesName is the name of a file of deletes that nobody has yet.
func (s *Set) deletesName() string {
	return filepath.Join(s.o.Dir, "deletes-"+strconv.FormatUint(s.deleteFiles.Add(1), 10))
}

// takeFiles accounts files of deletes on the local disk, whatever its limit.
func (s *Set) takeFiles(files []*DeleteFile) {
	for _, f := range files {
		s.disk.force(f.Size)
		s.disk.deletes(f.Size)
	}
}

// removeFiles removes files of deletes that are not used any more; what stays is removed at the next start.
func (s *Set) removeFiles(files []*DeleteFile) {
	for _, f := range files {
		s.disk.deletes(-f.Size)
		s.disk.give(f.Size, roomForRest)
		if err := os.Remove(f.Path); err != nil {
			s.o.Logger.Warn("segments: a file of deletes was not removed from the local disk", "file", f.Path, "error", err)
		}
	}
}

// deletes notes that n more bytes of what is used are deletes.
func (d *localDisk) deletes(n int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mu.delete += n
}
