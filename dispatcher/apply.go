package dispatcher

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// errStopping ends an applier whose subscription is going away.
var errStopping = errclass.Mark(errors.New("dispatcher: subscription is closing"), errclass.Closed)

// startApplier runs apply until the buffer is empty. There is one at a time:
// push says when.
func (a *actor) startApplier(s *subscription) {
	if err := a.m.group.Go(s.task, s.run); err != nil {
		s.end() // the Manager has closed: nobody will take the messages
		a.applierEnded(s)
	}
}

func (s *subscription) apply(parent context.Context) error {
	ctx := s.context(parent)
	for {
		batch := s.take()
		if batch == nil {
			break
		}
		switch err := s.applyBatch(ctx, batch); {
		case err == nil:
		case errors.Is(err, errStopping):
			// What follows the batch must not be applied before it.
			s.end()
			s.actor.post(func() { s.actor.applierEnded(s) })
			return nil
		default:
			s.end()
			s.actor.post(func() { s.actor.sinkFatal(s, err) })
			return nil
		}
	}
	if s.isStopped() {
		s.actor.post(func() { s.actor.applierEnded(s) })
	}
	return nil
}

// end makes the applier's end final: nothing more is taken.
func (s *subscription) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
	s.mu.running = false
}

// context returns the context of s, which is made once: an applier starts for
// every timetick, and a context for each would be most of its cost.
func (s *subscription) context(parent context.Context) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.ctx == nil {
		s.mu.ctx, s.mu.cancel = context.WithCancel(parent)
	}
	return s.mu.ctx
}

// applyBatch applies msgs whole or, when that panics, one by one.
func (s *subscription) applyBatch(ctx context.Context, msgs []mq.Message) error {
	err := s.try(ctx, msgs)
	if !errclass.Is(err, errclass.Panicked) {
		return err
	}
	s.m.count.sinkPanics.Add(1)
	s.m.o.Logger.Error("sink panicked, applying message by message", "id", s.id, "messages", len(msgs), "err", err)
	for i := range msgs {
		if s.isStopped() {
			return errStopping
		}
		one := msgs[i : i+1 : i+1]
		err := s.try(ctx, one)
		if errclass.Is(err, errclass.Panicked) {
			s.setAside(one, err)
			err = nil
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// setAside skips a message that makes the sink panic: it is reported and never tried again.
func (s *subscription) setAside(one []mq.Message, err error) {
	s.m.count.sinkPanics.Add(1)
	s.m.count.setAside.Add(1)
	s.note(err)
	s.m.o.Logger.Error("message set aside", "id", s.id, "position", one[0].Position, "err", err)
	s.m.fire(func() { s.m.o.Events.SetAside(s.id, one[0].Position, err) })
	s.acked(one)
}

// try applies msgs, again and again while the sink asks for it. The batch has
// been acknowledged when it returns nil.
func (s *subscription) try(ctx context.Context, msgs []mq.Message) error {
	for attempt := 0; ; attempt++ {
		err := lifecycle.Call(s.task, func() error { return s.sink.Apply(ctx, msgs) })
		if err == nil {
			if attempt > 0 {
				s.actor.post(func() { s.actor.sinkFails(s, false) })
			}
			s.acked(msgs)
			return nil
		}
		if ctx.Err() != nil || s.isStopped() && errclass.Of(err).Retry() {
			return errStopping
		}
		if !errclass.Of(err).Retry() {
			return err
		}
		if err := s.waitRetry(ctx, err, attempt); err != nil {
			return err
		}
	}
}

func (s *subscription) waitRetry(ctx context.Context, err error, attempt int) error {
	wait := backoff(s.m.o.BackoffMin, s.m.o.BackoffMax, attempt)
	s.m.count.sinkRetries.Add(1)
	s.note(err)
	s.m.fire(func() { s.m.o.Events.SinkRetry(s.id, err, wait) })
	if attempt == 0 {
		s.m.o.Logger.Warn("sink failed, trying again", "id", s.id, "err", err, "wait", wait)
		s.actor.post(func() { s.actor.sinkFails(s, true) })
	}
	if !s.sleepUnlessStopped(ctx, wait) {
		return errStopping
	}
	return nil
}

func (s *subscription) sleepUnlessStopped(ctx context.Context, d time.Duration) bool {
	s.mu.Lock()
	if s.mu.stopped {
		s.mu.Unlock()
		return false
	}
	s.mu.sleeping = true
	s.mu.Unlock()
	ok := sleep(ctx, d)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.sleeping = false
	return ok
}

func (s *subscription) acked(msgs []mq.Message) {
	if s.ack(msgs) {
		s.actor.post(func() { s.actor.room(s) })
	}
}
