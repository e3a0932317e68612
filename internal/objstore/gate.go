package objstore

import (
	"context"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// errClosed is the cause of the context of a call that Close cut.
var errClosed = errclass.Mark(errors.New("the bucket is closed"), errclass.Closed)

// gate counts the calls that run in a bucket, so that Close can refuse, cancel,
// wait and name. Checking and counting happen under one lock.
type gate struct {
	mu struct {
		sync.Mutex
		closed  bool
		next    uint64
		running map[uint64]running
		idle    chan struct{} // closed when closed and running is empty
	}
}

type running struct {
	name   string
	cancel context.CancelCauseFunc
}

func newGate() *gate {
	g := &gate{}
	g.mu.running = map[uint64]running{}
	g.mu.idle = make(chan struct{})
	return g
}

// enter admits a call and returns its context, which also ends with the gate.
// leave must be called once, when the call has ended.
func (g *gate) enter(ctx context.Context, op, key string) (_ context.Context, leave func(), _ error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, errclass.Wrap(context.Cause(ctx), errclass.Retryable, "%s %s", op, key)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	g.mu.Lock()
	if g.mu.closed {
		g.mu.Unlock()
		cancel(errClosed)
		return nil, nil, errors.Wrapf(errClosed, "%s %s", op, key)
	}
	id := g.mu.next
	g.mu.next++
	g.mu.running[id] = running{op + " " + key, cancel}
	g.mu.Unlock()
	return ctx, sync.OnceFunc(func() {
		cancel(context.Canceled)
		g.leave(id)
	}), nil
}

func (g *gate) leave(id uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.mu.running, id)
	if g.mu.closed && len(g.mu.running) == 0 {
		close(g.mu.idle)
	}
}

func (g *gate) shut(ctx context.Context) error {
	g.mu.Lock()
	if !g.mu.closed {
		g.mu.closed = true
		if len(g.mu.running) == 0 {
			close(g.mu.idle)
		}
	}
	cancels := make([]context.CancelCauseFunc, 0, len(g.mu.running))
	for _, r := range g.mu.running {
		cancels = append(cancels, r.cancel)
	}
	g.mu.Unlock()
	for _, cancel := range cancels {
		cancel(errClosed)
	}
	select {
	case <-g.mu.idle:
		return nil
	default:
	}
	select {
	case <-g.mu.idle:
		return nil
	case <-ctx.Done():
		return errors.Wrapf(context.Cause(ctx), "close bucket: still running: %q", g.names())
	}
}

func (g *gate) names() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := make([]string, 0, len(g.mu.running))
	for _, r := range g.mu.running {
		names = append(names, r.name)
	}
	slices.Sort(names)
	return names
}

// ended turns err into the reason why ctx ended, if it did: Closed when the
// bucket closed, the timeout of this package, or the caller's own reason.
func ended(ctx context.Context, err error) error {
	if err == nil || ctx.Err() == nil {
		return err
	}
	cause := context.Cause(ctx)
	if errclass.Of(cause) != errclass.Internal {
		return cause
	}
	return errclass.Mark(cause, errclass.Retryable)
}
