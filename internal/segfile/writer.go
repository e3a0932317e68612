package segfile

import (
	"context"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/flatparquet"
)

// timestampName is the column of rows.parquet that holds the rows' hybrid timestamps.
const timestampName = "$timestamp"

// MaxValueBytes bounds one text or JSON value of a segment.
const MaxValueBytes = 16 << 20

// Writer writes a new segment: Append rows, then at will Vectors, WriteIndex
// and WriteDeletes, then Finish or Abort. After a failed call only Abort makes
// sense. Not safe for concurrent use.
type Writer struct {
	dir   string
	m     Manifest
	err   error // sticky
	done  bool  // finished or aborted
	rows  *fileWriter
	table *flatparquet.Writer
	stats []statsBuilder
	keys  []uint64 // hashes of the primary keys
	vecs  []*vectorWriter
}

// Create starts a segment in the folder dir, which must not exist; its parent
// must. The folder is no segment before Finish has returned.
func Create(dir string, meta Meta) (*Writer, error) {
	if err := littleEndian(); err != nil {
		return nil, err
	}
	if err := meta.validate(); err != nil {
		return nil, errclass.Wrap(err, errclass.Invalid, "create segment %d", meta.SegmentID)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, ioError(err, "create segment")
	}
	w := &Writer{dir: dir, m: Manifest{Format: FormatName, Version: meta.Schema.Format(), Meta: meta, MinTimestamp: math.MaxUint64}}
	if err := w.open(); err != nil {
		return nil, errors.CombineErrors(errors.Wrapf(err, "create segment %d", meta.SegmentID), w.Abort())
	}
	return w, nil
}

func (w *Writer) open() (err error) {
	cols := []flatparquet.Field{{Name: timestampName, Type: schema.Int64, Unsigned: true, Sorted: true}}
	for _, f := range w.m.Schema.Columns() {
		if !f.Type.IsVector() {
			cols = append(cols, flatparquet.Field{Name: f.Name, ID: int(f.ID), Type: f.Type, Element: f.Element, Nullable: f.Nullable, Sorted: f.PrimaryKey, Unique: f.PrimaryKey})
			w.stats = append(w.stats, statsBuilder{FieldStats: FieldStats{FieldID: f.ID}})
			continue
		}
		v := &vectorWriter{field: f}
		w.vecs = append(w.vecs, v)
		if err := v.create(w.dir); err != nil {
			return err
		}
	}
	if w.rows, err = createFile(w.dir, fileName(KindRows, 0)); err != nil {
		return err
	}
	w.table = flatparquet.NewWriter(w.rows, cols, nil)
	return nil
}

// Append adds the rows of a batch that fits the schema and has timestamps, in
// the order given. It keeps nothing of the batch but a hash per key. Errors of
// class Invalid leave the writer as it was.
func (w *Writer) Append(b *schema.Batch) error {
	if err := w.usable(); err != nil {
		return err
	}
	if err := w.check(b); err != nil {
		return errors.Wrapf(err, "append to segment %d", w.m.SegmentID)
	}
	if b.Rows == 0 {
		return nil
	}
	w.err = errors.Wrapf(w.append(b), "append to segment %d", w.m.SegmentID)
	return w.err
}

func (w *Writer) usable() error {
	if w.done {
		return errclass.New(errclass.Closed, "segment %d is finished or aborted", w.m.SegmentID)
	}
	return w.err
}

func (w *Writer) check(b *schema.Batch) error {
	if slices.ContainsFunc(w.vecs, (*vectorWriter).isMapped) {
		return errclass.New(errclass.Conflict, "no more rows once Vectors was called")
	}
	if err := b.Check(&w.m.Schema); err != nil {
		return err
	}
	if len(b.Timestamps) != b.Rows {
		return errclass.New(errclass.Invalid, "%d timestamps for %d rows", len(b.Timestamps), b.Rows)
	}
	if int64(b.Rows) > MaxRows-w.m.Rows {
		return errclass.New(errclass.Invalid, "a segment has at most %d rows", int64(MaxRows))
	}
	for _, c := range b.Columns {
		for i, s := range c.Str {
			if len(s) > MaxValueBytes {
				return errclass.New(errclass.Invalid, "field %d, row %d: %d bytes, want at most %d", c.FieldID, i, len(s), MaxValueBytes)
			}
		}
	}
	return nil
}

