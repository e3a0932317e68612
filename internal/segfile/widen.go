package segfile

import (
	"bufio"
	"context"
	"os"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/schema"
)

// widenRows is how many rows are widened between looks at the context.
const widenRows = 1024

// Widened returns the vectors of a field of float16, bfloat16 or int8 that were written, as
// float32 and row after row, so that an index can be built of them; widen writes the values of one, as it is stored, to dst. They are in a
// file without a name, two or four times as large as theirs, whose memory the system can take back. No more rows can be
// appended afterwards. The slice is gone when Narrow, Finish or Abort returns.
func (w *Writer) Widened(ctx context.Context, fieldID int64, widen func(dst []float32, raw []byte)) ([]float32, error) {
	v, err := w.mapped(fieldID, func(f schema.Field) bool {
		return f.Type == schema.Float16Vector || f.Type == schema.BFloat16Vector || f.Type == schema.Int8Vector
	})
	if err != nil {
		return nil, err
	}
	if v.widened == nil {
		if v.widened, err = w.widen(ctx, v, widen); err != nil {
			return nil, errors.Wrapf(err, "widen the vectors of segment %d, field %d", w.m.SegmentID, fieldID)
		}
	}
	return floats(v.widened), nil
}

// Narrow lets go of what Widened returned, whose slice is gone then.
func (w *Writer) Narrow(fieldID int64) error {
	for _, v := range w.vecs {
		if v.field.ID == fieldID {
			return v.narrow()
		}
	}
	return nil
}

// narrow unmaps the vectors as float32, whose file is gone with that.
func (v *vectorWriter) narrow() error {
	b := v.widened
	if b == nil {
		return nil
	}
	v.widened = nil
	return unmapFile(b)
}

// widen writes the vectors of v as float32 to a file without a name, and maps it.
func (w *Writer) widen(ctx context.Context, v *vectorWriter, widen func(dst []float32, raw []byte)) (_ []byte, err error) {
	f, err := os.CreateTemp(w.dir, "widened-")
	if err != nil {
		return nil, ioError(err, "create file")
	}
	defer func() { err = errors.CombineErrors(err, ioError(f.Close(), "close "+f.Name())) }()
	if err := os.Remove(f.Name()); err != nil {
		return nil, ioError(err, "remove the name of "+f.Name())
	}
	out, narrow := bufio.NewWriterSize(f, 256<<10), v.files[0].mapped[vectorOffset:]
	row := make([]float32, v.field.Dim)
	i := 0
	for raw := range slices.Chunk(narrow, v.field.Type.RowBytes(v.field.Dim)) {
		if i++; i%widenRows == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		widen(row, raw)
		if _, err := out.Write(bytesOf(row)); err != nil {
			return nil, ioError(err, "write "+f.Name())
		}
	}
	if err := out.Flush(); err != nil {
		return nil, ioError(err, "write "+f.Name())
	}
	return mapFile(f, int64(w.m.Rows)*4*int64(v.field.Dim), Options{})
}
