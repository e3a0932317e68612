package flush

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// waiter waits for one segment.
type waiter struct {
	ch   Channel
	id   int64
	done chan error // capacity 1
}

// Wait waits until the segments, sealed at a timestamp, are in the catalog. One
// that never got a row, or whose partition was dropped, needs no flush. The error
// of a wait that is given up, class Retryable, says for which segment it waited and
// what keeps that one; its flush goes on.
func (f *Flusher) Wait(ctx context.Context, ch Channel, sealedAt uint64, ids ...int64) error {
	// There is nothing to flush before the seal has been applied here.
	if _, err := ch.WaitTsafe(ctx, sealedAt); err != nil {
		return errors.Wrapf(err, "wait for the seal of segments %v of channel %s to be read from the log", ids, ch.Name())
	}
	for _, id := range ids {
		if err := f.waitOne(ctx, &waiter{ch: ch, id: id, done: make(chan error, 1)}); err != nil {
			return err
		}
	}
	return nil
}

func (f *Flusher) waitOne(ctx context.Context, w *waiter) error {
	f.mu.Lock()
	f.mu.waiting[w] = struct{}{}
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		delete(f.mu.waiting, w)
		f.mu.Unlock()
	}()
	// After it is in the list, so that a flush that ends now is not missed.
	if settled, err := w.settled(); settled {
		return err
	}
	f.Kick()
	select {
	case err := <-w.done:
		return err
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for the flush of segment %d of channel %s, which goes on (%s)", w.id, w.ch.Name(), f.doing(w.ch.Name()))
	case <-f.group.Context().Done():
		return errclass.New(errclass.Closed, "flush: closing")
	}
}

// doing says, for people, what a channel with sealed segments is at.
func (f *Flusher) doing(vchannel string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch was := f.mu.failing[vchannel]; {
	case was != nil:
		return fmt.Sprintf("failing for %s, the last time: %v", time.Since(was.since).Round(time.Second), was.err)
	case f.mu.steps[vchannel] != nil:
		return "it is being built or stored"
	}
	return "other channels are before it"
}

// settled reports whether there is nothing to wait for any more.
func (w *waiter) settled() (bool, error) {
	if w.ch.IsFlushed(w.id) {
		return true, nil
	}
	if !w.ch.Watched() {
		return true, errclass.New(errclass.Retryable, "segment %d: channel %s is not watched any more; it is flushed where it is", w.id, w.ch.Name())
	}
	growing, release := w.ch.Growing()
	defer release()
	for _, g := range growing {
		if g.Meta().ID == w.id {
			return false, nil
		}
	}
	// Neither in the catalog nor here: the log has no row for it, or they are dropped.
	return true, nil
}

// answer answers those whose segments have been flushed or have gone.
func (f *Flusher) answer() {
	f.mu.Lock()
	waiting := make([]*waiter, 0, len(f.mu.waiting))
	for w := range f.mu.waiting {
		waiting = append(waiting, w)
	}
	f.mu.Unlock()
	for _, w := range waiting {
		if settled, err := w.settled(); settled {
			select {
			case w.done <- err:
			default: // was answered before
			}
		}
	}
}
