package e2e

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// score is what the metric says of two vectors, in double precision.
func score(metric string, a, b []float32) float64 {
	var dot, aa, bb, l2 float64
	for i := range a {
		x, y := float64(a[i]), float64(b[i])
		dot, aa, bb, l2 = dot+x*y, aa+x*x, bb+y*y, l2+(x-y)*(x-y)
	}
	switch metric {
	case "L2":
		return l2
	case "IP":
		return dot
	}
	return dot / math.Sqrt(aa*bb)
}

// best returns the k best scores, best first.
func best(metric string, q []float32, base [][]float32, k int) []float64 {
	var all []float64
	for _, v := range base {
		all = append(all, score(metric, q, v))
	}
	slices.Sort(all)
	if metric != "L2" {
		slices.Reverse(all)
	}
	return all[:min(k, len(all))]
}

func near(a, b float64) bool { return math.Abs(a-b) <= 1e-5*max(1, math.Abs(b)) }

// TestScoresAreThoseOfBruteForce: three metrics, two vector fields of different
// dimensions, keys that are text, values and raw, growing and sealed, offset and
// range: always what a loop over all rows says.
func TestScoresAreThoseOfBruteForce(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{shardTopics: 2})
	r := rand.New(rand.NewPCG(1, 2))
	const count = 300
	random := func(dim int) []float32 {
		v := make([]float32, dim)
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
		return v
	}
	for _, metric := range []string{"L2", "IP", "COSINE"} {
		coll := "c_" + strings.ToLower(metric)
		_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: coll, Shards: 2, Schema: &qnpb.CollectionSchema{Dynamic: true,
			Fields: []*qnpb.FieldSchema{
				{Name: "a", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 7},
				{Name: "key", Type: qnpb.DataType_DATA_TYPE_VARCHAR, PrimaryKey: true},
				{Name: "b", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 33},
			}}, Indexes: []*qnpb.IndexSpec{{Field: "a", Type: "FLAT", Metric: metric}, {Field: "b", Type: "FLAT", Metric: metric}}})
		must(t, err)
		base := map[string][][]float32{}
		row := map[string]int{}
		for at := 0; at < count; at += 50 {
			var keys, meta []string
			var as, bs []float32
			for i := at; i < at+50; i++ {
				a, b := random(7), random(33)
				base["a"], base["b"] = append(base["a"], a), append(base["b"], b)
				keys, meta = append(keys, fmt.Sprintf("Schlüssel %d", i)), append(meta, fmt.Sprintf(`{"n":%d}`, i))
				row[keys[len(keys)-1]] = i
				as, bs = append(as, a...), append(bs, b...)
			}
			raw := &qnpb.FieldData{Field: "b", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: 33, Raw: rawOf(bs...)}}}
			_, err := n.write.Append(within(t), insertOf(coll, 50, texts("key", keys...), vectors("a", 7, as...), raw, texts("$meta", meta...)))
			must(t, err)
		}
		check := func(when string) {
			t.Helper()
			for field, dim := range map[string]int{"a": 7, "b": 33} {
				qs := [][]float32{random(dim), random(dim), base[field][5]}
				req := &qnpb.SearchRequest{Collection: coll, Field: field, TopK: 10, Metric: metric, OutputFields: []string{field}, Freshness: strong,
					Vectors: &qnpb.FloatVectors{Dim: int32(dim), Values: slices.Concat(qs...)}}
				got, err := n.query.Search(within(t), req)
				must(t, err)
				if !slices.Equal(got.GetCounts(), []int64{10, 10, 10}) {
					t.Fatalf("%s %s %s: counts %v", metric, field, when, got.GetCounts())
				}
				for q := range qs {
					want := best(metric, qs[q], base[field], 10)
					for i := range 10 {
						at := q*10 + i
						id := got.GetIds().GetStrings().GetValues()[at]
						own := base[field][row[id]]
						if s := float64(got.GetScores()[at]); !near(s, want[i]) || !near(s, score(metric, qs[q], own)) {
							t.Fatalf("%s %s %s: hit %d of query %d is %q with %v; it has %v, the best has %v", metric, field, when, i, q, id, s, score(metric, qs[q], own), want[i])
						}
						if out := got.GetFields()[0].GetVectors().GetValues()[at*dim : (at+1)*dim]; !slices.Equal(out, own) {
							t.Fatalf("%s %s %s: the vector of %q came back as %v, not %v", metric, field, when, id, out, own)
						}
					}
				}
				same := proto.Clone(req).(*qnpb.SearchRequest)
				same.Vectors = &qnpb.FloatVectors{Dim: int32(dim), Raw: rawOf(slices.Concat(qs...)...)}
				raw, err := n.query.Search(within(t), same)
				must(t, err)
				if !slices.Equal(raw.GetScores(), got.GetScores()) || !slices.Equal(raw.GetIds().GetStrings().GetValues(), got.GetIds().GetStrings().GetValues()) {
					t.Fatalf("%s %s %s: raw and values differ", metric, field, when)
				}
				same.Offset, same.TopK = 4, 6
				page, err := n.query.Search(within(t), same)
				must(t, err)
				if want := got.GetIds().GetStrings().GetValues()[4:10]; !slices.Equal(page.GetIds().GetStrings().GetValues()[:6], want) {
					t.Fatalf("%s %s %s: with offset 4 %v, want %v", metric, field, when, page.GetIds(), want)
				}
				// Between the 3rd and the 8th best score.
				all := best(metric, qs[0], base[field], count)
				same = proto.Clone(req).(*qnpb.SearchRequest)
				same.Vectors = &qnpb.FloatVectors{Dim: int32(dim), Values: qs[0]}
				same.RangeFilter, same.Radius = proto.Float32(float32((all[1]+all[2])/2)), proto.Float32(float32((all[7]+all[8])/2))
				ranged, err := n.query.Search(within(t), same)
				must(t, err)
				if s := ranged.GetScores(); len(s) != 6 || !near(float64(s[0]), all[2]) || !near(float64(s[5]), all[7]) {
					t.Fatalf("%s %s %s: range search %v, want %v", metric, field, when, s, all[2:8])
				}
			}
		}
		check("growing")
		_, err = n.write.Flush(within(t), &qnpb.FlushRequest{Collection: coll, Wait: true})
		must(t, err)
		n.handedOff(coll)
		check("sealed")
	}
}

