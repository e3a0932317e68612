package e2e

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/vec"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

func byteVectors(field string, dim int32, raw ...byte) *qnpb.FieldData {
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_ByteVectors{ByteVectors: &qnpb.ByteVectors{Dim: dim, Raw: raw}}}
}

// halves are float16 values, or bfloat16 ones.
func halves(brain bool, values ...float32) (raw []byte) {
	for _, v := range values {
		h := vec.Float32ToFloat16(v)
		if brain {
			h = vec.Float32ToBFloat16(v)
		}
		raw = binary.LittleEndian.AppendUint16(raw, h)
	}
	return raw
}

func sparseVectors(field string, lengths, indices []uint32, values ...float32) *qnpb.FieldData {
	return &qnpb.FieldData{Field: field, Values: &qnpb.FieldData_SparseVectors{SparseVectors: &qnpb.SparseVectors{Lengths: lengths, Indices: indices, Values: values}}}
}

// finds searches a field and compares keys and scores.
func (n *testNode) finds(t *testing.T, coll, field, filter string, query *qnpb.FieldData, k int64, ids []int64, scores ...float32) {
	t.Helper()
	r, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: coll, Field: field, Filter: filter, TopK: k, Freshness: strong, OutputFields: []string{field},
		Vectors: query.GetVectors(), ByteVectors: query.GetByteVectors(), SparseVectors: query.GetSparseVectors()})
	must(t, err)
	if got := r.GetIds().GetInts().GetValues(); !slices.Equal(got, ids) {
		t.Errorf("search of %s: %v, want %v (scores %v)", field, got, ids, r.GetScores())
	}
	for i, s := range scores {
		if got := r.GetScores(); i < len(got) && math.Abs(float64(got[i]-s)) > 1e-3 {
			t.Errorf("search of %s: scores %v, want %v", field, got, scores)
			break
		}
	}
	if len(r.GetFields()) != 1 {
		t.Errorf("search of %s: %d output fields", field, len(r.GetFields()))
	}
}

// TestVectorsOfEveryType are searched exactly and come back as they went in.
func TestVectorsOfEveryType(t *testing.T) {
	t.Parallel()
	half := []float32{1, 0, 0, 1, 1, 1, -1, 0, 0.5, 0.25, 2, 3}
	eight := []byte{1, 0, 0, 1, 1, 1, 0xff, 0, 100, 50, 0x80, 0x7f}
	bits := []byte{0xff, 0x00, 0x0f, 0x00, 0xff, 0xff, 0x00, 0x00, 0xf0, 0x01, 0x01, 0x00}
	l := &life{
		fields: []*qnpb.FieldSchema{
			{Name: "f16", Type: qnpb.DataType_DATA_TYPE_FLOAT16_VECTOR, Dim: 2},
			{Name: "bf16", Type: qnpb.DataType_DATA_TYPE_BFLOAT16_VECTOR, Dim: 2},
			{Name: "i8", Type: qnpb.DataType_DATA_TYPE_INT8_VECTOR, Dim: 2},
			{Name: "bits", Type: qnpb.DataType_DATA_TYPE_BINARY_VECTOR, Dim: 16},
			{Name: "same", Type: qnpb.DataType_DATA_TYPE_BINARY_VECTOR, Dim: 16},
			{Name: "words", Type: qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR},
		},
		index: []*qnpb.IndexSpec{
			{Field: "f16", Type: "FLAT", Metric: "L2"}, {Field: "bf16", Metric: "IP"}, {Field: "same", Type: "BIN_FLAT", Metric: "JACCARD"},
			{Field: "words", Type: "SPARSE_WAND", Metric: "IP"},
		},
		rows: []*qnpb.FieldData{
			byteVectors("f16", 2, halves(false, half...)...),
			byteVectors("bf16", 2, halves(true, half...)...),
			byteVectors("i8", 2, eight...),
			byteVectors("bits", 16, bits...),
			byteVectors("same", 16, bits...),
			sparseVectors("words", []uint32{1, 2, 0, 1, 2, 1}, []uint32{5, 5, 4294967294, 7, 5, 7, 9}, 1, 0.5, 2, 3, 2, 1, 4),
		},
		check: func(t *testing.T, n *testNode, coll string) {
			n.finds(t, coll, "f16", "", byteVectors("", 2, halves(false, 1, 0.9)...), 3, []int64{2, 4, 0}, 0.01, 0.6725, 0.81)
			n.finds(t, coll, "f16", "id != 2", vectors("", 2, 1, 0.9), 1, []int64{4}, 0.6725)
			n.finds(t, coll, "bf16", "", byteVectors("", 2, halves(true, 1, 1)...), 2, []int64{5, 2}, 5, 2)
			n.finds(t, coll, "i8", "", byteVectors("", 2, 1, 0), 2, []int64{0, 4}, 1, 0.894427)
			n.finds(t, coll, "bits", "", byteVectors("", 16, 0xff, 0x00), 3, []int64{0, 1, 4}, 0, 4, 5)
			n.finds(t, coll, "same", "", byteVectors("", 16, 0xff, 0x00), 3, []int64{0, 1, 2}, 0, 0.5, 0.5)
			n.finds(t, coll, "words", "", sparseVectors("", []uint32{2}, []uint32{7, 5}, 1, 2), 10, []int64{4, 3, 0, 1}, 5, 3, 2, 1)
			n.finds(t, coll, "words", "id < 4", sparseVectors("", []uint32{2}, []uint32{5, 7}, 2, 1), 2, []int64{3, 0}, 3, 2)
			n.finds(t, coll, "words", "", sparseVectors("", []uint32{1}, []uint32{4294967294}, 1), 10, []int64{1}, 2)
			n.finds(t, coll, "words", "", sparseVectors("", []uint32{1}, []uint32{6}, 1), 10, nil)
			r, err := n.query.HybridSearch(within(t), &qnpb.HybridSearchRequest{Collection: coll, TopK: 2, Freshness: strong,
				Ranker: &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{}}, Searches: []*qnpb.SubSearch{
					{Field: "words", SparseVectors: sparseVectors("", []uint32{1}, []uint32{5}, 1).GetSparseVectors()},
					{Field: "bits", ByteVectors: byteVectors("", 16, 0xff, 0x00).GetByteVectors()},
				}})
			must(t, err)
			if got := r.GetIds().GetInts().GetValues(); len(got) != 2 || got[0] != 0 {
				t.Errorf("hybrid search: %v", got)
			}
		},
	}
	l.live(t)
}

