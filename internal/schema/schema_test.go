package schema

import (
	"encoding/json"
	"math"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func intArray() Field {
	return Field{ID: 101, Name: "a", Type: Array, Element: Int16, MaxCapacity: 3, Nullable: true}
}

// arrays returns a column of f with the rows, of which nil is null.
func arrays(f Field, rows ...[]int64) *Column {
	c := NewColumn(f, 0)
	for _, r := range rows {
		c.Int = append(c.Int, r...)
		c.Offsets = append(c.Offsets, len(c.Int))
		c.Valid = append(c.Valid, r != nil)
	}
	return c
}

// lists is what arrays was made of.
func lists(c *Column) (rows [][]int64) {
	for i := range c.Rows() {
		if c.Null(i) {
			rows = append(rows, nil)
			continue
		}
		from, to := c.List(i)
		rows = append(rows, append([]int64{}, c.Int[from:to]...))
	}
	return rows
}

func TestArraysAreCutAndJoined(t *testing.T) {
	f := intArray()
	all := arrays(f, []int64{1, 2}, nil, []int64{}, []int64{3}, []int64{4, 5, 6})
	if err := all.check(f, 5); err != nil {
		t.Fatal(err)
	}
	part := all.Slice(1, 5)
	if got := lists(part); !reflect.DeepEqual(got, [][]int64{nil, {}, {3}, {4, 5, 6}}) {
		t.Fatalf("%v", got)
	}
	if err := part.check(f, 4); err != nil {
		t.Fatal(err)
	}
	if got := part.Slice(2, 4).Elements(0, 2).Int; !slices.Equal(got, []int64{3, 4, 5, 6}) {
		t.Fatalf("%v", got)
	}
	joined := part.New()
	joined.AppendRange(part, 2, 4)
	joined.AppendRow(part, 0)
	joined.AppendRange(all, 0, 0)
	joined.AppendRange(all, 0, 2)
	if got := lists(joined); !reflect.DeepEqual(got, [][]int64{{3}, {4, 5, 6}, nil, {1, 2}, nil}) {
		t.Fatalf("%v", got)
	}
	if empty := part.Slice(4, 4); empty.Rows() != 0 || empty.Elements(0, 0).Rows() != 0 || all.New().Slice(0, 0).Rows() != 0 {
		t.Fatalf("%+v", empty)
	}
	if a, b := part.Slice(0, 1).Bytes(), all.Bytes(); a != 17 || b != 6*8+6*8+5 {
		t.Fatalf("%d and %d bytes", a, b)
	}
	null, err := NullColumn(f, 2)
	if err != nil || !reflect.DeepEqual(lists(null), [][]int64{nil, nil}) {
		t.Fatalf("%+v, %v", null, err)
	}
}

func TestArraysThatDoNotFit(t *testing.T) {
	f := intArray()
	for want, c := range map[string]*Column{
		"row 1 has 4 elements": arrays(f, []int64{1}, []int64{1, 2, 3, 4}),
		"element 2 is 32768":   arrays(f, []int64{1}, []int64{2, 32768}),
		"row 0 has its":        {FieldID: 101, Type: Array, Element: Int16, Int: []int64{1}, Offsets: []int{0, 2}},
		"row 1 has its":        {FieldID: 101, Type: Array, Element: Int16, Int: []int64{1}, Offsets: []int{0, 1, 0}},
		"row 0 has its el":     {FieldID: 101, Type: Array, Element: Int16, Int: []int64{1}, Offsets: []int{-1, 0}},
		"row 0 is null, but":   {FieldID: 101, Type: Array, Element: Int16, Int: []int64{1}, Offsets: []int{0, 1}, Valid: []bool{false}},
		"want type Array":      {FieldID: 101, Type: Array, Element: Int32, Offsets: []int{0}},
	} {
		err := c.check(f, c.Rows())
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	text := Field{ID: 1, Name: "t", Type: Array, Element: VarChar, MaxLength: 2}
	c := &Column{FieldID: 1, Type: Array, Element: VarChar, Str: []string{"ab", "abc"}, Offsets: []int{1, 2}}
	if err := c.check(text, 1); err == nil || !strings.Contains(err.Error(), "element 0 has 3 bytes") {
		t.Errorf("%v", err)
	}
	c.Offsets = []int{0, 1}
	if err := c.check(text, 1); err != nil {
		t.Errorf("elements of other rows count: %v", err)
	}
}

func TestFieldsThatCannotBe(t *testing.T) {
	for want, f := range map[string]Field{
		"an array holds":     {Type: Array},
		"not JSON":           {Type: Array, Element: JSON},
		"not Array":          {Type: Array, Element: Array},
		"are for arrays":     {Type: Int64, Element: Int64},
		"max_capacity 5000":  {Type: Array, Element: Int64, MaxCapacity: 5000},
		"is for VarChar":     {Type: Array, Element: Int64, MaxLength: 3},
		"other than the pri": {Type: Int64, PrimaryKey: true, Default: "1"},
		"arrays and JSON":    {Type: Array, Element: Int64, Default: "1"},
		"is not of type":     {Type: Int8, Default: `"x"`},
		"not of type Int8":   {Type: Int8, Default: `1.5`},
		"out of range":       {Type: Int8, Default: `300`},
		"max_length is 1":    {Type: VarChar, MaxLength: 1, Default: `"ab"`},
	} {
		f.ID, f.Name = 100, "f"
		if err := f.validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestDefaultsFillWhatIsAbsent(t *testing.T) {
	for _, f := range []Field{
		{Type: Bool, Default: "true"}, {Type: Int8, Default: "-3"}, {Type: Float, Default: "1.5"}, {Type: Double, Default: "2.5"},
		{Type: VarChar, Default: `"x y"`}, {Type: Timestamptz, Default: "1700000000000000"},
	} {
		f.ID, f.Name, f.Nullable = 100, "f", true
		raw, err := json.Marshal(f)
		var again Field
		if err == nil {
			err = json.Unmarshal(raw, &again)
		}
		if err != nil || again != f || f.validate() != nil {
			t.Fatalf("%+v, %v, %v", again, err, f.validate())
		}
		c, err := AbsentColumn(f, 3)
		if err != nil || c.Rows() != 3 || c.Null(1) || c.check(f, 3) != nil {
			t.Fatalf("%+v, %v", c, err)
		}
		null, err := NullColumn(f, 3)
		if err != nil || !null.Null(2) {
			t.Fatalf("%+v, %v", null, err)
		}
		if full, err := FillNulls(null, f); err != nil || !reflect.DeepEqual(full, c) {
			t.Fatalf("%+v, %v, want %+v", full, err, c)
		}
		if same, err := FillNulls(c, f); err != nil || same != c {
			t.Fatalf("%+v, %v", same, err)
		}
	}
	var l Literal
	for _, bad := range []string{"null", "[1]", "{}"} {
		if err := json.Unmarshal([]byte(bad), &l); err == nil && l != "" {
			t.Errorf("%s becomes %q", bad, l)
		}
	}
	if _, err := LiteralOf(math.NaN()); !errclass.Is(err, errclass.Invalid) {
		t.Error(err)
	}
}

func TestTimes(t *testing.T) {
	for text, want := range map[string]int64{
		"1970-01-01T00:00:00Z": 0, "1970-01-01T02:00:00.5+02:00": 500_000, "1969-12-31 23:59:59": -1_000_000, "1970-01-02": 86_400_000_000, "-7": -7,
	} {
		got, err := ParseTime(text)
		if err != nil || got != want {
			t.Errorf("%s: %d, %v", text, got, err)
		}
		if again, err := ParseTime(FormatTime(got)); err != nil || again != got {
			t.Errorf("%s: %s, %v", text, FormatTime(got), err)
		}
	}
	if _, err := ParseTime("noon"); !errclass.Is(err, errclass.Invalid) {
		t.Error(err)
	}
}

func TestRowsTakeWhatTheirColumnTakes(t *testing.T) {
	valid := []bool{true, false, true}
	for _, c := range []*Column{
		{Type: Bool, Bool: make([]bool, 3)}, {Type: Int8, Int: make([]int64, 3), Valid: valid}, {Type: Timestamptz, Int: make([]int64, 3)},
		{Type: Float, Float: make([]float32, 3)}, {Type: Double, Double: make([]float64, 3)}, {Type: VarChar, Str: []string{"a", "", "cd"}},
		{Type: JSON, Str: []string{"{}", "", "[1]"}, Valid: valid}, {Type: FloatVector, Dim: 2, Float: make([]float32, 6)},
		{Type: Float16Vector, Dim: 2, Raw: make([]byte, 12)}, {Type: BinaryVector, Dim: 16, Raw: make([]byte, 6)},
		{Type: Array, Element: VarChar, Str: []string{"a", "bc"}, Offsets: []int{0, 1, 1, 2}},
		{Type: Array, Element: Int16, Int: make([]int64, 4), Offsets: []int{0, 3, 3, 4}, Valid: valid},
		{Type: SparseFloatVector, Indices: make([]uint32, 5), Float: make([]float32, 5), Offsets: []int{0, 2, 2, 5}},
	} {
		sum := int64(0)
		if c.Offsets != nil {
			sum = 8 // there is one more of them than rows
		}
		for i := range 3 {
			sum += c.BytesAt(i)
		}
		if sum != c.Bytes() {
			t.Errorf("%v: the rows take %d bytes, the column %d", c.Type, sum, c.Bytes())
		}
	}
}
