package wal

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// WAL is the write-ahead log of one pchannel under one term. All methods are
// safe for concurrent use. Whoever opened it closes it.
type WAL struct {
	o   Options
	log *slog.Logger

	ctx    context.Context // the WAL's own; ends with the service
	cancel context.CancelFunc

	ready    chan struct{} // closed on Ready
	closing  chan struct{} // closed when the WAL ceases to serve, or to try
	done     chan struct{} // see Done
	released chan struct{} // closed when nothing that the WAL started or opened is left

	workers *lifecycle.Group // recovery, then the writer
	calls   calls            // calls into the queue
	closers *lifecycle.Group // closing producer and reader
	reapers *lifecycle.Group // the one that waits for those three

	pending   *pending
	resources resources
	clock     *Clock
	seen      uint64        // the highest timestamp that recovery has found
	opened    atomic.Uint64 // seen, as it was when the WAL became Ready
	last      atomic.Uint64
	durable   durable
	count     counters
	progress  progress

	mu struct {
		sync.Mutex
		state     State
		over      bool  // done is closed
		cause     error // the first reason to cease; nil for Close
		closeErrs []error
	}
}

// Open checks o and returns a WAL that is Opening; it does not wait for
// anything. What then goes wrong is told by Ready, Err and Done. The caller
// must Close it, whatever becomes of it.
func Open(o Options) (*WAL, error) {
	w, err := prepare(o)
	if err != nil {
		return nil, err
	}
	if err := w.reapers.Go("reaper", w.reap); err != nil {
		return nil, err
	}
	r := &recovery{w: w, tail: o.TailOnly}
	if err := w.workers.Go("recovery", r.run); err != nil {
		return nil, err
	}
	return w, nil
}

// prepare returns a WAL in which nothing runs yet.
func prepare(o Options) (*WAL, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	w := &WAL{
		o:     o,
		log:   o.Logger.With("pchannel", o.PChannel, "term", o.Term),
		ready: make(chan struct{}), closing: make(chan struct{}),
		done: make(chan struct{}), released: make(chan struct{}),
		pending: newPending(o), clock: o.Clock,
	}
	w.durable.last = map[string]uint64{}
	w.ctx, w.cancel = context.WithCancel(context.Background())
	w.workers = lifecycle.NewGroup(w.ctx, w.workerEnded)
	w.calls = calls{group: lifecycle.NewGroup(context.Background(), nil)}
	w.closers = lifecycle.NewGroup(context.Background(), nil)
	w.reapers = lifecycle.NewGroup(context.Background(), nil)
	return w, nil
}

// workerEnded turns the death of a worker into the end of the service.
func (w *WAL) workerEnded(name string, err error) {
	if err != nil {
		w.fail(errors.Wrapf(err, "wal %s: %s has died", w.o.PChannel, name))
	}
}

// PChannel returns the topic's name.
func (w *WAL) PChannel() string { return w.o.PChannel }

// Term returns the owner's fencing number.
func (w *WAL) Term() uint64 { return w.o.Term }

// State returns where the WAL is in its life.
func (w *WAL) State() State {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.state
}

// Err returns why the WAL does not serve: the reason of Fenced or Failed, also
// after Close, else ErrClosed. nil while it is Opening, Recovering or Ready.
func (w *WAL) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.mu.state.alive():
		return nil
	case w.mu.cause != nil:
		return w.mu.cause
	}
	return errors.Wrapf(ErrClosed, "wal %s", w.o.PChannel)
}

// Done returns a channel that is closed once the WAL is Fenced, Failed or
// Closed. A Close that misses its deadline does not close it.
func (w *WAL) Done() <-chan struct{} { return w.done }

// Ready waits until the WAL is Ready. It returns Err if it never will be, or no
// longer is, and ctx's error if that ends first.
func (w *WAL) Ready(ctx context.Context) error {
	select {
	case <-w.ready:
	case <-w.closing:
	case <-ctx.Done():
		return errclass.Wrap(context.Cause(ctx), errclass.Retryable, "wal %s is %s", w.o.PChannel, w.State())
	}
	return w.Err()
}

