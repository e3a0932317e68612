package e2e

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// life is a collection whose rows have to be the same in every state of its
// segments: growing, sealed, and after a restart.
type life struct {
	fields []*qnpb.FieldSchema // besides "id", and "v" unless there is a vector field
	index  []*qnpb.IndexSpec
	rows   []*qnpb.FieldData  // with the key 0, 1, ...
	want   []*qnpb.FieldData  // what is read; nil = rows
	filter map[string][]int64 // keys that match
	check  func(t *testing.T, n *testNode, coll string)
}

const lifeRows = 6

func (l *life) create(t *testing.T, n *testNode, coll string) {
	t.Helper()
	fields := append([]*qnpb.FieldSchema{{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}}, l.fields...)
	if !slices.ContainsFunc(fields, func(f *qnpb.FieldSchema) bool { return f.GetType() >= 100 }) {
		fields = append(fields, &qnpb.FieldSchema{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2})
	}
	_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: coll, Indexes: l.index, Schema: &qnpb.CollectionSchema{Fields: fields}})
	must(t, err)
	n.put(t, coll, lifeRows, append(l.rows, ints("id", seq(0, lifeRows)...), vectors("v", 2, make([]float32, 2*lifeRows)...)))
}

// put inserts those of the fields that the collection has.
func (n *testNode) put(t *testing.T, coll string, rows int64, fields []*qnpb.FieldData) {
	t.Helper()
	d, err := n.catalog.DescribeCollection(within(t), &qnpb.DescribeCollectionRequest{Collection: coll})
	must(t, err)
	fields = slices.DeleteFunc(fields, func(f *qnpb.FieldData) bool {
		return !slices.ContainsFunc(d.GetCollection().GetSchema().GetFields(), func(s *qnpb.FieldSchema) bool { return s.GetName() == f.GetField() })
	})
	_, err = n.write.Append(within(t), insertOf(coll, rows, fields...))
	must(t, err)
}

// read returns the fields of all rows that match, in order of their keys.
func (n *testNode) read(t *testing.T, coll, filter string) map[string]*qnpb.FieldData {
	t.Helper()
	st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: coll, Filter: filter, OutputFields: []string{"*"}, Freshness: strong})
	must(t, err)
	out := map[string]*qnpb.FieldData{}
	for {
		r, err := st.Recv()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("%s: %v", filter, err)
		}
		for _, f := range r.GetFields() {
			if out[f.GetField()] != nil {
				t.Fatalf("field %s comes in pieces", f.GetField())
			}
			out[f.GetField()] = f
		}
	}
}

func (l *life) look(t *testing.T, n *testNode, coll, state string) {
	t.Helper()
	want := l.want
	if want == nil {
		want = l.rows
	}
	got := n.read(t, coll, "")
	for _, w := range want {
		g := got[w.GetField()]
		if g == nil {
			t.Fatalf("%s: no field %s", state, w.GetField())
		}
		g.FieldId = 0
		if !slices.Contains(g.GetValid(), false) {
			g.Valid = nil
		}
		w = proto.CloneOf(w)
		if !slices.Contains(w.GetValid(), false) {
			w.Valid = nil
		}
		if !proto.Equal(g, w) {
			t.Errorf("%s: field %s is\n%v, want\n%v", state, w.GetField(), g, w)
		}
	}
	for filter, keys := range l.filter {
		if got := n.read(t, coll, filter)["id"].GetInts().GetValues(); !slices.Equal(got, keys) {
			t.Errorf("%s: %s: %v, want %v", state, filter, got, keys)
		}
	}
	if l.check != nil {
		l.check(t, n, coll)
	}
}

// live takes the rows through their states.
func (l *life) live(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	n := start(t, dir, options{})
	l.create(t, n, "things")
	l.look(t, n, "things", "growing")
	n.flush("things")
	n.handedOff("things")
	l.look(t, n, "things", "sealed")
	n.stop()
	n = start(t, dir, options{})
	l.look(t, n, "things", "after a restart")
	n.stop()
}