// TestOutputFieldsAndPartitions: what is asked for is returned, from where it is
// asked for.
func TestOutputFieldsAndPartitions(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	must2(t)(n.catalog.CreatePartition(within(t), &qnpb.CreatePartitionRequest{Collection: "rich", Partition: "other"}))
	r := insertOf("rich", 1, richRow(50, texts("$meta", `{"color":"red","deep":{"n":[1,2]}}`), nulls(texts("note", ""), false))...)
	r.Partition = "other"
	must2(t)(n.write.Append(within(t), r))
	names := func(fields []*qnpb.FieldData) (out []string) {
		for _, f := range fields {
			out = append(out, f.GetField())
		}
		return out
	}
	check := func(when string) {
		t.Helper()
		for part, want := range map[string][]int64{"": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50}, "_default": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "other": {50}, "_default other": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 50}} {
			var parts []string
			if part != "" {
				parts = strings.Fields(part)
			}
			got, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "rich", Partitions: parts, Field: "v", TopK: 100, Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{0, 0}}, Freshness: strong})
			must(t, err)
			if !slices.Equal(got.GetIds().GetInts().GetValues(), want) {
				t.Errorf("%s: partitions %q: %v, want %v", when, part, got.GetIds(), want)
			}
		}
		for _, c := range []struct{ ask, want []string }{
			{nil, nil},
			{[]string{"text", "id"}, []string{"text", "id"}},
			{[]string{"*"}, []string{"small", "flag", "text", "note", "doc", "v", "w", "$meta"}},
			{[]string{"w", " * ", "small"}, []string{"w", "small", "flag", "text", "note", "doc", "v", "$meta"}},
			{[]string{"$meta"}, []string{"$meta"}},
		} {
			got, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "rich", Field: "v", TopK: 1, OutputFields: c.ask, Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{50, 0}}, Freshness: strong})
			must(t, err)
			if !slices.Equal(names(got.GetFields()), c.want) {
				t.Errorf("%s: output fields %q: got %q, want %q", when, c.ask, names(got.GetFields()), c.want)
			}
			fused, err := n.query.HybridSearch(within(t), &qnpb.HybridSearchRequest{Collection: "rich", TopK: 1, OutputFields: c.ask, Freshness: strong,
				Searches: []*qnpb.SubSearch{{Field: "v", Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{50, 0}}}}})
			must(t, err)
			if !slices.Equal(names(fused.GetFields()), c.want) {
				t.Errorf("%s: output fields %q of a hybrid search: got %q, want %q", when, c.ask, names(fused.GetFields()), c.want)
			}
			for _, f := range slices.Concat(got.GetFields(), fused.GetFields()) {
				if want := map[string][]float32{"v": {50, 0}, "w": {0, 50, 0}}[f.GetField()]; want != nil && !slices.Equal(f.GetVectors().GetValues(), want) {
					t.Errorf("%s: output fields %q: %s is %v, want %v", when, c.ask, f.GetField(), f.GetVectors(), want)
				}
			}
		}
		got, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "rich", Ids: intIDs(50, 3), Partitions: []string{"other"}, Freshness: strong})
		must(t, err)
		if want := []string{"id", "small", "flag", "text", "note", "doc", "v", "w", "$meta"}; !slices.Equal(names(got.GetFields()), want) || got.GetRows() != 1 {
			t.Fatalf("%s: get: %d rows of %q, want 1 of %q", when, got.GetRows(), names(got.GetFields()), want)
		}
		f := got.GetFields()
		if !slices.Equal(f[4].GetValid(), []bool{false}) || f[8].GetStrings().GetValues()[0] != `{"color":"red","deep":{"n":[1,2]}}` ||
			!slices.Equal(f[7].GetVectors().GetValues(), []float32{0, 50, 0}) || f[7].GetVectors().GetDim() != 3 {
			t.Errorf("%s: row 50 came back as %v", when, f)
		}
		for filter, want := range map[string]int{`color == "red"`: 1, "deep['n'][1] == 2": 1, "exists color": 1, "note is null": 1, "doc['a'] == 1": 11, "text == 't' and small >= 5": 6} {
			if got := n.keys(t, "rich", filter); len(got) != want {
				t.Errorf("%s: %s: rows %v, want %d", when, filter, got, want)
			}
		}
	}
	check("growing")
	n.flush("rich")
	n.handedOff("rich")
	check("sealed")
	del := deleteOf("rich", &qnpb.DeleteOperation{Ids: intIDs(3, 50)})
	del.Partition = "other"
	must2(t)(n.write.Append(within(t), del))
	if got := n.keys(t, "rich", "id in [3, 50]"); !slices.Equal(got, []int64{3}) {
		t.Errorf("a delete of 3 and 50 in the partition of 50 leaves %v, want 3", got)
	}
	must2(t)(n.catalog.DropPartition(within(t), &qnpb.DropPartitionRequest{Collection: "rich", Partition: "other"}))
	if got := n.keys(t, "rich", ""); len(got) != 10 {
		t.Errorf("rows once the partition is dropped: %v", got)
	}
	_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "rich", Partitions: []string{"other"}, Field: "v", TopK: 1, Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{0, 0}}})
	n.refuses(t, err, codes.NotFound, `no partition "other"`)
}