func (w *Writer) append(b *schema.Batch) error {
	// The bits of a uint64 travel as an int64; the file's type is unsigned.
	ts := unsafe.Slice((*int64)(unsafe.Pointer(unsafe.SliceData(b.Timestamps))), len(b.Timestamps))
	cols := []*schema.Column{{Type: schema.Int64, Int: ts}}
	vec, stat := 0, 0
	for _, c := range b.Columns {
		if c.Type.IsVector() {
			if err := w.vecs[vec].append(c); err != nil {
				return err
			}
			vec++
			continue
		}
		cols = append(cols, c)
		w.stats[stat].add(c)
		stat++
		if c.FieldID == w.m.Schema.Primary().ID {
			w.keys = hashKeys(w.keys, c)
		}
	}
	if err := w.table.Write(cols); err != nil {
		return err
	}
	w.m.Rows += int64(b.Rows)
	w.m.MinTimestamp = min(w.m.MinTimestamp, slices.Min(b.Timestamps))
	w.m.MaxTimestamp = max(w.m.MaxTimestamp, slices.Max(b.Timestamps))
	return nil
}

// Vectors returns the vectors of a field of float32 that were written, row after
// row, from the mapped file, so that an index can be built of them. No more rows
// can be appended afterwards. The slice is gone when Finish or Abort returns.
func (w *Writer) Vectors(fieldID int64) ([]float32, error) {
	v, err := w.mapped(fieldID, func(f schema.Field) bool { return f.Type == schema.FloatVector })
	if err != nil {
		return nil, err
	}
	return floats(v.files[0].mapped[vectorOffset:]), nil
}

// Rows is how many rows have been appended.
func (w *Writer) Rows() int { return int(w.m.Rows) }

// Sparse is Vectors for a sparse field.
func (w *Writer) Sparse(fieldID int64) (Sparse, error) {
	v, err := w.mapped(fieldID, func(f schema.Field) bool { return f.Type == schema.SparseFloatVector })
	if err != nil {
		return Sparse{}, err
	}
	return sparseOf(v.files[0].mapped[arrayOffset:], v.files[1].mapped[arrayOffset:], v.files[2].mapped[arrayOffset:]), nil
}

// mapped maps the files of a vector field.
func (w *Writer) mapped(fieldID int64, fits func(schema.Field) bool) (*vectorWriter, error) {
	if err := w.usable(); err != nil {
		return nil, err
	}
	for _, v := range w.vecs {
		if v.field.ID != fieldID || !fits(v.field) {
			continue
		}
		if w.m.Rows == 0 {
			return nil, w.noRows()
		}
		if w.err = v.mapAll(); w.err != nil {
			return nil, w.err
		}
		return v, nil
	}
	return nil, errclass.New(errclass.NotFound, "segment %d has no such vector field %d", w.m.SegmentID, fieldID)
}

func (w *Writer) noRows() error {
	return errclass.New(errclass.Invalid, "segment %d has no rows", w.m.SegmentID)
}

// WriteIndex stores the image that write produces as the index of a vector
// field, of which it can have one. It is given back as bytes that start on a page.
func (w *Writer) WriteIndex(x IndexMeta, write func(io.Writer) error) error {
	if err := w.usable(); err != nil {
		return err
	}
	if err := x.validate(&w.m.Schema); err != nil {
		return errclass.Wrap(err, errclass.Invalid, "write index of segment %d", w.m.SegmentID)
	}
	out, err := createFile(w.dir, fileName(KindIndex, x.FieldID))
	if err != nil {
		return errors.Wrapf(err, "write index of segment %d", w.m.SegmentID)
	}
	err = write(out)
	if err == nil && out.sums.size == 0 {
		err = errclass.New(errclass.Invalid, "the image is empty")
	}
	var f File
	if err == nil {
		f, err = out.finish(KindIndex)
	}
	if err != nil {
		w.err = errors.Wrapf(errors.CombineErrors(err, out.close()), "write index of segment %d, field %d", w.m.SegmentID, x.FieldID)
		return w.err
	}
	f.Index = &x
	w.m.Files = append(w.m.Files, f)
	return nil
}

