package segfile

import (
	"context"
	"io"
	"unsafe"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile/flatparquet"
)

// rowsPerRead is how often reading rows looks at its context.
const rowsPerRead = 64 << 10

// Rows reads timestamps and scalar fields from disk, in the order of
// Schema.Columns without the vector fields; they are the caller's. Text of a
// column is cut from a few large strings. It takes about Manifest.ScalarBytes
// of memory. Errors of class Corrupt name the file, and the block if a checksum
// failed.
func (s *Segment) Rows(ctx context.Context) (*schema.Batch, error) {
	b, err := s.rows(ctx)
	return b, errors.Wrapf(err, "rows of segment %d", s.m.SegmentID)
}

func (s *Segment) rows(ctx context.Context) (*schema.Batch, error) {
	f := s.m.file(fileName(KindRows, 0))
	in, err := openData(s.dir, f)
	if err != nil {
		return nil, err
	}
	defer func() { _ = in.Close() }()
	table, err := flatparquet.Open(&checkedReader{in: in, file: f}, f.Size, flatparquet.Limits{
		Rows:   s.m.Rows,
		Total:  2*s.m.ScalarBytes + 16<<20, // of one column; a dictionary may stand in each row group
		Values: s.m.ScalarBytes,            // an offset for each row, a byte or more for each element
		Strict: true,
	})
	if err != nil {
		return nil, err
	}
	if table.Rows() != s.m.Rows {
		return nil, errclass.New(errclass.Corrupt, "file %s has %d rows, the manifest says %d", f.Name, table.Rows(), s.m.Rows)
	}
	ts := &schema.Column{Type: schema.Int64}
	if err := s.column(ctx, table, schema.Field{Name: timestampName, Type: schema.Int64}, ts); err != nil {
		return nil, err
	}
	b := &schema.Batch{
		Rows:       int(s.m.Rows),
		Timestamps: unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(ts.Int))), len(ts.Int)),
	}
	for _, field := range s.m.Schema.Columns() {
		if field.Type.IsVector() {
			continue
		}
		c := schema.NewColumn(field, 0)
		if err := s.column(ctx, table, field, c); err != nil {
			return nil, err
		}
		b.Columns = append(b.Columns, c)
	}
	return b, nil
}

// column reads one column of the table into dst.
func (s *Segment) column(ctx context.Context, table *flatparquet.File, f schema.Field, dst *schema.Column) error {
	for i, col := range table.Columns() {
		if col.Name != f.Name {
			continue
		}
		list := f.Type == schema.Array
		if list && col.Type != f.Element || !list && col.Type != f.Type || col.List != list || col.Unsigned != (f.Name == timestampName) {
			return errclass.New(errclass.Corrupt, "column %q holds %s (lists: %t), the schema says %s", f.Name, col.Type, col.List, f.Type)
		}
		cur, err := table.Cursor(i, true)
		if err != nil {
			return err
		}
		defer cur.Close()
		*dst = *schema.NewColumn(f, int(s.m.Rows)) // bounded: the vectors of as many rows are on disk
		read := cur.Read
		if list {
			read = cur.ReadArrays
		}
		for err == nil {
			if err := ctx.Err(); err != nil {
				return err
			}
			_, err = read(dst, rowsPerRead)
		}
		if errclass.Is(err, errclass.Invalid) {
			return errclass.Mark(err, errclass.Corrupt)
		}
		if err != io.EOF {
			return err
		}
		for row, ok := range dst.Valid {
			if !ok && !f.Nullable {
				return errclass.New(errclass.Corrupt, "column %q is null at row %d", f.Name, row)
			}
		}
		return nil
	}
	return errclass.New(errclass.Corrupt, "column %q is missing", f.Name)
}
