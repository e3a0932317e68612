package e2e

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

const (
	indexedRows = 2600
	indexedDim  = 24
)

// heaps makes vectors that lie in heaps.
func heaps(rng *rand.Rand, n int) []float32 {
	middles := rand.New(rand.NewPCG(1, 1))
	var centres [20 * indexedDim]float32
	for i := range centres {
		centres[i] = float32(middles.NormFloat64())
	}
	out := make([]float32, 0, n*indexedDim)
	for range n {
		at := rng.IntN(20)
		for d := range indexedDim {
			out = append(out, centres[at*indexedDim+d]+float32(rng.NormFloat64())*0.5)
		}
	}
	return out
}

// indexed makes a collection with an index of its vectors, and fills it.
func (n *testNode) indexed(name string, ix *qnpb.IndexSpec, vectors []float32) error {
	n.t.Helper()
	ix.Field, ix.Metric = "v", "L2"
	_, err := n.catalog.CreateCollection(within(n.t), &qnpb.CreateCollectionRequest{Name: name, Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: indexedDim},
		}}, Indexes: []*qnpb.IndexSpec{ix}})
	if err != nil {
		return err
	}
	rows := len(vectors) / indexedDim
	_, err = n.write.Append(within(n.t), &qnpb.AppendRequest{Collection: name, Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: int64(rows), Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: seq(0, int64(rows))}}},
			{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: indexedDim, Values: vectors}}},
		}}}})
	must(n.t, err)
	n.flush(name)
	n.handedOff(name)
	return nil
}

