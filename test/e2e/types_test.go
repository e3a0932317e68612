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
	data := append(slices.Clone(l.rows), ints("id", seq(0, lifeRows)...))
	if !slices.ContainsFunc(data, func(d *qnpb.FieldData) bool { return d.GetField() == "v" }) {
		data = append(data, vectors("v", 2, make([]float32, 2*lifeRows)...))
	}
	n.put(t, coll, lifeRows, data)
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

// TestFieldsAddedLater: rows of before, sealed, growing or still in the log, read
// as the default value or null.
func TestFieldsAddedLater(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1)
	n.insert("items", seq(0, 3))
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(3, 6))
	add := func(f *qnpb.FieldSchema) *qnpb.Collection {
		r, err := n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: f})
		must(t, err)
		return r.GetCollection()
	}
	add(&qnpb.FieldSchema{Name: "stock", Type: qnpb.DataType_DATA_TYPE_INT32, DefaultValue: &qnpb.Value{Kind: &qnpb.Value_IntValue{IntValue: 9}}})
	c := add(&qnpb.FieldSchema{Name: "tags", Type: qnpb.DataType_DATA_TYPE_ARRAY, ElementType: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true})
	if s := c.GetSchema(); s.GetVersion() != 3 || len(s.GetFields()) != 6 || s.GetFields()[5].GetId() == 0 {
		t.Fatalf("%v", s)
	}
	_, err := n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: &qnpb.FieldSchema{Name: "x", Type: qnpb.DataType_DATA_TYPE_INT8}})
	n.refuses(t, err, codes.InvalidArgument, "nullable or give it a default value")
	n.insert("items", seq(6, 8)) // by a client that does not know of them
	n.put(t, "items", 2, append(rows([]int64{8, 9}, 0), ints("stock", 1, 2),
		arraysOf("tags", []uint32{1, 0}, &qnpb.Arrays{Elements: &qnpb.Arrays_Strings{Strings: &qnpb.StringArray{Values: []string{"new"}}}})))
	look := func(state string) {
		t.Helper()
		got := n.read(t, "items", "")
		if s := got["stock"].GetInts().GetValues(); !slices.Equal(s, []int64{9, 9, 9, 9, 9, 9, 9, 9, 1, 2}) {
			t.Errorf("%s: stock %v", state, s)
		}
		if v := got["tags"].GetValid(); !slices.Equal(v, []bool{false, false, false, false, false, false, false, false, true, true}) {
			t.Errorf("%s: tags %v", state, got["tags"])
		}
		for filter, keys := range map[string][]int64{
			"stock == 9": seq(0, 8), "stock < 9": {8, 9}, "tags is null": seq(0, 8), `array_contains(tags, "new")`: {8}, "array_length(tags) == 0": {9},
		} {
			if got := n.read(t, "items", filter)["id"].GetInts().GetValues(); !slices.Equal(got, keys) {
				t.Errorf("%s: %s: %v, want %v", state, filter, got, keys)
			}
		}
		if got := n.nearest("items", vectorOf(4, 0), 1, "stock == 9"); !slices.Equal(got, []int64{4}) {
			t.Errorf("%s: nearest %v", state, got)
		}
	}
	look("growing and sealed")
	n.stop()
	n = start(t, dir, options{}) // the log is replayed with the new schema
	look("after a restart")
	n.flush("items")
	n.handedOff("items")
	look("sealed")
	n.stop()
	n = start(t, dir, options{})
	look("after another restart")
	n.stop()
}