// LastTimestamp returns a timestamp T of which every acknowledged append has
// one at or below: a read at T, once it waited for tsafe >= T, sees them all.
// It is that of the newest durable message, so that tsafe gets there without
// waiting for a timetick. 0 until Ready.
func (w *WAL) LastTimestamp() uint64 { return w.last.Load() }

// Opened returns the timestamp of the newest message that the topic held when the
// WAL became Ready: what was acknowledged before has that or a lower one. 0 until Ready.
func (w *WAL) Opened() uint64 { return w.opened.Load() }

// Trim lets the queue drop what is before pos; pos itself stays. Only a Ready
// WAL trims, because a fenced owner must not.
func (w *WAL) Trim(ctx context.Context, pos mq.Position) error {
	if err := w.Ready(ctx); err != nil {
		return errors.Wrapf(err, "trim to %s", pos)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(w.ctx, cancel)()
	err := w.calls.run(ctx, "trim", w.o.AppendTimeout, func(ctx context.Context) error {
		return w.o.Queue.Trim(ctx, w.o.PChannel, pos)
	})
	return errors.Wrapf(err, "wal %s: trim to %s", w.o.PChannel, pos)
}

// Sync returns once all that was acknowledged or shown of the topic before the call is safe
// from a power failure. It costs nothing with a queue that acknowledges nothing before.
func (w *WAL) Sync(ctx context.Context) error {
	q, ok := w.o.Queue.(mq.Syncer)
	if !ok {
		return nil
	}
	err := w.calls.run(ctx, "sync", w.o.AppendTimeout, func(ctx context.Context) error { return q.Sync(ctx, w.o.PChannel) })
	return errors.Wrapf(err, "wal %s: sync", w.o.PChannel)
}

// Close ends the WAL and waits until nothing of it is left, for as long as ctx
// and CloseTimeout allow. Otherwise its error, of class Retryable, names what is
// still running, and another Close waits on. It also tells what could not be closed.
func (w *WAL) Close(ctx context.Context) error {
	w.transition(Closing, nil)
	ctx, cancel := context.WithTimeout(ctx, w.o.CloseTimeout)
	defer cancel()
	select {
	case <-w.released:
	default:
		select {
		case <-w.released:
		case <-ctx.Done():
			return errclass.Wrap(context.Cause(ctx), errclass.Retryable, "wal %s: close: still running: %q", w.o.PChannel, w.Running())
		}
	}
	w.transition(Closed, nil)
	w.mu.Lock()
	defer w.mu.Unlock()
	return errors.Join(w.mu.closeErrs...)
}

// Running names the goroutines and queue calls of the WAL that have not ended.
func (w *WAL) Running() []string {
	names := slices.Concat(w.workers.Running(), w.calls.group.Running(), w.closers.Running())
	slices.Sort(names)
	return names
}

// reap waits for the end of the service and then for the end of everything.
// It has no deadline of its own: Close has, and what ends late is still noticed.
func (w *WAL) reap(context.Context) error {
	<-w.closing
	ctx, cancel := context.WithTimeout(context.Background(), w.o.CloseTimeout/4)
	defer cancel()
	if err := w.workers.Close(ctx); err != nil {
		w.log.Warn("wal closes under its workers", "error", err)
	}
	for name, c := range w.resources.sweep() {
		w.noteLeak(w.closers.Go("close "+name, func(context.Context) error {
			w.letGo(name, c)
			return nil
		}))
	}
	unbounded := context.Background()
	for _, g := range []*lifecycle.Group{w.calls.group, w.workers, w.closers} {
		if err := g.Close(unbounded); err != nil {
			return err
		}
	}
	close(w.released)
	w.transition(Closed, nil)
	return nil
}

// emit calls an event. A panic in one costs nothing but that event.
func (w *WAL) emit(call func(Events)) {
	err := lifecycle.Call("event", func() error { call(w.o.Events); return nil })
	if err != nil {
		w.log.Error("wal event panicked", "error", err)
	}
}
