package e2e

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/compact"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/server"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// testNode is a whole node and a client of it.
type testNode struct {
	t       *testing.T
	dir     string
	node    *node.Node
	set     *segments.Set
	run     string // folder of this run
	queue   mq.Queue
	addr    string
	conn    *grpc.ClientConn
	query   qnpb.QueryServiceClient
	write   qnpb.WriteServiceClient
	control qnpb.ControlServiceClient
	catalog qnpb.CatalogServiceClient
	admin   qnpb.AdminServiceClient
	stack   *lifecycle.Stack
	pulse   *qnpb.SearchRequest // what alive asks; nil = nothing
}

// hang is how long a test waits for what should happen at once, on a machine that
// has much else to do.
const hang = 3 * time.Minute

// options change a node under test.
type options struct {
	flush       flush.Options
	memory      int64
	growingRows int
	deleteBytes int64
	shardTopics int
	serve       func(*server.Options)                 // changes the server
	bucket      func(objstore.Bucket) objstore.Bucket // stands before the object storage
	queue       func(mq.Queue) mq.Queue               // stands before the queue
	beside      *testNode                             // whose queue this node uses too; dir is the same
	staleness   time.Duration                         // of BOUNDED reads; 0 = the default
	dispatched  bool                                  // the node serves only what it is told to
}

// start runs a node on the data in dir and waits until it is ready.
func start(t *testing.T, dir string, o options) *testNode {
	t.Helper()
	n := open(t, dir, o)
	select {
	case <-n.node.Ready():
	case <-time.After(hang):
		t.Fatalf("node not ready: %v", n.node.Problem())
	}
	return n
}

func open(t *testing.T, dir string, o options) *testNode {
	t.Helper()
	n := &testNode{t: t, dir: dir, stack: lifecycle.NewStack()}
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	ctx := t.Context()
	push := func(name string, closer func(context.Context) error) {
		must(t, n.stack.Push(name, closer, hang))
	}
	bucket, err := objstore.Open(ctx, "file://"+filepath.Join(dir, "objects"), objstore.Options{})
	must(t, err)
	push("bucket", bucket.Close)
	if o.bucket != nil {
		bucket = o.bucket(bucket)
	}
	cat, err := catalog.Open(ctx, catalog.Options{Bucket: bucket, Logger: log})
	must(t, err)
	if o.beside != nil {
		n.queue = o.beside.queue
	} else {
		files, err := embedded.Open(embedded.Options{Dir: filepath.Join(dir, "queue"), Logger: log})
		must(t, err)
		push("queue", files.Close)
		n.queue = files
		if o.queue != nil {
			n.queue = o.queue(files)
		}
	}
	p, err := pool.New(pool.Options{Name: "search", Logger: log})
	must(t, err)
	push("pool", p.Close)
	n.run = filepath.Join(dir, fmt.Sprintf("run-%d", time.Now().UnixNano()))
	n.set, err = segments.New(segments.Options{Dir: filepath.Join(n.run, "segments"), Pool: p, Bucket: bucket,
		Ledger: segments.NewLedger(o.memory), GrowingRows: max(o.growingRows, 20_000), DeleteBytes: o.deleteBytes, Logger: log})
	must(t, err)
	push("segments", n.set.Close)
	disp, err := dispatcher.New(dispatcher.Options{Queue: n.queue, Logger: log})
	must(t, err)
	push("dispatcher", disp.Close)
	topics := []string{"topic-0"}
	for i := 1; i < o.shardTopics; i++ {
		topics = append(topics, fmt.Sprintf("topic-%d", i))
	}
	n.node, err = node.Open(node.Options{Name: "test", Dir: n.run, Catalog: cat, Bucket: bucket, Queue: n.queue, Segments: n.set,
		Dispatcher: disp, PChannels: topics, Standalone: !o.dispatched, Sole: o.beside == nil && !o.dispatched, BoundedStaleness: o.staleness, RefreshInterval: 200 * time.Millisecond,
		Flush: o.flush, Compact: compact.Options{Interval: -1}, WAL: wal.Options{TimeTickInterval: 20 * time.Millisecond}, Logger: log})
	must(t, err)
	push("node", n.node.Close)
	machine := lifecycle.NewMachine()
	must(t, machine.To(lifecycle.Recovering, "test"))
	must(t, machine.To(lifecycle.Serving, "test"))
	so := server.Options{Node: n.node, Machine: machine, Pool: p, Logger: log}
	if o.serve != nil {
		o.serve(&so)
	}
	srv, err := server.New(so)
	must(t, err)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(lis) }()
	push("server", func(ctx context.Context) error {
		err := srv.Close(ctx)
		if serr := <-served; serr != nil {
			return serr
		}
		return err
	})
	n.addr = lis.Addr().String()
	n.conn, err = grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	must(t, err)
	push("client", func(context.Context) error { return n.conn.Close() })
	n.query, n.write = qnpb.NewQueryServiceClient(n.conn), qnpb.NewWriteServiceClient(n.conn)
	n.control, n.catalog = qnpb.NewControlServiceClient(n.conn), qnpb.NewCatalogServiceClient(n.conn)
	n.admin = qnpb.NewAdminServiceClient(n.conn)
	t.Cleanup(func() { n.stop() })
	return n
}

