package rowpb

import (
	"math"
	"reflect"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// everything is a schema with a field of each type.
func everything() *schema.Schema {
	return &schema.Schema{Version: 1, Dynamic: true, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "b", Type: schema.Bool},
		{ID: 102, Name: "i8", Type: schema.Int8, Nullable: true},
		{ID: 103, Name: "f", Type: schema.Float},
		{ID: 104, Name: "d", Type: schema.Double},
		{ID: 105, Name: "s", Type: schema.VarChar, MaxLength: 10, Nullable: true},
		{ID: 106, Name: "j", Type: schema.JSON, Nullable: true},
		{ID: 107, Name: "v", Type: schema.FloatVector, Dim: 3},
		{ID: 108, Name: "at", Type: schema.Timestamptz, Nullable: true, Default: "1700000000000000"},
		{ID: 110, Name: "ab", Type: schema.Array, Element: schema.Bool},
		{ID: 111, Name: "ai", Type: schema.Array, Element: schema.Int8, MaxCapacity: 3, Nullable: true},
		{ID: 112, Name: "af", Type: schema.Array, Element: schema.Float},
		{ID: 113, Name: "ad", Type: schema.Array, Element: schema.Double},
		{ID: 114, Name: "as", Type: schema.Array, Element: schema.VarChar, MaxLength: 5, Nullable: true},
	}}
}

func rows() *schema.Batch {
	return &schema.Batch{Rows: 2, Columns: []*schema.Column{
		{FieldID: 100, Type: schema.Int64, Int: []int64{math.MinInt64, math.MaxInt64}},
		{FieldID: 101, Type: schema.Bool, Bool: []bool{true, false}},
		{FieldID: 102, Type: schema.Int8, Int: []int64{-128, 0}, Valid: []bool{true, false}},
		{FieldID: 103, Type: schema.Float, Float: []float32{1.5, -0.25}},
		{FieldID: 104, Type: schema.Double, Double: []float64{math.Pi, math.Inf(1)}},
		{FieldID: 105, Type: schema.VarChar, Str: []string{"", "grün"}, Valid: []bool{false, true}},
		{FieldID: 106, Type: schema.JSON, Str: []string{`{"a":1}`, "null"}},
		{FieldID: 107, Type: schema.FloatVector, Dim: 3, Float: []float32{1, 2, 3, 4, 5, 6}},
		{FieldID: 108, Type: schema.Timestamptz, Int: []int64{0, -1}, Valid: []bool{false, true}},
		{FieldID: 110, Type: schema.Array, Element: schema.Bool, Bool: []bool{true, false, true}, Offsets: []int{0, 1, 3}},
		{FieldID: 111, Type: schema.Array, Element: schema.Int8, Int: []int64{-128, 0, 127}, Offsets: []int{0, 3, 3}, Valid: []bool{true, false}},
		{FieldID: 112, Type: schema.Array, Element: schema.Float, Float: []float32{1.5}, Offsets: []int{0, 0, 1}},
		{FieldID: 113, Type: schema.Array, Element: schema.Double, Double: []float64{math.Pi, 2}, Offsets: []int{0, 2, 2}},
		{FieldID: 114, Type: schema.Array, Element: schema.VarChar, Str: []string{"a", "", "grün"}, Offsets: []int{0, 2, 3}, Valid: []bool{true, true}},
		{FieldID: schema.DynamicFieldID, Type: schema.JSON, Str: []string{"{}", `{"x":[]}`}},
	}}
}

func wantInvalid(t *testing.T, err error) {
	t.Helper()
	if !errclass.Is(err, errclass.Invalid) {
		t.Fatalf("%v, want class Invalid", err)
	}
}

// TestABatchSurvivesTheLog, through the wire and with its vectors as bytes.
func TestABatchSurvivesTheLog(t *testing.T) {
	s, want := everything(), rows()
	raw, err := proto.Marshal(&qnpb.WalRows{Rows: 2, Fields: FromBatch(want, s)})
	if err != nil {
		t.Fatal(err)
	}
	var body qnpb.WalRows
	if err := proto.Unmarshal(raw, &body); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(body.Fields) // found by id
	got, err := ToBatch(int(body.GetRows()), body.GetFields(), s)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
}

