package e2e

import (
	"encoding/binary"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// rich is a collection with a field of every type, two vector fields and a
// dynamic field, and ten rows.
func (n *testNode) rich(t *testing.T) {
	t.Helper()
	_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "rich", Schema: &qnpb.CollectionSchema{Dynamic: true,
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "small", Type: qnpb.DataType_DATA_TYPE_INT8},
			{Name: "flag", Type: qnpb.DataType_DATA_TYPE_BOOL},
			{Name: "text", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 8},
			{Name: "note", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true},
			{Name: "doc", Type: qnpb.DataType_DATA_TYPE_JSON},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2},
			{Name: "w", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 3},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Metric: "L2"}, {Field: "w", Metric: "IP"}}})
	must(t, err)
	for i := range int64(10) {
		_, err := n.write.Append(within(t), insertOf("rich", 1, richRow(i)...))
		must(t, err)
	}
	n.pulse = &qnpb.SearchRequest{Collection: "rich", Field: "v", Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{0, 0}}, TopK: 1, Freshness: strong}
	n.alive(t)
}

// richRow is a row of rich; with changes, fields of the same names are replaced.
func richRow(id int64, changes ...*qnpb.FieldData) []*qnpb.FieldData {
	row := []*qnpb.FieldData{ints("id", id), ints("small", id), bools("flag", id%2 == 0), texts("text", "t"), texts("note", "n"),
		texts("doc", `{"a":1}`), vectors("v", 2, float32(id), 0), vectors("w", 3, 0, float32(id), 0)}
	for _, c := range changes {
		row = slices.DeleteFunc(row, func(d *qnpb.FieldData) bool { return d.GetField() == c.GetField() })
		row = append(row, c)
	}
	return row
}

func rawOf(v ...float32) []byte {
	var raw []byte
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return raw
}