// TestVectorsThatAreNull are not found, and come back as null.
func TestVectorsThatAreNull(t *testing.T) {
	t.Parallel()
	some := []bool{true, false, true, true, false, true}
	l := &life{
		fields: []*qnpb.FieldSchema{
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2, Nullable: true},
			{Name: "i8", Type: qnpb.DataType_DATA_TYPE_INT8_VECTOR, Dim: 1, Nullable: true},
			{Name: "words", Type: qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR, Nullable: true},
			{Name: "never", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 3, Nullable: true},
		},
		index: []*qnpb.IndexSpec{{Field: "v", Type: "HNSW", Metric: "L2"}, {Field: "i8", Metric: "L2"}},
		rows: []*qnpb.FieldData{
			nulls(vectors("v", 2, 1, 1, 0, 0, 2, 2, 3, 3, 0, 0, 4, 4), some...),
			nulls(byteVectors("i8", 1, 1, 0, 2, 3, 0, 4), some...),
			nulls(sparseVectors("words", []uint32{1, 0, 0, 1, 0, 1}, []uint32{1, 1, 2}, 1, 2, 3), some...),
		},
		filter: map[string][]int64{},
		check: func(t *testing.T, n *testNode, coll string) {
			n.finds(t, coll, "v", "", vectors("", 2, 0, 0), 10, []int64{0, 2, 3, 5}, 2, 8, 18, 32)
			n.finds(t, coll, "v", "id > 0", vectors("", 2, 0, 0), 2, []int64{2, 3})
			n.finds(t, coll, "i8", "", byteVectors("", 1, 0), 10, []int64{0, 2, 3, 5})
			n.finds(t, coll, "words", "", sparseVectors("", []uint32{1}, []uint32{1}, 1), 10, []int64{3, 0})
			n.finds(t, coll, "never", "", vectors("", 3, 0, 0, 0), 10, nil)
			if v := n.read(t, coll, "")["never"].GetValid(); !slices.Equal(v, make([]bool, lifeRows)) {
				t.Errorf("never: %v", v)
			}
		},
	}
	l.live(t)
}

