package server

import (
	"context"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"google.golang.org/grpc/codes"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

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

// errAhead marks the error of a call that gave up just before its deadline.
var errAhead = errors.New("the deadline of the call")

// ahead gives fn, which waits, a deadline a little before the call's own: a client whose
// deadline has passed does not read any more what it was that the node waited for.
func ahead(ctx context.Context, fn func(context.Context) error) error {
	const most = 500 * time.Millisecond // a round trip and some more
	at, ok := ctx.Deadline()
	if !ok {
		return fn(ctx)
	}
	early, cancel := context.WithDeadline(ctx, at.Add(-min(most, time.Until(at)/10)))
	defer cancel()
	err := fn(early)
	if errors.Is(err, context.DeadlineExceeded) && errors.Is(early.Err(), context.DeadlineExceeded) {
		err = errors.Mark(err, errAhead)
	}
	return err
}

func (s *Server) log(ctx context.Context, c *call, code codes.Code, err error, took time.Duration) {
	method := c.m.method
	var p *lifecycle.PanicError
	switch {
	case errors.As(err, &p):
		s.metrics.panics.Inc()
		s.o.Logger.ErrorContext(ctx, "server: panic caught", "method", method, "task", p.Task, "value", p.Value, "stack", string(p.Stack))
	case code == codes.DataLoss:
		// Who found the damage has logged it as an error; each read of it says so again.
		s.o.Logger.WarnContext(ctx, "server: call failed", "method", method, "code", code.String(), "took", took, "error", err)
	case (code == codes.Internal || code == codes.Unknown) && !c.lost:
		s.o.Logger.ErrorContext(ctx, "server: call failed", "method", method, "code", code.String(), "took", took, "error", err)
	default:
		s.o.Logger.DebugContext(ctx, "server: call failed", "method", method, "code", code.String(), "took", took, "error", err)
	}
}