// TestSearchesThatMakeNoSenseAreRefused: each is told what is wrong and what
// would be right, and the next search is answered.
func TestSearchesThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	vec := func(v ...float32) func(*qnpb.SearchRequest) {
		return func(r *qnpb.SearchRequest) { r.Vectors = &qnpb.FloatVectors{Dim: 2, Values: v} }
	}
	raw := func(b []byte) func(*qnpb.SearchRequest) {
		return func(r *qnpb.SearchRequest) { r.Vectors = &qnpb.FloatVectors{Dim: 2, Raw: b} }
	}
	const bad, missing = codes.InvalidArgument, codes.NotFound
	for _, c := range []struct {
		name   string
		change func(*qnpb.SearchRequest)
		code   codes.Code
		says   string
	}{
		{"no collection", func(r *qnpb.SearchRequest) { r.Collection = "" }, bad, "name is missing"},
		{"unknown collection", func(r *qnpb.SearchRequest) { r.Collection = "nope" }, missing, `"nope"`},
		{"unknown field", func(r *qnpb.SearchRequest) { r.Field = "nope" }, missing, `"nope"`},
		{"not a vector field", func(r *qnpb.SearchRequest) { r.Field = "small" }, bad, "not a vector"},
		{"which vector field", func(r *qnpb.SearchRequest) { r.Field = "" }, bad, "name the one to search"},
		{"unknown partition", func(r *qnpb.SearchRequest) { r.Partitions = []string{"nope"} }, missing, `no partition "nope"`},
		{"unknown output field", func(r *qnpb.SearchRequest) { r.OutputFields = []string{"no-pe"} }, missing, `"no-pe"`},
		{"unknown metric", func(r *qnpb.SearchRequest) { r.Metric = "HAMMING" }, bad, "L2"},
		{"another metric than the index's", func(r *qnpb.SearchRequest) { r.Metric = "COSINE" }, bad, "indexed by L2"},
		{"unknown consistency", func(r *qnpb.SearchRequest) { r.Freshness = &qnpb.Freshness{Level: 9} }, bad, "consistency level"},
		{"read in the far future", func(r *qnpb.SearchRequest) { r.Freshness = &qnpb.Freshness{ReadTimestamp: math.MaxUint64} }, bad, "ahead of this node's clock"},
		{"guarantee in nanoseconds", func(r *qnpb.SearchRequest) {
			r.Freshness = &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_SESSION, GuaranteeTimestamp: 1_795_000_000_000_000_000}
		}, bad, "ahead of this node's clock"},

		{"no vectors message", func(r *qnpb.SearchRequest) { r.Vectors = nil }, bad, "missing"},
		{"no vectors", vec(), bad, "at least one"},
		{"dim 0", func(r *qnpb.SearchRequest) { r.Vectors.Dim = 0 }, bad, "dim is 0"},
		{"dim negative", func(r *qnpb.SearchRequest) { r.Vectors.Dim = math.MinInt32 }, bad, "dim is -2147483648"},
		{"dim huge", func(r *qnpb.SearchRequest) { r.Vectors.Dim = math.MaxInt32 }, bad, "multiple of dim"},
		{"wrong dimension", func(r *qnpb.SearchRequest) { r.Vectors = &qnpb.FloatVectors{Dim: 3, Values: make([]float32, 3)} }, bad, `dimension 3, field "v" has 2`},
		{"half a vector", vec(1, 2, 3), bad, "multiple of dim 2"},
		{"raw of odd length", raw(make([]byte, 7)), bad, "multiple of 8"},
		{"values and raw", func(r *qnpb.SearchRequest) { r.Vectors.Raw = make([]byte, 8) }, bad, "not both"},
		{"NaN", vec(1, nan), bad, "vector 0, dimension 1 is NaN"},
		{"Inf", vec(1, 2, inf, 0), bad, "vector 1, dimension 0 is +Inf"},
		{"NaN in raw", raw(rawOf(1, nan)), bad, "vector 0, dimension 1 is NaN"},
		{"Inf in raw", raw(rawOf(-inf, 0)), bad, "vector 0, dimension 0 is -Inf"},
		{"too many vectors", vec(make([]float32, 2*16385)...), bad, "at most 16384"},

		{"top_k 0", func(r *qnpb.SearchRequest) { r.TopK = 0 }, bad, "top_k is 0, want 1 to 16384"},
		{"top_k -1", func(r *qnpb.SearchRequest) { r.TopK = -1 }, bad, "top_k is -1"},
		{"top_k 1e9", func(r *qnpb.SearchRequest) { r.TopK = 1e9 }, bad, "at most 16384"},
		{"top_k overflows", func(r *qnpb.SearchRequest) { r.TopK, r.Offset = math.MaxInt64, math.MaxInt64 }, bad, "at most 16384"},
		{"offset -1", func(r *qnpb.SearchRequest) { r.Offset = -1 }, bad, "offset is -1"},
		{"top_k + offset", func(r *qnpb.SearchRequest) { r.TopK, r.Offset = 16000, 1000 }, bad, "at most 16384"},
		{"ef -1", func(r *qnpb.SearchRequest) { r.Ef = -1 }, bad, "ef is -1, want 0 to 32768"},
		{"ef huge", func(r *qnpb.SearchRequest) { r.Ef = math.MaxInt32 }, bad, "want 0 to 32768"},
		{"ef below top_k", func(r *qnpb.SearchRequest) { r.TopK, r.Ef = 100, 10 }, bad, "at least top_k"},
		{"round_decimal 7", func(r *qnpb.SearchRequest) { r.RoundDecimal = proto.Int32(7) }, bad, "want 0 to 6"},
		{"radius NaN", func(r *qnpb.SearchRequest) { r.Radius = &nan }, bad, "radius is NaN"},
		{"range_filter NaN", func(r *qnpb.SearchRequest) { r.RangeFilter = &nan }, bad, "range_filter is NaN"},
		{"empty range", func(r *qnpb.SearchRequest) { r.Radius, r.RangeFilter = proto.Float32(1), proto.Float32(2) }, bad, "no score is"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := proto.Clone(n.pulse).(*qnpb.SearchRequest)
			r.Freshness = nil
			c.change(r)
			_, err := n.query.Search(within(t), r)
			n.refuses(t, err, c.code, c.says)
		})
	}
}

// TestFiltersThatMakeNoSenseAreRefused: the message points at the place, and the
// details carry it for tools.
func TestFiltersThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	for _, c := range []struct {
		name, filter string
		values       map[string]*qnpb.Value
		says, column string
	}{
		{"does not parse", "small > ", nil, "column 9", "9"},
		{"second line", "small > 1 and\n  flag ==", nil, "line 2, column 10", "10"},
		{"wrong type", "text > 7", nil, "column", "6"},
		{"a number alone", "small", nil, "column 1", "1"},
		{"a vector", "v == 1", nil, "column 1", "1"},
		{"no value for a variable", "small > {limit}", nil, "{limit}", "9"},
		{"value of another type", "small > {limit}", map[string]*qnpb.Value{"limit": {Kind: &qnpb.Value_StringValue{StringValue: "x"}}}, "column", "7"},
		{"nested 10,000 deep", strings.Repeat("(", 10_000) + "flag" + strings.Repeat(")", 10_000), nil, "256 levels deep", ""},
		{"not 10,000 times", strings.Repeat("not ", 10_000) + "flag", nil, "256 levels deep", ""},
		{"10,000 open lists", "small in " + strings.Repeat("[", 10_000), nil, "256 levels deep", ""},
		{"not text", "\x00\x01", nil, "column 1", "1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := proto.Clone(n.pulse).(*qnpb.SearchRequest)
			r.Filter, r.FilterValues = c.filter, c.values
			_, err := n.query.Search(within(t), r)
			info := n.refuses(t, err, codes.InvalidArgument, "filter: ", c.says)
			if info["filter_column"] == "" || info["filter_offset"] == "" || (c.column != "" && info["filter_column"] != c.column) {
				t.Errorf("details are %v, want column %q", info, c.column)
			}
			st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: "rich", Filter: c.filter, FilterValues: c.values})
			must(t, err)
			_, err = st.Recv()
			n.refuses(t, err, codes.InvalidArgument, "filter: ", c.says)
			_, err = n.write.Append(within(t), deleteOf("rich", &qnpb.DeleteOperation{Filter: c.filter, FilterValues: c.values}))
			n.refuses(t, err, codes.InvalidArgument, "filter: ", c.says)
		})
	}
	r := proto.Clone(n.pulse).(*qnpb.SearchRequest)
	r.Filter, r.FilterValues = "small > {limit}", map[string]*qnpb.Value{"limit": {}}
	_, err := n.query.Search(within(t), r)
	n.refuses(t, err, codes.InvalidArgument, `"limit" is not set`)
}

