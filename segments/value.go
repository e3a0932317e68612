package segments

import (
	"cmp"
	"math"

	"github.com/querynode/querynode/internal/schema"
)

// value is one scalar of a column, or null. Two values of a column are the same
// if they are ==, so that it can be the key of a map.
type value struct {
	null bool
	i    int64 // booleans, integers, times; the bits of floating-point numbers
	s    string
}

// valueOf returns row i of a scalar column. Text is not copied.
func valueOf(c *schema.Column, i int) value {
	if c.Null(i) {
		return value{null: true}
	}
	switch {
	case c.Type == schema.Bool:
		if c.Bool[i] {
			return value{i: 1}
		}
		return value{}
	case c.Type.IsInt():
		return value{i: c.Int[i]}
	case c.Type == schema.Float:
		return floatValue(float64(c.Float[i]))
	case c.Type == schema.Double:
		return floatValue(c.Double[i])
	}
	return value{s: c.Str[i]}
}

// floatValue makes -0 the same as 0, and one of all NaN.
func floatValue(f float64) value {
	if f != f {
		f = math.NaN()
	}
	return value{i: int64(math.Float64bits(f + 0))}
}

// compareIn orders two values of a column that holds values of type t. Nulls are
// equal to nulls and larger than everything else; NaN is larger than every number.
func compareIn(t schema.Type, a, b value) int {
	switch {
	case a.null || b.null:
		return cmp.Compare(b2i(a.null), b2i(b.null))
	case t == schema.Float || t == schema.Double:
		x, y := math.Float64frombits(uint64(a.i)), math.Float64frombits(uint64(b.i))
		if x != x || y != y {
			return cmp.Compare(b2i(x != x), b2i(y != y))
		}
		return cmp.Compare(x, y)
	case t == schema.VarChar || t == schema.JSON:
		return cmp.Compare(a.s, b.s)
	}
	return cmp.Compare(a.i, b.i)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// scalar reports whether fields of a type have single values that can be compared.
func scalar(t schema.Type) bool {
	return t == schema.Bool || t.IsInt() || t == schema.Float || t == schema.Double || t == schema.VarChar
}

// appendValue appends a value to a column of type Bool, integer, Float, Double or VarChar.
func appendValue(c *schema.Column, v value) {
	rows := c.Rows()
	switch {
	case c.Type == schema.Bool:
		c.Bool = append(c.Bool, v.i != 0)
	case c.Type.IsInt():
		c.Int = append(c.Int, v.i)
	case c.Type == schema.Float:
		c.Float = append(c.Float, float32(math.Float64frombits(uint64(v.i))))
	case c.Type == schema.Double:
		c.Double = append(c.Double, math.Float64frombits(uint64(v.i)))
	default:
		c.Str = append(c.Str, v.s)
	}
	if v.null && c.Valid == nil {
		for range rows {
			c.Valid = append(c.Valid, true)
		}
	}
	if c.Valid != nil || v.null {
		c.Valid = append(c.Valid, !v.null)
	}
}

// keyOf is the primary key of a row as a value.
func keyOf(t *target, row uint32) value {
	i, s := t.key(row)
	return value{i: i, s: s}
}

// truncate empties a scalar column and keeps its memory.
func truncate(c *schema.Column) {
	c.Bool, c.Int, c.Float, c.Double, c.Str, c.Valid = c.Bool[:0], c.Int[:0], c.Float[:0], c.Double[:0], c.Str[:0], nil
}
