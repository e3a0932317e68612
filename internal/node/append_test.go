package node

import (
	"testing"

	"github.com/querynode/querynode/internal/schema"
)

func TestABatchThatWasArrangedBeforeAFieldWasAdded(t *testing.T) {
	old := schema.Schema{Version: 1, Dynamic: true, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "v", Type: schema.FloatVector, Dim: 1},
	}}
	rows := &schema.Batch{Rows: 2}
	for _, f := range old.Columns() {
		switch f.Type {
		case schema.Int64:
			rows.Columns = append(rows.Columns, &schema.Column{FieldID: f.ID, Type: f.Type, Int: []int64{1, 2}})
		case schema.FloatVector:
			rows.Columns = append(rows.Columns, &schema.Column{FieldID: f.ID, Type: f.Type, Dim: 1, Float: []float32{1, 2}})
		default:
			rows.Columns = append(rows.Columns, &schema.Column{FieldID: f.ID, Type: f.Type, Str: []string{"{}", `{"a":1}`}})
		}
	}
	if got := complete(rows, &old); got != rows {
		t.Error("a batch that lacks nothing is another one now")
	}
	grown := old
	grown.Version++
	grown.Fields = append(grown.Fields[:2:2], schema.Field{ID: 102, Name: "color", Type: schema.VarChar, Default: `"red"`},
		schema.Field{ID: 103, Name: "size", Type: schema.Int32, Nullable: true})
	got := complete(rows, &grown)
	if err := got.Check(&grown); err != nil {
		t.Fatal(err)
	}
	if got.Column(102).Str[1] != "red" || !got.Column(103).Null(0) || got.Columns[len(got.Columns)-1].Str[1] != `{"a":1}` {
		t.Errorf("%+v", got)
	}
	required := grown
	required.Fields = append(required.Fields[:4:4], schema.Field{ID: 104, Name: "must", Type: schema.Int32})
	if err := complete(rows, &required).Check(&required); err == nil {
		t.Error("a field that must be there was not missed")
	}
}