// arraysOf is a column of arrays; elements is set by the caller.
func arraysOf(field string, lengths []uint32, a *qnpb.Arrays) *qnpb.FieldData {
	a.Lengths = lengths
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_Arrays{Arrays: a}}
}

// TestArraysAndTimes: what goes in comes out, in every state of a segment.
func TestArraysAndTimes(t *testing.T) {
	t.Parallel()
	const array = qnpb.DataType_DATA_TYPE_ARRAY
	lengths := []uint32{1, 0, 3, 0, 2, 1}
	some := []bool{true, false, true, true, true, true}
	intsOf := func(v ...int64) *qnpb.Arrays_Ints { return &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: v}} }
	l := &life{
		fields: []*qnpb.FieldSchema{
			{Name: "ab", Type: array, ElementType: qnpb.DataType_DATA_TYPE_BOOL},
			{Name: "a8", Type: array, ElementType: qnpb.DataType_DATA_TYPE_INT8, MaxCapacity: 3, Nullable: true},
			{Name: "a64", Type: array, ElementType: qnpb.DataType_DATA_TYPE_INT64},
			{Name: "af", Type: array, ElementType: qnpb.DataType_DATA_TYPE_FLOAT, Nullable: true},
			{Name: "ad", Type: array, ElementType: qnpb.DataType_DATA_TYPE_DOUBLE},
			{Name: "at", Type: array, ElementType: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 8, Nullable: true},
			{Name: "when", Type: qnpb.DataType_DATA_TYPE_TIMESTAMPTZ, Nullable: true},
		},
		rows: []*qnpb.FieldData{
			arraysOf("ab", lengths, &qnpb.Arrays{Elements: &qnpb.Arrays_Bools{Bools: &qnpb.BoolArray{Values: []bool{true, false, true, false, true, true, false}}}}),
			nulls(arraysOf("a8", lengths, &qnpb.Arrays{Elements: intsOf(-128, 1, 2, 3, 4, 5, 127)}), some...),
			arraysOf("a64", lengths, &qnpb.Arrays{Elements: intsOf(-1<<63, 1, 2, 3, 4, 5, 1<<62)}),
			nulls(arraysOf("af", lengths, &qnpb.Arrays{Elements: &qnpb.Arrays_Floats{Floats: &qnpb.FloatArray{Values: []float32{.5, 1, 2, 3, 4, 5, 6}}}}), some...),
			arraysOf("ad", lengths, &qnpb.Arrays{Elements: &qnpb.Arrays_Doubles{Doubles: &qnpb.DoubleArray{Values: []float64{.25, 1, 2, 3, 4, 5, 6}}}}),
			nulls(arraysOf("at", lengths, &qnpb.Arrays{Elements: &qnpb.Arrays_Strings{Strings: &qnpb.StringArray{Values: []string{"a", "b", "", "grün", "b", "a", "z"}}}}), some...),
			nulls(ints("when", 0, 0, -1, 1_700_000_000_000_000, 5, 6), true, false, true, true, true, true),
		},
		filter: map[string][]int64{
			`array_contains(at, "b")`: {2, 4},
			`array_length(a8) == 0`:   {3},
			`a8 is null`:              {1},
			`a64[1] == 5`:             {4},
			`when == ISO "1970-01-01T00:00:00.000006Z" or a8[2] == 3`: {2, 5},
		},
	}
	l.live(t)
}

