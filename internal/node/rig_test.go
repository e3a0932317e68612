package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

const (
	things  = "things"
	topic   = "topic-0"
	hangs   = 3 * time.Minute // what should happen at once, on a machine that has much else to do
	thingID = schema.FirstFieldID
)

// world is what nodes share: object storage and a broker, both in memory.
type world struct {
	t      testing.TB
	bucket *detour
	broker *mqtest.Broker
	queue  func() mq.Queue // opens a connection for the next node; nil = to broker
	memory int64           // limit of the nodes' ledgers; 0 = none
	nodes  int
}

func newWorld(t testing.TB) *world {
	return &world{t: t, bucket: &detour{Bucket: objstore.NewMem(nil)}, broker: mqtest.NewBroker(mqtest.MemoryOptions{})}
}

// detour is a bucket whose reads tests hold up or lead elsewhere.
type detour struct {
	objstore.Bucket
	mu   sync.Mutex
	hold func(ctx context.Context, key string) (instead string)
}

func (d *detour) set(hold func(ctx context.Context, key string) string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hold = hold
}

func (d *detour) Get(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	d.mu.Lock()
	hold := d.hold
	d.mu.Unlock()
	if hold != nil {
		key = hold(ctx, key)
	}
	return d.Bucket.Get(ctx, key, offset, length)
}

// rig is one node of a world.
type rig struct {
	*Node
	t     testing.TB
	set   *segments.Set
	dead  *atomic.Bool // its writes to object storage fail
	close func()
}

// kill ends the node as a crash does: nothing of what it does from now on counts.
func (r *rig) kill() {
	r.dead.Store(true)
	r.close()
}

// mortal is object storage as seen by one node.
type mortal struct {
	objstore.Bucket
	dead *atomic.Bool
}

var errDead = errclass.New(errclass.Retryable, "the node is dead")

func (m mortal) Put(ctx context.Context, key string, r io.Reader, size int64, o objstore.PutOptions) (objstore.Info, error) {
	if m.dead.Load() {
		return objstore.Info{}, errDead
	}
	return m.Bucket.Put(ctx, key, r, size, o)
}

// open starts a node that is closed with the test. change may be nil.
func (w *world) open(change func(*Options)) *rig {
	t := w.t
	t.Helper()
	w.nodes++
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelError}))
	stack := lifecycle.NewStack()
	push := func(name string, closer func(context.Context) error) {
		must(t, stack.Push(name, closer, hangs))
	}
	dir := filepath.Join(t.TempDir(), fmt.Sprint("node-", w.nodes)) // removed after the node is closed
	dead := &atomic.Bool{}
	bucket := mortal{w.bucket, dead}
	var set *segments.Set
	closeAll := sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hangs)
		defer cancel()
		if rep := stack.Close(ctx); rep.Err() != nil && !dead.Load() {
			t.Errorf("close: %v", rep.Err())
		}
		if l := set.Ledger(); l.Ahead() != 0 || l.Leaving() != 0 {
			t.Errorf("the ledger has %d bytes ahead of a node that is closed, and %d segments that are to go", l.Ahead(), l.Leaving())
		}
	})
	t.Cleanup(closeAll)
	cat, err := catalog.Open(t.Context(), catalog.Options{Bucket: bucket, Logger: log})
	must(t, err)
	var queue mq.Queue = w.broker.Connect()
	if w.queue != nil {
		queue = w.queue()
	}
	push("queue", queue.Close)
	p, err := pool.New(pool.Options{Name: "search", Logger: log})
	must(t, err)
	push("pool", p.Close)
	set, err = segments.New(segments.Options{Dir: filepath.Join(dir, "segments"), Pool: p, Bucket: bucket,
		Ledger: segments.NewLedger(w.memory), GrowingRows: 10_000, Logger: log})
	must(t, err)
	push("segments", set.Close)
	disp, err := dispatcher.New(dispatcher.Options{Queue: queue, Logger: log})
	must(t, err)
	push("dispatcher", disp.Close)
	o := Options{Name: fmt.Sprint("node-", w.nodes), Dir: dir, Catalog: cat, Bucket: bucket, Queue: queue, Segments: set, Dispatcher: disp,
		PChannels: []string{topic}, Standalone: true, RefreshInterval: 20 * time.Millisecond, Logger: log,
		Flush: flush.Options{Interval: 5 * time.Millisecond, CheckpointInterval: 10 * time.Millisecond, Logger: log},
		WAL:   wal.Options{TimeTickInterval: 10 * time.Millisecond}}
	if change != nil {
		change(&o)
	}
	n, err := Open(o)
	must(t, err)
	push("node", n.Close)
	return &rig{Node: n, t: t, set: set, dead: dead, close: closeAll}
}

