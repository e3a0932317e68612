package lifecycle

import (
	"context"
	"fmt"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// PanicError is a panic that was caught at the edge of a task or goroutine.
type PanicError struct {
	Task  string // name of the task or goroutine that panicked
	Value any    // what was passed to panic
	Stack []byte // stack of the panicking goroutine, as debug.Stack prints it
}

// Error names the task and the value; the stack is in Stack.
func (e *PanicError) Error() string { return fmt.Sprintf("panic in %s: %v", e.Task, e.Value) }

// Unwrap returns the panic's value if it was an error, so that errors.Is sees through.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Call runs fn and turns a panic into a *PanicError of class Panicked.
func Call(task string, fn func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = errclass.Mark(&PanicError{Task: task, Value: v, Stack: debug.Stack()}, errclass.Panicked)
		}
	}()
	return fn()
}

// ErrGroupClosed is returned by Group.Go after Close has begun.
var ErrGroupClosed = errclass.Mark(errors.New("lifecycle: group is closing"), errclass.Closed)

// ErrGoexit is how a goroutine or task ended that called runtime.Goexit.
var ErrGoexit = errclass.Mark(errors.New("lifecycle: ended by runtime.Goexit"), errclass.Internal)

// Group owns goroutines: it names each, recovers its panics, tells the owner
// how it ended, and waits for all of them. It is the only place in the module
// with a go statement. Create it with NewGroup; Close it once no more is needed.
type Group struct {
	ctx    context.Context
	cancel context.CancelFunc
	onExit func(name string, err error)

	mu struct {
		sync.Mutex
		closing bool
		running map[uint64]string
		next    uint64
		idle    chan struct{} // closed when closing and running is empty
	}
}

// NewGroup returns a group whose goroutines get a context derived from parent.
// onExit (may be nil) is called in the ending goroutine with the name and the
// error it returned; a panic arrives as *PanicError, runtime.Goexit as
// ErrGoexit. Close waits for onExit too. onExit must not block.
func NewGroup(parent context.Context, onExit func(name string, err error)) *Group {
	g := &Group{onExit: onExit}
	g.ctx, g.cancel = context.WithCancel(parent)
	g.mu.running = map[uint64]string{}
	g.mu.idle = make(chan struct{})
	return g
}

// Context is cancelled when Close begins or the parent is cancelled.
func (g *Group) Context() context.Context { return g.ctx }

// Go starts fn under name. It returns ErrGroupClosed, and does not start fn,
// once Close has begun: checking and counting happen under one lock, so a late
// start is refused, never lost.
func (g *Group) Go(name string, fn func(ctx context.Context) error) error {
	g.mu.Lock()
	if g.mu.closing {
		g.mu.Unlock()
		return errors.Wrapf(ErrGroupClosed, "start %s", name)
	}
	id := g.mu.next
	g.mu.next++
	g.mu.running[id] = name
	g.mu.Unlock()

	go g.run(id, name, fn)
	return nil
}

// run is the goroutine. What must happen is deferred, so that it happens also
// when fn ends the goroutine with runtime.Goexit, which no recover sees.
func (g *Group) run(id uint64, name string, fn func(ctx context.Context) error) {
	err := ErrGoexit
	defer g.done(id)
	defer func() {
		if g.onExit != nil {
			// The owner's callback must not be able to kill the process either.
			_ = Call(name+" exit", func() error { g.onExit(name, err); return nil })
		}
	}()
	// The label shows the name in goroutine and CPU profiles.
	pprof.Do(g.ctx, pprof.Labels(goroutineLabel, name), func(ctx context.Context) {
		err = Call(name, func() error { return fn(ctx) })
	})
}

func (g *Group) done(id uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.mu.running, id)
	if g.mu.closing && len(g.mu.running) == 0 {
		close(g.mu.idle)
	}
}

// Close refuses new goroutines, cancels the context and waits for the running
// ones until ctx ends. It returns nil when all have ended, else an error that
// names those that have not. It may be called again to wait longer.
func (g *Group) Close(ctx context.Context) error {
	g.mu.Lock()
	if !g.mu.closing {
		g.mu.closing = true
		if len(g.mu.running) == 0 {
			close(g.mu.idle)
		}
	}
	idle := g.mu.idle
	g.mu.Unlock()
	g.cancel()
	select {
	case <-idle:
		return nil
	default:
	}
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		names := g.Running()
		if len(names) == 0 {
			return nil
		}
		return errors.Wrapf(ctx.Err(), "still running: %q", names)
	}
}

// Running returns the sorted names of the goroutines that have not ended.
func (g *Group) Running() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	names := make([]string, 0, len(g.mu.running))
	for _, n := range g.mu.running {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}
