package main

import (
	"strings"
	"testing"

	"google.golang.org/grpc/credentials/insecure"

	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// TestFullText is a search for words as a person types it, from the collection on.
func TestFullText(t *testing.T) {
	sh, r := served(t)
	contains(t, sh.ok("collection", "create", "posts", "--field", "id:int64:pk", "--field", "body:varchar:analyzer=english:nullable",
		"--field", "v:vector(2)", "--field", "s:sparse_float_vector", "--bm25", "words=body"), "words", "BM25")
	c, err := dial(r.grpcLis.Addr().String(), 0, insecure.NewCredentials(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.conn.Close() }()
	insert := func(more ...*qnpb.FieldData) error {
		_, err := c.write.Append(t.Context(), &qnpb.AppendRequest{Collection: "posts", Operation: &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{
			Rows: 4, Fields: append(more,
				&qnpb.FieldData{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: []int64{1, 2, 3, 4}}}},
				&qnpb.FieldData{Field: "body", Valid: []bool{true, true, true, false}, Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{
					Values: []string{"dogs run", "the dog and the rivers", "a mountain", ""}}}},
				&qnpb.FieldData{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: 2, Values: []float32{1, 0, 0, 1, 1, 1, 2, 1}}}},
				&qnpb.FieldData{Field: "s", Values: &qnpb.FieldData_SparseVectors{SparseVectors: &qnpb.SparseVectors{
					Lengths: []uint32{1, 1, 1, 0}, Indices: []uint32{7, 8, 7}, Values: []float32{1, 2, 3}}}}),
		}}})
		return err
	}
	words := &qnpb.FieldData{Field: "words", Values: &qnpb.FieldData_SparseVectors{SparseVectors: &qnpb.SparseVectors{Lengths: []uint32{0, 0, 0, 0}}}}
	if err := insert(words); err == nil || !strings.Contains(err.Error(), "made by a function") {
		t.Fatalf("words that were sent: %v", err)
	}
	if err := insert(); err != nil {
		t.Fatal(err)
	}
	search := []string{"search", "posts", "--field", "words", "--consistency", "strong", "--output-fields", "body", "--json"}
	with := func(more ...string) []string { return append(append([]string{}, search...), more...) }
	before := sh.ok(with("--text", "river dog", "--round-decimal", "4")...)
	contains(t, before, `"id":2,`, `"id":1,`, "the dog and the rivers")
	if strings.Contains(before, `"id":3`) || strings.Contains(before, `"id":4`) || strings.Index(before, `"id":2`) > strings.Index(before, `"id":1`) {
		t.Errorf("river dog: %s", before)
	}
	sh.ok("flush", "posts", "--wait")
	after := sh.ok(with("--text", "river dog", "--round-decimal", "4")...)
	hits := func(s string) string { s, _, _ = strings.Cut(s, `"query"`); return s }
	if hits(before) != hits(after) {
		t.Errorf("growing and sealed differ:\n%s%s", before, after)
	}
	contains(t, sh.ok(with("--text", "dog", "--filter", "id in {keys} and body like {pattern}", "--param", "keys=[2,3]", "--param", "pattern=%river%")...), `"id":2,`)
	contains(t, sh.ok("search", "posts", "--field", "s", "--vector", "7:1, 9:2", "--consistency", "strong", "-k", "1", "--json"), `"id":3,"score":3`)
	contains(t, sh.ok("hybrid", "posts", "--search", "words=mountain", "--search", "v=1,1", "-k", "1", "--consistency", "strong", "--json"), `"id":3`)
	contains(t, sh.ok("search", "posts", "--field", "s", "--id", "2", "--consistency", "strong", "-k", "1", "--json"), `"id":2,"score":4`)
	contains(t, sh.ok("hybrid", "posts", "--search", "s=7:1 9:2", "--search", "v=1,1", "--weights", "1,0", "-k", "1", "--consistency", "strong", "--json"), `"id":3,"score":3`)
	contains(t, sh.ok("hybrid", "posts", "--id", "2", "--weights", "0,1", "-k", "1", "--consistency", "strong", "--json"), `"id":2,"score":4`)
	sh.fails(exitUsage, []string{"--search", "DIMENSION:VALUE"}, "hybrid", "posts", "--search", "s=1,2")
	sh.fails(exitError, []string{"send texts"}, "search", "posts", "--field", "words", "--vector", "7:1")
	sh.fails(exitError, []string{"BM25 function makes"}, "search", "posts", "--field", "v", "--text", "dog")
	sh.fails(exitError, []string{"not returned"}, "query", "posts", "--output-fields", "words")
	sh.fails(exitUsage, []string{"NAME=VALUE"}, with("--text", "dog", "--param", "x")...)
	sh.fails(exitError, []string{"null is no value"}, with("--text", "dog", "--filter", "id in {keys}", "--param", "keys=[1,null]")...)
	sh.fails(exitUsage, []string{"DIMENSION:VALUE"}, "search", "posts", "--field", "s", "--vector", "1,2")
	sh.fails(exitUsage, []string{"FIELD=TEXT_FIELD"}, "collection", "create", "x", "--field", "id:int64:pk", "--bm25", "words")
	contains(t, sh.ok("collection", "add-field", "posts", "year:int32:nullable"), "year")
	contains(t, sh.ok("collection", "add-field", "posts", "image:float16_vector(4):nullable", "--index", "FLAT:L2"), "FLAT L2")
	sh.fails(exitError, []string{"make it nullable"}, "collection", "add-field", "posts", "other:vector(4)")
	sh.fails(exitError, []string{"image"}, "search", "posts", "--field", "image", "--id", "2", "--consistency", "strong")
	contains(t, sh.ok("hybrid", "posts", "--search", "image=1,2,3,4", "--search", "v=1,1", "-k", "1", "--consistency", "strong", "--json"), `"id":`)
	contains(t, sh.ok("collection", "drop-field", "posts", "image"), "dropped")
	contains(t, sh.ok(with("--text", "dog")...), `"id":1,`)
	sh.fails(exitUsage, []string{"NAME=VALUE"}, "delete", "posts", "--filter", "id in {keys}", "--param", "keys")
	sh.fails(exitError, []string{"no value given for {keys}"}, "delete", "posts", "--filter", "id in {keys}")
	contains(t, sh.ok("delete", "posts", "--filter", "id in {keys}", "--param", "keys=[1,9]"), "deleted 1 key from")
	if out := sh.ok(with("--text", "dog")...); strings.Contains(out, `"id":1,`) {
		t.Errorf("after the delete: %s", out)
	}
}

