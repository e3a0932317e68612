package segments

import "github.com/querynode/querynode/internal/schema"

// A filter asks of a vector field only which rows have a vector: its column is one of
// flags, so that nothing is read from files that may not be there.

// flagged is what says which rows have vectors; nil = all do. Sets that it returns see
// the rows that the read sees.
type flagged interface {
	has() func(row uint32) bool
}

func (nullVectors) has() func(uint32) bool { return func(uint32) bool { return false } }

func (v *sealedVectors) has() func(uint32) bool {
	if v.valid == nil {
		return nil
	}
	return func(row uint32) bool { return v.valid.Has(int(row)) }
}

func (v *growingVectors) has() func(uint32) bool {
	if v.sparse != nil {
		rows := v.sparse.rows.Load()
		return func(row uint32) bool { return !rows.Null(int(row)) }
	}
	a := v.valid.Load()
	if a == nil {
		return nil
	}
	flags := a.bytes()
	return func(row uint32) bool { return flags[row] != 0 }
}

// vectorFlags is the column of n rows of a vector field, of which only Valid is set:
// row(i) is the number that row i has in the segment.
func vectorFlags(f schema.Field, v flagged, n int, row func(i int) uint32) *schema.Column {
	c := &schema.Column{FieldID: f.ID, Type: f.Type, Dim: f.Dim}
	has := v.has()
	if has == nil {
		return c
	}
	c.Valid = make([]bool, n)
	for i := range c.Valid {
		c.Valid[i] = has(row(i))
	}
	return c
}

// behind numbers rows from one on.
func behind(from int) func(int) uint32 {
	return func(i int) uint32 { return uint32(from + i) }
}

// among numbers the rows of a list.
func among(rows []uint32) func(int) uint32 {
	return func(i int) uint32 { return rows[i] }
}
