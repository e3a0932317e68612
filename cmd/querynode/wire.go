package main

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/channelz/service"
	"google.golang.org/grpc/reflection"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/admin"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/compact"
	"github.com/querynode/querynode/internal/config"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/internal/objstore"
	"github.com/querynode/querynode/internal/server"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/embedded"
	"github.com/querynode/querynode/mq/pulsar"
	"github.com/querynode/querynode/mq/wal"
	"github.com/querynode/querynode/pool"
	"github.com/querynode/querynode/segments"
)

// running is a node with all its parts. start makes one, stop ends it.
type running struct {
	cfg     *config.Config
	o       startOptions
	log     *slog.Logger
	machine *lifecycle.Machine
	stack   *lifecycle.Stack
	group   *lifecycle.Group            // what the wiring itself runs
	failed  chan error                  // a part that must not end has ended
	step    atomic.Pointer[string]      // what start is at
	parts   atomic.Pointer[admin.Parts] // nil until all are there
	serving struct{ sync.Mutex }        // state and health service change together

	dir       *dataDir
	disk      int64 // bytes that the node may take on the local disk; 0 = no limit
	apart     bool  // its queue is on another one
	queueDisk int64 // where it may take so many
	grpcLis   net.Listener
	adminLis  net.Listener
	registry  *prometheus.Registry
	bucket    objstore.Bucket
	catalog   *catalog.Catalog
	queue     mq.Queue
	embedded  *embedded.Queue // the queue, if that is its kind
	pool      *pool.Pool
	set       *segments.Set
	dispatch  *dispatcher.Manager
	node      *node.Node
	server    *server.Server
}

// startOptions are what is not configuration.
type startOptions struct {
	version    string
	log        *slog.Logger                    // nil = discard
	level      *slog.LevelVar                  // what SetLogLevel changes; nil = nothing
	free       func(dir string) (int64, error) // bytes free on a folder's disk, below 0 = nobody knows; nil = freeDisk
	sameVolume func(a, b string) bool          // whether two folders are on one; nil = sameVolume
}

// start builds the node part by part and returns when all run; the node then
// recovers in the background, see running.ready. If it fails, or ctx ends, what
// has been started is stopped again; a part that cannot be is in the error.
func start(ctx context.Context, cfg *config.Config, o startOptions) (*running, error) {
	if o.log == nil {
		o.log = slog.New(slog.DiscardHandler)
	}
	if o.sameVolume == nil {
		o.sameVolume = sameVolume
	}
	if o.free == nil {
		o.free = freeDisk
	}
	r := &running{cfg: cfg, o: o, log: o.log, machine: lifecycle.NewMachine(), stack: lifecycle.NewStack(),
		registry: prometheus.NewRegistry(), failed: make(chan error, 4)}
	r.group = lifecycle.NewGroup(context.Background(), r.ended)
	err := r.build(ctx)
	if err == nil {
		return r, nil
	}
	rep := r.stop(context.Background(), 0)
	if stuck := rep.Stuck(); len(stuck) > 0 {
		return nil, &codeError{exitStuck, errors.Newf("%v\nand while stopping what had been started: %s", err, rep)}
	}
	return nil, errors.Join(err, rep.Err())
}

// build takes the steps in order. Each pushes what stops it again, so that the
// parts stop in the reverse order.
func (r *running) build(ctx context.Context) error {
	for _, s := range []struct {
		name string
		do   func(context.Context) error
	}{
		{"lock the data folder", r.openDataDir},
		{"listen", r.listen},
		{"start the admin port", r.openAdmin},
		{"open object storage", r.openStorage},
		{"look at the local disk", r.lookAtDisk},
		{"open the queue", r.openQueue},
		{"start the search pool", r.openSegments},
		{"start the dispatcher", r.openDispatcher},
		{"open the node", r.openNode},
		{"start the API", r.openServer},
	} {
		r.step.Store(&s.name)
		if err := ctx.Err(); err != nil {
			return errors.Wrap(err, "start: "+s.name)
		}
		if err := s.do(ctx); err != nil {
			return errors.Wrap(err, "start: "+s.name)
		}
	}
	if err := r.machine.To(lifecycle.Recovering, "all parts run"); err != nil {
		return err
	}
	// After that: a node that has nothing to recover would be ready before it recovers.
	return r.group.Go("readiness", r.becomeReady)
}

// push registers how to stop a part; share is what part of the time after the
// running calls it may use, in percent.
func (r *running) push(name string, share int, closer func(context.Context) error) error {
	rest := r.cfg.Shutdown.Total - r.grace()
	if err := r.stack.Push(name, closer, rest*time.Duration(share)/100); err != nil {
		return errors.Join(err, closer(context.Background()))
	}
	return nil
}

