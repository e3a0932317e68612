package schema

import (
	"math"
	"unicode/utf8"

	"github.com/querynode/querynode/internal/errclass"
)

// Column holds the values of one field for a number of rows. Exactly one of the
// slices is used, by Type:
//
//	Bool                      Bool
//	Int8, Int16, Int32, Int64 Int      (widened)
//	Float                     Float
//	Double                    Double
//	VarChar, JSON             Str      (JSON: its text)
//	FloatVector               Float    (row i at [i*Dim, (i+1)*Dim))
//
// A null's slot holds the zero value. Columns are shared between readers once
// published: nobody writes them.
type Column struct {
	FieldID int64
	Type    Type
	Dim     int // FloatVector; else 0

	Bool   []bool
	Int    []int64
	Float  []float32
	Double []float64
	Str    []string
	Valid  []bool // nil = no nulls; else one per row, false = null
}

// NewColumn returns an empty column of field f with room for n rows.
func NewColumn(f Field, n int) *Column {
	c := &Column{FieldID: f.ID, Type: f.Type, Dim: f.Dim}
	switch {
	case f.Type == Bool:
		c.Bool = make([]bool, 0, n)
	case f.Type.IsInt():
		c.Int = make([]int64, 0, n)
	case f.Type == Float:
		c.Float = make([]float32, 0, n)
	case f.Type == Double:
		c.Double = make([]float64, 0, n)
	case f.Type == VarChar, f.Type == JSON:
		c.Str = make([]string, 0, n)
	case f.Type == FloatVector:
		c.Float = make([]float32, 0, n*f.Dim)
	}
	return c
}

// NullColumn returns a column of n nulls of field f, for rows that do not have
// the field; class Invalid if f is not nullable. The hidden dynamic field gets
// empty objects instead.
func NullColumn(f Field, n int) (*Column, error) {
	if !f.Nullable && f.ID != DynamicFieldID {
		return nil, errclass.New(errclass.Invalid, "field %q is missing and not nullable", f.Name)
	}
	c := &Column{FieldID: f.ID, Type: f.Type}
	if f.ID == DynamicFieldID {
		c.Str = make([]string, n)
		for i := range c.Str {
			c.Str[i] = "{}"
		}
		return c, nil
	}
	c.Valid = make([]bool, n)
	switch {
	case f.Type == Bool:
		c.Bool = make([]bool, n)
	case f.Type.IsInt():
		c.Int = make([]int64, n)
	case f.Type == Float:
		c.Float = make([]float32, n)
	case f.Type == Double:
		c.Double = make([]float64, n)
	default:
		c.Str = make([]string, n)
	}
	return c, nil
}

// Rows is the number of rows in the column.
func (c *Column) Rows() int {
	switch {
	case c.Type == Bool:
		return len(c.Bool)
	case c.Type.IsInt():
		return len(c.Int)
	case c.Type == Float:
		return len(c.Float)
	case c.Type == Double:
		return len(c.Double)
	case c.Type == VarChar, c.Type == JSON:
		return len(c.Str)
	case c.Type == FloatVector && c.Dim > 0:
		return len(c.Float) / c.Dim
	}
	return 0
}

// Null reports whether row i is null.
func (c *Column) Null(i int) bool { return c.Valid != nil && !c.Valid[i] }

// Vector returns row i of a FloatVector column; it aliases the column.
func (c *Column) Vector(i int) []float32 { return c.Float[i*c.Dim : (i+1)*c.Dim : (i+1)*c.Dim] }

// AppendRow appends row i of o, a column of the same field.
func (c *Column) AppendRow(o *Column, i int) { c.AppendRange(o, i, i+1) }

// AppendRange appends rows [from, to) of o, a column of the same field.
func (c *Column) AppendRange(o *Column, from, to int) {
	before := c.Rows()
	switch {
	case c.Type == Bool:
		c.Bool = append(c.Bool, o.Bool[from:to]...)
	case c.Type.IsInt():
		c.Int = append(c.Int, o.Int[from:to]...)
	case c.Type == Float:
		c.Float = append(c.Float, o.Float[from:to]...)
	case c.Type == Double:
		c.Double = append(c.Double, o.Double[from:to]...)
	case c.Type == VarChar, c.Type == JSON:
		c.Str = append(c.Str, o.Str[from:to]...)
	case c.Type == FloatVector:
		c.Float = append(c.Float, o.Float[from*c.Dim:to*c.Dim]...)
	}
	if c.Valid == nil && o.Valid == nil {
		return
	}
	for len(c.Valid) < before {
		c.Valid = append(c.Valid, true)
	}
	for i := from; i < to; i++ {
		c.Valid = append(c.Valid, !o.Null(i))
	}
}

