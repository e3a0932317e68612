package node

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// TestACollectionHasATimeZone: times in filters that come without an offset are of it,
// for rows in memory and in files, in queries, searches and deletes; names that are no
// zone are refused when they come.
func TestACollectionHasATimeZone(t *testing.T) {
	n := newWorld(t).open(nil).ready()
	s := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "at", Type: schema.Timestamptz},
		{ID: thingID + 2, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}
	create := func(zone string) error {
		_, err := n.CreateCollection(within(t), NewCollection{Name: things, Schema: s, Properties: map[string]string{PropertyTimezone: zone}})
		return err
	}
	for _, zone := range []string{"Mars/Phobos", "Local", "../etc/passwd", "+08:00"} {
		if err := create(zone); !errclass.Is(err, errclass.Invalid) {
			t.Errorf("zone %q: %v", zone, err)
		}
	}
	must(t, create("Asia/Shanghai"))
	n.load()
	insert := func(id, at int64) {
		t.Helper()
		_, err := n.Insert(within(t), things, "", &schema.Batch{Rows: 1, Columns: []*schema.Column{
			{FieldID: thingID, Type: schema.Int64, Int: []int64{id}}, {FieldID: thingID + 1, Type: schema.Timestamptz, Int: []int64{at}},
			{FieldID: thingID + 2, Type: schema.FloatVector, Dim: 2, Float: []float32{1, 2}}}}, false)
		must(t, err)
	}
	const shanghai, utc = 1735660800000000, 1735689600000000 // midnight of 2025
	sel := Select{Collection: things, Filter: `at == ISO "2025-01-01T00:00:00"`, OutputFields: []string{"id"}, Freshness: Freshness{Level: Strong}}
	check := func(when string, want int64) {
		t.Helper()
		var got []int64
		_, err := n.Query(within(t), &Query{Select: sel}, func(r *Rows) error {
			got = append(got, r.Batch.Columns[0].Int...)
			return nil
		})
		must(t, err)
		found, err := n.Search(within(t), &Search{Select: sel, Vectors: []float32{1, 2}, Dim: 2, TopK: 5})
		must(t, err)
		if len(got) != 1 || got[0] != want || len(found.Keys.Int) != 1 || found.Keys.Int[0] != want {
			t.Errorf("%s: rows %v, found %v, want %d", when, got, found.Keys.Int, want)
		}
	}
	insert(1, shanghai)
	insert(2, utc)
	check("growing", 1)
	n.flush()
	check("sealed", 1)
	for _, c := range []struct {
		zone string
		want int64
	}{{"UTC", 2}, {"Asia/Singapore", 1}, {"", 2}} {
		_, err := n.AlterCollection(within(t), things, "", map[string]string{PropertyTimezone: c.zone})
		must(t, err)
		check("zone "+c.zone, c.want)
	}
	if _, err := n.AlterCollection(within(t), things, "", map[string]string{PropertyTimezone: "nowhere"}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("a zone that is none: %v", err)
	}
}
