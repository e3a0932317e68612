package segfile

import (
	"bufio"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// fileWriter writes one new file of a segment and sums it on the way.
type fileWriter struct {
	f    *os.File
	buf  *bufio.Writer
	sums blocks
}

func createFile(dir, name string) (*fileWriter, error) {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, ioError(err, "create file")
	}
	w := &fileWriter{f: f}
	w.buf = bufio.NewWriterSize(f, 256<<10)
	return w, nil
}

// Write implements io.Writer.
func (w *fileWriter) Write(p []byte) (int, error) {
	_, _ = w.sums.Write(p)
	n, err := w.buf.Write(p)
	return n, ioError(err, "write "+w.f.Name())
}

// flush makes what was written visible to other readers of the file.
func (w *fileWriter) flush() error { return ioError(w.buf.Flush(), "write "+w.f.Name()) }

// replaceHead overwrites the first bytes of what was written. head is shorter
// than a block.
func (w *fileWriter) replaceHead(head []byte) error {
	if err := w.flush(); err != nil {
		return err
	}
	if _, err := w.f.WriteAt(head, 0); err != nil {
		return ioError(err, "write "+w.f.Name())
	}
	h := crc32.New(castagnoli)
	if _, err := io.Copy(h, io.NewSectionReader(w.f, 0, min(BlockSize, w.sums.size))); err != nil {
		return ioError(err, "read back "+w.f.Name())
	}
	if len(w.sums.done) > 0 {
		w.sums.done[0] = CRC(h.Sum32())
	} else {
		w.sums.cur = h.Sum32()
	}
	return nil
}

// finish makes the file durable, closes it and describes it.
func (w *fileWriter) finish(kind Kind) (File, error) {
	if err := w.flush(); err != nil {
		return File{}, err
	}
	if err := w.f.Sync(); err != nil {
		return File{}, ioError(err, "sync "+w.f.Name())
	}
	if err := w.close(); err != nil {
		return File{}, err
	}
	out := File{Name: filepath.Base(w.f.Name()), Kind: kind, Size: w.sums.size, BlockSize: BlockSize}
	out.Blocks, out.CRC = w.sums.sums()
	return out, nil
}

func (w *fileWriter) close() error {
	if w == nil || w.f == nil {
		return nil
	}
	err := w.f.Close()
	if errors.Is(err, os.ErrClosed) {
		return nil
	}
	return ioError(err, "close "+w.f.Name())
}

// writeFile writes a whole small file, durably, under a name that appears only
// when it is complete.
func writeFile(path string, data []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return ioError(err, "create file")
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	err = errors.CombineErrors(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return ioError(errors.CombineErrors(err, os.Remove(tmp)), "write "+path)
	}
	return syncDir(filepath.Dir(path))
}

// ioError wraps an error of the operating system; a full disk is class Exhausted.
func ioError(err error, what string) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, syscall.ENOSPC):
		return errclass.Wrap(err, errclass.Exhausted, "%s", what)
	case errors.Is(err, os.ErrExist):
		return errclass.Wrap(err, errclass.Exists, "%s", what)
	}
	return errors.Wrap(err, what)
}
