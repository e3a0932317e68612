package segments

import (
	"context"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// watermark is a timestamp that only grows and that readers can wait for.
type watermark struct {
	mu struct {
		sync.Mutex
		ts      uint64
		waiters map[*waiter]struct{}
		closed  error
	}
}

type waiter struct {
	ts   uint64
	done chan struct{}
}

func newWatermark() *watermark {
	w := &watermark{}
	w.mu.waiters = map[*waiter]struct{}{}
	return w
}

// advance moves the mark to ts and wakes those who waited for it; a smaller ts changes nothing.
func (w *watermark) advance(ts uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ts <= w.mu.ts {
		return
	}
	w.mu.ts = ts
	for x := range w.mu.waiters {
		if x.ts <= ts {
			delete(w.mu.waiters, x)
			close(x.done)
		}
	}
}

// now returns the mark.
func (w *watermark) now() uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.mu.ts
}

// fail wakes every waiter, now and later, with err.
func (w *watermark) fail(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.closed == nil {
		w.mu.closed = err
	}
	for x := range w.mu.waiters {
		delete(w.mu.waiters, x)
		close(x.done)
	}
}

// wait returns the mark once it is at ts or later.
func (w *watermark) wait(ctx context.Context, ts uint64) (uint64, error) {
	w.mu.Lock()
	now, closed := w.mu.ts, w.mu.closed
	if now >= ts || closed != nil {
		w.mu.Unlock()
		if now >= ts {
			return now, nil
		}
		return now, closed
	}
	x := &waiter{ts: ts, done: make(chan struct{})}
	w.mu.waiters[x] = struct{}{}
	w.mu.Unlock()
	select {
	case <-x.done:
	case <-ctx.Done():
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.mu.waiters, x)
	switch {
	case w.mu.ts >= ts:
		return w.mu.ts, nil
	case w.mu.closed != nil:
		return w.mu.ts, w.mu.closed
	}
	return w.mu.ts, errclass.Mark(errors.Wrapf(ctx.Err(),
		"waited for timestamp %d, the node has applied everything up to %d", ts, w.mu.ts), errclass.Retryable)
}
