package server

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"runtime"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/experimental"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/node"
	"github.com/querynode/querynode/pool"
	qnpb "github.com/querynode/querynode/proto/querynode/v1"
)

// Options configure a Server.
type Options struct {
	// Node answers the calls; Machine says in which state it is. Required. While
	// the state does not accept requests they are refused as UNAVAILABLE, except
	// those of health, reflection, AdminService and the status calls.
	Node    *node.Node
	Machine *lifecycle.Machine
	// Pool is where searches run, for GetMetrics. Nil = not reported.
	Pool *pool.Pool
	// MaxRecvBytes bounds a request. 0 = 64 MiB.
	MaxRecvBytes int
	// MaxConcurrentStreams bounds the calls of one connection. 0 = 1024.
	MaxConcurrentStreams uint32
	// DefaultTimeout is the deadline of a call that brings none; MaxTimeout caps
	// those that do. 0 = 30 s and 10 minutes.
	DefaultTimeout time.Duration
	MaxTimeout     time.Duration
	// MinPing is how often a client may ping, also without calls. 0 = 5 s.
	MinPing time.Duration
	// MaxConnectionAge makes clients reconnect, so that they find new nodes. 0 = never.
	MaxConnectionAge time.Duration
	// Credentials are TLS credentials. Nil = plain text.
	Credentials credentials.TransportCredentials
	// NoReflection leaves server reflection out.
	NoReflection bool
	// Registerer takes the metrics. Nil = none are kept.
	Registerer prometheus.Registerer
	// LogLevel is what SetLogLevel changes. Nil = the call is refused.
	LogLevel *slog.LevelVar
	// Logger gets failed calls and panics. Nil = discard.
	Logger *slog.Logger
	// Version of the program, for GetMetrics.
	Version string
}

// EnsureDefaults fills what was left zero.
func (o *Options) EnsureDefaults() {
	o.MaxRecvBytes = cmp.Or(o.MaxRecvBytes, 64<<20)
	o.MaxConcurrentStreams = cmp.Or(o.MaxConcurrentStreams, 1024)
	o.DefaultTimeout = cmp.Or(o.DefaultTimeout, 30*time.Second)
	o.MaxTimeout = cmp.Or(o.MaxTimeout, 10*time.Minute)
	o.MinPing = cmp.Or(o.MinPing, 5*time.Second)
	o.Logger = cmp.Or(o.Logger, slog.New(slog.DiscardHandler))
}

// Validate lists all problems in one error.
func (o *Options) Validate() error {
	var errs []error
	if o.Node == nil {
		errs = append(errs, errors.New("server: Node is required"))
	}
	if o.Machine == nil {
		errs = append(errs, errors.New("server: Machine is required"))
	}
	if o.MaxRecvBytes < 0 || o.DefaultTimeout < 0 || o.MaxTimeout < 0 || o.MinPing < 0 || o.MaxConnectionAge < 0 {
		errs = append(errs, errors.New("server: sizes and times must not be negative"))
	}
	return errclass.Mark(errors.Join(errs...), errclass.Invalid)
}

// Server serves the API on one listener. Open it with New; Close it before its Node.
type Server struct {
	o       Options
	grpc    *grpc.Server
	health  *health.Server
	metrics *metrics
	guard   *guard
	codec   *codec
	sizes   sizes

	receivers *receivers

	closing context.Context // ends when Close begins
	close   context.CancelFunc
}

// streamWorkers is how many goroutines, for each processor, wait for calls. A
// call that finds all of them busy gets a goroutine of its own, whose stack has
// to grow first. A search keeps one of them while it waits for its turn on the
// pool, so there are more than can run at a time.
const streamWorkers = 64

// What a client may send before anybody has asked for it: on one call, and on all
// of a connection together. A request that is longer than a call's window is let in
// when it is being received. maxHeaders bounds the headers of a call.
const (
	window     = 64 << 10
	connWindow = 4 << 20
	maxHeaders = 16 << 10
)

