package flush

import (
	"context"
	"slices"
	"time"

	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq/wal"
)

// step is what is being done on one channel.
type step struct {
	cancel context.CancelFunc
	done   chan struct{}
	again  bool // there was something more to do meanwhile
}

// trimming is what is known of the trims of a topic.
type trimming struct {
	due   bool      // a checkpoint has moved since the last one began
	after time.Time // when the next one may begin
	busy  bool
}

// loop begins what is due: a step on each channel, as many beside each other as may
// be, so that one whose storage hangs does not hold up the others; and trims.
func (f *Flusher) loop(ctx context.Context) error {
	tick := time.NewTicker(f.o.Interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-f.kick:
		}
		f.answer()
		watched, channels := map[string]bool{}, map[string]Channel{}
		for _, ch := range f.o.Channels() {
			watched[ch.Name()], channels[ch.Name()] = true, ch
			if ch.Unproven {
				continue
			}
			if !f.begin(ctx, ch.Name(), func(ctx context.Context) { f.channel(ctx, ch) }) {
				return nil
			}
		}
		for _, log := range f.assigner.Logs(watched) {
			if !f.begin(ctx, log.VChannel, func(ctx context.Context) { f.log(ctx, log) }) {
				return nil
			}
		}
		f.tellUnstored(channels)
		f.trims()
	}
}

// begin begins a step on a vchannel, if none is under way and its back-off is over,
// once there is room for one. It returns false when the loop is to end.
func (f *Flusher) begin(ctx context.Context, name string, do func(context.Context)) bool {
	if f.passed(name) {
		return ctx.Err() == nil
	}
	select {
	case f.room <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	ctx, cancel := context.WithCancel(ctx)
	s := &step{cancel: cancel, done: make(chan struct{})}
	f.mu.Lock()
	f.mu.steps[name] = s // only the loop adds any
	f.mu.Unlock()
	err := f.group.Go("flush "+name, func(context.Context) error {
		defer f.end(name, s)
		do(ctx)
		return nil
	})
	if err != nil {
		f.end(name, s)
	}
	return err == nil
}

// passed reports whether there is nothing to begin on a channel now.
func (f *Flusher) passed(name string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s := f.mu.steps[name]; s != nil {
		s.again = true
		return true
	}
	return time.Now().Before(f.mu.retryAt[name])
}

func (f *Flusher) end(name string, s *step) {
	f.mu.Lock()
	delete(f.mu.steps, name)
	again := s.again
	f.mu.Unlock()
	s.cancel()
	close(s.done)
	<-f.room
	f.answer()
	if again {
		f.Kick()
	}
}

// channel does what is due on one channel. A failure is retried with back-off
// and does not hold up other channels; a panic is a failure.
func (f *Flusher) channel(ctx context.Context, ch Channel) {
	// The list may be older than a Forget that did not find this step.
	if !f.watched(ch) {
		return
	}
	err := lifecycle.Call("flush "+ch.Name(), func() error { return f.due(ctx, ch) })
	f.note(ctx, ch.Name(), err)
}

// log does what is due on the log of a vchannel that is not watched.
func (f *Flusher) log(ctx context.Context, log Log) {
	if slices.ContainsFunc(f.o.Channels(), func(c Channel) bool { return c.Name() == log.VChannel }) {
		return // by now
	}
	err := lifecycle.Call("flush "+log.VChannel, func() error { return f.unwatched(ctx, log) })
	f.mu.Lock()
	defer f.mu.Unlock()
	if err != nil && !f.assigner.Knows(log.VChannel) {
		err = nil // dropped meanwhile: it is never tried again, so nobody would take it back
	}
	f.noteLocked(ctx, log.VChannel, err)
}

// note remembers how a step, or a trim, has ended.
func (f *Flusher) note(ctx context.Context, name string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.noteLocked(ctx, name, err)
}

func (f *Flusher) noteLocked(ctx context.Context, name string, err error) {
	if err == nil || ctx.Err() != nil {
		if was := f.mu.failing[name]; was != nil && err == nil {
			f.o.Logger.Info("flush: goes on", "what", name, "failed_for", time.Since(was.since))
		}
		delete(f.mu.failing, name)
		delete(f.mu.retryAt, name)
		return
	}
	now, was := time.Now(), f.mu.failing[name]
	if was == nil {
		was = &failure{since: now}
		f.mu.failing[name] = was
	}
	was.err, was.delay = err, min(max(2*was.delay, 250*time.Millisecond), 30*time.Second)
	f.mu.retryAt[name] = now.Add(was.delay)
	if was.tell(now) {
		f.o.Logger.Warn("flush: will be tried again", "what", name, "in", was.delay, "error", err)
	}
}

// watched reports whether the very channel is still to be flushed.
func (f *Flusher) watched(ch Channel) bool {
	return slices.ContainsFunc(f.o.Channels(), func(c Channel) bool { return c.Channel == ch.Channel })
}

// trimLater says that a checkpoint of the topic has moved. A topic is trimmed twice in
// a CheckpointInterval at most, whatever number of channels it carries: it only
// takes some room meanwhile.
func (f *Flusher) trimLater(pchannel string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.mu.trims[pchannel]
	if t == nil {
		t = &trimming{}
		f.mu.trims[pchannel] = t
	}
	t.due = true
}

// trims begins the trims that are due.
func (f *Flusher) trims() {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := time.Now()
	for pchannel, t := range f.mu.trims {
		if !t.due || t.busy || now.Before(t.after) || now.Before(f.mu.retryAt[trimOf(pchannel)]) {
			continue
		}
		t.due, t.busy, t.after = false, true, now.Add(f.o.CheckpointInterval/2)
		err := f.group.Go(trimOf(pchannel), func(ctx context.Context) error {
			defer func() {
				f.mu.Lock()
				t.busy = false
				f.mu.Unlock()
			}()
			err := lifecycle.Call(trimOf(pchannel), func() error { return f.trimOwn(ctx, pchannel) })
			if f.note(ctx, trimOf(pchannel), err); err != nil {
				f.trimLater(pchannel)
			}
			return nil
		})
		if err != nil {
			return // closing
		}
	}
}

// trimOf is what the trim of a topic is called. No channel is called so.
func trimOf(pchannel string) string { return "trim " + pchannel }

// trimOwn trims a topic, if its log is still this node's.
func (f *Flusher) trimOwn(ctx context.Context, pchannel string) error {
	w, err := f.o.WAL(pchannel)
	if err != nil || w.State() != wal.Ready {
		return nil
	}
	return f.trim(ctx, pchannel, w)
}