// Slice returns rows [from, to) without copying.
func (c *Column) Slice(from, to int) *Column {
	s := &Column{FieldID: c.FieldID, Type: c.Type, Dim: c.Dim}
	switch {
	case c.Type == Bool:
		s.Bool = c.Bool[from:to:to]
	case c.Type.IsInt():
		s.Int = c.Int[from:to:to]
	case c.Type == Float:
		s.Float = c.Float[from:to:to]
	case c.Type == Double:
		s.Double = c.Double[from:to:to]
	case c.Type == VarChar, c.Type == JSON:
		s.Str = c.Str[from:to:to]
	case c.Type == FloatVector:
		s.Float = c.Float[from*c.Dim : to*c.Dim : to*c.Dim]
	}
	if c.Valid != nil {
		s.Valid = c.Valid[from:to:to]
	}
	return s
}

// Bytes is the memory the column's values take, in bytes.
func (c *Column) Bytes() int64 {
	n := int64(len(c.Bool)) + 8*int64(len(c.Int)) + 4*int64(len(c.Float)) + 8*int64(len(c.Double)) + int64(len(c.Valid))
	for _, s := range c.Str {
		n += 16 + int64(len(s))
	}
	return n
}

// Batch is a number of rows of one collection in columnar form.
type Batch struct {
	Rows       int
	Columns    []*Column // in the order of Schema.Columns
	Timestamps []uint64  // hybrid insert timestamp per row; nil before the WAL gave one
}

// Column returns the column of the field, nil if the batch lacks it.
func (b *Batch) Column(fieldID int64) *Column {
	for _, c := range b.Columns {
		if c.FieldID == fieldID {
			return c
		}
	}
	return nil
}

// Bytes is the memory the batch takes, in bytes.
func (b *Batch) Bytes() int64 {
	n := 8 * int64(len(b.Timestamps))
	for _, c := range b.Columns {
		n += c.Bytes()
	}
	return n
}

// Check verifies that the batch fits the schema: a column for each field in
// order, all of Rows rows, ints in range, text within max_length and UTF-8,
// vectors of the right dimension and finite, nulls only where allowed. The error
// is of class Invalid and names field and row.
func (b *Batch) Check(s *Schema) error {
	fields := s.Columns()
	if len(b.Columns) != len(fields) {
		return errclass.New(errclass.Invalid, "got %d columns, the schema has %d", len(b.Columns), len(fields))
	}
	for i, f := range fields {
		if err := b.Columns[i].check(f, b.Rows); err != nil {
			return err
		}
	}
	return nil
}

var intRange = map[Type][2]int64{
	Int8:  {math.MinInt8, math.MaxInt8},
	Int16: {math.MinInt16, math.MaxInt16},
	Int32: {math.MinInt32, math.MaxInt32},
}

func (c *Column) check(f Field, rows int) error {
	bad := func(format string, args ...any) error {
		return errclass.Wrap(errclass.New(errclass.Invalid, format, args...), errclass.Invalid, "field %q", f.Name)
	}
	if c.FieldID != f.ID || c.Type != f.Type {
		return bad("want type %s (id %d), got %s (id %d)", f.Type, f.ID, c.Type, c.FieldID)
	}
	if f.Type.IsVector() && (c.Dim != f.Dim || len(c.Float) != rows*f.Dim) {
		return bad("wrong dimension: want %d rows of %d values, got %d values", rows, f.Dim, len(c.Float))
	}
	if c.Rows() != rows {
		return bad("got %d rows, other fields have %d", c.Rows(), rows)
	}
	if c.Valid != nil {
		if len(c.Valid) != rows {
			return bad("got %d validity flags for %d rows", len(c.Valid), rows)
		}
		for i, ok := range c.Valid {
			if !ok && !f.Nullable {
				return bad("row %d is null, but the field is not nullable", i)
			}
		}
	}
	return c.checkValues(f, bad)
}

func (c *Column) checkValues(f Field, bad func(string, ...any) error) error {
	switch {
	case f.Type == VarChar:
		limit := f.MaxLength
		if limit == 0 {
			limit = MaxVarChar
		}
		for i, v := range c.Str {
			if len(v) > limit {
				return bad("row %d has %d bytes, max_length is %d", i, len(v), limit)
			}
			if !utf8.ValidString(v) {
				return bad("row %d is not UTF-8", i)
			}
		}
	case f.Type.IsVector():
		for i, v := range c.Float {
			// v-v is NaN for NaN and both infinities, 0 otherwise.
			if v-v != 0 {
				return bad("row %d, dimension %d is %v: vectors must be finite", i/f.Dim, i%f.Dim, v)
			}
		}
	case f.Type == Int64 || !f.Type.IsInt():
	default:
		r := intRange[f.Type]
		for i, v := range c.Int {
			if v < r[0] || v > r[1] {
				return bad("row %d is %d, out of range for %s", i, v, f.Type)
			}
		}
	}
	return nil
}
