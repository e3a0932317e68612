package schema

import (
	"github.com/querynode/querynode/internal/errclass"
)

// Column holds the values of one field for a number of rows. Exactly one of the
// slices is used, by Type:
//
//	Bool                      Bool
//	Int8, Int16, Int32, Int64 Int      (widened)
//	Timestamptz               Int      (microseconds since 1970-01-01 UTC)
//	Float                     Float
//	Double                    Double
//	VarChar, JSON             Str      (JSON: its text)
//	Array                     that of Element; row i at [Offsets[i], Offsets[i+1])
//	FloatVector               Float    (row i at [i*Dim, (i+1)*Dim))
//	Float16Vector             Raw      (little-endian; row i at [i*w, (i+1)*w) with w = RowBytes)
//	BFloat16Vector            Raw      (the upper halves of float32)
//	Int8Vector, BinaryVector  Raw
//	SparseFloatVector         Indices and Float; row i at [Offsets[i], Offsets[i+1])
//
// A null's slot holds the zero value; a null array has no elements, and so can
// one that is not null. Elements are never null. Offsets need not begin with 0:
// a Slice keeps all elements. Columns are shared between readers once published:
// nobody writes them.
type Column struct {
	FieldID int64
	Type    Type
	Element Type // Array; else None
	Dim     int  // vectors; else 0

	Bool    []bool
	Int     []int64
	Float   []float32
	Double  []float64
	Str     []string
	Raw     []byte
	Indices []uint32 // SparseFloatVector: dimensions, ascending in each row
	Offsets []int    // Array, SparseFloatVector: one more than rows, never descending; nil = no rows
	Valid   []bool   // nil = no nulls; else one per row, false = null
}

// ValueType is the type of the single values that the column holds: Element for
// an array, else Type.
func (c *Column) ValueType() Type {
	if c.Type == Array {
		return c.Element
	}
	return c.Type
}

// listed reports whether rows are found by Offsets.
func (c *Column) listed() bool { return c.Type == Array || c.Type == SparseFloatVector }

// RowBytes is the size of a row of a column of vectors that are not sparse.
func (c *Column) RowBytes() int { return c.Type.RowBytes(c.Dim) }

// List returns where the elements of row i of an Array or SparseFloatVector column are.
func (c *Column) List(i int) (from, to int) { return c.Offsets[i], c.Offsets[i+1] }

// New returns an empty column of the same field.
func (c *Column) New() *Column {
	return &Column{FieldID: c.FieldID, Type: c.Type, Element: c.Element, Dim: c.Dim}
}

// NewColumn returns an empty column of field f with room for n rows (of an
// array: for n elements).
func NewColumn(f Field, n int) *Column {
	c := &Column{FieldID: f.ID, Type: f.Type, Element: f.Element, Dim: f.Dim}
	if c.listed() {
		c.Offsets = append(make([]int, 0, n+1), 0)
	}
	c.grow(n)
	return c
}

// grow makes the slice of values, empty, with room for n rows.
func (c *Column) grow(n int) {
	switch t := c.ValueType(); {
	case t == Bool:
		c.Bool = make([]bool, 0, n)
	case t.IsInt():
		c.Int = make([]int64, 0, n)
	case t == Float:
		c.Float = make([]float32, 0, n)
	case t == Double:
		c.Double = make([]float64, 0, n)
	case t == VarChar, t == JSON:
		c.Str = make([]string, 0, n)
	case t == FloatVector:
		c.Float = make([]float32, 0, n*c.Dim)
	case t.IsRaw():
		c.Raw = make([]byte, 0, n*c.RowBytes())
	}
}

// NullColumn returns a column of n nulls of field f, for rows that do not have
// the field; class Invalid if f is not nullable. The hidden dynamic field gets
// empty objects instead.
func NullColumn(f Field, n int) (*Column, error) {
	if !f.Nullable && f.ID != DynamicFieldID {
		return nil, errclass.New(errclass.Invalid, "field %q is missing and not nullable", f.Name)
	}
	c := &Column{FieldID: f.ID, Type: f.Type, Element: f.Element, Dim: f.Dim}
	if f.ID == DynamicFieldID {
		c.Str = make([]string, n)
		for i := range c.Str {
			c.Str[i] = "{}"
		}
		return c, nil
	}
	c.Valid = make([]bool, n)
	if c.listed() {
		c.Offsets = make([]int, n+1)
		return c, nil
	}
	c.grow(n)
	c.Zeros(n)
	return c, nil
}

// Zeros sets the values of a column that has no Offsets to n rows of zeros, in
// the memory it has if that is enough.
func (c *Column) Zeros(n int) {
	switch {
	case c.Type == Bool:
		c.Bool = zeros(c.Bool, n)
	case c.Type.IsInt():
		c.Int = zeros(c.Int, n)
	case c.Type == Float:
		c.Float = zeros(c.Float, n)
	case c.Type == Double:
		c.Double = zeros(c.Double, n)
	case c.Type == VarChar, c.Type == JSON:
		c.Str = zeros(c.Str, n)
	case c.Type == FloatVector:
		c.Float = zeros(c.Float, n*c.Dim)
	case c.Type.IsRaw():
		c.Raw = zeros(c.Raw, n*c.RowBytes())
	}
}

func zeros[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	s = s[:n]
	clear(s)
	return s
}

// Rows is the number of rows in the column.
func (c *Column) Rows() int {
	switch {
	case c.listed():
		return max(0, len(c.Offsets)-1)
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
	case c.Type.IsRaw() && c.RowBytes() > 0:
		return len(c.Raw) / c.RowBytes()
	}
	return 0
}

// Null reports whether row i is null.
func (c *Column) Null(i int) bool { return c.Valid != nil && !c.Valid[i] }

