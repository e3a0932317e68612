package node

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
)

// counted counts the reads of the catalog's manifests, and the listings.
type counted struct {
	objstore.Bucket
	lists *atomic.Int64
}

func (c counted) List(ctx context.Context, prefix, after string, fn func(objstore.Info) error) error {
	c.lists.Add(1)
	return c.Bucket.List(ctx, prefix, after, fn)
}

// TestAnIdleNodeDoesNotReadTheCatalog: it sees by listings that nothing has
// changed, and notices at once when something has.
func TestAnIdleNodeDoesNotReadTheCatalog(t *testing.T) {
	const collections = 10
	w := newWorld(t)
	var gets, lists atomic.Int64
	w.bucket.Bucket = counted{w.bucket.Bucket, &lists}
	idle := func(o *Options) { o.Flush.CheckpointInterval, o.Compact.Interval = time.Hour, time.Hour }
	n := w.open(idle).ready()
	create := func(name string) {
		_, err := n.CreateCollection(within(t), NewCollection{Name: name, Schema: schema.Schema{Fields: []schema.Field{
			{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
			{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
		}}})
		must(t, err)
	}
	for i := range collections {
		create(fmt.Sprint("c", i))
	}
	w.bucket.set(func(_ context.Context, key string) string {
		if strings.HasPrefix(key, "catalog/") {
			gets.Add(1)
		}
		return key
	})
	look := func(n int64) { // waits for about n looks at the catalog
		for at := lists.Load(); lists.Load() < at+3*n; {
			time.Sleep(time.Millisecond)
		}
	}
	look(2)
	before := gets.Load()
	look(36)
	// Three manifests of each collection; all are read every twelfth time.
	if got, most := gets.Load()-before, int64(6*3*collections); got > most {
		t.Errorf("%d reads in 36 looks, want at most %d", got, most)
	}
	other := w.open(func(o *Options) { idle(o); o.Standalone = false })
	_, err := other.o.Catalog.DropCollection(within(t), "c3", 1)
	must(t, err)
	eventually(t, "the drop by another node is seen", func() bool { return len(n.Channels()) == collections-1 })
}
