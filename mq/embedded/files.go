package embedded

import (
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// file is what the queue needs of an open file.
type file interface {
	io.ReaderAt
	io.WriterAt
	Truncate(size int64) error
	// Sync forces to disk; dataOnly leaves out what reading the data back does not need.
	Sync(dataOnly bool) error
	Close() error
}

// fileSystem is the seam at which tests inject faults and crashes.
type fileSystem struct {
	open    func(path string, flag int) (file, error)
	size    func(path string) (int64, error)
	list    func(dir string) ([]string, error) // names, sorted
	mkdir   func(dir string) error             // with parents; no error if it is there
	rename  func(from, to string) error
	remove  func(path string) error
	syncDir func(dir string) error
}

type osFile struct {
	*os.File
	before func(path string) error // see Options.BeforeSync
}

func (f osFile) Sync(dataOnly bool) error {
	if f.before != nil {
		if err := f.before(f.Name()); err != nil {
			return err
		}
	}
	if dataOnly {
		return fdatasync(f.File)
	}
	return f.File.Sync()
}

func osFiles(beforeSync func(path string) error) *fileSystem {
	return &fileSystem{
		open: func(path string, flag int) (file, error) {
			f, err := os.OpenFile(path, flag, 0o640)
			if err != nil {
				return nil, err
			}
			return osFile{f, beforeSync}, nil
		},
		size: func(path string) (int64, error) {
			info, err := os.Stat(path)
			if err != nil {
				return 0, err
			}
			return info.Size(), nil
		},
		list: func(dir string) ([]string, error) {
			entries, err := os.ReadDir(dir)
			names := make([]string, len(entries))
			for i, e := range entries {
				names[i] = e.Name()
			}
			return names, err
		},
		mkdir:  func(dir string) error { return os.MkdirAll(dir, 0o750) },
		rename: os.Rename,
		remove: os.Remove,
		syncDir: func(dir string) error {
			d, err := os.Open(dir)
			if err != nil {
				return err
			}
			defer d.Close()
			return osFile{d, beforeSync}.Sync(false)
		},
	}
}

// writeFile makes path hold data, or leaves what was there: temporary file,
// fsync, rename, fsync of the folder.
func (s *fileSystem) writeFile(path string, data []byte) (err error) {
	tmp := path + ".tmp"
	f, err := s.open(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(data, 0)
	if err == nil {
		err = f.Sync(false)
	}
	err = errors.CombineErrors(err, f.Close())
	if err == nil {
		err = s.rename(tmp, path)
	}
	if err != nil {
		_ = s.remove(tmp) // the next open removes it otherwise
		return err
	}
	return s.syncDir(filepath.Dir(path))
}

// readSmall reads a file of at most limit bytes.
func (s *fileSystem) readSmall(path string, limit int64) ([]byte, error) {
	size, err := s.size(path)
	if err != nil {
		return nil, err
	}
	if size > limit {
		return nil, errors.Newf("%s: %d bytes, at most %d are expected", path, size, limit)
	}
	f, err := s.open(path, os.O_RDONLY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data := make([]byte, size)
	n, err := f.ReadAt(data, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return data[:n], nil
}

func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}

// ioError classes an error of the file system.
func ioError(err error, format string, args ...any) error {
	switch {
	case err == nil:
		return nil
	case noSpace(err) || errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE):
		return errclass.Wrap(err, errclass.Exhausted, format, args...)
	case errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS):
		return errclass.Wrap(err, errclass.Denied, format, args...)
	default:
		return errclass.Wrap(err, errclass.Retryable, format, args...)
	}
}
