package objstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/fnv"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

const (
	tmpDir     = ".tmp"  // parts of puts that run; a held lock says which
	lockDir    = ".lock" // one empty file for each stripe of keys
	lockCount  = 64
	hashedSize = 1 << 20 // objects up to this size have an ETag made of their content
)

// File is a Bucket in a folder; each object is a file at its key's path. So a
// key cannot be the folder of another: "a" and "a/b" exclude each other (class
// Invalid). Any number of processes may use the folder at once, as long as its
// file system supports flock(2) between them.
//
// Put writes to .tmp, syncs, and renames; the rename and every Delete happen
// under a flock on one of 64 lock files, chosen by key, which makes conditions
// atomic across processes. The lock is held for a stat and a rename only.
//
// ETags: of at most 1 MiB the hash of the content; above that time, size and
// inode, since Head on a big file must be cheap. The time is set by Put to the
// nanosecond, so two versions share an ETag only if two machines wrote the same
// size in the same nanosecond to a reused inode.
type File struct {
	root string
	o    Options
	gate *gate
	// One slot a stripe queues the calls of this process in front of the flock,
	// so that only one of them polls.
	stripes [lockCount]chan struct{}
}

// OpenFile opens the folder root as a bucket, makes it if absent, and removes
// what killed processes left in .tmp; a failure to remove is only logged.
func OpenFile(ctx context.Context, root string, o Options) (*File, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	abs, err := filepath.Abs(root)
	if err != nil {
		return nil, errclass.Wrap(err, errclass.Invalid, "open bucket %s", root)
	}
	f := &File{root: abs, o: o, gate: newGate()}
	for i := range f.stripes {
		f.stripes[i] = make(chan struct{}, 1)
	}
	for _, dir := range []string{abs, filepath.Join(abs, tmpDir), filepath.Join(abs, lockDir)} {
		if err := f.makeDir(dir); err != nil {
			return nil, fileError(err, "open bucket", root)
		}
	}
	f.removeLeftovers(ctx)
	return f, nil
}

// removeLeftovers removes the temporary files that nobody holds a lock on.
func (f *File) removeLeftovers(ctx context.Context) {
	dir := filepath.Join(f.root, tmpDir)
	entries, err := os.ReadDir(dir)
	if err != nil {
		f.o.Logger.Warn("bucket: cannot list temporary files", slog.Any("error", err))
	}
	for _, e := range entries {
		if ctx.Err() != nil {
			return
		}
		path := filepath.Join(dir, e.Name())
		if err := removeIfDead(path); err != nil {
			f.o.Logger.Warn("bucket: cannot remove a temporary file", slog.String("path", path), slog.Any("error", err))
		}
	}
}

func removeIfDead(path string) error {
	tmp, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer tmp.Close()
	if dead, err := tryFlock(tmp); !dead {
		return err
	}
	// Its Put may have renamed it between our open and our lock: path is gone then.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// Get implements Bucket.
func (f *File) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := errors.CombineErrors(CheckKey(key), checkRange(key, offset)); err != nil {
		return nil, err
	}
	ctx, leave, err := f.gate.enter(ctx, "get", key)
	if err != nil {
		return nil, err
	}
	file, info, err := f.open(key)
	if err != nil {
		leave()
		return nil, fileError(err, "get", key)
	}
	if offset > info.Size {
		offset = info.Size
	}
	if length < 0 || length > info.Size-offset {
		length = info.Size - offset
	}
	return &fileReader{ctx: ctx, leave: leave, file: file, info: info, section: io.NewSectionReader(file, offset, length)}, nil
}

type fileReader struct {
	ctx     context.Context
	leave   func()
	file    *os.File
	info    Info
	section *io.SectionReader
}

func (r *fileReader) Info() Info { return r.info }

func (r *fileReader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, errors.Wrapf(ended(r.ctx, err), "read %s", r.info.Key)
	}
	n, err := r.section.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, fileError(err, "read", r.info.Key)
	}
	return n, err
}

func (r *fileReader) Close() error {
	defer r.leave()
	if err := r.file.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fileError(err, "close", r.info.Key)
	}
	return nil
}

// Head implements Bucket.
func (f *File) Head(ctx context.Context, key string) (Info, error) {
	if err := CheckKey(key); err != nil {
		return Info{}, err
	}
	_, leave, err := f.gate.enter(ctx, "head", key)
	if err != nil {
		return Info{}, err
	}
	defer leave()
	file, info, err := f.open(key)
	if err != nil {
		return Info{}, fileError(err, "head", key)
	}
	return info, file.Close()
}

// open opens the object and describes it. A folder is no object.
func (f *File) open(key string) (*os.File, Info, error) {
	file, err := os.Open(f.path(key))
	if err != nil {
		if isNotDir(err) {
			err = os.ErrNotExist // "a/b" where "a" is an object
		}
		return nil, Info{}, err
	}
	info, err := describe(file, key)
	if err != nil {
		return nil, Info{}, errors.CombineErrors(err, file.Close())
	}
	return file, info, nil
}

