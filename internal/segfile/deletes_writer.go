package segfile

import (
	"bufio"
	"os"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/flatparquet"
)

// DeletesWriter writes a file of deletes, as EncodeDeletes makes it, piece by piece: no more than a row group of it is in
// memory, of about deletesGroup bytes. Open it with CreateDeletes; Close it, or Abort it, once. Not safe for concurrent use.
type DeletesWriter struct {
	file  *os.File
	buf   *bufio.Writer
	table *flatparquet.Writer
	keys  schema.Column // of what type and field they are
	rows  int
	group int64 // bytes of keys in the row group
}

// deletesGroup is how many bytes of keys are in a row group.
const deletesGroup = 1 << 20

// CreateDeletes begins a file that must not be there yet, of deletes of a primary key. What is written is not synced to the disk: the
// file is to be uploaded or to be read again by the same process.
func CreateDeletes(path string, pk schema.Field) (*DeletesWriter, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, ioError(err, "create file of deletes")
	}
	w := &DeletesWriter{file: f, buf: bufio.NewWriterSize(f, 64<<10), keys: schema.Column{FieldID: pk.ID, Type: pk.Type}}
	w.table = deletesTable(w.buf, &w.keys)
	return w, nil
}

// Write appends deletes: keys of the type of the primary key, without nulls, and for each the hybrid timestamp of its delete.
func (w *DeletesWriter) Write(keys *schema.Column, timestamps []uint64) error {
	if err := checkDeletedKeys(keys, timestamps); err != nil {
		return err
	}
	if keys.Type != w.keys.Type || w.rows+len(timestamps) > MaxDeletes {
		return errclass.New(errclass.Invalid, "deletes: %d keys of type %s after %d of type %s, want at most %d of one type", len(timestamps), keys.Type, w.rows, w.keys.Type, MaxDeletes)
	}
	for from := 0; from < len(timestamps); {
		to, bytes := from, int64(0)
		for ; to < len(timestamps) && w.group+bytes < deletesGroup; to++ {
			bytes += keys.BytesAt(to)
		}
		if err := w.table.Write(deletesColumns(keys.Slice(from, to), timestamps[from:to])); err != nil {
			return errors.Wrap(err, "deletes")
		}
		w.rows, w.group, from = w.rows+to-from, w.group+bytes, to
		if w.group < deletesGroup {
			continue
		}
		w.group = 0
		if err := w.table.Flush(); err != nil {
			return errors.Wrap(err, "deletes")
		}
	}
	return nil
}

// Close ends the file and returns its size in bytes. After an error the file is gone.
func (w *DeletesWriter) Close() (size int64, err error) {
	if size, err = w.finish(); err != nil {
		return 0, errors.CombineErrors(err, w.Abort())
	}
	if err = w.file.Close(); err != nil {
		return 0, errors.CombineErrors(ioError(err, "close file of deletes"), os.Remove(w.file.Name()))
	}
	return size, nil
}

func (w *DeletesWriter) finish() (size int64, err error) {
	if w.rows == 0 {
		return 0, errclass.New(errclass.Invalid, "deletes: none, want 1 to %d", MaxDeletes)
	}
	if err := w.table.Close(); err != nil {
		return 0, errors.Wrap(err, "deletes")
	}
	if err := w.buf.Flush(); err != nil {
		return 0, ioError(err, "write file of deletes")
	}
	st, err := w.file.Stat()
	if err != nil {
		return 0, ioError(err, "write file of deletes")
	}
	if st.Size() > MaxDeletesBytes {
		return 0, errclass.New(errclass.Invalid, "deletes: %d bytes, want at most %d", st.Size(), MaxDeletesBytes)
	}
	sum, err := sumDeletes(w.file, st.Size())
	if err != nil {
		return 0, err
	}
	_, err = w.file.WriteAt([]byte(sum.is.String()), sum.at)
	return st.Size(), ioError(err, "write file of deletes")
}

// Abort lets go of the file and removes it.
func (w *DeletesWriter) Abort() error {
	return errors.CombineErrors(w.file.Close(), os.Remove(w.file.Name()))
}