// A schema file says which field's words another one holds.
func TestFunctionsOfASchemaFile(t *testing.T) {
	fields := `{"fields": [{"name": "id", "type": "int64", "primary_key": true}, {"name": "body", "type": "varchar", "analyzer": "english"}`
	var req qnpb.CreateCollectionRequest
	read := func(text string) error {
		req = qnpb.CreateCollectionRequest{Schema: &qnpb.CollectionSchema{}}
		return parseSchema([]byte(text), &req)
	}
	for _, text := range []string{
		fields + `], "functions": [{"type": "BM25", "input_fields": ["body"], "output_fields": ["words"]}]}`,
		fields + `, {"name": "words", "type": "sparse_float_vector"}], "functions": [{"name": "words_bm25", "input_fields": ["body"], "output_fields": ["words"]}]}`,
	} {
		if err := read(text); err != nil {
			t.Fatal(err)
		}
		s, err := schemaOf(req.GetSchema())
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Fields) != 3 || s.Fields[2].Name != "words" || len(s.Functions) != 1 || s.Functions[0].Name != "words_bm25" {
			t.Errorf("%s: %+v", text, s)
		}
	}
	for text, want := range map[string]string{
		`{"type": "RERANK", "input_fields": ["body"], "output_fields": ["words"]}`: "want BM25",
		`{"type": "BM25", "input_fields": ["body"]}`:                               "one of output_fields",
		`{"type": "BM25", "inputs": ["body"]}`:                                     "unknown field",
	} {
		if err := read(fields + `], "functions": [` + text + `]}`); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
