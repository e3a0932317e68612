package flush

import (
	"context"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/index"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

// stuckBucket is a storage in which uploads of some keys hang; deaf ones do not
// even end with their context.
type stuckBucket struct {
	objstore.Bucket
	stuck   atomic.Pointer[string] // what is in those keys; nil = none
	deaf    bool
	entered chan string
	release chan struct{}
}

func (b *stuckBucket) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if part := b.stuck.Load(); part != nil && strings.HasPrefix(key, "segments/") && strings.Contains(key, *part) {
		b.entered <- key
		end := ctx.Done()
		if b.deaf {
			end = nil
		}
		select {
		case <-end:
			return objstore.Info{}, ctx.Err()
		case <-b.release:
		}
	}
	return b.Bucket.Put(ctx, key, r, size, o)
}

// road is a flusher that owns the log of a topic with some channels.
type road struct {
	t        *testing.T
	f        *Flusher
	bucket   *stuckBucket
	channels []Channel
	broker   *mqtest.Memory
	w        *wal.WAL
	ids      int64
	trims    atomic.Int64
}

// newRoad stores in o.Bucket and tells o.Logger; nil = in memory, and the test.
func newRoad(t *testing.T, shards int, o Options) *road {
	t.Helper()
	if o.Bucket == nil {
		o.Bucket = objstore.NewMem(nil)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.NewTextHandler(t.Output(), nil))
	}
	r := &road{t: t, bucket: &stuckBucket{Bucket: o.Bucket, entered: make(chan string, 100), release: make(chan struct{})}}
	cat, err := catalog.Open(t.Context(), catalog.Options{Bucket: r.bucket})
	must(t, err)
	s := schema.Schema{Version: 1, Fields: []schema.Field{
		{ID: 100, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: 101, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}
	made, err := cat.CreateCollection(t.Context(), catalog.CollectionSpec{Name: "items", Schema: s, Shards: shards, PChannels: []string{"p"}})
	must(t, err)
	p, err := pool.New(pool.Options{Workers: 1})
	must(t, err)
	set, err := segments.New(segments.Options{Dir: filepath.Join(t.TempDir(), "segments"), Pool: p, GrowingRows: 1000})
	must(t, err)
	coll := set.Add(segments.CollectionInfo{ID: made.ID, Name: "items", Schema: &s, Indexes: map[int64]segments.VectorIndex{101: {Type: "FLAT", Metric: index.L2}}})
	for _, v := range made.VChannels {
		ch, err := coll.Watch(v.Name, segments.Position{ID: "0", Timestamp: 1}, nil)
		must(t, err)
		r.channels = append(r.channels, Channel{Channel: ch, PChannel: "p"})
	}
	r.broker = mqtest.NewMemory(mqtest.MemoryOptions{Hooks: mqtest.Hooks{BeforeTrim: func(context.Context, string, mq.Position) error { r.trims.Add(1); return nil }}})
	r.w, err = wal.Open(wal.Options{Queue: r.broker, PChannel: "p", Term: 1, TimeTickInterval: -1})
	must(t, err)
	must(t, r.w.Ready(t.Context()))
	r.ids = made.Partitions[0].ID + 1000
	o.Catalog, o.Bucket, o.Dir = cat, r.bucket, filepath.Join(t.TempDir(), "flush")
	if o.WAL == nil {
		o.WAL = func(string) (*wal.WAL, error) { return r.w, nil }
	}
	if o.Channels == nil {
		o.Channels = func() []Channel { return r.channels }
	}
	r.f, err = New(o)
	must(t, err)
	t.Cleanup(func() {
		for _, c := range []func(context.Context) error{r.f.Close, set.Close, p.Close, r.w.Close, r.broker.Close, r.bucket.Close} {
			must(t, c(context.Background()))
		}
	})
	return r
}

// sealed puts a row into a segment of a channel and seals it, and returns its id.
func (r *road) sealed(ch Channel) (id int64) {
	r.t.Helper()
	r.ids++
	id = r.ids
	b := &schema.Batch{Rows: 1, Columns: []*schema.Column{{FieldID: 100, Type: schema.Int64, Int: []int64{id}},
		{FieldID: 101, Type: schema.FloatVector, Dim: 2, Float: []float32{1, 2}}}}
	must(r.t, ch.ApplyRows(segments.Rows{SegmentID: id, PartitionID: 1, Batch: b}, r.logged(ch)))
	at := r.logged(ch)
	ch.ApplySeal([]int64{id}, at)
	ch.Advance(at)
	return id
}

// logged writes an entry to the log, and returns where it is.
func (r *road) logged(ch Channel) segments.Position {
	r.t.Helper()
	e, err := r.w.Append(r.t.Context(), wal.Entry{Type: wal.Insert, VChannel: ch.Name(), Body: []byte("x")})
	must(r.t, err)
	return segments.Position(e.Position)
}

func (r *road) stored(ch Channel, id int64) {
	r.t.Helper()
	must(r.t, r.f.Wait(r.t.Context(), ch, ch.Tsafe(), id))
	c, err := r.f.o.Catalog.Channel(r.t.Context(), ch.Name())
	must(r.t, err)
	for _, s := range c.Segments {
		if s.ID == id {
			return
		}
	}
	r.t.Fatalf("segment %d is not in the catalog: %+v", id, c.Segments)
}

// hang makes the uploads of a segment hang.
func (r *road) hang(id int64) {
	part := "/" + segmentPath(0, id, 0)[len(catalog.SegmentFolder(0))+1:]
	part = part[:strings.Index(part, "-")+1] // the beginning, whatever the try
	r.bucket.stuck.Store(&part)
}

// TestAChannelWhoseUploadHangsDelaysNoOther: they are flushed again and again meanwhile.
func TestAChannelWhoseUploadHangsDelaysNoOther(t *testing.T) {
	r := newRoad(t, 4, Options{Interval: time.Hour, StepTimeout: time.Hour, Parallel: 2})
	slow := r.sealedAndHanging(r.channels[0])
	for range 3 {
		for _, ch := range r.channels[1:] {
			r.stored(ch, r.sealed(ch))
		}
	}
	if r.channels[0].IsFlushed(slow) {
		t.Fatal("the upload did not hang")
	}
	close(r.bucket.release)
	r.stored(r.channels[0], slow)
}

func (r *road) sealedAndHanging(ch Channel) int64 {
	r.t.Helper()
	r.hang(r.ids + 1)
	id := r.sealed(ch)
	r.f.Kick()
	<-r.bucket.entered
	return id
}

// TestNoMoreStepsThanThereMayBe: each one can have a built segment on the disk.
func TestNoMoreStepsThanThereMayBe(t *testing.T) {
	r := newRoad(t, 4, Options{Interval: time.Hour, StepTimeout: time.Hour, Parallel: 2})
	all := "segments/"
	r.bucket.stuck.Store(&all)
	ids := make([]int64, 4)
	for i, ch := range r.channels {
		ids[i] = r.sealed(ch)
	}
	r.f.Kick()
	<-r.bucket.entered
	<-r.bucket.entered
	r.f.mu.Lock()
	steps := len(r.f.mu.steps)
	r.f.mu.Unlock()
	if steps != 2 || len(r.bucket.entered) > 0 {
		t.Errorf("%d steps, %d more uploads", steps, len(r.bucket.entered))
	}
	r.bucket.stuck.Store(nil)
	close(r.bucket.release)
	for i, ch := range r.channels {
		r.stored(ch, ids[i])
	}
}

// TestForgetEndsOneStepOnly.
func TestForgetEndsOneStepOnly(t *testing.T) {
	r := newRoad(t, 2, Options{Interval: time.Hour, StepTimeout: time.Hour})
	r.sealedAndHanging(r.channels[0])
	must(t, r.f.Forget(t.Context(), r.channels[1].Name())) // nothing to wait for
	must(t, r.f.Forget(t.Context(), r.channels[0].Name()))
	r.f.Kick()
	<-r.bucket.entered // it is still among the channels: the step begins again
	close(r.bucket.release)
}

// TestCloseNamesTheChannelWhoseStepDoesNotEnd, and meets its deadline.
func TestCloseNamesTheChannelWhoseStepDoesNotEnd(t *testing.T) {
	r := newRoad(t, 2, Options{Interval: time.Hour, StepTimeout: time.Hour})
	r.bucket.deaf = true
	r.sealedAndHanging(r.channels[1])
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := r.f.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "flush "+r.channels[1].Name()) || strings.Contains(err.Error(), r.channels[0].Name()) {
		t.Fatalf("%v, want an error that names %s alone", err, r.channels[1].Name())
	}
	close(r.bucket.release)
	must(t, r.f.Close(t.Context()))
	if r.channels[1].IsFlushed(r.ids) {
		t.Error("it was committed after the end")
	}
}

