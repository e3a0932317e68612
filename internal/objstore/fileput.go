package objstore

import (
	"context"
	"crypto/sha256"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/errors"
)

// Put implements Bucket.
func (f *File) Put(ctx context.Context, key string, r io.Reader, size int64, o PutOptions) (Info, error) {
	if err := checkPut(key, size, o); err != nil {
		return Info{}, err
	}
	ctx, leave, err := f.gate.enter(ctx, "put", key)
	if err != nil {
		return Info{}, err
	}
	defer leave()
	if o.IfNoneMatch || o.IfMatch != "" {
		// Refuse early what would be refused below, before writing it.
		if err := f.check(key, o); err != nil {
			return Info{}, fileError(err, "put", key)
		}
	}
	tmp, err := f.createTemp(ctx)
	if err != nil {
		return Info{}, fileError(err, "put", key)
	}
	info, err := f.fill(ctx, tmp, key, r, size)
	if err == nil {
		err = f.publish(ctx, tmp.Name(), key, o)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // the next open removes it if this fails
		_ = tmp.Close()
		return Info{}, fileError(ended(ctx, err), "put", key)
	}
	// The content is synced and published; only the lock goes with the handle.
	_ = tmp.Close()
	return info, nil
}

// createTemp makes a temporary file and locks it, so that an Open elsewhere
// knows that its writer lives.
func (f *File) createTemp(ctx context.Context) (*os.File, error) {
	for {
		tmp, err := os.CreateTemp(filepath.Join(f.root, tmpDir), "put-*")
		if err != nil {
			return nil, err
		}
		err = waitFlock(ctx, tmp)
		gone := false
		if err == nil {
			gone, err = unlinked(tmp)
		}
		if err == nil && !gone {
			return tmp, nil
		}
		_ = tmp.Close()
		if err != nil {
			return nil, err
		}
		// An Open elsewhere saw it between its creation and its lock: once more.
	}
}

// fill writes the object's bytes, its time and its ETag, and syncs.
func (f *File) fill(ctx context.Context, tmp *os.File, key string, r io.Reader, size int64) (Info, error) {
	var w io.Writer = tmp
	var sum hash.Hash
	if size <= hashedSize {
		sum = sha256.New()
		w = io.MultiWriter(tmp, sum)
	}
	src := &exactReader{r: &ctxReader{ctx, r}, key: key, want: size}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, src, make([]byte, min(size+1, 256<<10))); err != nil {
		return Info{}, err
	}
	t := time.Now()
	if err := os.Chtimes(tmp.Name(), t, t); err != nil {
		return Info{}, err
	}
	if err := tmp.Chmod(0o640); err != nil {
		return Info{}, err
	}
	if !f.o.NoSync {
		if err := tmp.Sync(); err != nil {
			return Info{}, err
		}
	}
	st, err := tmp.Stat()
	if err != nil {
		return Info{}, err
	}
	info := Info{Key: key, Size: size, ModTime: st.ModTime(), ETag: stampETag(st)}
	if sum != nil {
		info.ETag = hashETag(sum)
	}
	return info, nil
}

// publish renames the temporary file to the key under the key's lock.
func (f *File) publish(ctx context.Context, tmp, key string, o PutOptions) error {
	unlock, err := f.lock(ctx, key)
	if err != nil {
		return err
	}
	err = f.rename(ctx, tmp, key, o)
	unlock()
	if err != nil {
		return err
	}
	// Outside the lock: whoever builds on our version syncs the same folder before
	// its own Put returns.
	return f.syncDir(filepath.Dir(f.path(key)))
}

func (f *File) rename(ctx context.Context, tmp, key string, o PutOptions) error {
	if err := f.check(key, o); err != nil {
		return err
	}
	path := f.path(key)
	for try := 0; ; try++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := f.makeDir(filepath.Dir(path)); err != nil {
			return err
		}
		err := os.Rename(tmp, path)
		// A Delete of the last neighbour removes the folder under our feet.
		if err == nil || !errors.Is(err, os.ErrNotExist) || try == 20 {
			return err
		}
	}
}

// check verifies the condition of a put against what is there now.
func (f *File) check(key string, o PutOptions) error {
	switch {
	case o.IfNoneMatch:
		_, err := os.Lstat(f.path(key))
		if errors.Is(err, os.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		return ErrPrecondition
	case o.IfMatch != "":
		file, info, err := f.open(key)
		if errors.Is(err, os.ErrNotExist) {
			return ErrPrecondition
		}
		if err != nil {
			return err
		}
		if err := file.Close(); err != nil {
			return err
		}
		if info.ETag != o.IfMatch {
			return ErrPrecondition
		}
	}
	return nil
}
