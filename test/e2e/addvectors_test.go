package e2e

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// addedField is a vector field that a collection gets later. Distances from zero grow with the
// number that a vector is made of, which is below 64.
type addedField struct {
	schema  *qnpb.FieldSchema
	index   *qnpb.IndexSpec // nil = the default is all there is for the type
	vectors func(numbers ...int64) *qnpb.FieldData
	query   *qnpb.FieldData
}

func addedFields() []addedField {
	floats := func(numbers []int64) (out []float32) {
		for _, n := range numbers {
			out = append(out, float32(n), 0)
		}
		return out
	}
	dense := func(name string, typ qnpb.DataType, index string, vectors func(numbers ...int64) *qnpb.FieldData) addedField {
		return addedField{&qnpb.FieldSchema{Name: name, Type: typ, Dim: 2, Nullable: true}, &qnpb.IndexSpec{Field: name, Type: index, Metric: "L2"}, vectors, vectors(0)}
	}
	bits := func(numbers ...int64) *qnpb.FieldData {
		var raw []byte
		for _, n := range numbers {
			var b [8]byte
			for i := range n {
				b[i/8] |= 1 << (i % 8)
			}
			raw = append(raw, b[:]...)
		}
		return byteVectors("bits", 64, raw...)
	}
	words := func(numbers ...int64) *qnpb.FieldData {
		var lengths, indices []uint32
		var values []float32
		for _, n := range numbers {
			lengths, indices, values = append(lengths, 1), append(indices, 3), append(values, float32(100-n))
		}
		return sparseVectors("words", lengths, indices, values...)
	}
	return []addedField{
		dense("f32", qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, "HNSW", func(numbers ...int64) *qnpb.FieldData { return vectors("f32", 2, floats(numbers)...) }),
		dense("f16", qnpb.DataType_DATA_TYPE_FLOAT16_VECTOR, "FLAT", func(numbers ...int64) *qnpb.FieldData {
			return byteVectors("f16", 2, halves(false, floats(numbers)...)...)
		}),
		dense("bf16", qnpb.DataType_DATA_TYPE_BFLOAT16_VECTOR, "FLAT", func(numbers ...int64) *qnpb.FieldData {
			return byteVectors("bf16", 2, halves(true, floats(numbers)...)...)
		}),
		dense("i8", qnpb.DataType_DATA_TYPE_INT8_VECTOR, "FLAT", func(numbers ...int64) *qnpb.FieldData {
			var raw []byte
			for _, n := range numbers {
				raw = append(raw, byte(n), 0)
			}
			return byteVectors("i8", 2, raw...)
		}),
		{&qnpb.FieldSchema{Name: "bits", Type: qnpb.DataType_DATA_TYPE_BINARY_VECTOR, Dim: 64, Nullable: true}, nil, bits, bits(0)},
		{&qnpb.FieldSchema{Name: "words", Type: qnpb.DataType_DATA_TYPE_SPARSE_FLOAT_VECTOR, Nullable: true}, nil, words, words(0)},
	}
}

