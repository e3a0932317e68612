package flatparquet

import (
	"io"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// ReadLists appends up to limit rows of a column of lists to dst, a FloatVector
// column whose Dim each list must have, and returns how many; 0 and io.EOF at
// the end of the file. Numbers of 64 bits are rounded to 32. Lists of another
// length, null lists and nulls inside of them are errors of class Invalid that
// name the row.
func (c *Cursor) ReadLists(dst *schema.Column, limit int) (n int, err error) {
	if !c.col.List || c.col.Type != schema.Float && c.col.Type != schema.Double {
		return 0, errclass.New(errclass.Invalid, "column %q does not hold lists of floats", c.col.Name)
	}
	fill := 0 // elements of the unfinished row
	done := false
	err = c.loop(func() bool { return !done }, func() error {
		for c.pos < c.levels {
			if c.rep[c.pos] == 0 { // a row begins
				if fill > 0 {
					if err := c.endList(fill, dst.Dim); err != nil {
						return err
					}
					fill = 0
					n++
				}
				if n == limit {
					done = true
					return nil
				}
			}
			k, err := c.appendElements(dst, fill)
			if err != nil {
				return err
			}
			fill += k
		}
		return nil
	})
	if err != io.EOF {
		return n, err
	}
	if fill > 0 {
		if c.err = c.endList(fill, dst.Dim); c.err != nil {
			return n, c.err
		}
		n++
	}
	if c.err == io.EOF && c.row != c.f.Rows() {
		c.err = errclass.New(errclass.Corrupt, "column %q has %d rows, the file %d", c.col.Name, c.row, c.f.Rows())
		return n, c.err
	}
	if n > 0 {
		return n, nil
	}
	return 0, io.EOF
}

func (c *Cursor) endList(got, want int) error {
	if got != want {
		return errclass.New(errclass.Invalid, "row %d of column %q has %d values, want %d", c.row, c.col.Name, got, want)
	}
	c.row++
	return nil
}

// appendElements appends the entries of the page up to the end of the current
// row, whose first fill elements are in dst already, and returns how many.
func (c *Cursor) appendElements(dst *schema.Column, fill int) (int, error) {
	end := c.pos + 1
	for end < c.levels && c.rep[end] != 0 {
		end++
	}
	k := end - c.pos
	if fill+k > dst.Dim {
		return 0, c.endList(fill+k, dst.Dim)
	}
	if c.def != nil {
		top := byte(c.col.leaf.MaxDefinitionLevel())
		for _, d := range c.def[c.pos:end] {
			if d != top {
				return 0, errclass.New(errclass.Invalid, "row %d of column %q is null, is empty or holds a null: want %d numbers", c.row, c.col.Name, dst.Dim)
			}
		}
	}
	if c.col.Type == schema.Float {
		dst.Float = append(dst.Float, c.floats[c.vpos:c.vpos+k]...)
	} else {
		for _, v := range c.doubles[c.vpos : c.vpos+k] {
			dst.Float = append(dst.Float, float32(v))
		}
	}
	c.pos, c.vpos = end, c.vpos+k
	return k, nil
}

// ListLen returns the length of the list of the first row of column i; 0 if
// the file has no rows or the list is null or empty.
func (f *File) ListLen(i int) (int, error) {
	c, err := f.Cursor(i, false)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if !c.col.List {
		return 0, errclass.New(errclass.Invalid, "column %q does not hold lists", c.col.Name)
	}
	n, done := 0, false
	top := c.col.leaf.MaxDefinitionLevel()
	err = c.loop(func() bool { return !done }, func() error {
		for ; c.pos < c.levels; c.pos++ {
			if c.rep[c.pos] == 0 && c.row > 0 {
				done = true
				return nil
			}
			c.row = 1
			if c.def == nil || int(c.def[c.pos]) == top {
				n++
			}
		}
		return nil
	})
	if err != nil && err != io.EOF {
		return 0, errors.Wrapf(err, "length of the vectors of column %q", c.col.Name)
	}
	return n, nil
}