// TestEveryTypeOfIndex from its creation to the search of a flushed segment, by what
// users of Milvus write.
func TestEveryTypeOfIndex(t *testing.T) {
	n := start(t, t.TempDir(), options{})
	rng := rand.New(rand.NewPCG(2, 2))
	vectors, queries := heaps(rng, indexedRows), heaps(rng, 20)
	must(t, n.indexed("flat", &qnpb.IndexSpec{Type: "FLAT"}, vectors))
	search := func(coll string, change func(*qnpb.SearchRequest)) (*qnpb.SearchResponse, error) {
		r := &qnpb.SearchRequest{Collection: coll, Vectors: &qnpb.FloatVectors{Dim: indexedDim, Values: queries}, TopK: 10, Freshness: strong}
		change(r)
		return n.query.Search(within(t), r)
	}
	exact, err := search("flat", func(*qnpb.SearchRequest) {})
	must(t, err)
	for _, c := range []struct {
		kind   string
		params map[string]string
		effort func(*qnpb.SearchRequest)
		built  string
	}{
		{"HNSW", map[string]string{"M": "16", "efConstruction": "100"}, func(r *qnpb.SearchRequest) { r.Ef = 80 }, "HNSW"},
		{"HNSW_SQ", map[string]string{"M": "12", "sq_type": "SQ8", "refine": "true", "refine_type": "fp32"}, func(r *qnpb.SearchRequest) { r.Ef, r.RefineK = 80, 1 }, "HNSW_SQ"},
		{"IVF_FLAT", map[string]string{"nlist": "40"}, func(r *qnpb.SearchRequest) { r.Nprobe = 30 }, "IVF_FLAT"},
		{"IVF_SQ8", map[string]string{"nlist": "40"}, func(r *qnpb.SearchRequest) { r.Nprobe = 30 }, "IVF_SQ8"},
		{"SCANN", map[string]string{"nlist": "40", "with_raw_data": "true"}, func(r *qnpb.SearchRequest) { r.Nprobe, r.ReorderK = 30, 200 }, "SCANN"},
		{"AUTOINDEX", nil, func(r *qnpb.SearchRequest) { r.Ef, r.Nprobe, r.ReorderK = 80, 30, 100 }, "HNSW_SQ"},
		{"AUTOINDEX", map[string]string{"row_bytes": "150"}, func(r *qnpb.SearchRequest) { r.Recall = 0.99 }, "SCANN"},
		{"AUTOINDEX", map[string]string{"row_bytes": "30"}, func(r *qnpb.SearchRequest) { r.Recall = 0.99 }, "IVF_FLAT"},
		{"IVF_SQ8", map[string]string{"recall": "0.98"}, func(r *qnpb.SearchRequest) { r.Recall = 1 }, "IVF_SQ8"},
	} {
		t.Run(c.kind, func(t *testing.T) {
			name := strings.ToLower(c.kind) + c.params["row_bytes"] + strings.TrimPrefix(c.params["recall"], "0.")
			must(t, n.indexed(name, &qnpb.IndexSpec{Type: c.kind, Params: c.params}, vectors))
			n.eventually("the segment has its index", func(d *qnpb.Distribution) bool {
				return slices.ContainsFunc(d.GetSegments(), func(s *qnpb.SegmentStatus) bool { return s.GetCollection() == name && s.GetIndexes()["v"] == c.built })
			})
			d, err := n.catalog.DescribeIndex(within(t), &qnpb.DescribeIndexRequest{Collection: name})
			must(t, err)
			if x := d.GetIndexes()[0]; x.GetType() != c.kind || len(x.GetParams()) != len(c.params) {
				t.Fatalf("described as %v", x)
			}
			for what, effort := range map[string]func(*qnpb.SearchRequest){"chosen": func(*qnpb.SearchRequest) {}, "given": c.effort} {
				got, err := search(name, effort)
				must(t, err)
				found := 0
				for q := range 20 {
					want := exact.GetIds().GetInts().GetValues()[10*q : 10*q+10]
					for _, id := range got.GetIds().GetInts().GetValues()[10*q : 10*q+10] {
						if slices.Contains(want, id) {
							found++
						}
					}
				}
				if found < 190 {
					t.Errorf("effort %s: recall %.3f", what, float64(found)/200)
				}
				if all := c.params["recall"] != "" && what == "given"; all && !slices.Equal(got.GetScores(), exact.GetScores()) {
					t.Error("all rows are wanted, and the scores are not those of FLAT")
				}
			}
		})
	}
	for name, change := range map[string]func(*qnpb.SearchRequest){
		"nprobe is for IVF_FLAT":  func(r *qnpb.SearchRequest) { r.Collection, r.Nprobe = "hnsw", 5 },
		"reorder_k is for SCANN":  func(r *qnpb.SearchRequest) { r.Collection, r.ReorderK = "ivf_sq8", 50 },
		"refine_k is for HNSW_SQ": func(r *qnpb.SearchRequest) { r.Collection, r.RefineK = "hnsw", 2 },
		"refine_k is 0.5":         func(r *qnpb.SearchRequest) { r.Collection, r.RefineK = "hnsw_sq", 0.5 },
		"refine_k * (top_k":       func(r *qnpb.SearchRequest) { r.Collection, r.RefineK = "hnsw_sq", 1e9 },
		"at least top_k":          func(r *qnpb.SearchRequest) { r.Collection, r.ReorderK = "scann", 5 },
		"recall is 0.3":           func(r *qnpb.SearchRequest) { r.Collection, r.Recall = "scann", 0.3 },
		"recall is NaN":           func(r *qnpb.SearchRequest) { r.Collection, r.Recall = "scann", float32(math.NaN()) },
		"leave one out":           func(r *qnpb.SearchRequest) { r.Collection, r.Recall, r.Ef = "scann", 0.9, 50 },
		"nprobe is -1":            func(r *qnpb.SearchRequest) { r.Collection, r.Nprobe = "scann", -1 },
	} {
		if _, err := search("", change); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for want, ix := range map[string]*qnpb.IndexSpec{
		"want some of M, efConstruction":   {Type: "HNSW", Params: map[string]string{"nlist": "5"}},
		"want SQ8":                         {Type: "HNSW_SQ", Params: map[string]string{"sq_type": "SQ4U"}},
		"nlist is \"0\", want 1":           {Type: "IVF_FLAT", Params: map[string]string{"nlist": "0"}},
		"want some of recall, row_bytes":   {Type: "AUTOINDEX", Params: map[string]string{"M": "5"}},
		"recall is \"1.5\", want 0.5 to 1": {Type: "SCANN", Params: map[string]string{"recall": "1.5"}},
		"FLAT has none":                    {Type: "FLAT", Params: map[string]string{"recall": "0.9"}},
		"want one of FLAT, HNSW,":          {Type: "IVF_PQ"},
	} {
		if err := n.indexed("refused", ix, nil); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", ix, err, want)
		}
	}
}