// grace is how long running calls may go on: at most half of the whole stop.
func (r *running) grace() time.Duration { return min(r.cfg.Shutdown.Grace, r.cfg.Shutdown.Total/2) }

// ended hears of every goroutine of the wiring that ends.
func (r *running) ended(name string, err error) {
	if err == nil {
		return
	}
	r.log.Error("a part of the node ended", "part", name, "error", err)
	select {
	case r.failed <- errors.Wrap(err, name):
	default: // the first is enough
	}
}

func (r *running) openDataDir(context.Context) (err error) {
	if r.dir, err = openDataDir(r.cfg.Node.DataDir); err != nil {
		return err
	}
	if err := r.push("data folder", 5, r.dir.close); err != nil {
		return err
	}
	if err := r.push("wiring", 5, r.group.Close); err != nil {
		return err
	}
	return r.group.Go("janitor", func(ctx context.Context) error { return r.dir.clean(ctx, r.log) })
}

// listen takes both ports before anything is touched that others may see. What
// connects to the API before it is served waits in the listener's queue.
func (r *running) listen(ctx context.Context) (err error) {
	var lc net.ListenConfig
	if r.grpcLis, err = lc.Listen(ctx, "tcp", r.cfg.GRPC.Listen); err != nil {
		return notListening(err, "grpc.listen", r.cfg.GRPC.Listen, "--grpc-listen")
	}
	if err := r.push("API port", 1, closeListener(r.grpcLis)); err != nil {
		return err
	}
	if r.adminLis, err = lc.Listen(ctx, "tcp", r.cfg.Admin.Listen); err != nil {
		return notListening(err, "admin.listen", r.cfg.Admin.Listen, "--admin-listen")
	}
	return r.push("admin port", 1, closeListener(r.adminLis))
}

// notListening says what helps where an address cannot be listened on.
func notListening(err error, key, addr, flag string) error {
	err = errors.Wrapf(err, "%s %s", key, addr)
	next := "choose another address with " + flag
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		next = "is another node running? " + next + "; port 0 takes a free one"
	case !errors.Is(err, syscall.EACCES) && !errors.Is(err, syscall.EADDRNOTAVAIL):
		return err
	}
	return &problem{text: err.Error(), next: next, cause: err}
}

// closeListener closes a listener that its server may have closed already.
func closeListener(l net.Listener) func(context.Context) error {
	return func(context.Context) error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return errors.Wrapf(err, "close %s", l.Addr())
		}
		return nil
	}
}

// openAdmin comes early: it answers also while the start hangs.
func (r *running) openAdmin(context.Context) error {
	// channelz of the API's connections, as gRPC on the admin port.
	cz := grpc.NewServer()
	service.RegisterChannelzServiceToServer(cz)
	reflection.Register(cz)
	a, err := admin.New(admin.Options{
		Listener: r.adminLis, Machine: r.machine, Parts: r.parts.Load, Step: r.stepName, Registry: r.registry, GRPC: cz,
		Name: r.cfg.Node.Name, Version: r.o.version, Failed: func(err error) { r.ended("admin", err) }, Logger: r.log,
	})
	if err != nil {
		return err
	}
	return r.push("admin", 5, func(ctx context.Context) error {
		defer cz.Stop()
		return a.Close(ctx)
	})
}

func (r *running) stepName() string {
	if s := r.step.Load(); s != nil {
		return *s
	}
	return ""
}

func (r *running) openStorage(ctx context.Context) (err error) {
	s := &r.cfg.Storage
	r.bucket, err = objstore.Open(ctx, s.URL, objstore.Options{
		AccessKey: s.AccessKey, SecretKey: s.SecretKey, SessionToken: s.SessionToken, CallTimeout: s.CallTimeout,
		IdleTimeout: s.IdleTimeout, UploadParallel: s.UploadParallel, Logger: r.log,
	})
	if err != nil {
		return errors.Wrap(err, "storage.url")
	}
	if err := r.push("object storage", 5, r.bucket.Close); err != nil {
		return err
	}
	r.catalog, err = catalog.Open(ctx, catalog.Options{Bucket: r.bucket, CallTimeout: r.cfg.Node.CallTimeout, Logger: r.log})
	return errors.Wrap(err, "catalog")
}

func (r *running) openQueue(ctx context.Context) (err error) {
	q := &r.cfg.Queue
	if q.Kind == "pulsar" {
		return r.openPulsar(ctx)
	}
	room := r.disk
	if r.apart {
		room = r.queueDisk
	}
	sync, err := embedded.ParseSync(q.Sync)
	if err != nil {
		return errors.Wrap(err, "queue.sync")
	}
	r.embedded, err = embedded.Open(embedded.Options{
		Dir: q.Dir, SegmentBytes: queueFile(int64(q.SegmentBytes), room, q.PChannels), MaxPayloadBytes: int(q.MaxMessageBytes), SyncInterval: q.SyncInterval, Logger: r.log,
		Sync: sync,
	})
	if err != nil {
		return errors.Wrapf(err, "queue.dir %s", q.Dir)
	}
	r.queue = r.embedded
	return r.push("queue", 10, r.queue.Close)
}

