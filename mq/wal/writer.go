package wal

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// writer is the one that writes: it takes what is pending, stamps it, and
// stores it with one call (group commit). There is never a second call under
// way, because a queue stores concurrent ones in any order. It starts after
// recovery has ended and ends with ctx.
type writer struct {
	w        *WAL
	producer mq.Producer
	batch    []*request // the one in work
	round    *round     // barriers that wait for the batch in work; nil = none
	proof    error      // what became of the last message of the batch, if it is nobody's
}

// run writes until the WAL stops serving. The first timetick goes out at once,
// so that readers learn early that the pchannel moves again.
func (s *writer) run(ctx context.Context) error {
	defer s.leaveNobody()
	ticks := newTicker(s.w.o.TimeTickInterval)
	defer ticks.stop()
	for {
		s.batch = s.w.pending.take(s.batch, s.w.o.MaxBatchEntries, s.w.o.MaxBatchBytes)
		s.round = s.w.pending.takeRound()
		due := ticks.due()
		if len(s.batch) == 0 && s.round == nil && !due {
			select {
			case <-ctx.Done():
				return nil
			case <-s.w.pending.wake:
				continue
			case <-ticks.channel():
				due = true
			}
		}
		if !s.commit(ctx, due) {
			return nil
		}
		if due {
			ticks.restart()
		}
	}
}

// commit stamps and stores the batch, with a timetick at its end if one is due;
// else, if barriers wait, with a fence.
func (s *writer) commit(ctx context.Context, tick bool) bool {
	now := s.w.o.Now()
	msgs := make([]mq.Message, 0, len(s.batch)+1)
	for _, r := range s.batch {
		r.msg.Timestamp = s.stamp(now)
		msgs = append(msgs, r.msg)
	}
	if tick || s.round != nil {
		e := Entry{Type: TimeTick, Term: s.w.o.Term, Timestamp: s.stamp(now)}
		if !tick {
			// Not a timetick: each of those costs every vchannel of the pchannel.
			e.Type, e.VChannel = Fence, fenceKey
		}
		m, err := Encode(e)
		if err != nil {
			s.w.fail(err)
			return false
		}
		msgs = append(msgs, m)
	}
	s.proof = nil
	ok := s.store(ctx, s.batch, msgs)
	if s.round != nil {
		if !ok {
			s.proof = s.w.refusal()
		}
		s.round.answer(s.proof)
		s.round = nil
	}
	return ok
}

func (s *writer) stamp(now time.Time) uint64 {
	ts, back := s.w.clock.next(now)
	if back {
		s.w.count.clockBack.Add(1)
	}
	return ts
}

// store stores msgs, of which the first len(rs) belong to rs and one more may
// be a timetick or a fence, and answers rs. It returns false when the WAL is at its end.
func (s *writer) store(ctx context.Context, rs []*request, msgs []mq.Message) bool {
	if ctx.Err() != nil {
		s.answer(rs, s.w.refusal()) // never handed to the queue
		return false
	}
	at, err := s.append(ctx, msgs)
	switch outcomeOf(err) {
	case stored:
		s.acknowledge(rs, msgs, at)
		return true
	case refused:
		if errors.Is(err, mq.ErrTooLarge) && len(msgs) > 1 {
			return s.storeHalves(ctx, rs, msgs)
		}
		s.refuse(rs, msgs, err)
		return true
	case fenced:
		err = errclass.Mark(err, errclass.Fenced)
		s.w.fail(err)
		s.answer(rs, err)
	case doubtful:
		class := errclass.Retryable
		if ctx.Err() != nil {
			class = errclass.Closed
		}
		err = inDoubt(err, class)
		s.w.fail(err)
		s.answer(rs, err)
	}
	return false
}

// storeHalves keeps a message that is too large from taking its batch along.
// Nothing of the batch has been stored, so that its parts can be, in order.
func (s *writer) storeHalves(ctx context.Context, rs []*request, msgs []mq.Message) bool {
	half := len(msgs) / 2
	if !s.store(ctx, rs[:half], msgs[:half]) {
		s.answer(rs[half:], s.w.refusal())
		return false
	}
	return s.store(ctx, rs[half:], msgs[half:])
}