// Vector returns row i of a FloatVector column; it aliases the column.
func (c *Column) Vector(i int) []float32 { return c.Float[i*c.Dim : (i+1)*c.Dim : (i+1)*c.Dim] }

// AppendRow appends row i of o, a column of the same field.
func (c *Column) AppendRow(o *Column, i int) { c.AppendRange(o, i, i+1) }

// AppendRows appends rows of o, a column of the same field.
func (c *Column) AppendRows(o *Column, rows []uint32) {
	if c.Type.IsInt() && c.Valid == nil && o.Valid == nil {
		for _, r := range rows { // nothing between them, so that they are waited for together
			c.Int = append(c.Int, o.Int[r])
		}
		return
	}
	for _, r := range rows {
		c.AppendRow(o, int(r))
	}
}

// AppendRange appends rows [from, to) of o, a column of the same field.
func (c *Column) AppendRange(o *Column, from, to int) {
	before := c.Rows()
	if c.listed() {
		c.appendLists(o, from, to)
	} else {
		c.appendValues(o, from, to)
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

func (c *Column) appendLists(o *Column, from, to int) {
	if from == to {
		return
	}
	if len(c.Offsets) == 0 {
		c.Offsets = append(c.Offsets, 0)
	}
	shift := c.Offsets[len(c.Offsets)-1] - o.Offsets[from]
	for _, end := range o.Offsets[from+1 : to+1] {
		c.Offsets = append(c.Offsets, end+shift)
	}
	c.appendValues(o, o.Offsets[from], o.Offsets[to])
}

// appendValues appends values [from, to): elements, if rows are found by Offsets.
func (c *Column) appendValues(o *Column, from, to int) {
	switch t := c.ValueType(); {
	case t == Bool:
		c.Bool = append(c.Bool, o.Bool[from:to]...)
	case t.IsInt():
		c.Int = append(c.Int, o.Int[from:to]...)
	case t == Float:
		c.Float = append(c.Float, o.Float[from:to]...)
	case t == Double:
		c.Double = append(c.Double, o.Double[from:to]...)
	case t == VarChar, t == JSON:
		c.Str = append(c.Str, o.Str[from:to]...)
	case t == FloatVector:
		c.Float = append(c.Float, o.Float[from*c.Dim:to*c.Dim]...)
	case t == SparseFloatVector:
		c.Indices = append(c.Indices, o.Indices[from:to]...)
		c.Float = append(c.Float, o.Float[from:to]...)
	case t.IsRaw():
		c.Raw = append(c.Raw, o.Raw[from*c.RowBytes():to*c.RowBytes()]...)
	}
}

// Slice returns rows [from, to) without copying.
func (c *Column) Slice(from, to int) *Column {
	s := c.New()
	switch {
	case c.listed():
		s.Bool, s.Int, s.Float, s.Double, s.Str, s.Indices = c.Bool, c.Int, c.Float, c.Double, c.Str, c.Indices
		if len(c.Offsets) > 0 {
			s.Offsets = c.Offsets[from : to+1 : to+1]
		}
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
	case c.Type.IsRaw():
		w := c.RowBytes()
		s.Raw = c.Raw[from*w : to*w : to*w]
	}
	if c.Valid != nil {
		s.Valid = c.Valid[from:to:to]
	}
	return s
}

// Elements returns a column of the elements of rows [from, to) of an Array
// column, of the type Element and without nulls; it aliases c.
func (c *Column) Elements(from, to int) *Column {
	e := &Column{FieldID: c.FieldID, Type: c.Element, Bool: c.Bool, Int: c.Int, Float: c.Float, Double: c.Double, Str: c.Str}
	if len(c.Offsets) == 0 {
		return e.Slice(0, 0)
	}
	return e.Slice(c.Offsets[from], c.Offsets[to])
}

// Sparse returns the dimensions and values of row i of a SparseFloatVector
// column; they alias the column.
func (c *Column) Sparse(i int) ([]uint32, []float32) {
	from, to := c.List(i)
	return c.Indices[from:to:to], c.Float[from:to:to]
}

// BytesAt is the memory that the value of row i takes, in bytes.
func (c *Column) BytesAt(i int) int64 {
	from, to, n := i, i+1, int64(0)
	if c.Valid != nil {
		n++
	}
	if c.listed() {
		from, to = c.List(i)
		n += 8
	}
	switch t := c.ValueType(); {
	case t == VarChar, t == JSON:
		for _, s := range c.Str[from:to] {
			n += 16 + int64(len(s))
		}
	case t == Bool:
		n += int64(to - from)
	case t == Float:
		n += 4 * int64(to-from)
	case t == FloatVector:
		n += 4 * int64(c.Dim)
	case t.IsRaw():
		n += int64(c.RowBytes())
	default: // Int8 to Int64, Timestamptz, Double, and SparseFloatVector with its indices
		n += 8 * int64(to-from)
	}
	return n
}

// Bytes is the memory the column's values take, in bytes. Of a column that is a
// slice of a longer one, only the elements of its rows count.
func (c *Column) Bytes() int64 {
	if c.Type == SparseFloatVector {
		n := 8*int64(len(c.Offsets)) + int64(len(c.Valid))
		if rows := c.Rows(); rows > 0 {
			n += 8 * int64(c.Offsets[rows]-c.Offsets[0])
		}
		return n
	}
	if c.Type == Array {
		return c.Elements(0, c.Rows()).Bytes() + 8*int64(len(c.Offsets)) + int64(len(c.Valid))
	}
	n := int64(len(c.Bool)) + int64(len(c.Raw)) + 8*int64(len(c.Int)) + 4*int64(len(c.Float)) + 8*int64(len(c.Double)) + int64(len(c.Valid))
	for _, s := range c.Str {
		n += 16 + int64(len(s))
	}
	return n
}
