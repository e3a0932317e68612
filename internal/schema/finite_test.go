package schema

import (
	"math"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// TestNumbersThatAreNotFiniteAreNamed: with their field, row and element; those of nulls, and of
// rows that a slice does not have, are none.
func TestNumbersThatAreNotFiniteAreNamed(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	narrow, wide := Field{ID: 1, Name: "f", Type: Float}, Field{ID: 1, Name: "d", Type: Double}
	lists := Field{ID: 1, Name: "list", Type: Array, Element: Double}
	list := &Column{FieldID: 1, Type: Array, Element: Double, Offsets: []int{0, 2, 2, 4}, Double: []float64{1, inf, 3, nan}}
	for _, c := range []struct {
		name string
		f    Field
		c    *Column
		says string // "" = it is taken
	}{
		{"finite", narrow, &Column{Type: Float, Float: []float32{0, -1, math.MaxFloat32, math.SmallestNonzeroFloat32}}, ""},
		{"NaN", narrow, &Column{Type: Float, Float: []float32{1, float32(nan)}}, `field "f": row 1 is NaN: numbers must be finite`},
		{"infinite", wide, &Column{Type: Double, Double: []float64{1, 2, inf}}, `field "d": row 2 is +Inf`},
		{"below", wide, &Column{Type: Double, Double: []float64{-inf}}, `field "d": row 0 is -Inf`},
		{"the largest", wide, &Column{Type: Double, Double: []float64{math.MaxFloat64, -math.MaxFloat64}}, ""},
		{"at a null", wide, &Column{Type: Double, Double: []float64{nan, 1}, Valid: []bool{false, true}}, ""},
		{"behind a null", wide, &Column{Type: Double, Double: []float64{nan, nan}, Valid: []bool{false, true}}, `row 1 is NaN`},
		{"an element", lists, list, `field "list": row 0, element 1 is +Inf`},
		{"an element behind an empty list", lists, list.Slice(1, 3), `field "list": row 1, element 1 is NaN`},
		{"lists of a slice", lists, list.Slice(1, 2), ""},
		{"no lists", lists, &Column{Type: Array, Element: Double}, ""},
		{"vectors, which Check looks at", Field{ID: 1, Name: "v", Type: FloatVector, Dim: 1}, &Column{Type: FloatVector, Dim: 1, Float: []float32{float32(nan)}}, ""},
	} {
		err := c.c.CheckFinite(c.f)
		if (err == nil) != (c.says == "") || err != nil && (!errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: got %v, want %q", c.name, err, c.says)
		}
	}
	s := &Schema{Fields: []Field{{ID: 1, Name: "id", Type: Int64, PrimaryKey: true}, {ID: 2, Name: "d", Type: Double}}}
	b := &Batch{Rows: 1, Columns: []*Column{{FieldID: 1, Type: Int64, Int: []int64{1}}, {FieldID: 2, Type: Double, Double: []float64{nan}}, {FieldID: 3, Type: Double, Double: []float64{nan}}}}
	if err := b.CheckFinite(s); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("a batch: %v", err)
	}
	b.Columns[1].Double[0] = 1
	if err := b.CheckFinite(s); err != nil {
		t.Errorf("a field that the schema does not have: %v", err)
	}
	// What was written before they were refused stays readable.
	b.Columns = b.Columns[:2]
	b.Columns[1].Double[0] = nan
	if err := b.Check(s); err != nil {
		t.Errorf("rows of a log: %v", err)
	}
}
