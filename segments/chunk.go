package segments

import (
	"slices"

	"github.com/querynode/querynode/internal/schema"
)

// chunkRows is the number of rows in a chunk of a growing segment's scalars: a
// multiple of 64, so that a chunk's filter bits are whole words.
const chunkRows = 4096

// chunk holds chunkRows rows of all scalar fields and timestamps. Slices have
// their full length from the start: the writer fills slots that no reader looks
// at yet. The list of columns of a chunk that readers have never changes.
type chunk struct {
	timestamps []uint64
	columns    []*schema.Column // in the order of the segment's scalar fields; later ones may be missing
}

func newChunk(fields []schema.Field) *chunk {
	c := &chunk{timestamps: make([]uint64, chunkRows)}
	for _, f := range fields {
		c.columns = append(c.columns, emptyColumn(f))
	}
	return c
}

// with returns a chunk that shares the columns of c and has those of the fields
// it lacks: nulls so far.
func (c *chunk) with(fields []schema.Field) *chunk {
	next := &chunk{timestamps: c.timestamps, columns: slices.Clone(c.columns)}
	for _, f := range fields[len(c.columns):] {
		next.columns = append(next.columns, emptyColumn(f))
	}
	return next
}

func (c *chunk) column(fieldID int64) *schema.Column {
	for _, col := range c.columns {
		if col.FieldID == fieldID {
			return col
		}
	}
	return nil
}

// emptyColumn returns a column of chunkRows slots of a scalar field: nulls if the
// field may be null.
func emptyColumn(f schema.Field) *schema.Column {
	if f.ID == schema.DynamicFieldID || f.Nullable {
		if col, err := schema.NullColumn(f, chunkRows); err == nil {
			return col
		}
	}
	col := schema.NewColumn(f, chunkRows)
	switch {
	case f.Type == schema.Bool:
		col.Bool = col.Bool[:chunkRows]
	case f.Type.IsInt():
		col.Int = col.Int[:chunkRows]
	case f.Type == schema.Float:
		col.Float = col.Float[:chunkRows]
	case f.Type == schema.Double:
		col.Double = col.Double[:chunkRows]
	default:
		col.Str = col.Str[:chunkRows]
	}
	return col
}

// chunkBytes is the memory of a chunk without the text in it.
func chunkBytes(fields []schema.Field) int64 {
	perRow := int64(8)
	for _, f := range fields {
		switch {
		case f.Type == schema.Bool:
			perRow++
		case f.Type == schema.Float:
			perRow += 4
		case f.Type.IsInt(), f.Type == schema.Double:
			perRow += 8
		default:
			perRow += 16
		}
		if f.Nullable {
			perRow++
		}
	}
	return perRow * chunkRows
}

// copyRows sets slots [at, at+n) of dst to rows [from, from+n) of src, a column
// of the same field.
func copyRows(dst *schema.Column, at int, src *schema.Column, from, n int) {
	for i := range n {
		if dst.Valid == nil {
			break
		}
		dst.Valid[at+i] = !src.Null(from + i)
	}
	switch {
	case dst.Type == schema.Bool:
		copy(dst.Bool[at:at+n], src.Bool[from:])
	case dst.Type.IsInt():
		copy(dst.Int[at:at+n], src.Int[from:])
	case dst.Type == schema.Float:
		copy(dst.Float[at:at+n], src.Float[from:])
	case dst.Type == schema.Double:
		copy(dst.Double[at:at+n], src.Double[from:])
	default:
		copy(dst.Str[at:at+n], src.Str[from:])
	}
}

// textBytes is the length of the texts of a column.
func textBytes(c *schema.Column) (n int64) {
	for _, s := range c.Str {
		n += int64(len(s))
	}
	return n
}

// appendMissing appends n rows to dst as a segment has them that does not have
// the field: nulls, or empty objects for the dynamic field.
func appendMissing(dst *schema.Column, n int) {
	f := schema.Field{ID: dst.FieldID, Type: dst.Type, Nullable: true}
	if col, err := schema.NullColumn(f, n); err == nil {
		dst.AppendRange(col, 0, n)
	}
}
