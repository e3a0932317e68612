package wal

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

const (
	readAhead  = 16   // messages between reading and replaying
	maxRepeats = 1024 // messages in a row that a reader may give out again
)

// recovery takes the topic, replays it up to its end, and starts the writer.
// The order matters: the producer fences the old owner first, so that nothing
// can come after the end that Bounds tells then.
type recovery struct {
	w      *WAL
	bounds mq.Bounds
	reader mq.Reader // nil when there is nothing to read

	tail    bool        // only the newest message is read
	at      mq.Position // how far reading is
	repeats int         // messages in a row at or before at
	since   int         // messages since the last SaveCheckpoint
}

// run opens and replays; on failure the WAL is Failed or Fenced.
func (r *recovery) run(ctx context.Context) error {
	producer, err := r.open(ctx)
	if err != nil {
		r.w.fail(err)
		return nil
	}
	r.w.progress.begin(r.w.o.Checkpoint, r.bounds)
	if !r.w.transition(Recovering, nil) {
		return nil
	}
	if err := r.replayAll(ctx); err != nil {
		r.w.fail(err)
		return nil
	}
	r.observe(believable(r.w.o.Checkpoint.Timestamp))
	r.observe(believable(r.bounds.Last.Timestamp))
	r.w.last.Store(r.w.seen)
	r.w.opened.Store(r.w.seen)
	r.w.progress.end(r.bounds.Last)
	s := &writer{w: r.w, producer: producer}
	if !r.w.transition(Ready, nil) {
		return nil
	}
	return r.w.workers.Go("writer", s.run)
}