// WriteDeletes stores deletes of primary keys; see EncodeDeletes. It can be
// called once.
func (w *Writer) WriteDeletes(keys *schema.Column, timestamps []uint64) error {
	if err := w.usable(); err != nil {
		return err
	}
	if p := w.m.Schema.Primary(); keys.Type != p.Type {
		return errclass.New(errclass.Invalid, "deletes of %s keys, the primary key is %s", keys.Type, p.Type)
	}
	b, err := EncodeDeletes(keys, timestamps)
	if err != nil {
		return errors.Wrapf(err, "write deletes of segment %d", w.m.SegmentID)
	}
	if err := w.addFile(KindDeletes, b); err != nil {
		return err
	}
	w.m.DeleteRows = int64(len(timestamps))
	return nil
}

func (w *Writer) addFile(kind Kind, data []byte) error {
	out, err := createFile(w.dir, fileName(kind, 0))
	if err != nil {
		return errors.Wrapf(err, "write segment %d", w.m.SegmentID)
	}
	var f File
	if _, err = out.Write(data); err == nil {
		f, err = out.finish(kind)
	}
	if err != nil {
		w.err = errors.Wrapf(errors.CombineErrors(err, out.close()), "write segment %d", w.m.SegmentID)
		return w.err
	}
	w.m.Files = append(w.m.Files, f)
	return nil
}

// Finish makes all files durable, then writes the manifest, and with it the
// segment exists. A segment without rows is refused (class Invalid). After an
// error call Abort.
func (w *Writer) Finish(ctx context.Context) (*Manifest, error) {
	if err := w.usable(); err != nil {
		return nil, err
	}
	if w.m.Rows == 0 {
		return nil, w.noRows()
	}
	if err := w.finish(ctx); err != nil {
		w.err = errors.Wrapf(err, "finish segment %d", w.m.SegmentID)
		return nil, w.err
	}
	w.done = true
	return &w.m, nil
}

func (w *Writer) finish(ctx context.Context) error {
	if err := w.unmap(); err != nil {
		return err
	}
	if err := w.table.Close(); err != nil {
		return err
	}
	f, err := w.rows.finish(KindRows)
	if err != nil {
		return err
	}
	w.m.Files = append(w.m.Files, f)
	for _, v := range w.vecs {
		if err := ctx.Err(); err != nil {
			return err
		}
		files, err := v.finish(w.dir, w.m.Rows)
		if err != nil {
			return err
		}
		w.m.Files = append(w.m.Files, files...)
	}
	if err := w.addFile(KindBloom, encodeBloom(w.keys)); err != nil {
		return err
	}
	w.sumUp()
	b, err := w.m.Encode()
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := writeFile(filepath.Join(w.dir, ManifestName), b); err != nil {
		return err
	}
	return syncDir(filepath.Dir(w.dir))
}

// sumUp puts the stats into the manifest and its files into a fixed order.
func (w *Writer) sumUp() {
	w.m.ScalarBytes = 8 * w.m.Rows // timestamps
	i := 0
	for _, f := range w.m.Schema.Columns() {
		if f.Type.IsVector() {
			continue
		}
		w.m.Stats = append(w.m.Stats, w.stats[i].result())
		w.m.ScalarBytes += w.stats[i].heapBytes(f, w.m.Rows)
		i++
	}
	order := []Kind{KindRows, KindVector, KindArray, KindIndex, KindBloom, KindDeletes}
	slices.SortStableFunc(w.m.Files, func(a, b File) int { return slices.Index(order, a.Kind) - slices.Index(order, b.Kind) })
}

func (w *Writer) unmap() error {
	for _, v := range w.vecs {
		if err := v.unmap(); err != nil {
			return err
		}
	}
	return nil
}

// Abort removes the folder. After Finish succeeded, and a second time, it does nothing.
func (w *Writer) Abort() error {
	if w.done {
		return nil
	}
	w.done = true
	err := w.unmap()
	err = errors.CombineErrors(err, w.rows.close())
	for _, v := range w.vecs {
		err = errors.CombineErrors(err, v.close())
	}
	err = errors.CombineErrors(err, os.RemoveAll(w.dir))
	return errors.Wrapf(err, "abort segment %d", w.m.SegmentID)
}