// TestASchemaThatHasChanged: fields that came later are null, those that went
// are dropped.
func TestASchemaThatHasChanged(t *testing.T) {
	s, fields := everything(), FromBatch(rows(), everything())
	without := func(id int64) []*qnpb.FieldData {
		return slices.DeleteFunc(slices.Clone(fields), func(d *qnpb.FieldData) bool { return d.GetFieldId() == id })
	}
	b, err := ToBatch(2, without(105), s)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.Column(105); !c.Null(0) || !c.Null(1) {
		t.Fatalf("%+v", c)
	}
	b, err = ToBatch(2, without(108), s)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.Column(108); c.Null(0) || c.Int[1] != 1700000000000000 {
		t.Fatalf("%+v", c)
	}
	b, err = ToBatch(2, without(111), s)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.Column(111); c.Rows() != 2 || !c.Null(1) {
		t.Fatalf("%+v", c)
	}
	b, err = ToBatch(2, without(schema.DynamicFieldID), s)
	if err != nil {
		t.Fatal(err)
	}
	if c := b.Column(schema.DynamicFieldID); !slices.Equal(c.Str, []string{"{}", "{}"}) {
		t.Fatalf("%+v", c)
	}
	for _, id := range []int64{100, 104, 107} {
		_, err = ToBatch(2, without(id), s)
		wantInvalid(t, err)
	}
	fewer := *s
	fewer.Fields = slices.Delete(slices.Clone(s.Fields), 3, 4)
	if b, err = ToBatch(2, fields, &fewer); err != nil || b.Column(103) != nil {
		t.Fatalf("%v", err)
	}
}

// TestTheNumberOfRowsIsNotBelieved: it would be allocated for fields that lack.
func TestTheNumberOfRowsIsNotBelieved(t *testing.T) {
	fields := FromBatch(rows(), everything())
	for _, n := range []int{-1, 0, 1, 3, 1 << 60} {
		_, err := ToBatch(n, fields[:1], everything())
		wantInvalid(t, err)
		_, err = ToBatch(n, fields, everything())
		wantInvalid(t, err)
	}
	_, err := ToBatch(1<<60, nil, everything())
	wantInvalid(t, err)
}

func TestValuesOfAnotherType(t *testing.T) {
	s := everything()
	all := FromBatch(rows(), s)
	for i, f := range s.Columns() {
		for j, d := range all {
			if s.Columns()[j].Type == f.Type && s.Columns()[j].Element == f.Element || f.Type.IsInt() && s.Columns()[j].Type.IsInt() ||
				(f.Type == schema.VarChar || f.Type == schema.JSON) && (s.Columns()[j].Type == schema.VarChar || s.Columns()[j].Type == schema.JSON) {
				continue
			}
			if _, err := ToColumn(d, f); !errclass.Is(err, errclass.Invalid) {
				t.Errorf("field %d takes values of %d: %v", i, j, err)
			}
		}
		if _, err := ToColumn(&qnpb.FieldData{}, f); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("field %d takes nothing: %v", i, err)
		}
	}
	_, err := ToColumn(&qnpb.FieldData{Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{1, 2}}}}, s.Fields[7])
	wantInvalid(t, err)
}

