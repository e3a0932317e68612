package dataset

import (
	"unicode/utf8"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// checkColumn checks what schema.Batch.Check does, too, but names the row of
// the file. row is the number of the column's first row.
func checkColumn(f *schema.Field, c *schema.Column, row int64) error {
	bad := func(i int, format string, args ...any) error {
		return errclass.Wrap(errclass.New(errclass.Invalid, format, args...), errclass.Invalid, "row %d, column %q", row+int64(i), f.Name)
	}
	if !f.Nullable {
		for i, ok := range c.Valid {
			if !ok {
				return bad(i, "is null: a primary key cannot be")
			}
		}
	}
	for i, s := range c.Str {
		if c.Type == schema.VarChar && len(s) > schema.MaxVarChar {
			return bad(i, "has %d bytes, want at most %d", len(s), schema.MaxVarChar)
		}
		if !utf8.ValidString(s) {
			return bad(i, "is not UTF-8")
		}
	}
	if c.Type.IsVector() {
		for i, v := range c.Float {
			if v-v != 0 { // NaN or infinite
				return bad(i/c.Dim, "dimension %d is %v: vectors must be finite (and within float32)", i%c.Dim, v)
			}
		}
	}
	return nil
}
