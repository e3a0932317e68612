package node

import (
	"testing"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// TestAGetIsAccounted: its rows are all in memory at once, and wide rows are many
// bytes. With memory used up, few are answered all the same.
func TestAGetIsAccounted(t *testing.T) {
	n := newWorld(t).open(nil).ready()
	n.create()
	n.insert(between(0, MaxNQ)...)
	get := func(keys int64) (int, error) {
		t.Helper()
		rows, err := n.Get(within(t), Select{Collection: things, Freshness: Freshness{Level: Strong}}, keysOf(between(0, keys)...))
		if err != nil {
			return 0, err
		}
		return rows.Batch.Rows, nil
	}
	if got, err := get(MaxNQ); err != nil || got != MaxNQ {
		t.Fatalf("%d rows, %v", got, err)
	}
	n.set.Ledger().Observe(1000, 1000) // the process may not have more
	if got, err := get(MaxNQ); !errclass.Is(err, errclass.Exhausted) {
		t.Errorf("%d rows, %v, want class Exhausted", got, err)
	}
	if got, err := get(100); err != nil || got != 100 {
		t.Errorf("%d rows, %v", got, err)
	}
	n.set.Ledger().Observe(1000, 1<<40)
	if got, err := get(MaxNQ); err != nil || got != MaxNQ {
		t.Errorf("%d rows, %v", got, err)
	}
}

// TestAGetOfAKeyThatNoFilterCanName, of a collection of an earlier version: new ones
// have no such fields.
func TestAGetOfAKeyThatNoFilterCanName(t *testing.T) {
	n := newWorld(t).open(nil).ready()
	odd := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: thingID, Name: "In", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}
	if _, err := n.CreateCollection(within(t), NewCollection{Name: things, Schema: odd}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("a field called In: %v", err)
	}
	_, err := n.o.Catalog.CreateCollection(within(t), catalog.CollectionSpec{Name: things, Schema: odd, Shards: 1, PChannels: n.o.PChannels, CreatedTimestamp: n.now()})
	must(t, err)
	n.load()
	n.insert(1, 2, 3)
	rows, err := n.Get(within(t), Select{Collection: things, Freshness: Freshness{Level: Strong}}, keysOf(2, 7))
	must(t, err)
	if rows.Batch.Rows != 1 {
		t.Errorf("%d rows", rows.Batch.Rows)
	}
	if _, err := n.AddField(within(t), things, schema.Field{Name: "like", Type: schema.Int64, Nullable: true}); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("a field called like: %v", err)
	}
}

// TestAGetHasABound: it comes in one message.
func TestAGetHasABound(t *testing.T) {
	n := newWorld(t).open(func(o *Options) { o.MaxAnswerBytes = 1 << 12 }).ready()
	n.create()
	n.insert(between(0, 1000)...)
	get := func(keys int64) error {
		_, err := n.Get(within(t), Select{Collection: things, Freshness: Freshness{Level: Strong}}, keysOf(between(0, keys)...))
		return err
	}
	must(t, get(20))
	if err := get(1000); !errclass.Is(err, errclass.Invalid) {
		t.Errorf("%v, want class Invalid", err)
	}
}
