package server

import (
	"context"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/status"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// always lists what is answered in every state of the node.
var always = []string{
	"/grpc.health.", "/grpc.reflection.", "/grpc.channelz.", "/querynode.v1.AdminService/",
	"/querynode.v1.ControlService/GetMetrics", "/querynode.v1.ControlService/GetDistribution",
	"/querynode.v1.ControlService/WatchDistribution", "/querynode.v1.WriteService/ListChannels",
}

// endless lists streams that live as long as the client wants.
var endless = []string{"/grpc.health.", "/grpc.reflection.", "/querynode.v1.ControlService/WatchDistribution"}

func matches(method string, list []string) bool {
	for _, p := range list {
		if strings.HasPrefix(method, p) {
			return true
		}
	}
	return false
}

// call is one call: what it holds, and how its request comes in.
type call struct {
	server *Server
	m      *methodMetrics
	conn   *connection // nil = its bytes are not counted
	recv   func(any) error
	start  time.Time

	into    envelope      // of a request that this goroutine receives
	done    chan received // capacity 1: the request is here, or will not be
	refused chan error    // capacity 1: there is no memory for it
	handled bool          // the request is of no use any more: its answer is there
	lost    bool          // gRPC could not receive the request: the client's fault, or the network's

	stream uint32 // of conn, once the request is waited for; 0 = not known

	// Links of connection.mu, which guards them; set while the request is on its way.
	before, after *call
	coming        bool

	mu struct {
		sync.Mutex
		held     int64 // for what was decoded
		decoding bool
		left     bool // nobody waits for the request any more
		ended    bool
	}
}

// registrar registers services so that their calls come here first. Interceptors
// would see a request only when it has been decoded.
type registrar struct {
	*grpc.Server
	server *Server
}

// RegisterService registers a service.
func (r *registrar) RegisterService(d *grpc.ServiceDesc, impl any) {
	r.Server.RegisterService(r.server.wrap(d), impl)
}

// wrap returns a service whose calls come here first.
func (s *Server) wrap(d *grpc.ServiceDesc) *grpc.ServiceDesc {
	own := *d
	own.Methods, own.Streams = nil, nil
	for _, m := range d.Methods {
		m.Handler = s.unary(s.metrics.of("/"+d.ServiceName+"/"+m.MethodName), m.Handler)
		own.Methods = append(own.Methods, m)
	}
	for _, st := range d.Streams {
		st.Handler = s.stream(s.metrics.of("/"+d.ServiceName+"/"+st.StreamName), st.Handler)
		own.Streams = append(own.Streams, st)
	}
	return &own
}

func (s *Server) unary(m *methodMetrics, handle grpc.MethodHandler) grpc.MethodHandler {
	return func(srv any, ctx context.Context, recv func(any) error, _ grpc.UnaryServerInterceptor) (out any, err error) {
		c := s.begin(ctx, m, recv)
		err = c.run(ctx, func(ctx context.Context) error {
			answer, err := handle(srv, ctx, func(request any) error { return c.receive(ctx, request) }, nil)
			if err != nil {
				return err
			}
			c.handled = true
			out, err = c.encode(answer)
			return err
		})
		if err != nil {
			return nil, err
		}
		return out, nil
	}
}

func (s *Server) stream(m *methodMetrics, handle grpc.StreamHandler) grpc.StreamHandler {
	return func(srv any, ss grpc.ServerStream) error {
		c := s.begin(ss.Context(), m, ss.RecvMsg)
		return c.run(ss.Context(), func(ctx context.Context) error {
			return handle(srv, &countedStream{ss, ctx, c})
		})
	}
}

// countedStream is a stream whose messages are counted.
type countedStream struct {
	grpc.ServerStream
	ctx  context.Context
	call *call
}

// Context returns the call's context with its deadline.
func (s *countedStream) Context() context.Context { return s.ctx }

// RecvMsg receives a message; what the one before it held is given back.
func (s *countedStream) RecvMsg(m any) error {
	s.call.giveBack()
	return s.call.receive(s.ctx, m)
}

// SendMsg sends a message.
func (s *countedStream) SendMsg(m any) error {
	out, err := s.call.encode(m)
	if err != nil {
		return err
	}
	return s.ServerStream.SendMsg(out)
}

func (s *Server) begin(ctx context.Context, m *methodMetrics, recv func(any) error) *call {
	return &call{server: s, m: m, conn: connectionOf(ctx), recv: recv, start: time.Now()}
}

// run wraps every call: state, deadline, recover, error, log and metric.
func (c *call) run(ctx context.Context, handle func(context.Context) error) error {
	s, m := c.server, c.m
	m.running.Inc()
	err := s.admit(m)
	if err == nil {
		if !m.endless {
			var cancel context.CancelFunc
			ctx, cancel = s.deadline(ctx, c.start)
			defer cancel()
		} else {
			// Nobody ends such a stream but the client, or Close.
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(s.closing, cancel)()
		}
		err = lifecycle.Call(m.method, func() error { return handle(ctx) })
	}
	c.end()
	took := time.Since(c.start)
	if err == nil {
		m.end(codes.OK, took)
		return nil
	}
	st := toStatus(ctx, err)
	code := status.Code(st)
	m.end(code, took)
	s.log(ctx, c, code, err, took)
	return st
}

// take makes room for n bytes; they are given back when the call ends.
func (c *call) take(what string, n int64, urgent bool) error {
	if c.conn == nil || n == 0 {
		return nil
	}
	err := c.hold(n, urgent)
	if err != nil && errclass.Is(err, errclass.Exhausted) {
		c.server.guard.hangUpOnStalled(time.Now()) // which may take a moment: not with a lock
		return refused(err, what)
	}
	return err
}

func (c *call) hold(n int64, urgent bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.ended {
		return errclass.New(errclass.Closed, "the call has ended")
	}
	if err := c.conn.take(n, urgent); err != nil {
		return err
	}
	c.mu.held += n
	return nil
}

// drop gives n of the bytes back.
func (c *call) drop(n int64) {
	if c.conn == nil || n == 0 {
		return
	}
	c.mu.Lock()
	n = min(n, c.mu.held)
	c.mu.held -= n
	c.mu.Unlock()
	c.conn.give(n)
}

func (c *call) giveBack() { c.drop(1 << 62) }

func (c *call) end() {
	c.mu.Lock()
	c.mu.ended = true
	held := c.mu.held
	c.mu.held = 0
	c.mu.Unlock()
	if c.conn != nil {
		c.conn.give(held)
	}
}

// encode encodes an answer. Its bytes count until they have been written, or the
// connection is closed.
func (c *call) encode(answer any) (any, error) {
	data, err := c.server.codec.marshal(answer, c)
	if err != nil {
		return nil, err
	}
	return data, nil
}

// buffer returns a buffer for an answer of n bytes, and the pool that gRPC returns
// it to when the last byte was written.
func (c *call) buffer(n int) (*[]byte, mem.BufferPool, error) {
	g := c.server.guard
	if c.conn == nil {
		return g.buffers.Get(n), &g.buffers, nil
	}
	size := int64(bufferSize(n))
	own := c.handOver(size)
	if own < size {
		if err := c.conn.take(size-own, c.m.always); err != nil {
			c.conn.give(own)
			g.hangUpOnStalled(time.Now())
			return nil, nil, refused(err, "no room to send the answer")
		}
	}
	c.conn.sending(size)
	return g.buffers.Get(n), &answerPool{c.conn, size}, nil
}

// handOver takes up to n bytes from what the request held, for its answer: what has been written is not to be told as refused.
func (c *call) handOver(n int64) int64 {
	if !c.handled {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	n = min(n, c.mu.held)
	c.mu.held -= n
	return n
}

// answerPool takes back the one buffer of an answer.
type answerPool struct {
	conn *connection
	size int64
}

// Get is not called: the buffer was taken before.
func (p *answerPool) Get(n int) *[]byte { return p.conn.guard.buffers.Get(n) }

// Put is called by gRPC when the last byte was written.
func (p *answerPool) Put(b *[]byte) {
	p.conn.sent(p.size)
	p.conn.guard.buffers.Put(b)
}