func describe(file *os.File, key string) (Info, error) {
	st, err := file.Stat()
	if err != nil {
		return Info{}, err
	}
	if !st.Mode().IsRegular() {
		return Info{}, os.ErrNotExist
	}
	info := Info{Key: key, Size: st.Size(), ModTime: st.ModTime(), ETag: stampETag(st)}
	if st.Size() <= hashedSize {
		sum := sha256.New()
		// The file's own offset stays at 0: readers use ReadAt.
		if _, err := io.Copy(sum, io.NewSectionReader(file, 0, st.Size())); err != nil {
			return Info{}, err
		}
		info.ETag = hashETag(sum)
	}
	return info, nil
}

func hashETag(h hash.Hash) string { return "c" + hex.EncodeToString(h.Sum(nil)[:16]) }

func stampETag(st os.FileInfo) string {
	return fmt.Sprintf("s%x-%x-%x", st.ModTime().UnixNano(), st.Size(), inode(st))
}

// Delete implements Bucket. Folders that become empty go too.
func (f *File) Delete(ctx context.Context, key string) error {
	if err := CheckKey(key); err != nil {
		return err
	}
	ctx, leave, err := f.gate.enter(ctx, "delete", key)
	if err != nil {
		return err
	}
	defer leave()
	unlock, err := f.lock(ctx, key)
	if err != nil {
		return errors.Wrapf(err, "delete %s", key)
	}
	defer unlock()
	path := f.path(key)
	if st, err := os.Lstat(path); err == nil && st.IsDir() {
		return nil
	}
	if err := os.Remove(path); err != nil {
		if errors.Is(err, os.ErrNotExist) || isNotDir(err) {
			return nil
		}
		return fileError(err, "delete", key)
	}
	dir := filepath.Dir(path)
	for ; dir != f.root && os.Remove(dir) == nil; dir = filepath.Dir(dir) {
	}
	if err := f.syncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fileError(err, "delete", key)
	}
	return nil
}

// Close implements Bucket.
func (f *File) Close(ctx context.Context) error { return f.gate.shut(ctx) }

func (f *File) path(key string) string { return filepath.Join(f.root, filepath.FromSlash(key)) }

// lock takes the stripe of the key, in this process and among all. It gives up
// after CallTimeout.
func (f *File) lock(ctx context.Context, key string) (unlock func(), _ error) {
	ctx, cancel := context.WithTimeoutCause(ctx, f.o.CallTimeout, errTimeout)
	defer cancel()
	h := fnv.New32a()
	_, _ = io.WriteString(h, key)
	n := h.Sum32() % lockCount
	select {
	case f.stripes[n] <- struct{}{}:
	case <-ctx.Done():
		return nil, errors.Wrap(ended(ctx, ctx.Err()), "wait for the lock of the key")
	}
	free := func() { <-f.stripes[n] }
	file, err := os.OpenFile(filepath.Join(f.root, lockDir, fmt.Sprintf("%02x", n)), os.O_RDWR|os.O_CREATE, 0o640)
	if err != nil {
		free()
		return nil, fileError(err, "open the lock of", key)
	}
	if err := waitFlock(ctx, file); err != nil {
		free()
		return nil, errors.CombineErrors(err, file.Close())
	}
	return func() {
		_ = file.Close() // frees the flock; there is nothing to lose in an empty file
		free()
	}, nil
}

// makeDir makes a folder and its parents and syncs each parent of a new one.
func (f *File) makeDir(dir string) error {
	err := os.Mkdir(dir, 0o750)
	switch {
	case err == nil:
		return f.syncDir(filepath.Dir(dir))
	case errors.Is(err, os.ErrExist):
		if st, serr := os.Stat(dir); serr != nil || !st.IsDir() {
			return err
		}
		return nil
	case errors.Is(err, os.ErrNotExist) && filepath.Dir(dir) != dir:
		if err := f.makeDir(filepath.Dir(dir)); err != nil {
			return err
		}
		if err := os.Mkdir(dir, 0o750); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
		return f.syncDir(filepath.Dir(dir))
	}
	return err
}

func (f *File) syncDir(dir string) error {
	if f.o.NoSync {
		return nil
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.CombineErrors(d.Sync(), d.Close())
}

// errTimeout is the cause of a context that CallTimeout ended.
var errTimeout = errclass.Mark(errors.Wrap(context.DeadlineExceeded, "object storage did not answer in time"), errclass.Retryable)

// isNotDir reports that a part of the path is a file. The os package has no
// sentinel for it and the text is the same on every Unix.
func isNotDir(err error) bool {
	return fileClass(err) == errclass.Invalid && strings.Contains(err.Error(), "not a directory")
}

// fileError wraps what the file system said with what was tried.
func fileError(err error, op, key string) error {
	if err == nil {
		return nil
	}
	return errclass.Wrap(err, fileClass(err), "%s %s", op, key)
}
