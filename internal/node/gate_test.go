package node

import (
	"context"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/segments"
)

// deletesInMemory is what the buffered deletes of the collection take.
func (r *rig) deletesInMemory() int64 { return r.set.Ledger().Used()[segments.KindDeletes] }

// checkpointed waits until the catalog's checkpoint covers all that was written.
func (r *rig) checkpointed() {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	w, err := r.WALs().Get(topic)
	must(r.t, err)
	at := w.LastTimestamp()
	eventually(r.t, "a checkpoint after what was written", func() bool {
		c, err := r.o.Catalog.Channel(within(r.t), coll.VChannels[0].Name)
		return err == nil && c.CheckpointTimestamp >= at
	})
}

// TestAFollowerForgetsDeletesThatAreInFiles: one that does not write the files
// learns of them from the catalog, whether it serves all or what it was told to.
func TestAFollowerForgetsDeletesThatAreInFiles(t *testing.T) {
	w := newWorld(t)
	a, whole, part := w.open(dispatched), w.open(dispatched), w.open(dispatched)
	a.own()
	a.create()
	a.load()
	whole.load()
	a.insert(between(0, 100)...)
	a.flush()
	c, err := a.Collection(within(t), things)
	must(t, err)
	_, err = part.WatchChannels(within(t), things, nil)
	must(t, err)
	ch, err := a.o.Catalog.Channel(within(t), c.VChannels[0].Name)
	must(t, err)
	_, err = part.LoadSegments(within(t), things, []int64{ch.Segments[0].ID})
	must(t, err)
	a.remove(between(0, 40)...)
	for _, n := range []*rig{a, whole, part} {
		n.has(60)
	}
	a.checkpointed()
	for _, n := range []*rig{a, whole, part} {
		eventually(t, n.Name()+" forgets its deletes", func() bool { return n.deletesInMemory() == 0 })
		n.has(60)
		_, err := n.ReleaseSegments(within(t), things, []int64{ch.Segments[0].ID})
		must(t, err)
		_, err = n.LoadSegments(within(t), things, []int64{ch.Segments[0].ID})
		must(t, err)
		n.has(60) // from the files
	}
}

// TestALoadThatMissesDeletesIsRefused: storage that answers with an old manifest
// must not bring deleted rows back.
func TestALoadThatMissesDeletesIsRefused(t *testing.T) {
	w := newWorld(t)
	n := w.open(nil).ready()
	n.create()
	n.insert(between(0, 100)...)
	n.flush()
	coll, err := n.Collection(within(t), things)
	must(t, err)
	name := coll.VChannels[0].Name
	key := "catalog/channels/" + name + ".json"
	n.checkpointed()
	old, err := n.o.Catalog.Channel(within(t), name)
	must(t, err)
	copyObject(t, w.bucket, key, "old.json")
	n.remove(between(0, 40)...)
	n.has(60)
	n.checkpointed()
	eventually(t, "the deletes are in files", func() bool { return n.deletesInMemory() == 0 })
	id := old.Segments[0].ID
	_, err = n.ReleaseSegments(within(t), things, []int64{id})
	must(t, err)
	w.bucket.set(func(_ context.Context, k string) string {
		if k == key {
			return "old.json"
		}
		return k
	})
	if _, err = n.LoadSegments(within(t), things, []int64{id}); !errclass.Is(err, errclass.Retryable) {
		t.Errorf("a load by an old manifest: %v, want a retryable error", err)
	}
	w.bucket.set(nil)
	_, err = n.LoadSegments(within(t), things, []int64{id})
	must(t, err)
	n.has(60)
}

func copyObject(t *testing.T, b *detour, from, to string) {
	t.Helper()
	r, err := b.Get(within(t), from, 0, -1)
	must(t, err)
	defer func() { must(t, r.Close()) }()
	info, err := b.Head(within(t), from)
	must(t, err)
	_, err = b.Put(within(t), to, r, info.Size, objstore.PutOptions{})
	must(t, err)
}

// slowLoads holds every load of a segment until the returned function is called.
func (w *world) slowLoads() (release func()) {
	gate := make(chan struct{})
	w.bucket.set(func(ctx context.Context, key string) string {
		if strings.HasPrefix(key, "segments/") && path.Base(key) == "manifest.json" {
			select {
			case <-gate:
			case <-ctx.Done():
			}
		}
		return key
	})
	return sync.OnceFunc(func() { close(gate) })
}

