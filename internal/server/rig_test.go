package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/mq/mqtest"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

const hang = 3 * time.Minute // how long a test waits for what should happen at once, on a machine that has much else to do

// rig is a node in memory behind a server.
type rig struct {
	*Server
	t      testing.TB
	addr   string
	ledger *segments.Ledger
	bucket objstore.Bucket
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("%+v", err)
	}
}

// newRig starts a node that may have so many bytes, 0 = all there are.
func newRig(t testing.TB, memory int64) *rig {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	dir := t.TempDir() // removed after all else
	stack, served := lifecycle.NewStack(), make(chan error, 1)
	push := func(name string, closer func(context.Context) error) { must(t, stack.Push(name, closer, hang)) }
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), hang)
		defer cancel()
		if err := stack.Close(ctx).Err(); err != nil {
			t.Errorf("close: %v", err)
		}
		must(t, <-served)
	})
	r := &rig{t: t, ledger: segments.NewLedger(memory), bucket: objstore.NewMem(nil)}
	cat, err := catalog.Open(t.Context(), catalog.Options{Bucket: r.bucket, Logger: log})
	must(t, err)
	queue := mqtest.NewBroker(mqtest.MemoryOptions{}).Connect()
	push("queue", queue.Close)
	p, err := pool.New(pool.Options{Name: "search", Logger: log})
	must(t, err)
	push("pool", p.Close)
	set, err := segments.New(segments.Options{Dir: filepath.Join(dir, "segments"), Pool: p, Bucket: r.bucket, Ledger: r.ledger, GrowingRows: 1000, Logger: log})
	must(t, err)
	push("segments", set.Close)
	disp, err := dispatcher.New(dispatcher.Options{Queue: queue, Logger: log})
	must(t, err)
	push("dispatcher", disp.Close)
	n, err := node.Open(node.Options{Name: "test", Dir: dir, Catalog: cat, Bucket: r.bucket, Queue: queue, Segments: set, Dispatcher: disp,
		PChannels: []string{"topic-0"}, Standalone: true, Sole: true, RefreshInterval: 20 * time.Millisecond, Logger: log,
		Flush: flush.Options{Interval: 5 * time.Millisecond, CheckpointInterval: 10 * time.Millisecond, Logger: log},
		WAL:   wal.Options{TimeTickInterval: 10 * time.Millisecond}})
	must(t, err)
	push("node", n.Close)
	select {
	case <-n.Ready():
	case <-time.After(hang):
		t.Fatalf("not ready: %v", n.Problem())
	}
	m := lifecycle.NewMachine()
	must(t, m.To(lifecycle.Recovering, "test"))
	must(t, m.To(lifecycle.Serving, "test"))
	r.Server, err = New(Options{Node: n, Machine: m, Pool: p, Logger: log, LogLevel: new(slog.LevelVar)})
	must(t, err)
	push("server", r.Close)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r.addr = lis.Addr().String()
	go func() { served <- r.Serve(lis) }()
	return r
}

// dial connects a client; options may change how.
func (r *rig) dial(options ...grpc.DialOption) *grpc.ClientConn {
	r.t.Helper()
	conn, err := grpc.NewClient(r.addr, append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1 << 30))}, options...)...)
	must(r.t, err)
	r.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func (r *rig) within() context.Context {
	ctx, cancel := context.WithTimeout(r.t.Context(), hang)
	r.t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok says so.
func (r *rig) eventually(what string, ok func() bool) {
	r.t.Helper()
	for until := time.Now().Add(hang); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(until) {
			r.t.Fatalf("not within %s: %s", hang, what)
		}
	}
}

const thingDim = 16

// create makes the collection things: id, note, v.
func (r *rig) create(conn *grpc.ClientConn) {
	r.t.Helper()
	_, err := qnpb.NewCatalogServiceClient(conn).CreateCollection(r.within(), &qnpb.CreateCollectionRequest{Name: "things", Schema: &qnpb.CollectionSchema{
		Fields: []*qnpb.FieldSchema{
			{Name: "id", Type: qnpb.DataType_DATA_TYPE_INT64, PrimaryKey: true},
			{Name: "note", Type: qnpb.DataType_DATA_TYPE_VARCHAR, MaxLength: 65_535},
			{Name: "v", Type: qnpb.DataType_DATA_TYPE_FLOAT_VECTOR, Dim: thingDim},
		}}, Indexes: []*qnpb.IndexSpec{{Field: "v", Type: "FLAT", Metric: "L2"}}})
	must(r.t, err)
}

// insertOf is a request with rows [from, to) whose notes have so many bytes.
func insertOf(from, to int64, note int) *qnpb.AppendRequest {
	var ids []int64
	var notes []string
	text := make([]byte, note)
	for i := range text {
		text[i] = 'x'
	}
	for id := from; id < to; id++ {
		ids, notes = append(ids, id), append(notes, string(text))
	}
	return &qnpb.AppendRequest{Collection: "things", Operation: &qnpb.AppendRequest_Insert{Insert: &qnpb.InsertOperation{
		Rows: int64(len(ids)), Fields: []*qnpb.FieldData{
			{Field: "id", Values: &qnpb.FieldData_Ints{Ints: &qnpb.Int64Array{Values: ids}}},
			{Field: "note", Values: &qnpb.FieldData_Strings{Strings: &qnpb.StringArray{Values: notes}}},
			{Field: "v", Values: &qnpb.FieldData_Vectors{Vectors: &qnpb.FloatVectors{Dim: thingDim, Values: make([]float32, thingDim*len(ids))}}},
		}}}}
}

func deleteOf(ids ...int64) *qnpb.AppendRequest {
	return &qnpb.AppendRequest{Collection: "things", Operation: &qnpb.AppendRequest_Delete{Delete: &qnpb.DeleteOperation{
		Ids: &qnpb.Ids{Keys: &qnpb.Ids_Ints{Ints: &qnpb.Int64Array{Values: ids}}}}}}
}

// held is what connections and calls have in the ledger.
func (r *rig) held() int64 { return r.ledger.Used()[segments.KindCalls] }

// quiet waits until calls hold nothing but so many idle connections.
func (r *rig) quiet(connections int) {
	r.t.Helper()
	r.eventually("calls hold nothing", func() bool {
		all := r.guard.connections()
		for _, c := range all {
			if c.need.Load() != connectionCost || c.incoming.Load() != 0 {
				return false
			}
		}
		return len(all) == connections && r.held() <= int64(connections)*3*step && (connections > 0 || r.held() == 0)
	})
}

func unlimited() *segments.Ledger { return segments.NewLedger(0) }

// sink is a connection that brings in and takes whatever is written.
type sink struct {
	net.Conn
	in []byte
}

func (s *sink) Read(b []byte) (int, error) {
	n := copy(b, s.in)
	s.in = s.in[n:]
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func (s *sink) Write(b []byte) (int, error) { return len(b), nil }

func (s *sink) Close() error { return nil }
