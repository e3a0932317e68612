package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"net"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/compact"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/server"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
	"github.com/querynode/querynode/segments"
)

// rig is a whole node in this process, with a client, over what outlives it: the
// queue's files and an object storage in memory.
type rig struct {
	dir    string
	log    *slog.Logger
	bucket *objstore.Mem
	faults *faults // of the bucket
	slow   slowness
	runs   int
	seal   int           // rows of a segment,
	age    time.Duration // and how long it takes more

	compacted compacted // in all runs

	stack   *lifecycle.Stack
	set     *segments.Set
	node    *node.Node
	store   *catalog.Catalog
	query   qnpb.QueryServiceClient
	write   qnpb.WriteServiceClient
	control qnpb.ControlServiceClient
	catalog qnpb.CatalogServiceClient
}

// compacted sums up what compactions did.
type compacted struct {
	Jobs        int64 `json:"jobs"`
	Segments    int64 `json:"segments"`
	RowsDropped int64 `json:"rows_dropped"`
	DeltasFreed int64 `json:"deltas_freed"`
	Failed      int64 `json:"failed"`
}

// Times of the node under test: short, so that much happens between two operations.
const (
	timeTick = 3 * time.Millisecond
	refresh  = 200 * time.Millisecond
	interval = 20 * time.Millisecond // of the flusher
	compacts = 300 * time.Millisecond
	// Reads in the past, of collections that do not say it themselves.
	retention = 5 * time.Second
	slack     = 2 * time.Second
	// Of calls of storage and queue, which are in memory: a machine that does ten other things is no difference.
	patience = 30 * time.Second
)

func newRig(dir string, log *slog.Logger, slow slowness) (*rig, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, errors.Wrap(err, "create the rig's folder")
	}
	g := &rig{dir: dir, log: log, bucket: objstore.NewMem(nil), faults: &faults{}, slow: slow, seal: 600, age: 2 * time.Second}
	g.bucket.SetHook(func(c objstore.Call) objstore.Fault {
		slow.wait()
		return g.faults.hook(c)
	})
	return g, nil
}

// keep is a bucket that stays when the node has closed it.
type keep struct{ objstore.Bucket }

// Close does nothing.
func (keep) Close(context.Context) error { return nil }

func (g *rig) start(ctx context.Context) (err error) {
	g.stack = lifecycle.NewStack()
	defer func() {
		if err != nil {
			err = errors.CombineErrors(err, g.stop())
		}
	}()
	push := func(name string, closer func(context.Context) error) error {
		return g.stack.Push(name, closer, 20*time.Second)
	}
	bucket := keep{g.bucket}
	cat, err := catalog.Open(ctx, catalog.Options{Bucket: bucket, Logger: g.log, DropGrace: time.Minute, CallTimeout: patience, FileGrace: 2 * patience})
	if err != nil {
		return err
	}
	g.store = cat
	files, err := embedded.Open(embedded.Options{Dir: filepath.Join(g.dir, "queue"), Sync: embedded.SyncNone, SegmentBytes: 1 << 20, Logger: g.log})
	if err != nil {
		return err
	}
	if err := push("queue", files.Close); err != nil {
		return err
	}
	queue := slowQueue{files, g.slow}
	p, err := pool.New(pool.Options{Name: "search", QueueLen: 4096, Logger: g.log})
	if err != nil {
		return err
	}
	if err := push("pool", p.Close); err != nil {
		return err
	}
	g.runs++
	run := filepath.Join(g.dir, fmt.Sprintf("run-%d", g.runs))
	set, err := segments.New(segments.Options{Dir: filepath.Join(run, "segments"), Pool: p, Bucket: bucket, GrowingRows: max(4_096, g.seal), DeleteBytes: 8 << 10, Logger: g.log})
	if err != nil {
		return err
	}
	if err := push("segments", set.Close); err != nil {
		return err
	}
	g.set = set
	disp, err := dispatcher.New(dispatcher.Options{Queue: queue, Logger: g.log})
	if err != nil {
		return err
	}
	if err := push("dispatcher", disp.Close); err != nil {
		return err
	}
	g.node, err = node.Open(node.Options{Name: "metamorphic", Dir: run, Catalog: cat, Bucket: bucket, Queue: queue, Segments: set, Dispatcher: disp,
		PChannels: []string{"t0", "t1"}, Standalone: true, RefreshInterval: refresh, SweepInterval: 2 * time.Second,
		Flush:   flush.Options{SealRows: g.seal, SealAge: g.age, CheckpointInterval: 300 * time.Millisecond, Interval: interval, Workers: 1},
		Compact: compact.Options{Interval: compacts, Retention: retention, ReadSlack: slack, Policy: compact.Policy{TargetRows: 1_000, MinSmall: 3, MaxDeltas: 4}},
		WAL:     wal.Options{TimeTickInterval: timeTick, AppendTimeout: patience}, Logger: g.log})
	if err != nil {
		return err
	}
	if err := push("node", g.node.Close); err != nil {
		return err
	}
	if err := g.serve(p, push); err != nil {
		return err
	}
	select {
	case <-g.node.Ready():
		return nil
	case <-ctx.Done():
		return errors.Wrapf(ctx.Err(), "wait until the node is ready (%v)", g.node.Problem())
	case <-time.After(time.Minute):
		return errors.Newf("the node is not ready after a minute: %v", g.node.Problem())
	}
}