// TestASliceOfArrays goes out without the elements of other rows.
func TestASliceOfArrays(t *testing.T) {
	f, c := everything().Fields[10], rows().Column(111)
	if f.ID != 111 {
		t.Fatalf("field %d", f.ID)
	}
	c.AppendRow(c, 0)
	d := FromColumn(c.Slice(1, 3), f)
	got, err := ToColumn(d, f)
	if err != nil || !slices.Equal(got.Int, []int64{-128, 0, 127}) || !slices.Equal(got.Offsets, []int{0, 0, 3}) || !got.Null(0) || got.Null(1) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestArraysThatAreNot(t *testing.T) {
	f := everything().Fields[10]
	ints := func(n int) *qnpb.Arrays_Ints {
		return &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: make([]int64, n)}}
	}
	for _, a := range []*qnpb.Arrays{
		{Lengths: []uint32{2}, Elements: ints(1)}, {Lengths: []uint32{0}, Elements: ints(1)}, {Lengths: []uint32{1}},
		{Lengths: []uint32{math.MaxUint32, math.MaxUint32}, Elements: ints(1)}, {Lengths: []uint32{1}, Elements: &qnpb.Arrays_Bools{Bools: &qnpb.BoolArray{Values: []bool{true}}}},
	} {
		_, err := ToColumn(&qnpb.FieldData{Values: &qnpb.FieldData_Arrays{Arrays: a}}, f)
		wantInvalid(t, err)
	}
	c, err := ToColumn(&qnpb.FieldData{Values: &qnpb.FieldData_Arrays{Arrays: &qnpb.Arrays{Lengths: []uint32{0, 0}}}}, f)
	if err != nil || c.Rows() != 2 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestVectors(t *testing.T) {
	values := []float32{1, -2, float32(math.Inf(1)), 0.5}
	raw := RawVectors(values, 2)
	got, n, err := Vectors(raw)
	if err != nil || n != 2 || !slices.Equal(got, values) {
		t.Fatalf("%v, %d, %v", got, n, err)
	}
	// Bytes that do not lie on a multiple of four are copied.
	shifted := append([]byte{0}, raw.Raw...)[1:]
	if got, _, err = Vectors(&qnpb.FloatVectors{Dim: 2, Raw: shifted}); err != nil || !slices.Equal(got, values) {
		t.Fatalf("%v, %v", got, err)
	}
	if got, n, err = Vectors(&qnpb.FloatVectors{Dim: 4}); err != nil || n != 0 || len(got) != 0 {
		t.Fatalf("%v, %d, %v", got, n, err)
	}
	for _, bad := range []*qnpb.FloatVectors{
		nil, {}, {Dim: -1, Values: values}, {Dim: 3, Values: values}, {Dim: 3, Raw: raw.Raw}, {Dim: 2, Raw: raw.Raw[:15]},
		{Dim: 2, Raw: raw.Raw, Values: values}, {Dim: math.MaxInt32, Raw: raw.Raw},
	} {
		_, _, err := Vectors(bad)
		wantInvalid(t, err)
	}
}

func TestKeys(t *testing.T) {
	number, text := schema.Field{ID: 100, Name: "id", Type: schema.Int64}, schema.Field{ID: 100, Name: "id", Type: schema.VarChar}
	for _, c := range []*schema.Column{
		{FieldID: 100, Type: schema.Int64, Int: []int64{3, 1}},
		{FieldID: 100, Type: schema.VarChar, Str: []string{"b", ""}},
	} {
		f, other := number, text
		if c.Type == schema.VarChar {
			f, other = text, number
		}
		got, err := FromIDs(ToIDs(c), f)
		if err != nil || !reflect.DeepEqual(got, c) {
			t.Fatalf("%+v, %v", got, err)
		}
		_, err = FromIDs(ToIDs(c), other)
		wantInvalid(t, err)
	}
	_, err := FromIDs(nil, number)
	wantInvalid(t, err)
	_, err = FromIDs(&qnpb.Ids{}, text)
	wantInvalid(t, err)
}

// FuzzToBatch: whatever a message says, the result fits the schema or is an error.
func FuzzToBatch(f *testing.F) {
	s := everything()
	good, err := proto.Marshal(&qnpb.WalRows{Rows: 2, Fields: FromBatch(rows(), s)})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(good[:len(good)/2])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var body qnpb.WalRows
		if proto.Unmarshal(raw, &body) != nil {
			return
		}
		b, err := ToBatch(int(body.GetRows()), body.GetFields(), s)
		if err != nil {
			return
		}
		if err := b.Check(s); err != nil {
			t.Fatal(err)
		}
	})
}