// stop closes the node and fails the test if anything does not stop or leaks.
func (n *testNode) stop() {
	n.t.Helper()
	if n.stack == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	if rep := n.stack.Close(ctx); rep.Err() != nil {
		n.t.Errorf("stop: %v\n%v", rep.Err(), rep)
	}
	n.stack = nil
	if l := n.set.Ledger(); l.Ahead() != 0 || l.Leaving() != 0 {
		n.t.Errorf("the ledger has %d bytes ahead of a node that is closed, and %d segments that are to go", l.Ahead(), l.Leaving())
	}
	left, err := filepath.Glob(filepath.Join(n.run, "segments", "*"))
	must(n.t, err)
	if len(left) > 0 {
		n.t.Errorf("left behind: %v", left)
	}
	must(n.t, os.RemoveAll(n.dir+"/none"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

// within returns a context for one step of a test.
func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	t.Cleanup(cancel)
	return ctx
}

const dim = 8

// items creates the collection that most tests use.
func (n *testNode) items(name string, shards int32) {
	n.t.Helper()
	_, err := n.catalog.CreateCollection(within(n.t), &qnpb.CreateCollectionRequest{Name: name, Shards: shards, Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "price", Type: qnpb.DataType_DATA_TYPE_INT64},
			{Name: "color", Type: qnpb.DataType_DATA_TYPE_VARCHAR, Nullable: true},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: dim},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "HNSW", Metric: "L2"}}})
	must(n.t, err)
}

// vectorOf is the vector of a key: different for each version.
func vectorOf(id, version int64) []float32 {
	r := rand.New(rand.NewPCG(uint64(id), uint64(version)))
	v := make([]float32, dim)
	for i := range v {
		v[i] = r.Float32()
	}
	return v
}

// rows builds the fields of rows with the given keys at a version.
func rows(ids []int64, version int64) []*qnpb.FieldData {
	var price []int64
	var color []string
	var vs []float32
	for _, id := range ids {
		price = append(price, id*10+version)
		color = append(color, []string{"red", "green", "blue"}[id%3])
		vs = append(vs, vectorOf(id, version)...)
	}
	return []*qnpb.FieldData{
		{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
		{Field: "price", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: price}}},
		{Field: "color", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: color}}},
		{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: dim, Values: vs}}},
	}
}

func seq(from, to int64) (ids []int64) {
	for i := from; i < to; i++ {
		ids = append(ids, i)
	}
	return ids
}

