package catalog

import (
	"os"
	"path"
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
		"is created":          {Name: "x", Type: schema.FloatVector, Dim: 3},
		"want a letter":       {Name: "1", Type: schema.Int32, Nullable: true},
		"is not of type Int8": {Name: "x", Type: schema.Int8, Default: "\"a\""},
	} {
		class := errclass.Invalid
		switch word {
		case `a field "year"`:
			class = errclass.Exists
		case "is created":
			class = errclass.Unimplemented
		}
		_, err := c.AddField(t.Context(), "movies", f)
		wantClass(t, err, class, word)
	}
	_, err = c.AddField(t.Context(), "none", schema.Field{Name: "x", Type: schema.Int8, Nullable: true})
	wantClass(t, err, errclass.NotFound)
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