// openPulsar makes the connection; a broker that is away is waited for by the
// logs, not here.
func (r *running) openPulsar(context.Context) (err error) {
	p := &r.cfg.Pulsar
	r.queue, err = pulsar.Open(pulsar.Options{
		URL: p.URL, Namespace: p.Namespace, Token: p.Token, TokenFile: p.TokenFile,
		TLS:              pulsar.TLS{CAFile: p.TLSCA, CertFile: p.TLSCert, KeyFile: p.TLSKey},
		OperationTimeout: p.OperationTimeout, AppendTimeout: r.cfg.WAL.AppendTimeout, ReadAheadBytes: int(p.ReadAheadBytes),
		Compression: pulsar.Compression(p.Compression), Logger: r.log, Registerer: r.registry,
	})
	if err != nil {
		return errors.Wrap(err, "pulsar.url")
	}
	// A broker that does not answer holds up the close by pulsar.operation_timeout.
	return r.push("queue", 50, r.queue.Close)
}

func (r *running) openSegments(context.Context) (err error) {
	c := r.cfg
	r.pool, err = pool.New(pool.Options{Name: "search", Workers: c.Search.Workers, QueueLen: c.Search.QueueLen, MaxCost: int64(c.Search.MaxCost), Logger: r.log})
	if err != nil {
		return err
	}
	if err := r.push("search pool", 5, r.pool.Close); err != nil {
		return err
	}
	r.set, err = segments.New(segments.Options{
		DiskBytes: r.disk, QueueApart: r.apart, QueueBytes: r.queueDisk, FetchConcurrency: c.Disk.Fetches, Warmup: segments.Warmup(c.Load.Warmup),
		Dir: filepath.Join(r.dir.run, "segments"), Pool: r.pool, Ledger: segments.NewLedger(int64(c.Memory.Limit)), Bucket: r.bucket,
		GrowingRows: c.Growing.ReserveRows, DeleteBytes: int64(c.Growing.DeleteBytes), LoadConcurrency: c.Load.Concurrency, LoadTimeout: c.Load.Timeout,
		QuarantineAfter: c.Load.QuarantineAfter, Logger: r.log,
	})
	if err != nil {
		return err
	}
	if err := r.push("segments", 25, r.set.Close); err != nil {
		return err
	}
	if r.embedded != nil {
		if err := r.group.Go("disk", func(ctx context.Context) error { return watchDisk(ctx, r.set, c.Queue.Dir) }); err != nil {
			return err
		}
	}
	sweeps := newSweeper()
	if err := r.group.Go("garbage", sweeps.run); err != nil {
		return err
	}
	return r.group.Go("memory", func(ctx context.Context) error {
		return watchMemory(ctx, r.set.Ledger(), int64(c.Memory.GoLimit), sweeps, memoryInUse)
	})
}

func (r *running) openDispatcher(context.Context) (err error) {
	d := &r.cfg.Dispatcher
	r.dispatch, err = dispatcher.New(dispatcher.Options{
		Queue: r.queue, Name: r.cfg.Node.Name, BufferMessages: d.BufferMessages, BufferBytes: int64(d.BufferBytes),
		MaxBufferedBytes: int64(d.MaxBufferedBytes), MaxCatchUp: d.MaxCatchUp, MaxCatchUpPerPChannel: d.MaxCatchUpPerPChannel, Logger: r.log,
	})
	if err != nil {
		return err
	}
	return r.push("dispatcher", 8, r.dispatch.Close)
}

func (r *running) openNode(context.Context) (err error) {
	c := r.cfg
	r.node, err = node.Open(node.Options{
		Name: c.Node.Name, Dir: r.dir.run, Catalog: r.catalog, Bucket: r.bucket, Queue: r.queue, Segments: r.set, Dispatcher: r.dispatch,
		PChannels: c.PChannelNames(), Standalone: c.Node.Standalone, Sole: r.embedded != nil, AdoptQueue: c.Queue.Adopt, BoundedStaleness: c.Node.BoundedStaleness,
		MaxAnswerBytes:  int64(c.Search.MaxAnswerBytes),
		RefreshInterval: c.Node.RefreshInterval, CallTimeout: c.Node.CallTimeout, Logger: r.log,
		Flush: flush.Options{
			SealRows: c.Growing.SealRows, SealBytes: int64(c.Growing.SealBytes), SealAge: c.Growing.SealAge,
			CheckpointInterval: c.Growing.CheckpointInterval, StepTimeout: c.Growing.UploadTimeout, Workers: c.Growing.BuildWorkers,
		},
		Compact: compactOptions(&c.Compaction),
		WAL:     wal.Options{TimeTickInterval: c.WAL.TimeTickInterval, AppendTimeout: c.WAL.AppendTimeout, OpenTimeout: c.WAL.OpenTimeout},
	})
	if err != nil {
		return err
	}
	r.parts.Store(&admin.Parts{Node: r.node, Pool: r.pool, Queue: r.embedded})
	return r.push("node", 35, r.node.Close)
}

