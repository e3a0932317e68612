package e2e

import (
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestKeysOfTheDynamicFieldAreOutputFields: in every kind of read, growing or sealed.
func TestKeysOfTheDynamicFieldAreOutputFields(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	for id, meta := range map[int64]string{
		50: `{"color":"red","deep":{"n":[1, 2]},"color":"blue"}`, 51: `{"colors":1}`, 52: `{ "co\u006cor" : 1.50 , "deep":null}`,
	} {
		must2(t)(n.write.Append(within(t), insertOf("rich", 1, richRow(id, texts("$meta", meta))...)))
	}
	asked := []string{"color", "deep", "text", "$meta", "color", "none"}
	near := &qnpb.FloatVectors{Dim: 2, Values: []float32{100, 0}} // 52, 51, 50
	check := func(when string, fields []*qnpb.FieldData, reverse bool) {
		t.Helper()
		want := [][]string{{`"red"`, ``, `1.50`}, {`{"n":[1, 2]}`, ``, ``}, {"t", "t", "t"}, nil, {``, ``, ``}}
		if len(fields) != len(want) {
			t.Fatalf("%s: fields %v", when, fields)
		}
		for i, f := range fields {
			got := slices.Clone(f.GetStrings().GetValues())
			for row, valid := range f.GetValid() {
				if valid == (got[row] == "") {
					t.Errorf("%s: row %d of %s is %q, valid %v", when, row, f.GetField(), got[row], valid)
				}
			}
			if reverse {
				slices.Reverse(got)
			}
			if name := []string{"color", "deep", "text", "$meta", "none"}[i]; f.GetField() != name || want[i] != nil && !slices.Equal(got, want[i]) {
				t.Errorf("%s: field %d, %q, is %q, want %q: %q", when, i, f.GetField(), got, name, want[i])
			}
		}
	}
	read := func(when string) {
		t.Helper()
		got, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "rich", Field: "v", Vectors: near, TopK: 3, OutputFields: asked, Freshness: strong})
		must(t, err)
		check(when+", search", got.GetFields(), true)
		hybrid, err := n.query.HybridSearch(within(t), &qnpb.HybridSearchRequest{Collection: "rich", TopK: 3, OutputFields: asked, Freshness: strong,
			Searches: []*qnpb.SubSearch{{Field: "v", Vectors: near}}})
		must(t, err)
		check(when+", hybrid search", hybrid.GetFields(), true)
		rows, err := n.query.Get(within(t), &qnpb.GetRequest{Collection: "rich", Ids: intIDs(50, 51, 52), OutputFields: asked, Freshness: strong})
		must(t, err)
		check(when+", get", rows.GetFields()[1:], false)
		st, err := n.query.Query(within(t), &qnpb.QueryRequest{Collection: "rich", Filter: "id >= 50", OutputFields: asked, Freshness: strong})
		must(t, err)
		piece, err := st.Recv()
		must(t, err)
		check(when+", query", piece.GetFields()[1:], false)
		for _, by := range []string{"color", `$meta["color"]`} {
			groups, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "rich", Field: "v", Vectors: near, TopK: 3, GroupByField: by, Freshness: strong})
			must(t, err)
			checkGroups(t, when+", groups", groups.GetIds(), groups.GetGroupValues(), groups.GetGroupCounts())
			hybrid, err := n.query.HybridSearch(within(t), &qnpb.HybridSearchRequest{Collection: "rich", TopK: 3, GroupByField: by, Freshness: strong,
				Searches: []*qnpb.SubSearch{{Field: "v", Vectors: near}, {Field: "v", Vectors: near}}})
			must(t, err)
			checkGroups(t, when+", groups of a hybrid search", hybrid.GetIds(), hybrid.GetGroupValues(), hybrid.GetGroupCounts())
		}
	}
	read("growing")
	n.flush("rich")
	n.handedOff("rich")
	read("sealed")
	for _, name := range []string{"median(small)", "a b", ""} {
		r := proto.CloneOf(n.pulse)
		r.OutputFields = []string{name}
		_, err := n.query.Search(within(t), r)
		n.refuses(t, err, codes.NotFound, "no such field")
	}
	for by, says := range map[string]string{`deep["n"] == 1`: "is no path", "v": "want one with single values", `text["a"]`: "takes no path", `meta[`: "column 6"} {
		g := &qnpb.SearchRequest{Collection: "rich", Field: "v", Vectors: near, TopK: 3, GroupByField: by}
		_, err := n.query.Search(within(t), g)
		n.refuses(t, err, codes.InvalidArgument, says)
		_, err = n.query.HybridSearch(within(t), &qnpb.HybridSearchRequest{Collection: "rich", TopK: 3, GroupByField: by, Searches: []*qnpb.SubSearch{{Field: "v", Vectors: near}}})
		n.refuses(t, err, codes.InvalidArgument, says)
	}
	r := proto.CloneOf(n.pulse)
	for i := range 300 {
		r.OutputFields = append(r.OutputFields, "k"+string(rune('a'+i/26))+string(rune('a'+i%26)))
	}
	_, err := n.query.Search(within(t), r)
	n.refuses(t, err, codes.InvalidArgument, "at most 256")
}

// checkGroups checks the groups by color of the three rows.
func checkGroups(t *testing.T, when string, ids *qnpb.Ids, values *qnpb.FieldData, counts []int64) {
	t.Helper()
	if got := ids.GetInts().GetValues(); !slices.Equal(got, []int64{52, 51, 50}) || !slices.Equal(counts, []int64{1, 1, 1}) {
		t.Errorf("%s: rows %v in groups of %v", when, got, counts)
	}
	if got := values.GetStrings().GetValues(); values.GetField() != `$meta["color"]` || !slices.Equal(got, []string{"1.5", "", `"red"`}) || !slices.Equal(values.GetValid(), []bool{true, false, true}) {
		t.Errorf("%s: values %v of %q, valid %v", when, got, values.GetField(), values.GetValid())
	}
}

// TestRoundingToMinusOneIsNone: which is what Milvus' clients send by default.
func TestRoundingToMinusOneIsNone(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	n.rich(t)
	r := proto.CloneOf(n.pulse)
	r.Vectors.Values = []float32{0.123, 0.456}
	plain, err := n.query.Search(within(t), r)
	must(t, err)
	r.RoundDecimal = proto.Int32(-1)
	same, err := n.query.Search(within(t), r)
	must(t, err)
	if !slices.Equal(plain.GetScores(), same.GetScores()) {
		t.Errorf("scores %v, rounded to -1 decimals %v", plain.GetScores(), same.GetScores())
	}
	r.RoundDecimal = proto.Int32(-2)
	_, err = n.query.Search(within(t), r)
	n.refuses(t, err, codes.InvalidArgument, "want 0 to 6")
}