func TestVectorsThatDoNotFit(t *testing.T) {
	t.Parallel()
	n := start(t, t.TempDir(), options{})
	key := &qnpb.FieldSchema{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true}
	create := func(name string, f *qnpb.FieldSchema, index ...*qnpb.IndexSpec) error {
		f.Name = "v"
		_, err := n.catalog.CreateCollection(within(t), &qnpb.CreateCollectionRequest{Name: name, Indexes: index, Schema: &qnpb.CollectionSchema{Fields: []*qnpb.FieldSchema{key, f}}})
		return err
	}
	const f16, binary, sparse = qnpb.DataType_DATA_TYPE_FLOAT16_VECTOR, qnpb.DataType_DATA_TYPE_BINARY_VECTOR, qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR
	for says, f := range map[string]*qnpb.FieldSchema{
		"multiple of 8 up to 262144": {Type: binary, Dim: 12},
		"want 1 to 32768":            {Type: f16},
		"that are not sparse":        {Type: sparse, Dim: 3},
	} {
		n.refuses(t, create("bad", f), codes.InvalidArgument, says)
	}
	for says, ix := range map[string]*qnpb.IndexSpec{
		`metric "L2", want one of HAMMING, JACCARD`: {Field: "v", Metric: "L2"},
		`type "HNSW"`: {Field: "v", Type: "HNSW", Metric: "HAMMING"},
	} {
		n.refuses(t, create("bad", &qnpb.FieldSchema{Type: binary, Dim: 8}, ix), codes.InvalidArgument, says)
	}
	n.refuses(t, create("bad", &qnpb.FieldSchema{Type: sparse}, &qnpb.IndexSpec{Field: "v", Metric: "COSINE"}), codes.InvalidArgument, "want one of IP")
	must(t, create("half", &qnpb.FieldSchema{Type: f16, Dim: 2}))
	must(t, create("bits", &qnpb.FieldSchema{Type: binary, Dim: 16}))
	must(t, create("words", &qnpb.FieldSchema{Type: sparse}))
	for _, c := range []struct {
		coll, says string
		d          *qnpb.FieldData
	}{
		{"half", "want a multiple of 4", byteVectors("v", 2, 1, 2, 3)},
		{"half", "dimension 3, want 2", byteVectors("v", 3, 1, 2, 3, 4, 5, 6)},
		{"half", "row 0, dimension 1 is infinite", byteVectors("v", 2, 0, 0, 0, 0x7c)},
		{"half", "must be finite", vectors("v", 2, 1, 1e9)}, // is infinite as a half
		{"words", "norm 2e+19", sparseVectors("v", []uint32{1}, []uint32{3}, 2e19)},
		{"half", "got sparse_vectors", sparseVectors("v", []uint32{1}, []uint32{1}, 1)},
		{"bits", "got vectors", vectors("v", 16, make([]float32, 16)...)},
		{"words", "add up to 2 values", sparseVectors("v", []uint32{2}, []uint32{1}, 1)},
		{"words", "dimension 3 twice", sparseVectors("v", []uint32{2}, []uint32{3, 3}, 1, 1)},
		{"words", "finite and not negative", sparseVectors("v", []uint32{1}, []uint32{3}, -1)},
		{"words", "finite and not negative", sparseVectors("v", []uint32{1}, []uint32{3}, float32(math.NaN()))},
		{"words", "dimension 4294967295", sparseVectors("v", []uint32{1}, []uint32{4294967295}, 1)},
	} {
		_, err := n.write.Append(within(t), insertOf(c.coll, 1, ints("id", 1), c.d))
		n.refuses(t, err, codes.InvalidArgument, c.says)
		_, err = n.query.Search(within(t), &qnpb.SearchRequest{Collection: c.coll, TopK: 1,
			Vectors: c.d.GetVectors(), ByteVectors: c.d.GetByteVectors(), SparseVectors: c.d.GetSparseVectors()})
		n.refuses(t, err, codes.InvalidArgument, c.says)
	}
	_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "words", TopK: 1})
	n.refuses(t, err, codes.InvalidArgument, "missing")
	_, err = n.query.Search(within(t), &qnpb.SearchRequest{Collection: "words", TopK: 1, Vectors: vectors("v", 2, 1, 2).GetVectors(),
		SparseVectors: sparseVectors("v", []uint32{1}, []uint32{3}, 1).GetSparseVectors()})
	n.refuses(t, err, codes.InvalidArgument, "in one form")
	n.items("floats", 1)
	_, err = n.query.Search(within(t), &qnpb.SearchRequest{Collection: "floats", TopK: 1, ByteVectors: byteVectors("v", dim, 1).GetByteVectors()})
	n.refuses(t, err, codes.InvalidArgument, "send vectors")
	far := make([]float32, dim)
	far[1] = -3e38 // finite, but its distances are not
	_, err = n.query.Search(within(t), &qnpb.SearchRequest{Collection: "floats", TopK: 1, Vectors: vectors("v", dim, far...).GetVectors()})
	n.refuses(t, err, codes.InvalidArgument, "the vector of row 0 has norm 3e+38")
}
