package flatparquet

import (
	"io"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// ReadArrays appends up to limit rows of a column of lists to dst, an Array
// column, and returns how many; 0 and io.EOF at the end of the file. A null
// inside of a list is an error of class Invalid that names the row. Text lives as
// Read says.
func (c *Cursor) ReadArrays(dst *schema.Column, limit int) (n int, err error) {
	if !c.col.List {
		return 0, errclass.New(errclass.Invalid, "column %q does not hold lists", c.col.Name)
	}
	if len(dst.Offsets) == 0 {
		dst.Offsets = append(dst.Offsets, 0)
	}
	done := limit < 1
	err = c.loop(func() bool { return !done }, func() error {
		first, end := c.vpos, dst.Offsets[len(dst.Offsets)-1]
		for ; c.pos < c.levels; c.pos++ {
			if c.rep[c.pos] == 0 {
				if n == limit {
					done = true
					break
				}
				n++
				c.row++
				c.beginList(dst, end)
			}
			more, err := c.element(n)
			if err != nil {
				return err
			}
			end += more
			dst.Offsets[len(dst.Offsets)-1] = end
		}
		return c.appendElementsTo(dst, first)
	})
	if err != io.EOF {
		return n, err
	}
	if c.row != c.f.Rows() {
		c.err = errclass.New(errclass.Corrupt, "column %q has %d rows, the file %d", c.col.Name, c.row, c.f.Rows())
		return n, c.err
	}
	if n > 0 {
		return n, nil
	}
	return 0, io.EOF
}

// beginList appends a row without elements, which are to come after end.
func (c *Cursor) beginList(dst *schema.Column, end int) {
	null := c.col.Nullable && c.def != nil && c.def[c.pos] == 0
	if null && dst.Valid == nil {
		for range dst.Rows() {
			dst.Valid = append(dst.Valid, true)
		}
	}
	if null || dst.Valid != nil {
		dst.Valid = append(dst.Valid, !null)
	}
	dst.Offsets = append(dst.Offsets, end)
}

// element says how many elements the current entry is, 0 or 1, and takes it.
func (c *Cursor) element(rows int) (int, error) {
	if rows == 0 {
		return 0, errors.New("the first list goes on before it began")
	}
	if c.def != nil {
		switch d := c.def[c.pos]; {
		case d < c.col.entry && c.rep[c.pos] != 0:
			return 0, errors.Newf("row %d goes on with nothing", c.row-1)
		case d < c.col.entry:
			return 0, nil
		case int(d) != c.col.leaf.MaxDefinitionLevel():
			return 0, errclass.New(errclass.Invalid, "row %d of column %q holds a null", c.row-1, c.col.Name)
		}
	}
	c.vpos++
	return 1, nil
}

// appendElementsTo appends the values from first on that have been taken.
func (c *Cursor) appendElementsTo(dst *schema.Column, first int) error {
	switch t := dst.Element; {
	case c.col.Type == schema.Bool && t == schema.Bool:
		dst.Bool = append(dst.Bool, c.bools[first:c.vpos]...)
	case c.col.Type.IsInt() && t.IsInt():
		dst.Int = append(dst.Int, c.ints[first:c.vpos]...)
	case c.col.Type == schema.Float && t == schema.Float:
		dst.Float = append(dst.Float, c.floats[first:c.vpos]...)
	case c.col.Type == schema.Double && t == schema.Double:
		dst.Double = append(dst.Double, c.doubles[first:c.vpos]...)
	case c.col.Type == schema.VarChar && t == schema.VarChar:
		dst.Str = append(dst.Str, c.strs[first:c.vpos]...)
	default:
		return errors.Newf("the file has lists of %s, want %s", c.col.Type, t)
	}
	return nil
}
