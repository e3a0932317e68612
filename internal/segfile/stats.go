package segfile

import (
	"cmp"

	"github.com/querynode/querynode/internal/schema"
)

// maxStatText is the longest text kept as a bound, in bytes.
const maxStatText = 256

// Range is the smallest and the largest value of a field, nulls apart.
type Range[T any] struct {
	Min T `json:"min"`
	Max T `json:"max"`
}

// FieldStats tell whether a segment can match a filter. At most one range is
// there, that of the field's type. None at all means unknown: all rows null,
// text longer than 256 bytes, a NaN or an infinity, or a field of JSON or arrays.
type FieldStats struct {
	FieldID int64           `json:"field_id"`
	Nulls   int64           `json:"nulls"`
	Bool    *Range[bool]    `json:"bool,omitempty"`
	Int     *Range[int64]   `json:"int,omitempty"`
	Float   *Range[float64] `json:"float,omitempty"` // Float and Double
	Text    *Range[string]  `json:"text,omitempty"`
}

// statsBuilder collects the stats of a field over batches.
type statsBuilder struct {
	FieldStats
	text    int64 // bytes
	values  int64 // elements of arrays
	unknown bool  // a value without a place in an order was seen
}

func (s *statsBuilder) add(c *schema.Column) {
	if c.Type == schema.Array {
		s.addLists(c)
		return
	}
	for i := range c.Rows() {
		if c.Null(i) {
			s.Nulls++
			continue
		}
		switch {
		case c.Type == schema.Bool:
			s.addBool(c.Bool[i])
		case c.Type.IsInt():
			widen(&s.Int, c.Int[i])
		case c.Type == schema.Float:
			s.addFloat(float64(c.Float[i]))
		case c.Type == schema.Double:
			s.addFloat(c.Double[i])
		case c.Type == schema.VarChar:
			s.addText(c.Str[i])
		case c.Type == schema.JSON:
			s.text += int64(len(c.Str[i]))
		}
	}
}

func (s *statsBuilder) addLists(c *schema.Column) {
	for i := range c.Rows() {
		if c.Null(i) {
			s.Nulls++
		}
	}
	e := c.Elements(0, c.Rows())
	s.values += int64(e.Rows())
	for _, v := range e.Str {
		s.text += int64(len(v))
	}
}

func (s *statsBuilder) addBool(v bool) {
	if s.Bool == nil {
		s.Bool = &Range[bool]{v, v}
	}
	s.Bool.Min = s.Bool.Min && v
	s.Bool.Max = s.Bool.Max || v
}

func (s *statsBuilder) addFloat(v float64) {
	if v-v != 0 { // NaN, infinity
		s.unknown = true
		return
	}
	widen(&s.Float, v)
}

func (s *statsBuilder) addText(v string) {
	s.text += int64(len(v))
	if len(v) > maxStatText {
		s.unknown = true
		return
	}
	widen(&s.Text, v)
}

func widen[T cmp.Ordered](r **Range[T], v T) {
	if *r == nil {
		*r = &Range[T]{v, v}
	}
	(*r).Min = min((*r).Min, v)
	(*r).Max = max((*r).Max, v)
}

func (s *statsBuilder) result() FieldStats {
	out := s.FieldStats
	if s.unknown {
		out.Float, out.Text = nil, nil
	}
	return out
}

// heapBytes is the memory a scalar field of the rows takes once read.
func (s *statsBuilder) heapBytes(f schema.Field, rows int64) int64 {
	n := s.text
	if f.Type == schema.Array {
		n += 8*(rows+1) + valueBytes(f.Element)*s.values
	} else {
		n += valueBytes(f.Type) * rows
	}
	if s.Nulls > 0 {
		n += rows
	}
	return n
}

// valueBytes is the memory of a value, without the text of it.
func valueBytes(t schema.Type) int64 {
	switch t {
	case schema.Bool:
		return 1
	case schema.Float:
		return 4
	case schema.VarChar, schema.JSON:
		return 16
	}
	return 8
}

// fits reports whether the stats are possible for the field in a segment of rows.
func (s *FieldStats) fits(f schema.Field, rows int64) bool {
	if s.Nulls < 0 || s.Nulls > rows || s.Nulls > 0 && !f.Nullable {
		return false
	}
	isFloat := f.Type == schema.Float || f.Type == schema.Double
	return (s.Bool == nil || f.Type == schema.Bool) &&
		(s.Int == nil || f.Type.IsInt() && s.Int.Min <= s.Int.Max) &&
		(s.Float == nil || isFloat && s.Float.Min <= s.Float.Max) &&
		(s.Text == nil || f.Type == schema.VarChar && s.Text.Min <= s.Text.Max)
}