// TestReadsWaitForWhatIsNotLoadedYet: a node that begins to serve a collection
// under constant reads answers with all rows, or says which are missing.
func TestReadsWaitForWhatIsNotLoadedYet(t *testing.T) {
	begin := map[string]func(*world, *rig) *rig{
		"a start": func(w *world, _ *rig) *rig { return w.open(nil) },
		"a load": func(w *world, _ *rig) *rig {
			n := w.open(dispatched)
			go func() {
				if _, err := n.LoadCollection(within(t), things); err != nil {
					t.Errorf("load: %v", err)
				}
			}()
			return n
		},
		"a load by ids": func(w *world, first *rig) *rig {
			n := w.open(dispatched)
			ids := first.sealed()
			go func() {
				if _, err := n.LoadSegments(within(t), things, ids); err != nil {
					t.Errorf("load: %v", err)
				}
			}()
			return n
		},
	}
	for name, start := range begin {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			first := w.open(dispatched)
			first.own()
			first.create()
			first.load()
			for i := range int64(3) {
				first.insert(between(i*100, i*100+100)...)
				first.flush()
			}
			first.insert(between(300, 320)...)
			release := w.slowLoads()
			defer release()
			n := start(w, first)
			eventually(t, "the channel is watched", func() bool { return len(n.Channels()) == 1 })
			var reads, refused, patience atomic.Int64
			patience.Store(int64(300 * time.Millisecond)) // as long as none can be answered
			var readers sync.WaitGroup
			stop := make(chan struct{})
			for range 4 {
				readers.Go(func() {
					for {
						select {
						case <-stop:
							return
						default:
						}
						ctx, cancel := context.WithTimeout(context.Background(), time.Duration(patience.Load()))
						got, _, err := n.count(ctx, false)
						cancel()
						switch {
						case err != nil:
							refused.Add(1)
						case got != 320:
							t.Errorf("a read sees %d of 320 rows", got)
							return
						default:
							reads.Add(1)
						}
					}
				})
			}
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, _, err := n.count(ctx, false)
			cancel()
			if !errclass.Is(err, errclass.Retryable) || ctx.Err() == nil && !strings.Contains(err.Error(), "loaded") {
				t.Errorf("a read that lacks segments: %v", err)
			}
			got, res, err := n.count(within(t), true)
			must(t, err)
			if len(res.Stats.Failures) != 3 || res.Stats.SearchedShare > 0.1 {
				t.Errorf("a partial answer has %d rows and tells of it: %+v", got, res.Stats)
			}
			if reads.Load() > 0 {
				t.Error("reads were answered before anything was loaded")
			}
			patience.Store(int64(hangs))
			release()
			n.has(320)
			eventually(t, "reads go on", func() bool { return reads.Load() > 10 })
			close(stop)
			readers.Wait()
			t.Logf("%d reads, %d refused while segments were missing", reads.Load(), refused.Load())
		})
	}
}

// sealed returns the ids of the segments in the catalog.
func (r *rig) sealed() (ids []int64) {
	r.t.Helper()
	coll, err := r.Collection(within(r.t), things)
	must(r.t, err)
	c, err := r.o.Catalog.Channel(within(r.t), coll.VChannels[0].Name)
	must(r.t, err)
	for _, s := range c.Segments {
		ids = append(ids, s.ID)
	}
	return ids
}

// trimmedOnce is a queue that has lost the place of the first reader.
type trimmedOnce struct {
	mq.Queue
	lost *atomic.Bool
}

func (q trimmedOnce) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	if !q.lost.Swap(true) {
		return nil, mq.ErrTrimmed
	}
	return q.Queue.OpenReader(ctx, topic, o)
}

// TestAChannelThatFailsWhileSegmentsAreLoadedBeginsAnew: reads do not wait for loads
// that take long, as they do when a checkpoint moves under a node that starts.
func TestAChannelThatFailsWhileSegmentsAreLoadedBeginsAnew(t *testing.T) {
	w := newWorld(t)
	first := w.open(dispatched)
	first.own()
	first.create()
	first.load()
	first.insert(between(0, 100)...)
	first.flush()
	first.insert(between(100, 120)...)
	release := w.slowLoads()
	defer release()
	lost := &atomic.Bool{}
	w.queue = func() mq.Queue { return trimmedOnce{w.broker.Connect(), lost} }
	n := w.open(dispatched)
	loaded := make(chan error, 1)
	go func() {
		_, err := n.LoadCollection(within(t), things)
		loaded <- err
	}()
	eventually(t, "the place is lost", lost.Load)
	patience := time.Second
	eventually(t, "a read of what is growing is answered", func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		patience *= 2
		got, _, err := n.count(ctx, true)
		return err == nil && got == 20
	})
	release()
	must(t, <-loaded)
	n.has(120)
}

// TestOneSegmentIsSaidAsOne, and several as such, with or without the reason.
func TestOneSegmentIsSaidAsOne(t *testing.T) {
	c := &catalog.Collection{Name: "c"}
	one, two := []catalog.Segment{{ID: 4, Rows: 7}}, []catalog.Segment{{ID: 4, Rows: 7}, {ID: 5, Rows: 1}}
	for err, want := range map[error]string{
		stillLoading(c, one, nil):                      `1 segment of collection "c" with 7 rows is still being loaded: 4; try again, or set allow_partial to be answered without it`,
		stillLoading(c, two, nil):                      `2 segments of collection "c" with 8 rows are still being loaded: 4, 5; try again, or set allow_partial to be answered without them`,
		stillLoading(c, one, context.DeadlineExceeded): `1 segment of collection "c" with 7 rows is not loaded yet: 4; try again, or set allow_partial to be answered without it. The last try: context deadline exceeded`,
	} {
		if err.Error() != want || !errclass.Is(err, errclass.Retryable) {
			t.Errorf("%v", err)
		}
	}
}