// dispatched makes a node that serves only what it is told to.
func dispatched(o *Options) { o.Standalone = false }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

func within(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hangs)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok says so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(hangs); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", hangs, what)
		}
	}
}

func (r *rig) ready() *rig {
	r.t.Helper()
	select {
	case <-r.Ready():
	case <-time.After(hangs):
		r.t.Fatalf("not ready: %v", r.Problem())
	}
	return r
}

// own takes the log for the next term.
func (r *rig) own() {
	r.t.Helper()
	_, _, err := r.AssignChannel(within(r.t), topic, 0)
	must(r.t, err)
}

func (r *rig) create() {
	r.t.Helper()
	_, err := r.CreateCollection(within(r.t), NewCollection{Name: things, Schema: schema.Schema{Fields: []schema.Field{
		{ID: thingID, Name: "id", Type: schema.Int64, PrimaryKey: true},
		{ID: thingID + 1, Name: "v", Type: schema.FloatVector, Dim: 2},
	}}})
	must(r.t, err)
}

func (r *rig) load() {
	r.t.Helper()
	_, err := r.LoadCollection(within(r.t), things)
	must(r.t, err)
}

func keysOf(ids ...int64) *schema.Column {
	return &schema.Column{FieldID: thingID, Type: schema.Int64, Int: ids}
}

func between(from, to int64) (ids []int64) {
	for id := from; id < to; id++ {
		ids = append(ids, id)
	}
	return ids
}

func (r *rig) insert(ids ...int64) {
	r.t.Helper()
	_, err := r.Insert(within(r.t), things, "", &schema.Batch{Rows: len(ids), Columns: []*schema.Column{keysOf(ids...),
		{FieldID: thingID + 1, Type: schema.FloatVector, Dim: 2, Float: make([]float32, 2*len(ids))}}}, false)
	must(r.t, err)
}

func (r *rig) remove(ids ...int64) {
	r.t.Helper()
	_, err := r.Delete(within(r.t), things, "", keysOf(ids...))
	must(r.t, err)
}

func (r *rig) flush() {
	r.t.Helper()
	_, _, err := r.Flush(within(r.t), things, true)
	must(r.t, err)
}

// count reads with STRONG how many rows there are.
func (r *rig) count(ctx context.Context, partial bool) (int64, *segments.QueryResult, error) {
	return r.countAt(ctx, Freshness{Level: Strong}, partial)
}

func (r *rig) countAt(ctx context.Context, f Freshness, partial bool) (int64, *segments.QueryResult, error) {
	res, err := r.Query(ctx, &Query{Select: Select{Collection: things, OutputFields: []string{countStar}, AllowPartial: partial,
		Freshness: f}}, func(*Rows) error { return nil })
	if err != nil {
		return 0, nil, err
	}
	return res.Count, res.QueryResult, nil
}

func (r *rig) has(want int64) {
	r.t.Helper()
	got, _, err := r.count(within(r.t), false)
	must(r.t, err)
	if got != want {
		r.t.Fatalf("%s has %d rows, want %d", r.Name(), got, want)
	}
}
