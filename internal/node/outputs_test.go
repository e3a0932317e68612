package node

import (
	"slices"
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// TestKeysOfTheDynamicField are named as in Milvus: alone, or whatever they are as
// $meta["key"].
func TestKeysOfTheDynamicField(t *testing.T) {
	s := &schema.Schema{Version: 1, Dynamic: true, Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true}, {ID: thingID + 1, Name: "price", Type: schema.Int64}}}
	fixed := &schema.Schema{Version: 1, Fields: s.Fields}
	for _, c := range []struct {
		s    *schema.Schema
		name string
		want string // key; "" = refused
		err  errclass.Class
	}{
		{s, `color`, "color", 0}, {s, ` color `, "color", 0}, {s, `$meta["color"]`, "color", 0}, {s, `$meta['color']`, "color", 0}, {s, `$meta["a.b"]`, "a.b", 0},
		{s, `$meta["日本"]`, "日本", 0}, {s, `$meta["say \"x\""]`, `say "x"`, 0}, {s, `$meta["$meta"]`, "", errclass.NotFound},
		{s, `$meta["a"]["b"]`, "", errclass.Invalid}, {s, `$meta[color]`, "", errclass.Invalid}, {s, `$meta[""]`, "", errclass.Invalid},
		{s, `$meta["price"]`, "", errclass.NotFound}, {s, `a.b`, "", errclass.NotFound}, {fixed, `$meta["color"]`, "", errclass.NotFound},
	} {
		out, err := outputFields(c.s, []string{c.name}, false)
		switch {
		case c.want == "":
			if errclass.Of(err) != c.err {
				t.Errorf("%s: %v", c.name, err)
			}
		case err != nil:
			t.Errorf("%s: %v", c.name, err)
		case len(out) != 1 || out[0].Name != c.want || out[0].ID != schema.DynamicFieldID:
			t.Errorf("%s: %+v", c.name, out)
		default:
			docs := &schema.Column{FieldID: schema.DynamicFieldID, Type: schema.JSON, Str: []string{`{"x":1,"color":2,"a.b":2,"日本":2,"say \"x\"":2}`, `{}`}}
			columns := []*schema.Column{docs}
			pickMembers(out, columns)
			if !slices.Equal(columns[0].Str, []string{"2", ""}) || columns[0].Null(0) || !columns[0].Null(1) {
				t.Errorf("%s: %+v", c.name, columns[0])
			}
		}
	}
}

// TestCountsAreWrittenInManyWays, and answered in one.
func TestCountsAreWrittenInManyWays(t *testing.T) {
	n := newWorld(t).open(nil).ready()
	n.create()
	n.insert(between(0, 7)...)
	for _, text := range []string{"count(*)", "COUNT(*)", " Count( * ) "} {
		q := &Query{Select: Select{Collection: things, OutputFields: []string{text}, Freshness: Freshness{Level: Strong}}}
		got, err := n.Query(within(t), q, func(*Rows) error { t.Errorf("%q has rows", text); return nil })
		must(t, err)
		if !got.Counted || got.Count != 7 {
			t.Errorf("%q: %+v", text, got)
		}
		q.Limit = 1
		if _, err := n.Query(within(t), q, func(*Rows) error { return nil }); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("%q with a limit: %v", text, err)
		}
	}
}
