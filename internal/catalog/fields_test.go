package catalog

import (
	"os"
	"path"
	"strings"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

func TestAFieldIsAdded(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	create(t, c, "movies")
	got, err := c.AddField(t.Context(), "movies", schema.Field{ID: 7, Name: "year", Type: schema.Int32, Nullable: true})
	must(t, err)
	if f, ok := got.Schema.Field("year"); !ok || f.ID != 103 || got.Schema.Version != 2 || got.Format != 1 {
		t.Fatalf("%+v", got)
	}
	if _, err = c.AddField(t.Context(), "movies", schema.Field{Name: "genres", Type: schema.Array, Element: schema.VarChar, Nullable: true}); err != nil {
		t.Fatal(err)
	}
	got, err = open(t, b).Collection(t.Context(), "movies")
	must(t, err)
	if f, ok := got.Schema.Field("genres"); !ok || f.ID != 104 || got.Schema.Version != 3 || got.Format != 2 {
		t.Fatalf("%+v", got)
	}
	for word, f := range map[string]schema.Field{
		`a field "year"`:      {Name: "year", Type: schema.Int32, Nullable: true},
		"default value":       {Name: "x", Type: schema.Int32},
		"primary key":         {Name: "x", Type: schema.Int64, PrimaryKey: true, Nullable: true},
		"make it nullable":    {Name: "x", Type: schema.FloatVector, Dim: 3},
		"want 1 to":           {Name: "x", Type: schema.FloatVector, Nullable: true},
		"want a letter":       {Name: "1", Type: schema.Int32, Nullable: true},
		"is not of type Int8": {Name: "x", Type: schema.Int8, Default: "\"a\""},
	} {
		class := errclass.Invalid
		if word == `a field "year"` {
			class = errclass.Exists
		}
		_, err := c.AddField(t.Context(), "movies", f)
		wantClass(t, err, class, word)
	}
	_, err = c.AddField(t.Context(), "none", schema.Field{Name: "x", Type: schema.Int8, Nullable: true})
	wantClass(t, err, errclass.NotFound)
}

// TestAVectorFieldIsAdded with the index that it would have from the beginning, by a
// name that is free; it may be dropped as long as there is another.
func TestAVectorFieldIsAdded(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	old := create(t, c, "movies")
	for name, metric := range map[string]string{"a": MetricCosine, "b": MetricHamming, "c": MetricIP} {
		f := schema.Field{Name: name, Type: schema.Float16Vector, Dim: 8, Nullable: true}
		switch name {
		case "b":
			f.Type = schema.BinaryVector
		case "c":
			f.Type, f.Dim = schema.SparseFloatVector, 0
		}
		got, err := c.AddField(t.Context(), "movies", f)
		must(t, err)
		made, _ := got.Schema.Field(name)
		if x, ok := got.IndexOf(made.ID); !ok || x.Metric != metric || !x.Default || x.Name != name+"_index" || got.Format != 2 {
			t.Errorf("%s: %+v, format %d", name, x, got.Format)
		}
		if _, err := c.CreateIndex(t.Context(), "movies", Index{FieldID: made.ID, Metric: metric, Type: map[string]string{"c": IndexSparseInverted}[name], Name: name + "x"}); err != nil {
			t.Error(err)
		}
	}
	got, err := c.AddField(t.Context(), "movies", schema.Field{Name: "d", Type: schema.FloatVector, Dim: 2, Nullable: true})
	must(t, err)
	d, _ := got.Schema.Field("d")
	taken, err := c.CreateIndex(t.Context(), "movies", Index{FieldID: d.ID, Name: "e_index"})
	must(t, err)
	got, err = c.AddField(t.Context(), "movies", schema.Field{Name: "e", Type: schema.FloatVector, Dim: 2, Nullable: true})
	must(t, err)
	e, _ := got.Schema.Field("e")
	if x, ok := got.IndexOf(e.ID); !ok || x.Name == taken.Name {
		t.Errorf("%+v has the name of %+v", x, taken)
	}
	for _, f := range append(old.Schema.Fields, got.Schema.Fields[len(old.Schema.Fields):]...) {
		if !f.Type.IsVector() || f.ID == e.ID {
			continue
		}
		got, err = c.DropField(t.Context(), "movies", f.Name)
		must(t, err)
		if _, ok := got.IndexOf(f.ID); ok {
			t.Errorf("%s: its index is still there", f.Name)
		}
	}
	_, err = c.DropField(t.Context(), "movies", "e")
	wantClass(t, err, errclass.Invalid, "only vector field")
}

// TestManifestsOfFormat1StayReadable: testdata/format1 is what the first format
// was. Do not change it.
func TestManifestsOfFormat1StayReadable(t *testing.T) {
	b := objstore.NewMem(nil)
	root := "testdata/format1"
	for _, name := range []string{"ids.json", "names/movies.json", "collections/1.json", "channels/dml-1_1v0.json", "channels/dml-0_1v1.json", "channels/dml-1_1v2.json"} {
		raw, err := os.ReadFile(path.Join(root, name))
		must(t, err)
		putRaw(t, b, "catalog/"+name, string(raw))
	}
	c := open(t, b)
	col, err := c.Collection(t.Context(), "movies")
	must(t, err)
	if col.ID != 1 || len(col.Schema.Fields) != 3 || col.Format != 1 {
		t.Fatalf("%+v", col)
	}
	col, err = c.AddField(t.Context(), "movies", schema.Field{Name: "year", Type: schema.Int32, Default: "1999"})
	must(t, err)
	if col.Format != 2 || col.Schema.Version != 2 {
		t.Fatalf("%+v", col)
	}
}

// TestTheIndexOfWords: a field that a function of type BM25 makes is searched by
// BM25, and nothing else is.
func TestTheIndexOfWords(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	spec := CollectionSpec{Name: "posts", PChannels: []string{"dml-0"}, Schema: schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "body", Type: schema.VarChar},
		{ID: 102, Name: "words", Type: schema.SparseFloatVector},
		{ID: 103, Name: "other", Type: schema.SparseFloatVector},
	}, Functions: []schema.Function{{Name: "count", Type: schema.BM25, Input: 101, Output: 102}}}}
	for what, x := range map[string]Index{
		"IP of words":       {FieldID: 102, Metric: MetricIP},
		"BM25 of no words":  {FieldID: 103, Metric: MetricBM25},
		"k1 too large":      {FieldID: 102, Params: map[string]string{ParamK1: "3.1"}},
		"b below 0":         {FieldID: 102, Params: map[string]string{ParamB: "-0.1"}},
		"k1 that is no one": {FieldID: 102, Params: map[string]string{ParamK1: "NaN"}},
		"unknown parameter": {FieldID: 102, Params: map[string]string{"k1": "1"}},
		"k1 of no words":    {FieldID: 103, Params: map[string]string{ParamK1: "1"}},
	} {
		bad := spec
		bad.Indexes = []Index{x}
		_, err := c.CreateCollection(t.Context(), bad)
		if !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%s: %v", what, err)
		}
	}
	col, err := c.CreateCollection(t.Context(), spec)
	must(t, err)
	words, _ := col.IndexOf(102)
	other, _ := col.IndexOf(103)
	if col.Format != 3 || words.Metric != MetricBM25 || other.Metric != MetricIP {
		t.Errorf("format %d, %+v, %+v", col.Format, words, other)
	}
	x, err := c.CreateIndex(t.Context(), "posts", Index{FieldID: 102, Type: IndexSparseInverted, Params: map[string]string{ParamK1: "0.9", ParamB: "0.4"}})
	must(t, err)
	got, err := c.Collection(t.Context(), "posts")
	must(t, err)
	if again, _ := got.IndexOf(102); !sameIndex(x, again) || len(got.Schema.Functions) != 1 {
		t.Errorf("%+v, %+v", again, got.Schema)
	}
	got, err = c.AddField(t.Context(), "posts", schema.Field{Name: "year", Type: schema.Int32, Nullable: true})
	must(t, err)
	if len(got.Schema.Functions) != 1 || got.Format != 3 {
		t.Errorf("a field more, and the function is gone: %+v", got)
	}
}

