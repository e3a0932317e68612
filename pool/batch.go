package pool

import (
	"context"
	"sync/atomic"

	"github.com/cockroachdb/errors"
)

// Batch is the answer to come of tasks that were admitted together.
type Batch struct {
	pool    *Pool
	futures []Future
	left    atomic.Int64
	done    chan struct{}
	ctx     taskCtx
	one     [1]Future // futures, if there is one
}

// SubmitAll admits all the tasks or none. A batch longer than the whole queue
// is admitted when no other task waits, one costlier than MaxCost when no other
// is admitted: it could never run otherwise. A single task costlier than MaxCost
// is refused as ErrTooCostly.
func (p *Pool) SubmitAll(ctx context.Context, tasks ...Task) (*Batch, error) {
	b := &Batch{pool: p, done: make(chan struct{})}
	switch len(tasks) {
	case 0:
		close(b.done)
		return b, nil
	case 1:
		b.futures = b.one[:]
	default:
		b.futures = make([]Future, len(tasks))
	}
	b.ctx.Context, b.ctx.pool = ctx, p
	b.left.Store(int64(len(tasks)))
	for i := range tasks {
		f := &b.futures[i]
		f.pool, f.batch, f.task, f.ctx = p, b, tasks[i], &b.ctx
	}
	var buf [4]*Future
	if err := p.admit(ctx, b.appendAll(buf[:0])); err != nil {
		b.ctx.finish()
		return nil, err
	}
	return b, nil
}

// Done is closed when every task has been answered.
func (b *Batch) Done() <-chan struct{} { return b.done }

// Wait returns nil once every task has been answered, whatever the answers. If
// ctx ends first, tasks that have not started and whose own context has ended
// are dropped at once, and if others are left it returns ErrUnfinished with
// their names.
func (b *Batch) Wait(ctx context.Context) error {
	if err := b.pool.checkNested(ctx, "wait for", "a batch"); err != nil {
		return err
	}
	select {
	case <-b.done:
		return nil
	default:
	}
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
	}
	b.pool.dropExpired(b.appendAll(nil))
	select {
	case <-b.done:
		return nil
	default:
	}
	var names []string
	for i := range b.futures {
		if f := &b.futures[i]; !f.answered.Load() {
			names = append(names, f.task.Name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	return unfinished(ctx, names...)
}

// Err returns the error of task i; one that has not been answered yet has
// ErrUnfinished.
func (b *Batch) Err(i int) error {
	f := &b.futures[i]
	if f.answered.Load() {
		return f.err
	}
	return errors.Wrapf(ErrUnfinished, "task %s", f.task.Name)
}

// Len is the number of tasks.
func (b *Batch) Len() int { return len(b.futures) }

func (b *Batch) appendAll(all []*Future) []*Future {
	for i := range b.futures {
		all = append(all, &b.futures[i])
	}
	return all
}

// unfinished is the error of a wait that ended before these tasks did. It is
// both ErrUnfinished and the context's error.
func unfinished(ctx context.Context, names ...string) error {
	return errors.Mark(errors.Wrapf(context.Cause(ctx), "tasks %q have not ended", names), ErrUnfinished)
}
