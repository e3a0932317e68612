package pulsar

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// call runs fn, which does not know contexts, in a goroutine of g and waits for
// it until ctx ends. What fn brings after that goes to undo (which may be nil).
// A panic of fn is an error. While fn runs, g names it.
func call[T any](ctx context.Context, g *lifecycle.Group, name string, fn func() (T, error), undo func(T)) (T, error) {
	var zero T
	if err := ctx.Err(); err != nil {
		return zero, errors.Wrap(err, name)
	}
	type result struct {
		v   T
		err error
	}
	got, left := make(chan result), make(chan struct{})
	defer close(left)
	err := g.Go(name, func(context.Context) error {
		var r result
		r.err = lifecycle.Call(name, func() (err error) { r.v, err = fn(); return err })
		select {
		case got <- r:
		case <-left:
			if r.err == nil && undo != nil {
				undo(r.v)
			}
		}
		return nil
	})
	if err != nil {
		return zero, errors.Wrapf(mq.ErrClosed, "%s", name)
	}
	select {
	case r := <-got:
		return r.v, errors.Wrap(r.err, name)
	case <-ctx.Done():
		return zero, errclass.Wrap(ctx.Err(), errclass.Retryable, "%s: the broker has not answered", name)
	}
}

// do is call for functions that bring nothing.
func do(ctx context.Context, g *lifecycle.Group, name string, fn func() error) error {
	_, err := call(ctx, g, name, func() (struct{}, error) { return struct{}{}, fn() }, nil)
	return err
}

// until is ctx, ended also when closing ends. done releases it.
func until(ctx, closing context.Context) (both context.Context, done func()) {
	both, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(closing, cancel)
	return both, func() { stop(); cancel() }
}