// TestFieldsDropped: what was in them is never seen again, not by a field that gets the
// name later either; rows with them in files, in memory and in the log are as good as others.
func TestFieldsDropped(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1) // id, price, text, v
	drop := func(field string) (*qnpb.DropFieldResponse, error) {
		return n.catalog.DropField(within(t), &qnpb.DropFieldRequest{Collection: "items", Field: field})
	}
	n.insert("items", seq(0, 3))
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(3, 6))
	must2(t)(n.catalog.CreateIndex(within(t), &qnpb.CreateIndexRequest{Collection: "items", Index: &qnpb.IndexSpec{Field: "price", Type: "INVERTED"}}))
	c, err := drop("price")
	must(t, err)
	if s := c.GetCollection().GetSchema(); s.GetVersion() != 2 || slices.ContainsFunc(s.GetFields(), func(f *qnpb.FieldSchema) bool { return f.GetName() == "price" }) {
		t.Fatalf("%v", s)
	}
	_, err = n.write.Append(within(t), insertOf("items", 1, rows([]int64{6}, 0)...))
	n.refuses(t, err, codes.NotFound, `"price"`)
	n.put(t, "items", 2, rows([]int64{6, 7}, 0)) // without it
	look := func(state string, keys []int64) {
		t.Helper()
		got := n.read(t, "items", "")
		if got["price"] != nil || !slices.Equal(got["id"].GetInts().GetValues(), keys) {
			t.Errorf("%s: %v", state, got)
		}
		st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: "items", Filter: "price > 0", Freshness: strong})
		must(t, err)
		_, err = st.Recv()
		n.refuses(t, err, codes.InvalidArgument, `unknown field "price"`)
		if got := n.nearest("items", vectorOf(6, 0), 1, "id < 7"); !slices.Equal(got, []int64{6}) {
			t.Errorf("%s: nearest %v", state, got)
		}
	}
	look("growing and sealed", seq(0, 8))
	n.stop()
	n = start(t, dir, options{}) // rows with the field are in the log
	look("after a restart", seq(0, 8))
	_, err = drop("price")
	n.refuses(t, err, codes.NotFound, `no field "price"`)

	must2(t)(n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: &qnpb.FieldSchema{Name: "price", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true}}))
	n.put(t, "items", 1, append(slices.DeleteFunc(rows([]int64{8}, 0), func(f *qnpb.FieldData) bool { return f.GetField() == "price" }), texts("price", "dear")))
	again := func(state string) {
		t.Helper()
		got := n.read(t, "items", "")["price"]
		if v := got.GetValid(); len(v) != 9 || slices.Contains(v[:8], true) || !v[8] || got.GetStrings().GetValues()[8] != "dear" {
			t.Errorf("%s: price %v", state, got)
		}
		if keys := n.read(t, "items", `price is null`)["id"].GetInts().GetValues(); !slices.Equal(keys, seq(0, 8)) {
			t.Errorf("%s: without a price: %v", state, keys)
		}
	}
	again("growing and sealed")
	n.flush("items")
	n.handedOff("items")
	again("sealed")
	must2(t)(n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"}))
	again("compacted")
	n.stop()
	n = start(t, dir, options{})
	again("after another restart")
	n.stop()
}

// TestFieldsDroppedUnderReaders: who reads meanwhile is answered, or told that the
// field is not there.
func TestFieldsDroppedUnderReaders(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 1)
	n.insert("items", seq(0, 50))
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(50, 100))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", TopK: 5, Filter: "price >= 0", OutputFields: []string{"price"},
				Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, Freshness: strong})
			if c := codeOf(err); err != nil && c != codes.InvalidArgument && c != codes.NotFound && c != codes.Unavailable && c != codes.FailedPrecondition {
				done <- err
				return
			}
		}
	}()
	for range 5 {
		must2(t)(n.catalog.DropField(within(t), &qnpb.DropFieldRequest{Collection: "items", Field: "price"}))
		must2(t)(n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: &qnpb.FieldSchema{Name: "price", Type: qnpb.DataType_DATA_TYPE_INT64, Nullable: true}}))
	}
	close(stop)
	must(t, <-done)
	n.put(t, "items", 1, rows([]int64{100}, 0)) // into the segment that has rows with the first of the fields
	if keys := n.read(t, "items", "price is null")["id"].GetInts().GetValues(); !slices.Equal(keys, seq(0, 100)) {
		t.Errorf("rows without a price: %v", keys)
	}
	if keys := n.read(t, "items", "price == 1000")["id"].GetInts().GetValues(); !slices.Equal(keys, []int64{100}) {
		t.Errorf("rows with the price of row 100: %v", keys)
	}
}

// TestFieldsAddedUnderWriters: rows written with a field are never without it,
// whoever learns of it first.
func TestFieldsAddedUnderWriters(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.items("items", 2)
	const fields, each = 4, 25
	next := int64(0)
	for f := range fields {
		name := string(rune('a' + f))
		done := make(chan error, 1)
		go func() {
			_, err := n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: &qnpb.FieldSchema{
				Name: name, Type: qnpb.DataType_DATA_TYPE_INT64, Nullable: true}})
			done <- err
		}()
		for told := false; !told || next%each != 0; next++ {
			_, err := n.write.Append(within(t), insertOf("items", 1, append(rows([]int64{next}, 0), ints(name, next))...))
			if codeOf(err) == codes.NotFound {
				next-- // it is not there yet
			} else {
				must(t, err)
			}
			if !told {
				select {
				case err := <-done:
					must(t, err)
					told = true
				default:
				}
			}
		}
	}
	got := n.read(t, "items", "")
	for i := range next {
		set := 0
		for f := range fields {
			d := got[string(rune('a'+f))]
			if d.GetValid()[i] && d.GetInts().GetValues()[i] == i {
				set++
			}
		}
		if set != 1 {
			t.Fatalf("row %d has %d of the fields, want the one it was written with", i, set)
		}
	}
}
