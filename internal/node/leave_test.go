package node

import (
	"context"
	"io"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
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

// TestAChannelThatIsNamedTwice is left once, and named once.
func TestAChannelThatIsNamedTwice(t *testing.T) {
	r := newWorld(t).open(dispatched)
	r.create()
	r.own()
	r.load()
	name := r.Channels()[0].VChannel
	gone, err := r.UnwatchChannels(within(t), things, []string{name, name})
	if must(t, err); !slices.Equal(gone, []string{name}) {
		t.Errorf("left %q, want %q", gone, name)
	}
}

// lingering is a queue whose readers do not close while a test wants it.
type lingering struct {
	mq.Queue
	gate *atomic.Pointer[chan struct{}]
	hang *atomic.Int64
}

func (l lingering) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	r, err := l.Queue.OpenReader(ctx, topic, o)
	return lingeringReader{r, l}, err
}

type lingeringReader struct {
	mq.Reader
	of lingering
}

func (r lingeringReader) Close(ctx context.Context) error {
	if gate := r.of.gate.Load(); gate != nil {
		r.of.hang.Add(1)
		<-*gate
	}
	return r.Reader.Close(ctx)
}

// TestACollectionIsReleasedThoughItsReaderLingers: no channel is left, so nothing is kept
// of what the node knew, and the error is told besides.
func TestACollectionIsReleasedThoughItsReaderLingers(t *testing.T) {
	w := newWorld(t)
	of := lingering{w.broker.Connect(), &atomic.Pointer[chan struct{}]{}, &atomic.Int64{}}
	w.queue = func() mq.Queue { return of }
	r := w.open(dispatched)
	r.create()
	r.own()
	r.load()
	r.insert(between(0, 10)...)
	r.flush()
	r.load()
	r.insert(between(10, 30)...)
	r.flush()
	r.load()
	coll, err := r.Collection(within(t), things)
	must(t, err)
	c, err := r.o.Catalog.Channel(within(t), coll.VChannels[0].Name)
	must(t, err)
	if len(c.Segments) != 2 {
		t.Fatalf("%d segments", len(c.Segments))
	}
	_, err = r.ReleaseSegments(within(t), things, []int64{c.Segments[0].ID})
	must(t, err)

	gate := make(chan struct{})
	of.gate.Store(&gate)
	ctx, cancel := context.WithCancel(within(t))
	defer cancel()
	var ids []int64
	left := make(chan error)
	go func() {
		var err error
		ids, err = r.ReleaseSegments(ctx, things, nil)
		left <- err
	}()
	eventually(t, "its reader is being closed", func() bool { return of.hang.Load() > 0 })
	cancel()
	err = <-left
	of.gate.Store(nil)
	close(gate)
	if err == nil {
		t.Error("nobody says that the reader did not close")
	}
	if !slices.Equal(ids, []int64{c.Segments[1].ID}) {
		t.Errorf("released %v, want %d", ids, c.Segments[1].ID)
	}
	r.mu.Lock()
	known := len(r.mu.serving[coll.ID].released)
	r.mu.Unlock()
	if known != 0 {
		t.Errorf("%d segments are still known as released by id", known)
	}
	r.load()
	r.has(30)
}