// TestQueriesAndGetsThatMakeNoSenseAreRefused goes through the scalar reads.
func TestQueriesAndGetsThatMakeNoSenseAreRefused(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	const bad, missing = codes.InvalidArgument, codes.NotFound
	for _, c := range []struct {
		name string
		req  *qnpb.QueryRequest
		code codes.Code
		says string
	}{
		{"unknown collection", &qnpb.QueryRequest{Collection: "nope"}, missing, `"nope"`},
		{"unknown partition", &qnpb.QueryRequest{Collection: "rich", Partitions: []string{"nope"}}, missing, `"nope"`},
		{"unknown output field", &qnpb.QueryRequest{Collection: "rich", OutputFields: []string{"no-pe"}}, missing, `"no-pe"`},
		{"negative limit", &qnpb.QueryRequest{Collection: "rich", Limit: -1}, bad, "limit -1"},
		{"negative offset", &qnpb.QueryRequest{Collection: "rich", Offset: math.MinInt64}, bad, "want 0 or more"},
		{"count with fields", &qnpb.QueryRequest{Collection: "rich", OutputFields: []string{"count(*)", "id"}}, bad, "beside aggregates"},
		{"count with limit", &qnpb.QueryRequest{Collection: "rich", OutputFields: []string{"count(*)"}, Limit: 1}, bad, "no limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			st, err := n.query.Query(within(t), c.req)
			must(t, err)
			_, err = st.Recv()
			n.refuses(t, err, c.code, c.says)
		})
	}
	for _, c := range []struct {
		name string
		req  *qnpb.GetRequest
		code codes.Code
		says string
	}{
		{"no ids", &qnpb.GetRequest{Collection: "rich"}, bad, "send ints"},
		{"empty ids", &qnpb.GetRequest{Collection: "rich", Ids: intIDs()}, bad, "want 1 to 16384"},
		{"too many ids", &qnpb.GetRequest{Collection: "rich", Ids: intIDs(make([]int64, 16385)...)}, bad, "want 1 to 16384"},
		{"ids of another type", &qnpb.GetRequest{Collection: "rich", Ids: textIDs("x")}, bad, "send ints"},
		{"unknown field", &qnpb.GetRequest{Collection: "rich", Ids: intIDs(1), OutputFields: []string{"no-pe"}}, missing, `"no-pe"`},
		{"unknown partition", &qnpb.GetRequest{Collection: "rich", Ids: intIDs(1), Partitions: []string{"nope"}}, missing, `"nope"`},
	} {
		t.Run("get: "+c.name, func(t *testing.T) {
			_, err := n.query.Get(within(t), c.req)
			n.refuses(t, err, c.code, c.says)
		})
	}
	r, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "rich", Ids: intIDs(7, 3, 999, 3), Freshness: strong})
	must(t, err)
	if got := r.GetFields()[0].GetInts().GetValues(); !slices.Equal(got, []int64{3, 7}) {
		t.Fatalf("get of 7, 3, an unknown key and 3 again: %v", got)
	}
}

// TestASearchThatAsksForTooMuch: each number is allowed, their product is not.
func TestASearchThatAsksForTooMuch(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{memory: 96 << 20})
	n.items("items", 1)
	must2(t)(n.catalog.DropIndex(within(t), &qnpb.DropIndexRequest{Collection: "items", Index: "v_index"}))
	for at := int64(0); at < 16_000; at += 4000 {
		n.insert("items", seq(at, at+4000))
	}
	n.pulse = &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 1, Freshness: strong}
	n.alive(t)
	search := func(vectors int) error {
		_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", TopK: 16_000, OutputFields: []string{"*"}, Freshness: strong,
			Vectors: &qnpb.FloatVectors{Dim: dim, Raw: make([]byte, 4*dim*vectors)}})
		return err
	}
	n.refuses(t, search(2000), codes.InvalidArgument, "at most 100.0 MiB are sent")
	n.refuses(t, search(120), codes.ResourceExhausted, "memory") // less is sent than that, but this node has not as much
}