// TestDefaultsInPlaceOfNulls: rows that leave a field out, or have it null, get
// its default value.
func TestDefaultsInPlaceOfNulls(t *testing.T) {
	t.Parallel()
	value := func(v *qnpb.Value) *qnpb.Value { return v }
	l := &life{
		fields: []*qnpb.FieldSchema{
			{Name: "n", Type: qnpb.DataType_DATA_TYPE_INT32, DefaultValue: value(&qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: 7}})},
			{Name: "s", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true, DefaultValue: value(&qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: "none"}})},
			{Name: "f", Type: qnpb.DataType_DATA_TYPE_DOUBLE, DefaultValue: value(&qnpb.Value{Kind: &qnpb.Value_DoubleValue{DoubleValue: .5}})},
			{Name: "when", Type: qnpb.DataType_DATA_TYPE_TIMESTAMPTZ, DefaultValue: value(&qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: "1970-01-01T00:00:01Z"}})},
		},
		rows: []*qnpb.FieldData{
			nulls(ints("n", 1, 0, 3, 0, 5, 6), true, false, true, false, true, true),
			nulls(texts("s", "a", "", "c", "d", "e", "f"), true, false, true, true, true, true),
		},
		want: []*qnpb.FieldData{
			ints("n", 1, 7, 3, 7, 5, 6), texts("s", "a", "none", "c", "d", "e", "f"), ints("when", slices.Repeat([]int64{1_000_000}, lifeRows)...),
		},
		filter: map[string][]int64{`n == 7`: {1, 3}, `s == "none"`: {1}, `f == 0.5`: seq(0, lifeRows), `s is null`: nil},
	}
	l.live(t)
}

func TestFieldsThatCannotBe(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	for says, f := range map[string]*qnpb.FieldSchema{
		"an array holds":        {Type: qnpb.DataType_DATA_TYPE_ARRAY, ElementType: qnpb.DataType_DATA_TYPE_JSON},
		"max_capacity 4097":     {Type: qnpb.DataType_DATA_TYPE_ARRAY, ElementType: qnpb.DataType_DATA_TYPE_INT8, MaxCapacity: 4097},
		"are for arrays":        {Type: qnpb.DataType_DATA_TYPE_INT8, MaxCapacity: 1},
		"is not of type Int8":   {Type: qnpb.DataType_DATA_TYPE_INT8, DefaultValue: &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: "x"}}},
		"out of range for Int8": {Type: qnpb.DataType_DATA_TYPE_INT8, DefaultValue: &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: 128}}},
		"want RFC 3339":         {Type: qnpb.DataType_DATA_TYPE_TIMESTAMPTZ, DefaultValue: &qnpb.Value{Kind: &qnpb.Value_StringValue{StringValue: "noon"}}},
		"one value, not a list": {Type: qnpb.DataType_DATA_TYPE_INT8, DefaultValue: &qnpb.Value{Kind: &qnpb.Value_Ints{}}},
		"unknown type 22000":    {Type: 22000},
	} {
		f.Name = "f"
		_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "bad", Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}, f, {Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2}}}})
		n.refuses(t, err, codes.InvalidArgument, says)
	}
	l := &life{fields: []*qnpb.FieldSchema{{Name: "a", Type: qnpb.DataType_DATA_TYPE_ARRAY, ElementType: qnpb.DataType_DATA_TYPE_INT8, MaxCapacity: 2}},
		rows: []*qnpb.FieldData{arraysOf("a", make([]uint32, lifeRows), &qnpb.Arrays{})}}
	l.create(t, n, "arrays")
	for says, d := range map[string]*qnpb.FieldData{
		"row 0 has 3 elements":  arraysOf("a", []uint32{3}, &qnpb.Arrays{Elements: &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: []int64{1, 2, 3}}}}),
		"element 1 is 128":      arraysOf("a", []uint32{2}, &qnpb.Arrays{Elements: &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: []int64{1, 128}}}}),
		"add up to 4294967295":  arraysOf("a", []uint32{1<<32 - 1}, &qnpb.Arrays{Elements: &qnpb.Arrays_Ints{Ints: &qnpb.Int64Array{Values: []int64{1}}}}),
		"elements of type Int8": arraysOf("a", []uint32{1}, &qnpb.Arrays{Elements: &qnpb.Arrays_Bools{Bools: &qnpb.BoolArray{Values: []bool{true}}}}),
		"got ints":              ints("a", 1),
		"has 2 rows":            arraysOf("a", []uint32{0, 0}, &qnpb.Arrays{}),
	} {
		_, err := n.write.Append(within(t), insertOf("arrays", 1, ints("id", 100), vectors("v", 2, 1, 2), d))
		n.refuses(t, err, codes.InvalidArgument, strings.Split(says, "|")...)
	}
}