func (g *rig) serve(p *pool.Pool, push func(string, func(context.Context) error) error) error {
	machine := lifecycle.NewMachine()
	for _, s := range []lifecycle.State{lifecycle.Recovering, lifecycle.Serving} {
		if err := machine.To(s, "test"); err != nil {
			return err
		}
	}
	srv, err := server.New(server.Options{Node: g.node, Machine: machine, Pool: p, Logger: g.log})
	if err != nil {
		return err
	}
	lis := bufconn.Listen(1 << 20)
	group := lifecycle.NewGroup(context.Background(), nil)
	if err := group.Go("server", func(context.Context) error { return srv.Serve(lis) }); err != nil {
		return err
	}
	if err := push("server", func(ctx context.Context) error { return errors.CombineErrors(srv.Close(ctx), group.Close(ctx)) }); err != nil {
		return err
	}
	conn, err := grpc.NewClient("passthrough:///node", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return lis.DialContext(ctx) }))
	if err != nil {
		return errors.Wrap(err, "client")
	}
	g.query, g.write = qnpb.NewQueryServiceClient(conn), qnpb.NewWriteServiceClient(conn)
	g.control, g.catalog = qnpb.NewControlServiceClient(conn), qnpb.NewCatalogServiceClient(conn)
	return push("client", func(context.Context) error { return conn.Close() })
}

// stop stops the node; that a part did not stop is an error.
func (g *rig) stop() error {
	if g.stack == nil {
		return nil
	}
	if g.node != nil {
		st := g.node.Compaction().Stats
		g.compacted.Jobs += st.Jobs
		g.compacted.Segments += st.Segments
		g.compacted.RowsDropped += st.RowsIn - st.RowsOut
		g.compacted.DeltasFreed += st.DeltasFreed
		g.compacted.Failed += st.Failed
		g.node = nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	rep := g.stack.Close(ctx)
	g.stack = nil
	return errors.Wrap(rep.Err(), "stop the node")
}

// cool makes the loaded segments of a collection cold, as a lack of memory would.
func (g *rig) cool(collection string) error {
	for _, c := range g.set.Collections() {
		if c.Info().Name != collection {
			continue
		}
		for _, st := range c.Segments() {
			if _, err := c.Cool(st.ID); err != nil {
				return err
			}
		}
	}
	return nil
}

// crash stops the node while its object storage fails: what was not stored by
// now is not stored by the stop either.
func (g *rig) crash() error {
	g.faults.setAway(true)
	defer g.faults.setAway(false)
	return g.stop()
}
