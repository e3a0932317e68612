package node

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
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
