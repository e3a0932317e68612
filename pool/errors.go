package pool

import (
	"fmt"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// PanicError is a task's panic: the value, the stack and the task's name.
type PanicError = lifecycle.PanicError

// What Submit and Wait return, wrapped with the task's name.
var (
	// ErrQueueFull: no room for the task, by count or by cost. Class Exhausted.
	// The error is a *FullError and tells when to try again.
	ErrQueueFull = errclass.Mark(errors.New("pool: queue is full"), errclass.Exhausted)
	// ErrTooCostly: the task costs more than the pool's MaxCost. Class Invalid.
	ErrTooCostly = errclass.Mark(errors.New("pool: task costs more than the whole pool"), errclass.Invalid)
	// ErrNested: a task submitted to, or waited for, the pool it runs in. Class Internal.
	ErrNested = errclass.Mark(errors.New("pool: used from inside one of its own tasks"), errclass.Internal)
	// ErrClosed: the pool is closing. A task that was queued has not run; one that
	// ran was cancelled. Class Closed.
	ErrClosed = errclass.Mark(errors.New("pool: closed"), errclass.Closed)
	// ErrExpired: the task's context ended before a worker was free; the task has
	// not run. The error also is the context's error.
	ErrExpired = errors.New("pool: expired before it ran")
	// ErrGoexit: the task ended its goroutine with runtime.Goexit. Class Internal.
	ErrGoexit = lifecycle.ErrGoexit
	// ErrUnfinished: the wait ended before the task did. The error also is the
	// context's error. The task may still be running.
	ErrUnfinished = errors.New("pool: wait ended before the task")
)

// FullError is a refusal for want of room. It is ErrQueueFull to errors.Is.
type FullError struct {
	Pool       string        // Options.Name
	Resource   string        // "tasks" or "cost": which bound was met
	Used, Max  int64         // of that resource
	Asked      int64         // what the refused task or batch asked for
	RetryAfter time.Duration // estimate: when there is room at the present rate of service
}

// Error names the bound that was met.
func (e *FullError) Error() string {
	return fmt.Sprintf("%s queue is full: %d of %d %s in use, %d asked, retry after %s",
		e.Pool, e.Used, e.Max, e.Resource, e.Asked, e.RetryAfter)
}

// Unwrap makes it ErrQueueFull, and so of class Exhausted.
func (e *FullError) Unwrap() error { return ErrQueueFull }

// RetryAfter returns the retry hint in err and whether there is one.
func RetryAfter(err error) (time.Duration, bool) {
	var full *FullError
	if errors.As(err, &full) {
		return full.RetryAfter, true
	}
	return 0, false
}
