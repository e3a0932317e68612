package schema

import (
	"reflect"
	"testing"
)

// TestRowsAreAppendedAsOneByOne: whatever the type, and with nulls on either side.
func TestRowsAreAppendedAsOneByOne(t *testing.T) {
	rows := []uint32{2, 0, 2, 1}
	ints, texts := Field{ID: 1, Type: Int64}, Field{ID: 1, Type: VarChar}
	for name, x := range map[string]struct {
		field Field
		from  Column
		valid []bool
	}{
		"numbers":            {ints, Column{Type: Int64, Int: []int64{5, 6, 7}}, nil},
		"numbers with nulls": {ints, Column{Type: Int64, Int: []int64{5, 6, 7}, Valid: []bool{true, true, false}}, nil},
		"numbers after null": {ints, Column{Type: Int64, Int: []int64{5, 6, 7}}, []bool{false}},
		"texts":              {texts, Column{Type: VarChar, Str: []string{"a", "b", "c"}}, nil},
	} {
		all, each := NewColumn(x.field, 5), NewColumn(x.field, 5)
		for _, c := range []*Column{all, each} {
			if x.valid != nil {
				c.Int, c.Valid = append(c.Int, 0), append(c.Valid, x.valid...)
			}
		}
		all.AppendRows(&x.from, rows)
		for _, r := range rows {
			each.AppendRow(&x.from, int(r))
		}
		if !reflect.DeepEqual(all, each) {
			t.Errorf("%s: %+v, want %+v", name, all, each)
		}
	}
}