func (n *testNode) insert(coll string, ids []int64) *qnpb.AppendResponse {
	n.t.Helper()
	r, err := n.write.Append(within(n.t), &qnpb.AppendRequest{Collection: coll,
		Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{Rows: int64(len(ids)), Fields: rows(ids, 0)}}})
	must(n.t, err)
	return r
}

func (n *testNode) upsert(coll string, ids []int64, version int64) {
	n.t.Helper()
	_, err := n.write.Append(within(n.t), &qnpb.AppendRequest{Collection: coll,
		Operation: &qnpb.AppendRequest_Upsert{Upsert: &qnpb.UpsertOperation{Rows: int64(len(ids)), Fields: rows(ids, version)}}})
	must(n.t, err)
}

func (n *testNode) delete(coll string, ids []int64) {
	n.t.Helper()
	_, err := n.write.Append(within(n.t), &qnpb.AppendRequest{Collection: coll, Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{
		Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}}}})
	must(n.t, err)
}

var strong = &qnpb.Freshness{Level: qnpb.ConsistencyLevel_CONSISTENCY_LEVEL_STRONG}

// all returns key to price of every row, read with STRONG.
func (n *testNode) all(coll, filter string) map[int64]int64 {
	n.t.Helper()
	st, err := n.query.Query(within(n.t), &qnpb.QueryRequest{Collection: coll, Filter: filter, OutputFields: []string{"price"}, Freshness: strong})
	must(n.t, err)
	out := map[int64]int64{}
	for {
		r, err := st.Recv()
		if err != nil {
			n.t.Fatalf("query: %v", err)
		}
		if r.GetStats() != nil {
			return out
		}
		for i, id := range r.GetFields()[0].GetInts().GetValues() {
			if _, twice := out[id]; twice {
				n.t.Fatalf("key %d is there twice", id)
			}
			out[id] = r.GetFields()[1].GetInts().GetValues()[i]
		}
	}
}

func (n *testNode) count(coll string) int64 {
	n.t.Helper()
	st, err := n.query.Query(within(n.t), &qnpb.QueryRequest{Collection: coll, OutputFields: []string{"count(*)"}, Freshness: strong})
	must(n.t, err)
	r, err := st.Recv()
	must(n.t, err)
	return r.GetCount()
}

// nearest returns the keys nearest to the vector.
func (n *testNode) nearest(coll string, v []float32, k int64, filter string) []int64 {
	n.t.Helper()
	r, err := n.query.Search(within(n.t), &qnpb.SearchRequest{Collection: coll, Vectors: &qnpb.FloatVectors{Dim: dim, Values: v}, TopK: k, Filter: filter, Freshness: strong})
	must(n.t, err)
	return r.GetIds().GetInts().GetValues()
}

func (n *testNode) flush(coll string) []int64 {
	n.t.Helper()
	r, err := n.write.Flush(within(n.t), &qnpb.FlushRequest{Collection: coll, Wait: true})
	must(n.t, err)
	return r.GetFlushedSegmentIds()
}

// eventually waits until ok says so.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(hang); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", hang, what)
		}
	}
}

// eventually waits until ok returns true, looking again after each change of what is served.
func (n *testNode) eventually(what string, ok func(*qnpb.Distribution) bool) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), hang)
	defer cancel()
	st, err := n.control.WatchDistribution(ctx, &qnpb.WatchDistributionRequest{})
	must(n.t, err)
	for {
		r, err := st.Recv()
		if err != nil {
			n.t.Fatalf("waiting until %s: %v", what, err)
		}
		if ok(r.GetDistribution()) {
			return
		}
	}
}

// handedOff waits until no growing segment of the collection holds rows.
func (n *testNode) handedOff(coll string) {
	n.t.Helper()
	n.eventually("growing segments are replaced", func(d *qnpb.Distribution) bool {
		for _, s := range d.GetSegments() {
			if s.GetCollection() == coll && (s.GetState() == "growing" || s.GetState() == "sealed") {
				return false
			}
		}
		return true
	})
}
