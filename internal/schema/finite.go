package schema

import (
	"sort"

	"github.com/querynode/querynode/internal/errclass"
)

// CheckFinite refuses a value of a Float or Double field f, or an element of an array of
// them, that is infinite or no number. Nulls have none. The error is of class Invalid and names
// field and row. It is for rows that come in: Check lets such values pass, since there are
// logs and segments from before they were refused.
func (c *Column) CheckFinite(f Field) error {
	switch c.ValueType() {
	case Float:
		return checkFinite(c, f, c.Float)
	case Double:
		return checkFinite(c, f, c.Double)
	}
	return nil
}

func checkFinite[T float32 | float64](c *Column, f Field, values []T) error {
	from, to := 0, len(values)
	if c.Type == Array {
		if c.Rows() == 0 {
			return nil
		}
		from, to = c.Offsets[0], c.Offsets[c.Rows()]
	}
	for i := from; i < to; i++ {
		v := values[i]
		switch {
		case v-v == 0: // NaN for NaN and both infinities
		case c.Type == Array:
			row := sort.Search(c.Rows(), func(r int) bool { return c.Offsets[r+1] > i })
			return errclass.New(errclass.Invalid, "field %q: row %d, element %d is %v: numbers must be finite", f.Name, row, i-c.Offsets[row], v)
		case !c.Null(i):
			return errclass.New(errclass.Invalid, "field %q: row %d is %v: numbers must be finite", f.Name, i, v)
		}
	}
	return nil
}

// CheckFinite is Column.CheckFinite for the columns of a batch that fits the schema.
func (b *Batch) CheckFinite(s *Schema) error {
	for _, c := range b.Columns {
		f, ok := s.FieldByID(c.FieldID)
		if !ok {
			continue
		}
		if err := c.CheckFinite(f); err != nil {
			return err
		}
	}
	return nil
}
