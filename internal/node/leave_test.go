package node

import (
	"context"
	"io"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/segments"
)

// stuck is object storage whose writes of segments hang while a test wants it,
// whatever their context says.
type stuck struct {
	objstore.Bucket
	gate atomic.Pointer[chan struct{}]
	hang atomic.Int64 // how many
}

func (s *stuck) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if gate := s.gate.Load(); gate != nil {
		s.hang.Add(1)
		<-*gate
		s.hang.Add(-1)
	}
	return s.Bucket.Put(ctx, key, r, size, o)
}

// seen counts the rows that a read sees which has found out before what it must cover.
func (r *rig) seen() (rows int64, err error) {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	served, ok := r.set.Collection(coll.ID)
	if !ok {
		r.t.Fatal("the collection is not served")
	}
	res, err := served.Query(within(r.t), &segments.QueryRequest{Read: segments.Read{OutputFields: []int64{thingID}}},
		func(b *schema.Batch, _ uint64) error { rows += int64(b.Rows); return nil })
	if err == nil && res.Stats.SearchedShare != 1 {
		r.t.Errorf("a part of it: %v", res.Stats.SearchedShare)
	}
	return rows, err
}

// TestAChannelIsLeftBeforeItsSegments, so that no read answers without them, and one
// that cannot be left keeps them: its flush hangs.
func TestAChannelIsLeftBeforeItsSegments(t *testing.T) {
	for name, away := range map[string]func(ctx context.Context, r *rig) error{
		"release": func(ctx context.Context, r *rig) error { _, err := r.ReleaseSegments(ctx, things, nil); return err },
		"unwatch": func(ctx context.Context, r *rig) error { _, err := r.UnwatchChannels(ctx, things, nil); return err },
	} {
		t.Run(name, func(t *testing.T) {
			storage := &stuck{}
			r := newWorld(t).open(func(o *Options) {
				dispatched(o)
				storage.Bucket, o.Bucket = o.Bucket, storage
			})
			r.create()
			r.own()
			r.load()
			r.insert(between(0, 100)...)
			r.flush()
			r.load()
			r.insert(between(100, 110)...)
			r.has(110)

			gate := make(chan struct{})
			storage.gate.Store(&gate)
			_, _, err := r.Flush(within(t), things, false)
			must(t, err)
			eventually(t, "a write hangs", func() bool { return storage.hang.Load() > 0 })
			ctx, cancel := context.WithCancel(within(t))
			defer cancel()
			left := make(chan error)
			go func() { left <- away(ctx, r) }()
			eventually(t, "the channel is off the list", func() bool { return len(r.Channels()) == 0 })
			if rows, err := r.seen(); err == nil && rows != 110 {
				t.Errorf("a read meanwhile sees %d rows and no error", rows)
			}
			cancel()
			if err := <-left; err == nil {
				t.Error("nobody says that the channel could not be left")
			}
			storage.gate.Store(nil)
			close(gate)
			r.has(110)
			r.flush()
			r.has(110)
			must(t, away(within(t), r))
			if _, _, err := r.count(within(t), false); err == nil {
				t.Error("a collection that was let go of is read")
			}
			r.load()
			r.has(110)
		})
	}
}
