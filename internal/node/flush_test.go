package node

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/objstore"
)

// dying is object storage as seen by a node that dies at its n-th write, which
// may have been done or not.
type dying struct {
	objstore.Bucket
	left    *atomic.Int64 // writes until then
	reached bool
	dead    *atomic.Bool
	at      *atomic.Value // key of that write
}

func (d dying) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	switch n := d.left.Add(-1); {
	case n == 0:
		d.at.Store(key)
		if d.reached {
			if info, err := d.Bucket.Put(ctx, key, r, size, o); err != nil {
				return info, err
			}
		}
		d.dead.Store(true)
		return objstore.Info{}, errDead
	case n < 0:
		return objstore.Info{}, errDead
	}
	return d.Bucket.Put(ctx, key, r, size, o)
}

// TestANodeThatDiesAtAnyWriteOfAFlushLosesNothing: data first, checkpoint last.
// Whichever write to object storage is its last, the next node has every row once
// and no deleted one, be it from files or from the log, which was trimmed as far
// as the checkpoint says.
func TestANodeThatDiesAtAnyWriteOfAFlushLosesNothing(t *testing.T) {
	files, commits := 0, 0
	// Which write is the n-th is not the same each time: go on until the important ones were met.
	for i := 0; i < 2 || i < 8 && (files < 5 || commits < 2); i++ {
		reached := i%2 == 1
		for n := int64(1); ; n++ {
			w := newWorld(t)
			last := dying{Bucket: w.bucket.Bucket, left: &atomic.Int64{}, reached: reached, dead: &atomic.Bool{}, at: &atomic.Value{}}
			last.left.Store(1 << 40)
			w.bucket.Bucket = last
			first := w.open(nil).ready()
			first.create()
			first.insert(between(0, 10)...)
			first.flush()
			first.insert(between(10, 20)...)
			first.remove(0, 1, 15)
			coll, err := first.Collection(within(t), things)
			must(t, err)
			last.left.Store(n)
			_, _, err = first.Flush(within(t), things, false)
			must(t, err)
			eventually(t, "the checkpoint is behind the deletes, or the node is dead", func() bool {
				c, err := first.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
				return last.dead.Load() || err == nil && len(c.Segments) == 2 && c.CheckpointTimestamp >= c.Segments[1].MaxTimestamp && len(c.Deltas) > 0
			})
			first.kill()
			key, _ := last.at.Load().(string)
			switch {
			case strings.HasPrefix(key, "segments/"), strings.HasPrefix(key, "deltas/"):
				files++
			case strings.HasPrefix(key, "catalog/channels/"):
				commits++
			}
			w.bucket.Bucket = last.Bucket
			next := w.open(nil).ready()
			next.has(17)
			next.flush()
			next.has(17)
			next.kill()
			if key == "" {
				break // the flush has fewer writes
			}
		}
	}
	if files < 5 || commits < 2 {
		t.Errorf("it died at %d writes of files and %d of the channel's manifest", files, commits)
	}
}
