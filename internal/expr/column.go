package expr

import "github.com/querynode/querynode/internal/schema"

// lengthOf as the index of a derived column: the number of elements.
const lengthOf = -1

// derivedID is the id of a field that is derived; no field of a schema has it.
const derivedID = 0

// column is what a plan reads: a field, or one that is derived from an array field, so
// that conditions on elements run on columns as all others do.
type column struct {
	field schema.Field
	of    int // derived: the slot of the array; -1: the field itself
	index int // derived: the element, or lengthOf
}

func (c *column) derived() bool { return c.of >= 0 }

// derive fills dst with the first n rows: null where the array is, or is too short.
func (c *column) derive(dst, array *schema.Column, n int) *schema.Column {
	dst.Zeros(n)
	dst.Valid = resize(dst.Valid, n)
	for i := range n {
		from, to := array.List(i)
		ok := !array.Null(i) && (c.index == lengthOf || c.index < to-from)
		dst.Valid[i] = ok
		if !ok {
			continue
		}
		at := from + c.index
		switch t := dst.Type; {
		case c.index == lengthOf:
			dst.Int[i] = int64(to - from)
		case t == schema.Bool:
			dst.Bool[i] = array.Bool[at]
		case t.IsInt():
			dst.Int[i] = array.Int[at]
		case t == schema.Float:
			dst.Float[i] = array.Float[at]
		case t == schema.Double:
			dst.Double[i] = array.Double[at]
		default:
			dst.Str[i] = array.Str[at]
		}
	}
	return dst
}

func resize[T any](s []T, n int) []T {
	if cap(s) < n {
		return make([]T, n)
	}
	return s[:n]
}

// isColumn reports whether a bound node is read from one column.
func (n *node) isColumn() bool { return n.kind == nName || n.kind == nLength && n.typ == kInt }