// TestTextKeys: upserts, deletes and gets by keys that are text.
func TestTextKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{shardTopics: 2})
	_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "texts", Shards: 3, Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "k", Type: qnpb.DataType_DATA_TYPE_VARCHAR, PrimaryKey: true, MaxLength: 40},
		{Name: "version", Type: qnpb.DataType_DATA_TYPE_INT64},
		{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2}}}})
	must(t, err)
	awkward := []string{"", "a", "A", " a", "a ", "ä", "a\u0308", "日本", "x'y\"z\\", "\x00", "1", "{k}", "%", strings.Repeat("ü", 20)}
	put := func(version int64, keys ...string) {
		t.Helper()
		var versions []int64
		var vs []float32
		for i := range keys {
			versions, vs = append(versions, version), append(vs, float32(i), 1)
		}
		_, err := n.write.Append(within(t), upsertOf("texts", int64(len(keys)), texts("k", keys...), ints("version", versions...), vectors("v", 2, vs...)))
		must(t, err)
	}
	check := func(when string, want map[string]int64) {
		t.Helper()
		r, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "texts", Ids: textIDs(awkward...), OutputFields: []string{"version"}, Freshness: strong})
		must(t, err)
		got := map[string]int64{}
		keys := r.GetFields()[0].GetStrings().GetValues()
		for i, k := range keys {
			got[k] = r.GetFields()[1].GetInts().GetValues()[i]
		}
		if !slices.IsSorted(keys) || len(got) != len(want) {
			t.Fatalf("%s: %q, want %d keys in order", when, keys, len(want))
		}
		for k, v := range want {
			if got[k] != v {
				t.Fatalf("%s: key %q has version %d, want %d", when, k, got[k], v)
			}
		}
	}
	want := map[string]int64{}
	put(1, awkward...)
	for _, k := range awkward {
		want[k] = 1
	}
	check("upserted", want)
	n.flush("texts")
	n.handedOff("texts")
	put(2, awkward[:5]...)
	for _, k := range awkward[:5] {
		want[k] = 2
	}
	_, err = n.write.Append(within(t), deleteOf("texts", &qnpb.DeleteOperation{Ids: textIDs("", "ä", "\x00", "unknown")}))
	must(t, err)
	for _, k := range []string{"", "ä", "\x00"} {
		delete(want, k)
	}
	check("changed", want)
	n.stop()
	n = start(t, dir, options{shardTopics: 2})
	check("after a restart", want)
	_, err = n.write.Append(within(t), deleteOf("texts", &qnpb.DeleteOperation{Filter: `k like "a%"`}))
	must(t, err)
	delete(want, "a")
	delete(want, "a ")
	delete(want, "a\u0308")
	check("deleted by filter", want)
	_, err = n.write.Append(within(t), upsertOf("texts", 1, texts("k", strings.Repeat("x", 41)), ints("version", 1), vectors("v", 2, 1, 1)))
	n.refuses(t, err, codes.InvalidArgument, "41 bytes, max_length is 40")
}