// TestVectorFieldsAddedLater: rows of before, sealed, growing or in the log, are null and
// found by no search of the field, until upserts give them vectors.
func TestVectorFieldsAddedLater(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := start(t, dir, options{})
	n.items("items", 1)
	n.insert("items", seq(0, 20))
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(20, 40))
	fields := addedFields()
	_, err := n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: &qnpb.FieldSchema{Name: "x", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: 2}})
	n.refuses(t, err, codes.InvalidArgument, "make it nullable")
	for _, f := range fields {
		must2(t)(n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: f.schema}))
		n.finds(t, "items", f.schema.GetName(), "", f.query, 50, nil)
		if f.index != nil {
			must2(t)(n.catalog.CreateIndex(within(t), &qnpb.CreateIndexRequest{Collection: "items", Index: f.index}))
		}
	}
	_, err = n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(1, 0)}, TopK: 1, Freshness: strong})
	n.refuses(t, err, codes.InvalidArgument, "7 vector fields")
	var have []int64 // with vectors
	look := func(state string, fields []addedField) {
		t.Helper()
		t.Log(state)
		got := n.read(t, "items", "")
		for i, id := range got["id"].GetInts().GetValues() {
			for _, f := range fields {
				valid := got[f.schema.GetName()].GetValid()
				if (len(valid) == 0 || valid[i]) != slices.Contains(have, id) {
					t.Errorf("%s: %s of row %d: %v", state, f.schema.GetName(), id, valid)
				}
			}
		}
		for _, f := range fields {
			name := f.schema.GetName()
			n.finds(t, "items", name, "", f.query, 60, have)
			n.finds(t, "items", name, "id % 2 == 1", f.query, 60, slices.DeleteFunc(slices.Clone(have), func(id int64) bool { return id%2 == 0 }))
			r, err := n.query.HybridSearch(within(t), &qnpb.HybridSearchRequest{Collection: "items", TopK: 60, Freshness: strong, OutputFields: []string{name},
				Ranker: &qnpb.HybridSearchRequest_Rrf{Rrf: &qnpb.RrfRanker{}}, Searches: []*qnpb.SubSearch{
					{Field: "v", Vectors: &qnpb.FloatVectors{Dim: dim, Values: vectorOf(7, 0)}},
					{Field: name, Vectors: f.query.GetVectors(), ByteVectors: f.query.GetByteVectors(), SparseVectors: f.query.GetSparseVectors()},
				}})
			if must(t, err); len(r.GetIds().GetInts().GetValues()) != len(got["id"].GetInts().GetValues()) {
				t.Errorf("%s: hybrid search with %s: %d rows of %d", state, name, len(r.GetIds().GetInts().GetValues()), len(got["id"].GetInts().GetValues()))
			}
		}
		n.finds(t, "items", "v", "id == 7", vectors("", dim, vectorOf(7, 0)...), 5, []int64{7}, 0)
		if n.count("items") != int64(len(got["id"].GetInts().GetValues())) {
			t.Errorf("%s: %d rows", state, n.count("items"))
		}
	}
	look("added", fields)
	give := func(ids ...int64) { // upserts with vectors
		t.Helper()
		all := rows(ids, 1)
		for _, f := range fields {
			all = append(all, f.vectors(ids...))
		}
		must2(t)(n.write.Append(within(t), upsertOf("items", int64(len(ids)), all...)))
		have = append(have, ids...)
		slices.Sort(have)
		have = slices.Compact(have)
	}
	give(1, 2, 25, 26)
	n.insert("items", seq(40, 44)) // by a client that does not know of them
	look("growing and sealed", fields)
	n.stop()
	n = start(t, dir, options{}) // rows from before the fields are in the log
	look("after a restart", fields)
	n.flush("items")
	n.handedOff("items")
	n.insert("items", seq(44, 47))
	look("sealed", fields)
	give(3, 30, 45)
	n.flush("items")
	n.handedOff("items")
	must2(t)(n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"}))
	look("compacted", fields)
	give(46)
	n.stop()
	n = start(t, dir, options{})
	look("after another restart", fields)
	fields = n.dropsVectors(t, fields, look)
	n.stop()
	n = start(t, dir, options{})
	look("some dropped, after a restart", fields)
	n.stop()
}

// dropsVectors drops the first and the last of the fields, and gives others their names. It
// returns those that are left.
func (n *testNode) dropsVectors(t *testing.T, fields []addedField, look func(string, []addedField)) []addedField {
	t.Helper()
	gone := []addedField{fields[0], fields[len(fields)-1]}
	for _, f := range gone {
		name := f.schema.GetName()
		must2(t)(n.catalog.DropField(within(t), &qnpb.DropFieldRequest{Collection: "items", Field: name}))
		_, err := n.query.Search(within(t), &qnpb.SearchRequest{Collection: "items", Field: name, TopK: 1, Vectors: f.query.GetVectors(), SparseVectors: f.query.GetSparseVectors(), Freshness: strong})
		n.refuses(t, err, codes.NotFound, name)
	}
	left := fields[1 : len(fields)-1]
	n.insert("items", seq(47, 49))
	look("some dropped", left)
	for _, f := range gone {
		must2(t)(n.catalog.AddField(within(t), &qnpb.AddFieldRequest{Collection: "items", Field: f.schema}))
		n.finds(t, "items", f.schema.GetName(), "", f.query, 60, nil)
		all := append(rows([]int64{49}, 0), f.vectors(9))
		must2(t)(n.write.Append(within(t), upsertOf("items", 1, all...)))
		n.finds(t, "items", f.schema.GetName(), "", f.query, 60, []int64{49})
		must2(t)(n.catalog.DropField(within(t), &qnpb.DropFieldRequest{Collection: "items", Field: f.schema.GetName()}))
	}
	n.flush("items")
	n.handedOff("items")
	must2(t)(n.write.Compact(within(t), &qnpb.CompactRequest{Collection: "items"}))
	look("some dropped, compacted", left)
	if got := n.read(t, "items", "id == 1"); got["f32"] != nil || !bytes.Equal(got["i8"].GetByteVectors().GetRaw(), []byte{1, 0}) {
		t.Errorf("row 1: %v", got)
	}
	return left
}