// TestAFieldIsDropped: its index goes too, and nobody gets its id again.
func TestAFieldIsDropped(t *testing.T) {
	b := objstore.NewMem(nil)
	c := open(t, b)
	create(t, c, "movies")
	add := func() schema.Field {
		t.Helper()
		got, err := c.AddField(t.Context(), "movies", schema.Field{Name: "year", Type: schema.Int32, Nullable: true})
		must(t, err)
		f, _ := got.Schema.Field("year")
		return f
	}
	first := add()
	if _, err := c.CreateIndex(t.Context(), "movies", Index{FieldID: first.ID, Type: IndexInverted}); err != nil {
		t.Fatal(err)
	}
	got, err := c.DropField(t.Context(), "movies", "year")
	must(t, err)
	if _, ok := got.Schema.Field("year"); ok || got.Schema.Version != 3 || got.Format != 4 || got.LastFieldID != first.ID {
		t.Fatalf("%+v", got)
	}
	if _, ok := got.IndexOf(first.ID); ok {
		t.Errorf("its index is still there: %+v", got.Indexes)
	}
	c = open(t, b)
	second := add()
	if second.ID != first.ID+1 {
		t.Errorf("the name has id %d again, want %d", second.ID, first.ID+1)
	}
	_, err = c.DropField(t.Context(), "movies", "year")
	must(t, err)
	if third := add(); third.ID != second.ID+1 {
		t.Errorf("the name has id %d the third time, want %d", third.ID, second.ID+1)
	}
	wantClass(t, func() error { _, err := c.DropField(t.Context(), "movies", "none"); return err }(), errclass.NotFound, `no field "none"`)
	wantClass(t, func() error { _, err := c.DropField(t.Context(), "none", "year"); return err }(), errclass.NotFound)
}

// TestFieldsThatStay: what a collection cannot do without.
func TestFieldsThatStay(t *testing.T) {
	c := open(t, objstore.NewMem(nil))
	_, err := c.CreateCollection(t.Context(), CollectionSpec{Name: "posts", Shards: 1, PChannels: []string{"p"}, CreatedTimestamp: 1, Schema: schema.Schema{
		Dynamic: true,
		Fields: []schema.Field{{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true}, {ID: 101, Name: "body", Type: schema.VarChar},
			{ID: 102, Name: "words", Type: schema.SparseFloatVector}, {ID: 103, Name: "v", Type: schema.FloatVector, Dim: 2}},
		Functions: []schema.Function{{Name: "f", Type: schema.BM25, Input: 101, Output: 102}}}})
	must(t, err)
	for field, word := range map[string]string{"id": "primary key", "body": "reads", "words": "makes", "$meta": "stays"} {
		_, err := c.DropField(t.Context(), "posts", field)
		if err == nil || !strings.Contains(err.Error(), word) || errclass.Is(err, errclass.NotFound) {
			t.Errorf("%s: %v, want an error with %q", field, err, word)
		}
	}
}
