package pool

import (
	"context"
	"sync/atomic"

	"github.com/cockroachdb/errors"
)

// taskCtx is the context of a task, or of the tasks of a batch: it ends with the
// submitter's and on Close, and says in which pool it is. Most tasks are short
// and only ever ask for Err, so a context of its own is derived from the
// submitter's only when somebody waits for Done, or there is a cause to tell:
// that would cost more than all else that the pool does for a task.
type taskCtx struct {
	context.Context // the submitter's
	pool            *Pool
	derived         atomic.Pointer[derivedCtx]
	over            atomic.Bool // every task has been answered
}

type derivedCtx struct {
	context.Context
	cancel context.CancelCauseFunc
}

// inside is the context key that asks whether a context belongs to a task of pool.
type inside struct{ pool *Pool }

// Value passes questions on.
func (c *taskCtx) Value(key any) any {
	if k, ok := key.(inside); ok && k.pool == c.pool {
		return true
	}
	if d := c.derived.Load(); d != nil {
		return d.Value(key)
	}
	return c.Context.Value(key)
}

// Done is closed when the context ends.
func (c *taskCtx) Done() <-chan struct{} { return c.derive().Done() }

// Err says whether it has.
func (c *taskCtx) Err() error {
	if d := c.derived.Load(); d != nil {
		return d.Err()
	}
	if err := c.Context.Err(); err != nil || !c.over.Load() {
		return err
	}
	return context.Canceled
}

func (c *taskCtx) derive() *derivedCtx {
	if d := c.derived.Load(); d != nil {
		return d
	}
	d := &derivedCtx{}
	d.Context, d.cancel = context.WithCancelCause(c.Context)
	if !c.derived.CompareAndSwap(nil, d) {
		d.cancel(nil)
		return c.derived.Load()
	}
	if c.over.Load() { // finish may not have seen it
		d.cancel(nil)
	}
	return d
}

// end ends the context early, with a cause.
func (c *taskCtx) end(cause error) { c.derive().cancel(cause) }

// finish lets go of what the context holds.
func (c *taskCtx) finish() {
	c.over.Store(true)
	if d := c.derived.Load(); d != nil {
		d.cancel(nil)
	}
}

func (p *Pool) checkNested(ctx context.Context, verb, name string) error {
	if ctx.Value(inside{p}) == nil {
		return nil
	}
	return errors.Wrapf(ErrNested, "%s %s in %s", verb, name, p.opts.Name)
}
