package server

import (
	"context"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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

func (s *Server) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (resp any, err error) {
	err = s.call(ctx, info.FullMethod, func(ctx context.Context) error {
		resp, err = handle(ctx, req)
		return err
	})
	if err != nil {
		return nil, err
	}
	return resp, nil
}

func (s *Server) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
	return s.call(ss.Context(), info.FullMethod, func(ctx context.Context) error {
		return handle(srv, &streamWithContext{ss, ctx})
	})
}

type streamWithContext struct {
	grpc.ServerStream
	ctx context.Context
}

// Context returns the call's context with its deadline.
func (s *streamWithContext) Context() context.Context { return s.ctx }

// call wraps every call: state, deadline, recover, error, log and metric.
func (s *Server) call(ctx context.Context, method string, handle func(context.Context) error) error {
	start := time.Now()
	m := s.metrics.of(method)
	m.running.Inc()
	err := s.admit(m)
	if err == nil {
		if !m.endless {
			var cancel context.CancelFunc
			ctx, cancel = s.deadline(ctx, start)
			defer cancel()
		} else {
			// Nobody ends such a stream but the client, or Close.
			var cancel context.CancelFunc
			ctx, cancel = context.WithCancel(ctx)
			defer cancel()
			defer context.AfterFunc(s.closing, cancel)()
		}
		err = lifecycle.Call(method, func() error { return handle(ctx) })
	}
	took := time.Since(start)
	if err == nil {
		m.end(codes.OK, took)
		return nil
	}
	st := toStatus(ctx, err)
	code := status.Code(st)
	m.end(code, took)
	s.log(ctx, method, code, err, took)
	return st
}

// admit refuses calls while the node's state does not accept them.
func (s *Server) admit(m *methodMetrics) error {
	st := s.o.Machine.State()
	if st.Accepts() || m.always {
		return nil
	}
	return errclass.New(errclass.Closed, "the node is %s and does not answer requests now: try another node, or again later", strings.ToLower(st.String()))
}

// deadline bounds a call. A client's own deadline is on ctx already, where gRPC
// put it: another timer for the same would cost more than all else here.
func (s *Server) deadline(ctx context.Context, now time.Time) (context.Context, context.CancelFunc) {
	at, ok := ctx.Deadline()
	switch {
	case !ok:
		return context.WithTimeout(ctx, s.o.DefaultTimeout)
	case at.Sub(now) > s.o.MaxTimeout:
		return context.WithTimeout(ctx, s.o.MaxTimeout)
	}
	return ctx, func() {}
}

func (s *Server) log(ctx context.Context, method string, code codes.Code, err error, took time.Duration) {
	if err == nil {
		return
	}
	var p *lifecycle.PanicError
	switch {
	case errors.As(err, &p):
		s.metrics.panics.Inc()
		s.o.Logger.ErrorContext(ctx, "server: panic caught", "method", method, "task", p.Task, "value", p.Value, "stack", string(p.Stack))
	case code == codes.DataLoss:
		// Who found the damage has logged it as an error; each read of it says so again.
		s.o.Logger.WarnContext(ctx, "server: call failed", "method", method, "code", code.String(), "took", took, "error", err)
	case code == codes.Internal, code == codes.Unknown:
		s.o.Logger.ErrorContext(ctx, "server: call failed", "method", method, "code", code.String(), "took", took, "error", err)
	default:
		s.o.Logger.DebugContext(ctx, "server: call failed", "method", method, "code", code.String(), "took", took, "error", err)
	}
}
