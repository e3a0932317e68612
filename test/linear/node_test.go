package linear

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

const (
	collection = "registers"
	topics     = 2
)

// incarnation is one life of the node, from its start to its kill or close.
type incarnation struct {
	node  *node.Node
	fuse  *fuse
	queue string // folder
	stack *lifecycle.Stack
	pk    schema.Field
	value schema.Field
}

// life says how an incarnation lives.
type life struct {
	dir    string   // of the objects
	queue  string   // folder of the queue
	shared mq.Queue // used instead of one of its own, beside others; nil = none
	number int      // of the incarnation
	tick   time.Duration
}

// start opens a node.
func start(t *testing.T, l life) *incarnation {
	t.Helper()
	dir, number := l.dir, l.number
	in := &incarnation{fuse: &fuse{}, queue: l.queue, stack: lifecycle.NewStack()}
	log := slog.New(slog.DiscardHandler)
	push := func(name string, closer func(context.Context) error) {
		must(t, in.stack.Push(name, closer, 5*time.Second))
	}
	store, err := objstore.Open(t.Context(), "file://"+filepath.Join(dir, "objects"), objstore.Options{})
	must(t, err)
	push("bucket", store.Close)
	bucket := fusedBucket{store, in.fuse}
	cat, err := catalog.Open(t.Context(), catalog.Options{Bucket: bucket, Logger: log})
	must(t, err)
	disk := l.shared
	if disk == nil {
		own, err := embedded.Open(embedded.Options{Dir: l.queue, SegmentBytes: 16 << 10, Logger: log})
		must(t, err)
		push("queue", own.Close)
		disk = own
	}
	queue := fusedQueue{disk, in.fuse}
	p, err := pool.New(pool.Options{Name: "search", Logger: log})
	must(t, err)
	push("pool", p.Close)
	run := filepath.Join(dir, fmt.Sprint("run-", number))
	set, err := segments.New(segments.Options{Dir: filepath.Join(run, "segments"), Pool: p, Bucket: bucket,
		Ledger: segments.NewLedger(0), GrowingRows: 10_000, Logger: log})
	must(t, err)
	push("segments", set.Close)
	disp, err := dispatcher.New(dispatcher.Options{Queue: queue, Logger: log})
	must(t, err)
	push("dispatcher", disp.Close)
	var names []string
	for i := range topics {
		names = append(names, fmt.Sprint("topic-", i))
	}
	in.node, err = node.Open(node.Options{Name: "linear", Dir: run, Catalog: cat, Bucket: bucket, Queue: queue, Segments: set,
		Dispatcher: disp, PChannels: names, Standalone: true, Sole: l.shared == nil, RefreshInterval: 100 * time.Millisecond,
		Flush: flush.Options{SealRows: 60, Interval: 20 * time.Millisecond, CheckpointInterval: 50 * time.Millisecond, Logger: log},
		WAL:   wal.Options{TimeTickInterval: l.tick}, Logger: log})
	must(t, err)
	push("node", in.node.Close)
	return in
}

func (in *incarnation) ready(t *testing.T) {
	t.Helper()
	select {
	case <-in.node.Ready():
	case <-time.After(3 * time.Minute):
		t.Fatalf("node not ready: %+v", in.node.Problem())
	}
	coll, err := in.node.Collection(t.Context(), collection)
	if err != nil {
		coll, err = in.node.CreateCollection(t.Context(), node.NewCollection{Name: collection, Shards: 3, Schema: schema.Schema{
			Fields: []schema.Field{
				{ID: schema.FirstFieldID, Name: "id", Type: schema.Int64, PrimaryKey: true},
				{ID: schema.FirstFieldID + 1, Name: "value", Type: schema.Int64},
				{ID: schema.FirstFieldID + 2, Name: "v", Type: schema.FloatVector, Dim: 2},
			}}})
	}
	must(t, err)
	in.pk, in.value = coll.Schema.Fields[0], coll.Schema.Fields[1]
}

// close ends the incarnation; a killed one must end within its deadlines too.
func (in *incarnation) close(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	rep := in.stack.Close(ctx)
	if rep.Err() != nil && !in.fuse.blown.Load() {
		t.Errorf("close: %v", rep.Err())
	}
}

func (in *incarnation) keys(key int64) *schema.Column {
	c := schema.NewColumn(in.pk, 1)
	c.Int = append(c.Int, key)
	return c
}

func (in *incarnation) upsert(ctx context.Context, key, value int64) error {
	b := &schema.Batch{Rows: 1, Columns: []*schema.Column{
		in.keys(key),
		{FieldID: in.value.ID, Type: schema.Int64, Int: []int64{value}},
		{FieldID: in.value.ID + 1, Type: schema.FloatVector, Dim: 2, Float: []float32{float32(key), 1}},
	}}
	_, err := in.node.Insert(ctx, collection, "", b, true)
	return err
}

func (in *incarnation) delete(ctx context.Context, key int64) error {
	_, err := in.node.Delete(ctx, collection, "", in.keys(key))
	return err
}

// get reads with Strong; absent = 0.
func (in *incarnation) get(ctx context.Context, key int64) (int64, error) {
	rows, err := in.node.Get(ctx, node.Select{Collection: collection, OutputFields: []string{"value"},
		Freshness: node.Freshness{Level: node.Strong}}, in.keys(key))
	if err != nil || rows.Batch.Rows == 0 {
		return 0, err
	}
	if rows.Batch.Rows > 1 {
		return -1, nil // no sequence of operations explains that
	}
	for i, f := range rows.Fields {
		if f.ID == in.value.ID {
			return rows.Batch.Columns[i].Int[0], nil
		}
	}
	return 0, errors.New("the answer lacks the value")
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}
