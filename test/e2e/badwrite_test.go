package e2e

import (
	"math"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// without is a row of rich that lacks fields.
func without(id int64, fields ...string) []*qnpb.FieldData {
	var row []*qnpb.FieldData
	for _, d := range richRow(id) {
		if !strings.Contains(" "+strings.Join(fields, " ")+" ", " "+d.GetField()+" ") {
			row = append(row, d)
		}
	}
	return row
}

// TestRowsThatDoNotFitAreRefused: nothing of a refused change is written.
func TestRowsThatDoNotFitAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	nan, inf := float32(math.NaN()), float32(math.Inf(-1))
	const bad, missing = codes.InvalidArgument, codes.NotFound
	row := func(changes ...*qnpb.FieldData) *qnpb.AppendRequest {
		return insertOf("rich", 1, richRow(100, changes...)...)
	}
	rawVectors := func(field string, dim int32, raw []byte) *qnpb.FieldData {
		return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: dim, Raw: raw}}}
	}
	both := vectors("v", 2, 1, 2)
	both.GetVectors().Raw = rawOf(1, 2)
	in := func(coll, part string) *qnpb.AppendRequest {
		r := row()
		r.Collection, r.Partition = coll, part
		return r
	}
	for _, c := range []struct {
		name string
		req  *qnpb.AppendRequest
		code codes.Code
		says string
	}{
		{"nothing to do", &qnpb.AppendRequest{Collection: "rich"}, bad, "insert, upsert or delete"},
		{"no collection", in("", ""), bad, "name is missing"},
		{"unknown collection", in("nope", ""), missing, `"nope"`},
		{"unknown partition", in("rich", "nope"), missing, "create it first"},
		{"no rows", insertOf("rich", 0, richRow(100)...), bad, "want at least 1"},
		{"rows negative", insertOf("rich", -1, richRow(100)...), bad, "rows is -1"},
		{"rows lies", insertOf("rich", 2, richRow(100)...), bad, "has 1 rows, the request says 2"},
		{"rows lies hugely", insertOf("rich", math.MaxInt64, richRow(100)...), bad, "rows is 9223372036854775807"},
		{"rows lies within 32 bits", insertOf("rich", math.MaxInt32, richRow(100)...), bad, "the request says 2147483647"},
		{"only rows", insertOf("rich", 1_000_000_000), bad, "no field has values"},
		{"two fields missing", insertOf("rich", 1, without(100, "small", "v")...), bad, `missing and not nullable: "small", "v"`},
		{"key missing", insertOf("rich", 1, without(100, "id")...), bad, `"id"`},
		{"field twice", insertOf("rich", 1, append(richRow(100), ints("small", 1))...), bad, `"small" is there twice`},
		{"unknown field", insertOf("rich", 1, append(richRow(100), ints("nope", 1))...), missing, `no field "nope"`},
		{"field without a name", insertOf("rich", 1, append(richRow(100), ints("", 1))...), missing, `no field ""`},
		{"field without values", row(&qnpb.FieldData{Field: "small"}), bad, "want values of type Int8, got nothing"},
		{"another type", row(texts("small", "1")), bad, "want values of type Int8, got strings"},
		{"ints for text", row(ints("text", 1)), bad, "want values of type VarChar, got ints"},
		{"int8 out of range", row(ints("small", 128)), bad, "row 0 is 128, out of range for Int8"},
		{"text too long", row(texts("text", "123456789")), bad, "9 bytes, max_length is 8"},
		{"null not allowed", row(nulls(ints("small", 0), false)), bad, "not nullable"},
		{"too few validity flags", insertOf("rich", 2, twice(nulls(texts("note", "a", "b"), true))...), bad, "1 validity flags for 2 rows"},
		{"too many validity flags", row(nulls(texts("note", "a"), true, true)), bad, "2 validity flags for 1 rows"},
		{"not JSON", row(texts("doc", `{"a":`)), bad, "not JSON"},
		{"JSON nested too deep", row(texts("doc", strings.Repeat("[", 100_000)+strings.Repeat("]", 100_000))), bad, `"doc": row 0 is nested more than 512 levels deep`},
		{"JSON nested deeper than filters read", row(texts("doc", `{"a\"[":"[{",`+strings.Repeat(`"a":{`, 512)+`"b":1`+strings.Repeat("}", 513))), bad, "more than 512 levels"},
		{"dynamic field nested too deep", row(texts("$meta", `{"a":`+strings.Repeat("[", 512)+strings.Repeat("]", 512)+"}")), bad, "more than 512 levels"},
		{"dynamic field not an object", row(texts("$meta", "[1]")), bad, "want an object"},
		{"dynamic field empty", row(texts("$meta", "")), bad, "not JSON"},
		{"NaN", row(vectors("v", 2, 1, nan)), bad, "row 0, dimension 1 is NaN"},
		{"Inf", row(vectors("v", 2, inf, 1)), bad, "row 0, dimension 0 is -Inf"},
		{"NaN in raw", row(rawVectors("v", 2, rawOf(nan, 0))), bad, "row 0, dimension 0 is NaN"},
		{"raw of odd length", row(rawVectors("v", 2, make([]byte, 9))), bad, "multiple of 8"},
		{"values and raw", row(both), bad, "not both"},
		{"wrong dimension", row(vectors("v", 3, 1, 2, 3)), bad, "dimension 3, want 2"},
		{"dim 0", row(vectors("v", 0, 1, 2)), bad, "dim is 0"},
		{"half a vector", row(vectors("v", 2, 1, 2, 3)), bad, "multiple of dim"},
		{"upsert without key", upsertOf("rich", 1, without(100, "id")...), bad, `"id"`},
		{"upsert, key null", upsertOf("rich", 1, richRow(100, nulls(ints("id", 1), false))...), bad, "not nullable"},
		{"upsert with a validity flag too few", upsertOf("rich", 2, twice(nulls(texts("note", "a", "b"), true))...), bad, "validity flags"},
		{"delete nothing", deleteOf("rich", &qnpb.DeleteOperation{}), bad, "ids or a filter"},
		{"delete no message", deleteOf("rich", nil), bad, "ids or a filter"},
		{"delete no keys", deleteOf("rich", &qnpb.DeleteOperation{Ids: intIDs()}), bad, "no keys"},
		{"delete keys of another type", deleteOf("rich", &qnpb.DeleteOperation{Ids: textIDs("x")}), bad, "send ints"},
		{"delete by both", deleteOf("rich", &qnpb.DeleteOperation{Ids: intIDs(1), Filter: "id == 2"}), bad, "not both"},
		{"delete in unknown partition", &qnpb.AppendRequest{Collection: "rich", Partition: "nope",
			Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{Ids: intIDs(1)}}}, missing, `"nope"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := n.write.Append(within(t), c.req)
			n.refuses(t, err, c.code, c.says)
		})
	}
	if c := n.count("rich"); c != 10 {
		t.Errorf("%d rows, want the 10 of before", c)
	}
	_, err := n.write.Flush(within(t), &qnpb.FlushRequest{Collection: "nope"})
	n.refuses(t, err, codes.NotFound, `"nope"`)

	// What is as deep as may be is read, and what stands behind it.
	must2(t)(n.write.Append(within(t), row(texts("doc", `{"a":`+strings.Repeat("[", 511)+strings.Repeat("]", 511)+`,"b":7}`))))
	if got := n.column(&qnpb.QueryRequest{Collection: "rich", Filter: `doc["b"] == 7`, OutputFields: []string{"id"}, Freshness: strong}, 0); len(got) != 1 || got[0] != 100 {
		t.Errorf("behind 512 levels: %v", got)
	}
}

// twice is two rows of rich.
func twice(change *qnpb.FieldData) []*qnpb.FieldData {
	rows := []*qnpb.FieldData{ints("id", 100, 101), ints("small", 1, 2), bools("flag", true, false), texts("text", "a", "b"),
		texts("doc", "1", "2"), vectors("v", 2, 1, 2, 3, 4), vectors("w", 3, 1, 2, 3, 4, 5, 6)}
	return append(rows, change)
}

// TestWhatMayBeLeftOut: nullable and dynamic fields, and keys that the node gives.
func TestWhatMayBeLeftOut(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	_, err := n.write.Append(within(t), insertOf("rich", 2, twice(nulls(texts("note", "", "kept"), false, true))...))
	must(t, err)
	_, err = n.write.Append(within(t), insertOf("rich", 1, without(102, "note")...))
	must(t, err)
	_, err = n.write.Append(within(t), insertOf("rich", 1, richRow(103, texts("$meta", ` {"color":"red"}`))...))
	must(t, err)
	for filter, want := range map[string]int{"note is null": 2, "note == 'kept'": 1, "id >= 100": 4, "color == 'red'": 1, `$meta["color"] == "red"`: 1} {
		if got := len(n.keys(t, "rich", filter)); got != want {
			t.Errorf("%s: %d rows, want %d", filter, got, want)
		}
	}

	_, err = n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "given", Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true, AutoId: true},
		{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2}}}})
	must(t, err)
	r, err := n.write.Append(within(t), insertOf("given", 2, vectors("v", 2, 1, 2, 3, 4)))
	must(t, err)
	ids := r.GetIds().GetInts().GetValues()
	if len(ids) != 2 || ids[0] >= ids[1] {
		t.Fatalf("keys given: %v", ids)
	}
	_, err = n.write.Append(within(t), insertOf("given", 1, ints("id", 1), vectors("v", 2, 1, 2)))
	n.refuses(t, err, codes.InvalidArgument, "leave it out")
	_, err = n.write.Append(within(t), upsertOf("given", 1, vectors("v", 2, 1, 2)))
	n.refuses(t, err, codes.InvalidArgument, `missing and not nullable: "id"`)
	_, err = n.write.Append(within(t), upsertOf("given", 1, ints("id", ids[0]), vectors("v", 2, 9, 9)))
	must(t, err)
	if got := n.keys(t, "given", ""); len(got) != 2 {
		t.Fatalf("after an upsert of a given key: %v", got)
	}
}

// keys returns the integer keys that match, read with STRONG.
func (n *testNode) keys(t *testing.T, coll, filter string) (ids []int64) {
	t.Helper()
	st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: coll, Filter: filter, Freshness: strong})
	must(t, err)
	for {
		r, err := st.Recv()
		must(t, err)
		if r.GetStats() != nil {
			return ids
		}
		ids = append(ids, r.GetFields()[0].GetInts().GetValues()...)
	}
}

// TestNumbersThatAreNotFiniteAreRefused: as Milvus does, in fields and in lists, by inserts and upserts. Where the
// row is null there is no number.
func TestNumbersThatAreNotFiniteAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	array := func(name string, element qnpb.DataType) *qnpb.FieldSchema {
		return &qnpb.FieldSchema{Name: name, Type: qnpb.DataType_DATA_TYPE_ARRAY, ElementType: element, MaxCapacity: 4}
	}
	fields := []*qnpb.FieldSchema{
		{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}, {Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2},
		{Name: "f", Type: qnpb.DataType_DATA_TYPE_FLOAT}, {Name: "d", Type: qnpb.DataType_DATA_TYPE_DOUBLE, Nullable: true},
		array("fs", qnpb.DataType_DATA_TYPE_FLOAT), array("ds", qnpb.DataType_DATA_TYPE_DOUBLE),
	}
	_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "numbers", Schema: &qnpb.CollectionSchema{Fields: fields}})
	must(t, err)
	floats := func(v ...float32) *qnpb.FloatArray { return &qnpb.FloatArray{Values: v} }
	doubles := func(v ...float64) *qnpb.DoubleArray { return &qnpb.DoubleArray{Values: v} }
	f := func(v ...float32) *qnpb.FieldData {
		return &qnpb.FieldData{Field: "f", Values: &qnpb.FieldData_Floats{Floats: floats(v...)}}
	}
	d := func(v ...float64) *qnpb.FieldData {
		return &qnpb.FieldData{Field: "d", Values: &qnpb.FieldData_Doubles{Doubles: doubles(v...)}}
	}
	fs := func(v ...float32) *qnpb.FieldData {
		return arraysOf("fs", []uint32{1, 2}, &qnpb.Arrays{Elements: &qnpb.Arrays_Floats{Floats: floats(v...)}})
	}
	ds := func(v ...float64) *qnpb.FieldData {
		return arraysOf("ds", []uint32{1, 2}, &qnpb.Arrays{Elements: &qnpb.Arrays_Doubles{Doubles: doubles(v...)}})
	}
	rows := func(changes ...*qnpb.FieldData) []*qnpb.FieldData {
		return append([]*qnpb.FieldData{ints("id", 1, 2), vectors("v", 2, 1, 2, 3, 4)}, changes...)
	}
	nan, inf := math.NaN(), math.Inf(1)
	for says, data := range map[string][]*qnpb.FieldData{
		`field "f": row 1 is NaN`:             rows(f(1, float32(nan)), d(1, 2), fs(1, 2, 3), ds(1, 2, 3)),
		`field "f": row 0 is -Inf`:            rows(f(float32(-inf), 1), d(1, 2), fs(1, 2, 3), ds(1, 2, 3)),
		`field "d": row 1 is +Inf`:            rows(f(1, 2), nulls(d(nan, inf), false, true), fs(1, 2, 3), ds(1, 2, 3)),
		`field "fs": row 1, element 0 is NaN`: rows(f(1, 2), d(1, 2), fs(1, float32(nan), 3), ds(1, 2, 3)),
		`field "ds": row 1, element 1 is NaN`: rows(f(1, 2), d(1, 2), fs(1, 2, 3), ds(1, 2, nan)),
	} {
		for how, req := range map[string]*qnpb.AppendRequest{"insert": insertOf("numbers", 2, data...), "upsert": upsertOf("numbers", 2, data...)} {
			if _, err := n.write.Append(within(t), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), says) {
				t.Errorf("%s: got %v, want %q", how, err, says)
			}
		}
	}
	_, err = n.write.Append(within(t), insertOf("numbers", 2, rows(f(math.MaxFloat32, 0), nulls(d(nan, -math.MaxFloat64), false, true), fs(1, 2, 3), ds(1, 2, 3))...))
	must(t, err)
	if got := n.keys(t, "numbers", "d is null or d < 0"); len(got) != 2 {
		t.Errorf("rows %v, want those two that were taken", got)
	}
}