func compactOptions(c *config.Compaction) compact.Options {
	o := compact.Options{Interval: c.Interval, Retention: c.Retention, Workers: c.BuildWorkers, Policy: compact.Policy{
		TargetRows: int64(c.TargetRows), TargetBytes: int64(c.TargetBytes), MinSmall: c.MinSmall,
		DeletedShare: float64(c.DeletedPercent) / 100, MaxDeltas: c.MaxDeltas,
	}}
	if !c.Enabled {
		o.Interval = -1
	}
	if c.Retention == 0 {
		o.Retention = -1 // for the node 0 is the default
	}
	return o
}

func (r *running) openServer(context.Context) (err error) {
	g := &r.cfg.GRPC
	creds, err := transport(g.TLSCert, g.TLSKey, r.log)
	if err != nil {
		return err
	}
	r.server, err = server.New(server.Options{
		Node: r.node, Machine: r.machine, Pool: r.pool, MaxRecvBytes: int(g.MaxRecvBytes), MaxConcurrentStreams: uint32(g.MaxConcurrentStreams),
		DefaultTimeout: g.DefaultTimeout, MaxTimeout: g.MaxTimeout, MinPing: g.MinPing, MaxConnectionAge: g.MaxConnectionAge,
		Credentials: creds, NoReflection: !g.Reflection, Registerer: r.registry, LogLevel: r.o.level, Logger: r.log, Version: r.o.version,
	})
	if err != nil {
		return err
	}
	if err := r.stack.Push("API", r.closeServer, r.grace()+r.grace()/4); err != nil {
		return err
	}
	if err := r.group.Go("API", func(context.Context) error { return r.server.Serve(r.grpcLis) }); err != nil {
		return err
	}
	if err := r.dir.announce(nodeInfo{PID: os.Getpid(), Version: r.o.version, Name: r.cfg.Node.Name, Started: time.Now(), TLS: creds != nil,
		GRPCAddr: config.DialAddress(r.grpcLis.Addr().String()), AdminAddr: config.DialAddress(r.adminLis.Addr().String())}); err != nil {
		return err
	}
	return r.push("node.json", 1, r.dir.withdraw)
}

// closeServer lets running calls go on for the grace time. That some had to be
// cut then is what the configuration says, not a failure to stop.
func (r *running) closeServer(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, r.grace())
	defer cancel()
	err := r.server.Close(ctx)
	if err != nil && ctx.Err() != nil {
		r.log.Warn("running calls were cut", "grace", r.grace(), "error", err)
		return nil
	}
	return err
}

// becomeReady waits until the node has recovered and opens the doors.
func (r *running) becomeReady(ctx context.Context) error {
	select {
	case <-r.node.Ready():
	case <-ctx.Done():
		return nil
	}
	r.serving.Lock()
	defer r.serving.Unlock()
	if err := r.machine.To(lifecycle.Serving, "everything is served"); err != nil {
		return nil // the stop was faster
	}
	r.server.SetServing(true)
	r.log.Info("serving", "grpc", r.grpcLis.Addr().String(), "admin", r.adminLis.Addr().String(), "name", r.cfg.Node.Name,
		"data_dir", r.cfg.Node.DataDir, "version", r.o.version, "pid", os.Getpid(), "memory_limit", r.cfg.Memory.Limit.String())
	return nil
}

// stop ends the node from whatever state: not ready; drain, if it served; refuse;
// let running calls finish; close the parts. When ctx is cancelled it cuts all
// of that. It returns how each part stopped.
func (r *running) stop(ctx context.Context, drain time.Duration) *lifecycle.Report {
	if r.drain() && drain > 0 {
		t := time.NewTimer(drain)
		select {
		case <-t.C:
		case <-ctx.Done():
		}
		t.Stop()
	}
	_ = r.machine.To(lifecycle.Stopping, "told to stop") // from each state but the last two
	ctx, cancel := context.WithTimeout(ctx, r.cfg.Shutdown.Total)
	defer cancel()
	rep := r.stack.Close(ctx)
	_ = r.machine.To(lifecycle.Stopped, "closed")
	return rep
}

// drain says that the node is not ready any more; false if it never was.
func (r *running) drain() bool {
	r.serving.Lock()
	defer r.serving.Unlock()
	if r.machine.To(lifecycle.Draining, "told to stop") != nil {
		return false
	}
	r.server.SetServing(false)
	return true
}
