package wal

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// calls runs calls that may hang whatever their context says. Each has a
// deadline and a goroutine with a name, so that one which does not come back
// costs its caller no more than one which fails, and can be named.
type calls struct{ group *lifecycle.Group }

// run calls fn with a context that ends after timeout or with ctx, and returns
// what fn does, or an error once that context has ended and fn has not returned.
// Then fn is abandoned: what it writes must not be read any more. A panic in fn
// comes back as an error of class Panicked.
func (c calls) run(ctx context.Context, name string, timeout time.Duration, fn func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	done := make(chan error, 1)
	err := c.group.Go(name, func(context.Context) error {
		done <- lifecycle.Call(name, func() error { return fn(ctx) })
		return nil
	})
	if err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	select {
	case err := <-done:
		return err
	default:
		return errclass.Wrap(context.Cause(ctx), errclass.Retryable, "%s has not returned", name)
	}
}

// closer is a producer or a reader.
type closer interface {
	Close(ctx context.Context) error
}

// resources owns what has to be closed: each is closed once, by whoever takes
// it out. The zero value is ready to use.
type resources struct {
	mu struct {
		sync.Mutex
		swept bool
		open  map[string]closer
	}
}

// keep stores c under name. It reports false if the sweep has been: then c
// stays with the caller, who must close it.
func (r *resources) keep(name string, c closer) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.mu.swept {
		return false
	}
	if r.mu.open == nil {
		r.mu.open = map[string]closer{}
	}
	r.mu.open[name] = c
	return true
}

// take hands name over to the caller, who must close it; nil if it is not there.
func (r *resources) take(name string) closer {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := r.mu.open[name]
	delete(r.mu.open, name)
	return c
}

// sweep hands all over to the caller and makes keep refuse from now on.
func (r *resources) sweep() map[string]closer {
	r.mu.Lock()
	defer r.mu.Unlock()
	open := r.mu.open
	r.mu.open, r.mu.swept = nil, true
	return open
}

// acquire opens something by a call that may hang and keeps it under name. What
// comes too late is closed right where it comes.
func acquire[T closer](ctx context.Context, w *WAL, name string, open func(context.Context) (T, error)) (T, error) {
	var got T
	err := w.calls.run(ctx, "open "+name, w.o.OpenTimeout, func(ctx context.Context) error {
		c, err := open(ctx)
		if err != nil {
			return err
		}
		if !w.resources.keep(name, c) {
			w.noteLeak(w.shut(name, c))
			return errors.Wrapf(ErrClosed, "wal %s: %s came after the end", w.o.PChannel, name)
		}
		got = c
		return nil
	})
	if err != nil {
		var none T
		return none, errors.Wrapf(err, "wal %s: open %s", w.o.PChannel, name)
	}
	return got, nil
}

// shut closes c, within a quarter of CloseTimeout: the wait for the workers and
// two attempts fit into it.
func (w *WAL) shut(name string, c closer) error {
	ctx, cancel := context.WithTimeout(context.Background(), w.o.CloseTimeout/4)
	defer cancel()
	err := lifecycle.Call("close "+name, func() error { return c.Close(ctx) })
	if err != nil {
		w.log.Warn("wal could not close", "what", name, "error", err)
	}
	return errors.Wrapf(err, "wal %s: close %s", w.o.PChannel, name)
}

// letGo closes c at the end of the WAL. What may have kept it open is a call
// that hangs inside, so that it tries once more when all of those have ended.
// Close reports the second failure.
func (w *WAL) letGo(name string, c closer) {
	if w.shut(name, c) == nil {
		return
	}
	// The only error is that of the context, which has no end.
	_ = w.calls.group.Close(context.Background())
	w.noteLeak(w.shut(name, c))
}

// noteLeak remembers, for Close to report, that something could not be closed.
func (w *WAL) noteLeak(err error) {
	if err == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.mu.closeErrs = append(w.mu.closeErrs, err)
}