// TestKeysThatComeTwice: of rows of one key in one upsert the last one stays; of
// rows inserted twice a read returns the newest.
func TestKeysThatComeTwice(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	two := func(op func(string, int64, ...*qnpb.FieldData) *qnpb.AppendRequest, a, b int64) {
		t.Helper()
		_, err := n.write.Append(within(t), op("rich", 2, ints("id", 77, 77), ints("small", a, b), bools("flag", true, false), texts("text", "a", "b"),
			texts("doc", "1", "2"), vectors("v", 2, 70, 0, 80, 0), vectors("w", 3, 1, 2, 3, 4, 5, 6)))
		must(t, err)
	}
	is := func(want int64) {
		t.Helper()
		r, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "rich", Ids: intIDs(77), OutputFields: []string{"small"}, Freshness: strong})
		must(t, err)
		if got := r.GetFields()[1].GetInts().GetValues(); !slices.Equal(got, []int64{want}) {
			t.Errorf("row 77 is %v, want %d once", got, want)
		}
		s, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "rich", Field: "v", TopK: 20, Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{75, 0}}, OutputFields: []string{"small"}, Freshness: strong})
		must(t, err)
		if ids := s.GetIds().GetInts().GetValues(); len(ids) != 11 || ids[0] != 77 || s.GetFields()[0].GetInts().GetValues()[0] != want {
			t.Errorf("search: %v, want row 77 once, with %d", s, want)
		}
		if c := n.count("rich"); c != 11 {
			t.Errorf("%d rows, want 11", c)
		}
	}
	two(upsertOf, 1, 2)
	is(2)
	two(insertOf, 3, 4)
	is(4)
	n.flush("rich")
	n.handedOff("rich")
	is(4)
	two(upsertOf, 5, 6)
	is(6)
}

// TestAHugeValueIsRefusedOrKept: a row is as large as the queue can carry.
func TestAHugeValueIsRefusedOrKept(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	for _, size := range []int{2 << 20, 20 << 20} {
		doc := `"` + strings.Repeat("x", size) + `"`
		_, err := n.write.Append(within(t), insertOf("rich", 1, richRow(60, texts("doc", doc))...))
		if err != nil {
			if size < 4<<20 {
				t.Errorf("a value of %d MiB: %v", size>>20, err)
			}
			n.refuses(t, err, codes.InvalidArgument, "bytes")
			continue
		}
		n.alive(t)
		if got := n.keys(t, "rich", "id == 60"); len(got) != 1 {
			t.Errorf("a value of %d MiB was acknowledged and is not found", size>>20)
		}
	}
}

// TestWideRowsComeInPieces: a client with gRPC's usual limit of 4 MiB reads a
// collection of any width, as long as each row fits.
func TestWideRowsComeInPieces(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	const wide, count = 2048, 1500
	must2(t)(n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: "wide", Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{
		{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
		{Name: "text", Type: qnpb.DataType_DATA_TYPE_VARCHAR},
		{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: wide}}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}}}))
	long := make([]string, count)
	for i := range long {
		long[i] = strings.Repeat("x", 4000)
	}
	must2(t)(n.write.Append(within(t), insertOf("wide", count, ints("id", seq(0, count)...), texts("text", long...), vectors("v", wide, make([]float32, wide*count)...))))
	for _, fields := range [][]string{{"*"}, {"v"}, {"text"}, {"id"}} {
		st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: "wide", OutputFields: fields, Freshness: strong})
		must(t, err)
		next := int64(0)
		for {
			r, err := st.Recv()
			must(t, err)
			if r.GetStats() != nil {
				break
			}
			if size := proto.Size(r); size > 2<<20 {
				t.Errorf("%q: a piece of %d rows has %d bytes", fields, r.GetRows(), size)
			}
			for _, id := range r.GetFields()[0].GetInts().GetValues() {
				if id != next {
					t.Fatalf("%q: row %d after %d", fields, id, next-1)
				}
				next++
			}
		}
		if next != count {
			t.Errorf("%q: %d rows, want %d", fields, next, count)
		}
	}
}
