package catalog

import (
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

// TestIndexesAsMilvusUsersWriteThem: whatever case, and with the parameters that Milvus
// wants.
func TestIndexesAsMilvusUsersWriteThem(t *testing.T) {
	s := &schema.Schema{Version: 1, Fields: []schema.Field{{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "text", Type: schema.VarChar, MaxLength: 10},
		{ID: 102, Name: "flag", Type: schema.Bool}, {ID: 103, Name: "doc", Type: schema.JSON}, {ID: 104, Name: "v", Type: schema.FloatVector, Dim: 2}}}
	params := func(kv ...string) map[string]string {
		m := map[string]string{}
		for i := 0; i < len(kv); i += 2 {
			m[kv[i]] = kv[i+1]
		}
		return m
	}
	for _, c := range []struct {
		field  int64
		kind   string
		params map[string]string
		want   string // type, or what is wrong with it
	}{
		{101, "Trie", nil, IndexTrie}, {101, "HYBRID", nil, IndexAuto}, {100, "hybrid", nil, IndexAuto}, {100, "stl_sort", nil, IndexSorted},
		{104, "hnsw", params("M", "16"), IndexHNSW}, {104, "HYBRID", nil, "type"}, {101, "btree", nil, "want one of"},
		{101, "NGRAM", nil, IndexNgram}, {101, "ngram", params("min_gram", "2", "max_gram", "3"), IndexNgram},
		{101, "NGRAM", params("min_gram", "2"), "go together"}, {101, "NGRAM", params("min_gram", "4", "max_gram", "3"), "more than"},
		{101, "NGRAM", params("min_gram", "0", "max_gram", "3"), "want 1 or more"}, {101, "NGRAM", params("grams", "3"), "unknown parameter"},
		{102, "BITMAP", nil, IndexBitmap}, {102, "INVERTED", nil, IndexInverted}, {102, "", nil, IndexAuto}, {102, "STL_SORT", nil, "want one of"},
		{103, "INVERTED", params("json_path", `doc["a"]`, "json_cast_type", "varchar"), IndexInverted}, {103, "AUTOINDEX", nil, IndexAuto},
		{103, "BITMAP", nil, "want one of"}, {103, "INVERTED", params("path", "a"), "unknown parameter"}, {101, "INVERTED", params("x", "1"), "parameters"},
	} {
		x := Index{FieldID: c.field, Type: c.kind, Params: c.params}
		x.ensureDefaults(s)
		err := x.validate(s)
		if refused := err != nil; refused && !strings.Contains(err.Error(), c.want) || !refused && x.Type != c.want {
			t.Errorf("%s %v of field %d: type %q, %v; want %q", c.kind, c.params, c.field, x.Type, err, c.want)
		}
	}
}
