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

// applyDelta fetches one file of deletes and hides the rows of s, which is segment id, that it names.
func (c *Collection) applyDelta(ctx context.Context, s *Sealed, d Delta, id int64) error {
	if d.MaxTimestamp <= s.oldest {
		return nil // older than every row
	}
	info, err := c.set.o.Bucket.Head(ctx, d.Path)
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	// The file and what it holds, which compresses well.
	room, err := c.roomFor(KindDownload, id, 4*info.Size, s.fixedBytes())
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	defer room.Release()
	raw, err := objstore.ReadAll(ctx, c.set.o.Bucket, d.Path, segfile.MaxDeletesBytes)
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	keys, ts, err := segfile.DecodeDeletes(raw)
	if err != nil {
		return errors.Wrapf(err, "deletes %s", d.Path)
	}
	if keys.Type != s.pk.Type {
		return errclass.New(errclass.Corrupt, "deletes %s: keys of type %s, want %s", d.Path, keys.Type, s.pk.Type)
	}
	s.applyDeletes(&DeleteBatch{Partition: d.PartitionID, Keys: keys, Timestamps: ts})
	return nil
}
