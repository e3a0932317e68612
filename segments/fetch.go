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

// fetch copies the files into the run's folder and verifies them on the way:
// into tmp first, then renamed, so that a folder without ".tmp" is complete.
func (c *Collection) fetch(ctx context.Context, r LoadRequest, m *segfile.Manifest) (dir string, err error) {
	dir = c.set.segmentDir(m.SegmentID) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
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
	var done int64
	total := m.DiskBytes()
	for _, f := range m.Files {
		err := c.fetchFile(ctx, path.Join(r.Path, f.Name), filepath.Join(tmp, f.Name), f, m, func(n int64) {
			done += n
			if r.Progress != nil {
				r.Progress(done, total)
			}
		})
		if err != nil {
			return "", err
		}
	}
	raw, err := m.Encode()
	if err != nil {
		return "", err
	}
	if err := c.writeFile(filepath.Join(tmp, segfile.ManifestName), bytes.NewReader(raw)); err != nil {
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

func (c *Collection) fetchFile(ctx context.Context, key, dst string, f segfile.File, m *segfile.Manifest, add func(int64)) (err error) {
	in, err := c.set.o.Bucket.Get(ctx, key, 0, -1)
	if err != nil {
		return errors.Wrapf(err, "get %s", key)
	}
	defer func() { err = errors.CombineErrors(err, in.Close()) }()
	sum, err := m.Checker(f.Name)
	if err != nil {
		return err
	}
	// Summed before it is written: bytes too many do not reach the disk.
	if err := c.writeFile(dst, io.TeeReader(in, io.MultiWriter(sum, countWriter(add)))); err != nil {
		return errors.Wrapf(err, "copy %s", key)
	}
	return errors.Wrapf(sum.Close(), "copy %s", key)
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

// applyDelta fetches one file of deletes and hides the rows of s that it names.
func (c *Collection) applyDelta(ctx context.Context, s *Sealed, d Delta) error {
	if d.MaxTimestamp <= s.oldest {
		return nil // older than every row
	}
	info, err := c.set.o.Bucket.Head(ctx, d.Path)
	if err != nil {
		return errors.Wrapf(err, "get deletes %s", d.Path)
	}
	// The file and what it holds, which compresses well.
	room, err := c.set.o.Ledger.Reserve(KindDownload, 4*info.Size)
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
