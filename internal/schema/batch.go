package schema

import (
	"math"
	"unicode/utf8"

	"github.com/querynode/querynode/internal/errclass"
)

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

// BytesAt is the memory that row i takes, in bytes, its timestamp aside.
func (b *Batch) BytesAt(i int) (n int64) {
	for _, c := range b.Columns {
		n += c.BytesAt(i)
	}
	return n
}

// Check verifies that the batch fits the schema: a column for each field in
// order, all of Rows rows, ints in range, text within max_length and UTF-8,
// vectors of the right dimension and finite, nulls only where allowed. The error
// is of class Invalid and names field and row.
func (b *Batch) Check(s *Schema) error { return b.checkFields(s.Columns()) }

func (b *Batch) checkFields(fields []Field) error {
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

// Check verifies that the column fits the field and has so many rows; see Batch.Check.
func (c *Column) Check(f Field, rows int) error { return c.check(f, rows) }

func (c *Column) check(f Field, rows int) error {
	bad := func(format string, args ...any) error {
		return errclass.Wrap(errclass.New(errclass.Invalid, format, args...), errclass.Invalid, "field %q", f.Name)
	}
	if c.FieldID != f.ID || c.Type != f.Type || c.Element != f.Element {
		return bad("want type %s (id %d), got %s (id %d)", f.Type, f.ID, c.Type, c.FieldID)
	}
	switch {
	case f.Type == FloatVector && (c.Dim != f.Dim || len(c.Float) != rows*f.Dim):
		return bad("wrong dimension: want %d rows of %d values, got %d values", rows, f.Dim, len(c.Float))
	case f.Type.IsRaw() && (c.Dim != f.Dim || len(c.Raw) != rows*c.RowBytes()):
		return bad("wrong dimension: want %d rows of dimension %d, got %d bytes of dimension %d", rows, f.Dim, len(c.Raw), c.Dim)
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
	switch {
	case f.Type == Array:
		return c.checkLists(f, bad)
	case f.Type.IsVector():
		return c.checkVectors(f, bad)
	}
	return c.checkValues(f, "row", bad)
}

// checkLists checks the offsets of an array, then its elements.
func (c *Column) checkLists(f Field, bad func(string, ...any) error) error {
	capacity := f.MaxCapacity
	if capacity == 0 {
		capacity = MaxCapacity
	}
	all := (&Column{Type: c.Element, Bool: c.Bool, Int: c.Int, Float: c.Float, Double: c.Double, Str: c.Str}).Rows()
	for i := range c.Rows() {
		from, to := c.List(i)
		switch {
		case from < 0 || from > to || to > all:
			return bad("row %d has its elements at %d to %d of %d", i, from, to, all)
		case to-from > capacity:
			return bad("row %d has %d elements, max_capacity is %d", i, to-from, capacity)
		case from != to && c.Null(i):
			return bad("row %d is null, but has %d elements", i, to-from)
		}
	}
	e := f
	e.Type, e.Element = f.Element, None
	return c.Elements(0, c.Rows()).checkValues(e, "element", bad)
}

// checkValues checks the values of a column other than an array; unit is what
// they are to people.
func (c *Column) checkValues(f Field, unit string, bad func(string, ...any) error) error {
	switch {
	case f.Type == VarChar:
		limit := f.MaxLength
		if limit == 0 {
			limit = MaxVarChar
		}
		for i, v := range c.Str {
			if len(v) > limit {
				return bad("%s %d has %d bytes, max_length is %d", unit, i, len(v), limit)
			}
			if !utf8.ValidString(v) {
				return bad("%s %d is not UTF-8", unit, i)
			}
		}
	case f.Type == Int64 || f.Type == Timestamptz || !f.Type.IsInt():
	default:
		r := intRange[f.Type]
		for i, v := range c.Int {
			if v < r[0] || v > r[1] {
				return bad("%s %d is %d, out of range for %s", unit, i, v, f.Type)
			}
		}
	}
	return nil
}
