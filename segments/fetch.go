package segments

import (
	"bytes"
	"context"
	"io"
	"os"
	"path"
	"path/filepath"
	"strconv"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

func (c *Collection) fetchManifest(ctx context.Context, r LoadRequest) (*segfile.Manifest, error) {
	raw, err := objstore.ReadAll(ctx, c.set.o.Bucket, path.Join(r.Path, segfile.ManifestName), segfile.MaxManifestBytes)
	if err != nil {
		return nil, err
	}
	m, err := segfile.ParseManifest(raw)
	if err != nil {
		return nil, err
	}
	if m.SegmentID != r.SegmentID || m.CollectionID != c.Info().ID || m.VChannel != r.VChannel {
		return nil, errclass.New(errclass.Corrupt, "the manifest is of segment %d, collection %d, channel %s; want %d, %d, %s",
			m.SegmentID, m.CollectionID, m.VChannel, r.SegmentID, c.Info().ID, r.VChannel)
	}
	return m, checkSchema(&m.Schema, c.Info().Schema)
}

// fetcher copies files of one segment from object storage.
type fetcher struct {
	coll     *Collection
	request  LoadRequest
	manifest *segfile.Manifest
	done     int64
	total    int64
}

// base copies files into a new folder of the run and verifies them on the way: into
// tmp first, then renamed, so that a folder without ".tmp" is complete.
func (f *fetcher) base(ctx context.Context, files []segfile.File) (dir string, err error) {
	dir = f.coll.set.segmentDir(f.manifest.SegmentID) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	tmp := dir + ".tmp"
	complete := false
	defer func() {
		if !complete {
			err = errors.CombineErrors(err, os.RemoveAll(tmp))
		}
	}()
	if err := os.MkdirAll(tmp, 0o755); err != nil {
		return "", diskError(err, "create %s", tmp)
	}
	if err := f.files(ctx, tmp, files, f.progress); err != nil {
		return "", err
	}
	raw, err := f.manifest.Encode()
	if err != nil {
		return "", err
	}
	if err := f.coll.writeFile(filepath.Join(tmp, segfile.ManifestName), bytes.NewReader(raw)); err != nil {
		return "", err
	}
	// The files are a copy: after a crash the whole run folder is thrown away,
	// so they need not be synced.
	if err := os.Rename(tmp, dir); err != nil {
		return "", diskError(err, "rename %s", tmp)
	}
	complete = true
	return dir, nil
}

// files copies files into dir and verifies them on the way. After an error some of
// them may be there.
func (f *fetcher) files(ctx context.Context, dir string, files []segfile.File, progress func(int64)) error {
	for _, file := range files {
		if err := f.file(ctx, dir, file, progress); err != nil {
			return err
		}
	}
	return nil
}

func (f *fetcher) file(ctx context.Context, dir string, file segfile.File, progress func(int64)) (err error) {
	key := path.Join(f.request.Path, file.Name)
	in, err := f.coll.set.o.Bucket.Get(ctx, key, 0, -1)
	if err != nil {
		return errors.Wrapf(err, "get %s", key)
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	sum, err := f.manifest.Checker(file.Name)
	if err != nil {
		return err
	}
	// Summed before it is written: bytes too many do not reach the disk.
	if err := f.coll.writeFile(filepath.Join(dir, file.Name), io.TeeReader(in, io.MultiWriter(sum, countWriter(progress)))); err != nil {
		return errors.Wrapf(err, "copy %s", key)
	}
	return errors.Wrapf(sum.Close(), "copy %s", key)
}

// progress tells of n more bytes. Only the load itself calls it.
func (f *fetcher) progress(n int64) {
	f.done += n
	if f.request.Progress != nil {
		f.request.Progress(f.done, f.total)
	}
}

// writeFile writes a new file. An error of the disk carries the disk's class, one
// of the reader keeps its own.
func (c *Collection) writeFile(name string, in io.Reader) (err error) {
	out, err := c.set.create(name)
	if err != nil {
		return diskError(err, "create %s", name)
	}
	defer func() { err = errors.CombineErrors(err, diskError(out.Close(), "close %s", name)) }()
	_, err = io.Copy(diskWriter{out, name}, in)
	return err
}

// diskWriter gives the errors of the disk their class.
type diskWriter struct {
	io.Writer
	name string
}

func (w diskWriter) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	return n, diskError(err, "write %s", w.name)
}

type countWriter func(int64)

func (w countWriter) Write(p []byte) (int, error) {
	w(int64(len(p)))
	return len(p), nil
}

// deltaBytes is what reading a file of deletes takes at most: pages of two columns, packed and unpacked, and the footer.
const deltaBytes = 4 << 20

// applyDelta fetches one file of deletes and hides the rows of s, which is segment id, that it names. The file may be larger
// than all memory: it goes to the local disk and is read piece by piece.
func (c *Collection) applyDelta(ctx context.Context, s *Sealed, d Delta, id int64) error {
	if d.MaxTimestamp <= s.oldest || d.PartitionID != 0 && d.PartitionID != s.meta.PartitionID {
		return nil // older than every row, or of others
	}
	info, err := c.set.o.Bucket.Head(ctx, d.Path)
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	if info.Size > segfile.MaxDeletesBytes {
		return errclass.New(errclass.Corrupt, "deletes %s: %d bytes, want at most %d", d.Path, info.Size, segfile.MaxDeletesBytes)
	}
	free, err := c.roomForDelta(id, info.Size, s.pk.Type)
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	defer free()
	name := filepath.Join(s.dir, "deletes.tmp")
	err = c.copyDelta(ctx, d.Path, name, info.Size)
	if err == nil {
		err = s.applyFile(ctx, name, info.Size, d.PartitionID)
	}
	if e := os.Remove(name); !errors.Is(e, os.ErrNotExist) {
		err = errors.CombineErrors(err, e)
	}
	return errors.Wrapf(err, "deletes %s", d.Path)
}

// roomForDelta takes memory and room on the local disk to read a file of deletes for a segment that is to be loaded; free
// gives it back. One that takes the place of a growing segment gets it in any case, as there may be nothing else that frees
// any.
func (c *Collection) roomForDelta(id, size int64, keys schema.Type) (free func(), err error) {
	var memory *Reservation
	unpacked := 4 * size
	if keys == schema.VarChar { // long ones may be much alike
		unpacked *= 16
	}
	disk, need := c.set.disk, min(unpacked, deltaBytes)
	if _, ok := c.grows(id); ok {
		memory = c.set.o.Ledger.Force(KindDownload, need)
		disk.force(size)
	} else {
		if memory, err = c.set.o.Ledger.Reserve(KindDownload, need); err != nil {
			return nil, err
		}
		if err := disk.takeNow(size, roomForRest); err != nil {
			memory.Release()
			return nil, err
		}
	}
	return func() {
		memory.Release()
		disk.give(size, roomForRest)
	}, nil
}

func (c *Collection) copyDelta(ctx context.Context, key, name string, size int64) (err error) {
	in, err := c.set.o.Bucket.Get(ctx, key, 0, -1)
	if err != nil {
		return err
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	return c.writeFile(name, io.LimitReader(in, size))
}

// applyFile hides the rows that a file of deletes on the local disk names.
func (s *Sealed) applyFile(ctx context.Context, name string, size, partition int64) (err error) {
	in, err := os.Open(name)
	if err != nil {
		return diskError(err, "open %s", name)
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	deletes, err := segfile.OpenDeletes(in, size)
	if err != nil {
		return err
	}
	if deletes.KeyType() != s.pk.Type {
		return errclass.New(errclass.Corrupt, "keys of type %s, want %s", deletes.KeyType(), s.pk.Type)
	}
	var hide []hiddenRow
	err = deletes.Each(func(keys *schema.Column, ts []uint64) error {
		hide = s.named(&DeleteBatch{Partition: partition, Keys: keys, Timestamps: ts}, hide)
		if len(hide) > 2*s.rows.Rows { // a row may be deleted many times
			s.deletes.apply(hide)
			hide = hide[:0]
		}
		return ctx.Err()
	})
	s.deletes.apply(hide)
	return err
}
