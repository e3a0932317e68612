package segments

import (
	"slices"
	"sync/atomic"

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
	columns    []*chunkColumn // in the order of the segment's scalar fields; later ones may be missing
}

// chunkColumn is a column of a chunk. That of an array is replaced with each
// append: its elements have no slots, they grow behind those that readers know.
type chunkColumn struct {
	fieldID int64
	col     atomic.Pointer[schema.Column]
}

func newChunk(fields []schema.Field) *chunk {
	c := &chunk{timestamps: make([]uint64, chunkRows)}
	for _, f := range fields {
		c.columns = append(c.columns, emptyColumn(f))
	}
	return c
}

// with returns a chunk that shares the columns of c and has those of the fields
// it lacks: as absent so far.
func (c *chunk) with(fields []schema.Field) *chunk {
	next := &chunk{timestamps: c.timestamps, columns: slices.Clone(c.columns)}
	for _, f := range fields[len(c.columns):] {
		next.columns = append(next.columns, emptyColumn(f))
	}
	return next
}

// column returns the column of a field, with at least the rows that were
// published before the call; nil if the chunk lacks it.
func (c *chunk) column(fieldID int64) *schema.Column {
	for _, col := range c.columns {
		if col.fieldID == fieldID {
			return col.col.Load()
		}
	}
	return nil
}

// emptyColumn returns a column of chunkRows slots of a scalar field, which are as
// in rows without the field.
func emptyColumn(f schema.Field) *chunkColumn {
	c := &chunkColumn{fieldID: f.ID}
	if col, err := schema.AbsentColumn(f, chunkRows); err == nil {
		if f.Nullable && col.Valid == nil {
			col.Valid = slices.Repeat([]bool{true}, chunkRows)
		}
		c.col.Store(col)
		return c
	}
	col := schema.NewColumn(f, 0)
	if f.Type == schema.Array {
		col.Offsets = make([]int, chunkRows+1)
	} else {
		col.Zeros(chunkRows)
	}
	c.col.Store(col)
	return c
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
		case f.Type.IsInt(), f.Type == schema.Double, f.Type == schema.Array:
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

// set sets slots [at, at+n) to rows [from, from+n) of src, a column of the same
// field.
func (c *chunkColumn) set(at int, src *schema.Column, from, n int) {
	dst := c.col.Load()
	for i := range n {
		if dst.Valid == nil {
			break
		}
		dst.Valid[at+i] = !src.Null(from + i)
	}
	switch {
	case dst.Type == schema.Array:
		c.setLists(at, src, from, n)
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

// setLists is set for an array.
func (c *chunkColumn) setLists(at int, src *schema.Column, from, n int) {
	next := *c.col.Load()
	shift := next.Offsets[at] - src.Offsets[from]
	for i := range n {
		next.Offsets[at+i+1] = src.Offsets[from+i+1] + shift
	}
	e := src.Elements(from, from+n)
	next.Bool, next.Int, next.Float, next.Double, next.Str = append(next.Bool, e.Bool...), append(next.Int, e.Int...),
		append(next.Float, e.Float...), append(next.Double, e.Double...), append(next.Str, e.Str...)
	c.col.Store(&next)
}

// looseBytes is the memory that the values of a column take besides their slots:
// text, and the elements of arrays, whose memory grows ahead of them.
func looseBytes(c *schema.Column) (n int64) {
	if c.Type == schema.Array {
		e := c.Elements(0, c.Rows()).Bytes()
		return e + e/4
	}
	for _, s := range c.Str {
		n += int64(len(s))
	}
	return n
}

// appendAbsent appends n rows to dst as a segment has them that does not have
// the field, of which s tells.
func appendAbsent(dst *schema.Column, s *schema.Schema, n int) {
	f, ok := s.FieldByID(dst.FieldID)
	if !ok {
		f = schema.Field{ID: dst.FieldID, Type: dst.Type, Element: dst.Element, Dim: dst.Dim, Nullable: true}
	}
	if col, err := schema.AbsentColumn(f, n); err == nil {
		dst.AppendRange(col, 0, n)
	}
}
