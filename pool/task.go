package pool

import (
	"context"
	"sync/atomic"
	"time"
)

// Lane orders the queue. Both lanes share the bounds.
type Lane uint8

const (
	// Normal is the zero value: first come, first served.
	Normal Lane = iota
	// Urgent is served before Normal, except that every eighth pick takes a Normal
	// task if one waits, so neither lane starves. For work that finishes what has
	// already been paid for, such as fetching fields after the search.
	Urgent
	lanes
)

// Task is one piece of work.
type Task struct {
	// Name stands in errors, panics, logs and the list of what did not stop.
	Name string
	// Cost counts against Options.MaxCost from admission to the answer. Negative counts as 0.
	Cost int64
	// Lane is the part of the queue to wait in.
	Lane Lane
	// Run does the work. Its context ends with the submitter's, and on Close. It
	// must return when the context ends: nothing can stop it otherwise.
	Run func(ctx context.Context) error
}

// Future is the answer to come of one task.
type Future struct {
	pool  *Pool
	batch *Batch // nil for a single task
	task  Task
	cost  int64     // Task.Cost, not negative
	ctx   *taskCtx  // all tasks of a batch share one
	since time.Time // when it was admitted

	done     chan struct{} // closed after err is set; nil in a batch, which has its own
	answered atomic.Bool   // set after err
	err      error

	// Guarded by pool.mu.
	queued     bool
	prev, next *Future // neighbours in the lane while queued, among those that run after
}

// answer is the only place that completes a task. The caller has taken the
// future out of the queue or out of the running set under pool.mu, which makes
// it the only one to get here. Nothing of the pool uses the future once its waiter
// goes on.
func (f *Future) answer(err error) {
	f.err = err
	f.answered.Store(true)
	if f.batch == nil {
		f.ctx.finish()
		close(f.done)
		return
	}
	if f.batch.left.Add(-1) == 0 {
		f.ctx.finish()
		close(f.batch.done)
	}
}

// Wait returns the task's error once it has been answered. If ctx ends first it
// returns ErrUnfinished and the task goes on, unless its own context ended too.
func (f *Future) Wait(ctx context.Context) error {
	if err := f.pool.checkNested(ctx, "wait for", f.task.Name); err != nil {
		return err
	}
	select {
	case <-f.done:
		return f.err
	default:
	}
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
	}
	f.pool.dropExpired([]*Future{f})
	select {
	case <-f.done:
		return f.err
	default:
		return unfinished(ctx, f.task.Name)
	}
}