func (s *writer) append(ctx context.Context, msgs []mq.Message) ([]mq.Position, error) {
	var at []mq.Position
	err := s.w.calls.run(ctx, "append", s.w.o.AppendTimeout, func(ctx context.Context) error {
		got, err := s.producer.Append(ctx, msgs...)
		at = got
		return err
	})
	if err != nil {
		return nil, errors.Wrapf(err, "wal %s: append %d messages", s.w.o.PChannel, len(msgs))
	}
	if len(at) != len(msgs) {
		return nil, errors.Newf("wal %s: append %d messages: got %d positions", s.w.o.PChannel, len(msgs), len(at))
	}
	return at, nil
}

// outcome of a Producer.Append.
type outcome uint8

const (
	stored   outcome = iota
	refused          // not stored; the producer goes on
	fenced           // not stored; a newer owner is there
	doubtful         // anything else
)

func outcomeOf(err error) outcome {
	switch {
	case err == nil:
		return stored
	case errors.Is(err, mq.ErrUnknownOutcome):
		return doubtful
	case errors.Is(err, mq.ErrFenced):
		return fenced
	case errors.Is(err, mq.ErrTooLarge), errclass.Is(err, errclass.Exhausted):
		return refused
	}
	return doubtful
}

// acknowledge moves LastTimestamp and LastOf before any caller learns of its entry.
func (s *writer) acknowledge(rs []*request, msgs []mq.Message, at []mq.Position) {
	last := len(msgs) - 1
	s.w.last.Store(msgs[last].Timestamp)
	s.w.durable.note(msgs[:len(rs)])
	s.w.progress.stored(position(at[last], msgs[last].Timestamp))
	var bytes int
	for i, r := range rs {
		bytes += len(r.msg.Payload)
		r.answer(Receipt{Position: position(at[i], r.msg.Timestamp), Timestamp: r.msg.Timestamp}, nil)
	}
	s.w.pending.release(rs)
	s.w.count.batches.Add(1)
	s.w.count.appended.Add(uint64(len(rs)))
	s.w.count.appendedBytes.Add(uint64(bytes))
	if len(msgs) > len(rs) && isFence(&msgs[last]) {
		s.w.count.fences.Add(1)
	} else if len(msgs) > len(rs) {
		s.w.count.ticks.Add(1)
	}
}

// refuse answers rs with what the queue said; the WAL stays ready.
func (s *writer) refuse(rs []*request, msgs []mq.Message, err error) {
	s.answer(rs, err)
	s.w.count.refused.Add(uint64(len(rs)))
	if len(msgs) == len(rs) {
		return
	}
	s.proof = err
	if isFence(&msgs[len(rs)]) {
		return
	}
	s.w.count.tickErrors.Add(1)
	s.w.emit(func(ev Events) {
		if ev.TickFailed != nil {
			ev.TickFailed(s.w.o.PChannel, err)
		}
	})
}

func (s *writer) answer(rs []*request, err error) {
	for _, r := range rs {
		r.answer(Receipt{}, err)
	}
	s.w.pending.release(rs)
}

// leaveNobody answers what a panic has left unanswered.
func (s *writer) leaveNobody() {
	for _, r := range s.batch {
		if r.stage == taken && !r.answered() {
			r.answer(Receipt{}, inDoubt(errors.Newf("wal %s: the writer has died", s.w.o.PChannel), errclass.Retryable))
		}
	}
	if s.round != nil {
		s.round.answer(errors.Wrapf(ErrFailed, "wal %s: the writer has died", s.w.o.PChannel))
	}
}

// position completes what a backend may leave out.
func position(p mq.Position, ts uint64) mq.Position {
	if p.Timestamp == 0 {
		p.Timestamp = ts
	}
	return p
}

// ticker says when a timetick is due: at once, and then an interval after the
// last. The zero ticker never is.
type ticker struct {
	interval time.Duration
	timer    *time.Timer
	first    bool // not written yet
}

func newTicker(interval time.Duration) *ticker {
	if interval < 0 {
		return &ticker{}
	}
	return &ticker{interval: interval, timer: time.NewTimer(interval), first: true}
}

func (t *ticker) channel() <-chan time.Time {
	if t.timer == nil {
		return nil
	}
	return t.timer.C
}

func (t *ticker) due() bool {
	if t.first {
		t.first = false
		return true
	}
	select {
	case <-t.channel():
		return true
	default:
		return false
	}
}

func (t *ticker) restart() { t.timer.Reset(t.interval) }

func (t *ticker) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}