// New returns a server that is not listening yet; see Serve.
func New(o Options) (*Server, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	s := &Server{o: o, health: health.NewServer(), metrics: newMetrics(), codec: newCodec(), guard: newGuard(o.Node.Segments().Ledger())}
	s.closing, s.close = context.WithCancel(context.Background())
	if err := s.metrics.register(o.Registerer); err != nil {
		return nil, errors.Wrap(err, "register metrics")
	}
	var err error
	if s.receivers, err = newReceivers(streamWorkers * runtime.GOMAXPROCS(0)); err != nil {
		return nil, err
	}
	creds := o.Credentials
	if creds == nil {
		creds = insecure.NewCredentials()
	}
	s.grpc = grpc.NewServer(
		grpc.Creds(&guarded{creds, s.guard}),
		grpc.MaxRecvMsgSize(o.MaxRecvBytes),
		grpc.MaxConcurrentStreams(o.MaxConcurrentStreams),
		grpc.MaxHeaderListSize(maxHeaders),
		grpc.StaticStreamWindowSize(window),
		grpc.StaticConnWindowSize(connWindow),
		grpc.NumStreamWorkers(uint32(streamWorkers*runtime.GOMAXPROCS(0))),
		grpc.ForceServerCodecV2(s.codec),
		experimental.BufferPool(&s.guard.buffers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: o.MinPing, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second, MaxConnectionAge: o.MaxConnectionAge}),
	)
	s.register(&registrar{s.grpc, s})
	s.SetServing(false)
	return s, nil
}

// register registers all services.
func (s *Server) register(all reflection.GRPCServer) {
	qnpb.RegisterQueryServiceServer(all, &queryService{node: s.o.Node})
	qnpb.RegisterWriteServiceServer(all, &writeService{node: s.o.Node})
	qnpb.RegisterControlServiceServer(all, newControlService(s.o.Node, s.load))
	qnpb.RegisterCatalogServiceServer(all, &catalogService{node: s.o.Node})
	qnpb.RegisterAdminServiceServer(all, &adminService{o: &s.o, load: s.load})
	healthpb.RegisterHealthServer(all, s.health)
	if !s.o.NoReflection {
		reflection.Register(all)
	}
}

// SetServing sets what the health service answers for each service.
func (s *Server) SetServing(ok bool) {
	st := healthpb.HealthCheckResponse_NOT_SERVING
	if ok {
		st = healthpb.HealthCheckResponse_SERVING
	}
	s.health.SetServingStatus("", st)
	for name := range s.grpc.GetServiceInfo() {
		s.health.SetServingStatus(name, st)
	}
}

// Serve answers on lis until Close; it closes lis.
func (s *Server) Serve(lis net.Listener) error {
	if err := s.grpc.Serve(lis); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return errors.Wrapf(err, "serve gRPC on %s", lis.Addr())
	}
	return nil
}

// Close refuses new calls and waits for those that run until ctx ends; then it
// cuts them. It returns an error if it had to.
func (s *Server) Close(ctx context.Context) error {
	s.health.Shutdown()
	s.close()
	g := lifecycle.NewGroup(context.Background(), nil)
	done := make(chan struct{})
	if err := g.Go("grpc graceful stop", func(context.Context) error {
		defer close(done)
		s.grpc.GracefulStop()
		return nil
	}); err != nil {
		return err
	}
	var cut error
	select {
	case <-done:
	case <-ctx.Done():
		s.grpc.Stop() // makes GracefulStop return too
		<-done
		cut = errors.Wrap(ctx.Err(), "grpc: running calls were cut")
	}
	// Those who waited for requests have nothing to wait for now. They get what is
	// left of the time, and a second when nothing is.
	if cut != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
	}
	return errors.CombineErrors(cut, s.receivers.group.Close(ctx))
}