// replayAll replays what there is to replay and lets go of the reader.
func (r *recovery) replayAll(ctx context.Context) error {
	for r.reader != nil {
		if err := r.replay(ctx); err != nil {
			return err
		}
		r.letReaderGo()
		r.reader = nil
		if r.tail && r.w.seen == 0 {
			// The newest message cannot be read: the others tell the time.
			r.tail = false
			if err := r.openReader(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// observe makes every timestamp that is given out later greater than ts.
func (r *recovery) observe(ts uint64) {
	r.w.seen = max(r.w.seen, ts)
	r.w.clock.observe(ts)
}

// believable returns ts, or 0 if no clock can have made it.
func believable(ts uint64) uint64 {
	if ts > maxTimestamp {
		return 0
	}
	return ts
}

func (r *recovery) open(ctx context.Context) (mq.Producer, error) {
	o := r.w.o
	producer, err := acquire(ctx, r.w, "producer", func(ctx context.Context) (mq.Producer, error) {
		return o.Queue.OpenProducer(ctx, o.PChannel, mq.ProducerOptions{Term: o.Term, Name: o.Owner})
	})
	if err != nil {
		return nil, err
	}
	var bounds mq.Bounds
	err = r.w.calls.run(ctx, "bounds", o.OpenTimeout, func(ctx context.Context) (err error) {
		bounds, err = o.Queue.Bounds(ctx, o.PChannel)
		return err
	})
	if err != nil {
		return nil, errors.Wrapf(err, "wal %s: bounds", o.PChannel)
	}
	r.bounds = bounds
	return producer, r.openReader(ctx)
}

// openReader opens a reader right after the checkpoint, if there is anything.
func (r *recovery) openReader(ctx context.Context) error {
	o, last := r.w.o, r.bounds.Last
	from := mq.ReaderOptions{From: o.Checkpoint, Exclusive: true, Name: o.Owner}
	r.at = o.Checkpoint
	switch {
	case last.IsZero() && o.Checkpoint.IsZero():
		return nil
	case !last.IsZero() && last.Before(o.Checkpoint):
		return errors.Wrapf(mq.ErrAhead, "wal %s: checkpoint %s, the topic ends at %s", o.PChannel, o.Checkpoint, last)
	case r.tail && (last.IsZero() || last.Timestamp != 0):
		return nil
	case last.Compare(o.Checkpoint) == 0 && (last.Timestamp != 0 || o.Checkpoint.Timestamp != 0):
		return nil
	case r.tail, last.Compare(o.Checkpoint) == 0:
		// Nothing to replay, but the next timestamp must be above this message's.
		from.From, from.Exclusive, r.at = last, false, mq.Position{}
	}
	reader, err := r.acquireReader(ctx, from)
	if errors.Is(err, mq.ErrTrimmed) && o.AllowGap {
		r.w.count.gaps.Add(1)
		r.w.log.Error("wal has a gap: entries between checkpoint and oldest message are lost",
			"checkpoint", o.Checkpoint.String(), "first", r.bounds.First.String())
		r.w.emit(func(ev Events) {
			if ev.Gap != nil {
				ev.Gap(o.PChannel, o.Checkpoint, r.bounds.First)
			}
		})
		reader, err = r.acquireReader(ctx, mq.ReaderOptions{Name: o.Owner})
	}
	if err != nil {
		return err
	}
	r.reader = reader
	return nil
}

func (r *recovery) acquireReader(ctx context.Context, from mq.ReaderOptions) (mq.Reader, error) {
	return acquire(ctx, r.w, "reader", func(ctx context.Context) (mq.Reader, error) {
		return r.w.o.Queue.OpenReader(ctx, r.w.o.PChannel, from)
	})
}

// letReaderGo closes the reader without waiting for it. If that fails the
// reaper will try again.
func (r *recovery) letReaderGo() {
	w, c := r.w, r.w.resources.take("reader")
	if c == nil {
		return // the reaper has it
	}
	err := w.closers.Go("close reader", func(context.Context) error {
		if err := w.shut("reader", c); err != nil && !w.resources.keep("reader", c) {
			w.letGo("reader", c)
		}
		return nil
	})
	w.noteLeak(err) // not before the reaper has gone, which waits for recovery
}

// item is what one Next returned.
type item struct {
	msg mq.Message
	err error
}

// replay goes through all messages up to the end that Bounds told.
func (r *recovery) replay(ctx context.Context) error {
	readCtx, cancel := context.WithCancel(ctx)
	defer cancel()
	items := make(chan item, readAhead)
	// Its own: r.reader is another one, or none, before the call that hangs returns.
	reader, last := r.reader, r.bounds.Last
	err := r.w.calls.group.Go("read", func(context.Context) error {
		read(readCtx, reader, last, items)
		return nil
	})
	if err != nil {
		return err
	}
	patience := time.NewTimer(r.w.o.OpenTimeout)
	defer patience.Stop()
	for r.at.Before(r.bounds.Last) {
		if ctx.Err() != nil { // else what was read ahead would still be replayed
			return errors.Wrapf(context.Cause(ctx), "wal %s: replay at %s", r.w.o.PChannel, r.at)
		}
		it, err := r.await(ctx, items, patience)
		if err != nil {
			return err
		}
		if err := r.step(ctx, it); err != nil {
			return err
		}
	}
	return nil
}

// read hands on what Next returns, until the message at last or an error that lasts. It
// calls nothing once ctx has ended: that call might hang, and Close wait for it.
func read(ctx context.Context, reader mq.Reader, last mq.Position, items chan<- item) {
	for ctx.Err() == nil {
		var m mq.Message
		err := lifecycle.Call("read", func() (err error) {
			m, err = reader.Next(ctx)
			return err
		})
		select {
		case items <- item{m, err}:
		case <-ctx.Done():
			return
		}
		if err != nil && !errors.Is(err, mq.ErrCorrupt) || err == nil && !m.Position.Before(last) {
			return
		}
	}
}

// await waits for the next item. There is one more message at least, so that
// a queue which gives none for OpenTimeout is not working.
func (r *recovery) await(ctx context.Context, items <-chan item, patience *time.Timer) (item, error) {
	select {
	case it := <-items:
		return it, nil
	default:
	}
	patience.Reset(r.w.o.OpenTimeout)
	select {
	case it := <-items:
		return it, nil
	case <-ctx.Done():
		return item{}, errors.Wrapf(context.Cause(ctx), "wal %s: replay at %s", r.w.o.PChannel, r.at)
	case <-patience.C:
		return item{}, errclass.New(errclass.Retryable, "wal %s: replay at %s: no message within %s, the end is %s",
			r.w.o.PChannel, r.at, r.w.o.OpenTimeout, r.bounds.Last)
	}
}

// step handles one item and moves r.at.
func (r *recovery) step(ctx context.Context, it item) error {
	if it.err != nil {
		return r.stepCorrupt(it.err)
	}
	m := it.msg
	m.Position = position(m.Position, m.Timestamp)
	if !r.at.Before(m.Position) {
		r.w.count.duplicates.Add(1)
		if r.repeats++; r.repeats > maxRepeats {
			return errclass.New(errclass.Retryable, "wal %s: replay at %s: the reader does not move on", r.w.o.PChannel, r.at)
		}
		return nil
	}
	r.repeats = 0
	if err := r.replayMessage(ctx, m); err != nil {
		return err
	}
	r.at = m.Position
	r.w.progress.advance(m.Position, len(m.Payload))
	r.checkpoint(ctx)
	return nil
}

// stepCorrupt passes over a message that the queue could not read.
func (r *recovery) stepCorrupt(err error) error {
	var ce *mq.CorruptError
	if !errors.As(err, &ce) {
		return errors.Wrapf(err, "wal %s: replay at %s", r.w.o.PChannel, r.at)
	}
	if !r.at.Before(ce.Position) {
		return errors.Wrapf(err, "wal %s: replay at %s: the reader does not pass a corrupt message", r.w.o.PChannel, r.at)
	}
	r.observe(believable(ce.Position.Timestamp))
	if r.w.o.Checkpoint.Before(ce.Position) {
		r.w.quarantine(Quarantine{Position: ce.Position, Reason: err})
	}
	r.at = ce.Position
	r.w.progress.advance(ce.Position, 0)
	return nil
}

// replayMessage decodes m and hands it to Replay.
func (r *recovery) replayMessage(ctx context.Context, m mq.Message) error {
	w := r.w
	if m.Timestamp > maxTimestamp {
		w.quarantine(Quarantine{Position: m.Position, VChannel: m.Key,
			Reason: errclass.New(errclass.Corrupt, "timestamp %d is beyond any clock", m.Timestamp)})
		return nil
	}
	if m.Timestamp <= w.seen && w.seen != 0 {
		w.count.disorder.Add(1)
	}
	r.observe(m.Timestamp)
	if r.tail || m.Position.Compare(w.o.Checkpoint) <= 0 {
		return nil // read for its timestamp only
	}
	e, err := Decode(m)
	if err != nil {
		w.quarantine(Quarantine{Position: m.Position, VChannel: m.Key, Reason: err})
		return nil
	}
	w.count.replayed.Add(1)
	if !e.Type.Known() {
		w.count.unknownTypes.Add(1)
	}
	if w.o.Replay == nil {
		return nil
	}
	err = lifecycle.Call("replay", func() error { return w.o.Replay(ctx, e) })
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return errors.Wrapf(err, "wal %s: replay of %s at %s", w.o.PChannel, e.Type, e.Position)
	}
	switch errclass.Of(err) {
	case errclass.Corrupt, errclass.Invalid, errclass.NotFound, errclass.Panicked:
		w.quarantine(Quarantine{Position: e.Position, VChannel: e.VChannel, Type: e.Type, Reason: err})
		return nil
	}
	return errors.Wrapf(err, "wal %s: replay of %s at %s", w.o.PChannel, e.Type, e.Position)
}

// checkpoint calls SaveCheckpoint every so often.
func (r *recovery) checkpoint(ctx context.Context) {
	w, at := r.w, r.at
	if r.since++; w.o.SaveCheckpoint == nil || r.since < w.o.CheckpointEvery {
		return
	}
	r.since = 0
	ctx, cancel := context.WithTimeout(ctx, w.o.AppendTimeout)
	defer cancel()
	err := lifecycle.Call("save checkpoint", func() error { return w.o.SaveCheckpoint(ctx, at) })
	if err == nil {
		w.count.checkpoints.Add(1)
		return
	}
	w.count.checkpointErrors.Add(1)
	w.log.Warn("wal could not save its checkpoint", "at", at.String(), "error", err)
	w.emit(func(ev Events) {
		if ev.CheckpointFailed != nil {
			ev.CheckpointFailed(w.o.PChannel, at, err)
		}
	})
}
