package objstore

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cockroachdb/errors"
)

// List implements Bucket. It holds one folder's names in memory at a time and
// leaves the ETags of small objects empty: they would cost a read each.
func (f *File) List(ctx context.Context, prefix, startAfter string, fn func(Info) error) error {
	if err := checkPrefix(prefix); err != nil {
		return err
	}
	ctx, leave, err := f.gate.enter(ctx, "list", prefix)
	if err != nil {
		return err
	}
	defer leave()
	dir, _ := cutLast(prefix)
	return f.walk(ctx, dir, prefix, startAfter, fn)
}

// cutLast splits a key after its last slash.
func cutLast(key string) (dir, rest string) {
	i := strings.LastIndexByte(key, '/') + 1
	return key[:i], key[i:]
}

// walk lists the folder dir ("" or ending with a slash) in key order.
func (f *File) walk(ctx context.Context, dir, prefix, startAfter string, fn func(Info) error) error {
	entries, err := os.ReadDir(f.path(dir))
	if err != nil {
		if errors.Is(err, os.ErrNotExist) || isNotDir(err) {
			return nil // nothing there, or deleted meanwhile
		}
		return fileError(err, "list", prefix)
	}
	// By key, the content of folder "a" comes after the object "a-b": '-' < '/'.
	name := func(e os.DirEntry) string {
		if e.IsDir() {
			return e.Name() + "/"
		}
		return e.Name()
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return strings.Compare(name(a), name(b)) })
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return errors.Wrapf(ended(ctx, err), "list %s", prefix)
		}
		key := dir + name(e)
		if strings.HasPrefix(e.Name(), ".") || !mayHold(key, prefix, startAfter) {
			continue
		}
		if e.IsDir() {
			if err := f.walk(ctx, key, prefix, startAfter, fn); err != nil {
				return err
			}
			continue
		}
		st, err := os.Lstat(filepath.Join(f.path(dir), e.Name()))
		if errors.Is(err, os.ErrNotExist) || err == nil && !st.Mode().IsRegular() {
			continue
		}
		if err != nil {
			return fileError(err, "list", key)
		}
		info := Info{Key: key, Size: st.Size(), ModTime: st.ModTime()}
		if st.Size() > hashedSize {
			info.ETag = stampETag(st)
		}
		if err := fn(info); err != nil {
			return err
		}
	}
	return nil
}

// mayHold reports whether key, or a key below it if it ends with a slash, can
// start with prefix and be greater than startAfter.
func mayHold(key, prefix, startAfter string) bool {
	if !strings.HasSuffix(key, "/") {
		return strings.HasPrefix(key, prefix) && key > startAfter
	}
	below := strings.HasPrefix(key, prefix) || strings.HasPrefix(prefix, key)
	return below && (key > startAfter || strings.HasPrefix(startAfter, key))
}