// TestATopicIsTrimmedNoMoreOftenThanItHasTo, whatever number of channels it carries.
func TestATopicIsTrimmedNoMoreOftenThanItHasTo(t *testing.T) {
	r := newRoad(t, 3, Options{Interval: time.Hour, CheckpointInterval: time.Hour})
	trims := func(late bool) (due bool) {
		r.f.mu.Lock()
		if t := r.f.mu.trims["p"]; t != nil && late {
			t.after = time.Time{}
		}
		r.f.mu.Unlock()
		r.f.trims()
		r.f.mu.Lock()
		defer r.f.mu.Unlock()
		t := r.f.mu.trims["p"]
		return t != nil && t.due && !t.busy
	}
	flushAll := func() {
		for _, ch := range r.channels {
			r.stored(ch, r.sealed(ch))
		}
	}
	flushAll()
	for r.trims.Load() == 0 {
		trims(true)
	}
	flushAll()
	for !trims(false) { // what moved is noted
	}
	before := r.trims.Load()
	for range 10 {
		trims(false)
	}
	if n := r.trims.Load(); n != before {
		t.Fatalf("%d trims before the time has come", n-before)
	}
	for r.trims.Load() == before {
		trims(true)
	}
}

// TestATrimThatFailsIsTriedAgain, with back-off, and is seen.
func TestATrimThatFailsIsTriedAgain(t *testing.T) {
	r := newRoad(t, 1, Options{Interval: 5 * time.Millisecond, CheckpointInterval: time.Millisecond})
	var failed atomic.Int64
	r.broker.SetHooks(mqtest.Hooks{BeforeTrim: func(context.Context, string, mq.Position) error {
		if failed.Add(1) <= 2 {
			return errclass.New(errclass.Retryable, "the queue is away")
		}
		r.trims.Add(1)
		return nil
	}})
	r.stored(r.channels[0], r.sealed(r.channels[0]))
	eventually(t, "a trim that fails is told", func() bool { return r.f.Failing() > 0 })
	r.stored(r.channels[0], r.sealed(r.channels[0])) // the channel goes on
	eventually(t, "the queue is trimmed", func() bool { return r.trims.Load() > 0 && r.f.Failing() == 0 })
}
