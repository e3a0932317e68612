package pulsar

import (
	"context"
	"fmt"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// tail reads a topic's log in order and keeps the state at where it is. It
// misses nothing without saying so: each entry tells how many had to come before
// it. It is used by one goroutine.
type tail struct {
	q     *Queue
	topic string

	cur   cursor // nil = to be opened at "at"
	first *raw   // read from cur already
	s     state  // after entry at
	at    entryID
	// adopt: what comes next may be ahead of s without that being a loss: the
	// entry before it could not be read, or nobody knows what was there.
	adopt bool
	lax   bool // nobody asks for what is missing
}

// event is one entry that tail has moved over.
type event struct {
	id      entryID
	entry   *entry // nil if it cannot be decoded
	verdict verdict
	err     error // of decode; or *mq.CorruptError when entries before it are missing
}

// tail begins after entry at, where the state is s. cur may be a cursor that
// begins there or before; the tail closes it.
func (q *Queue) tail(topic string, s state, at entryID, cur cursor) *tail {
	return &tail{q: q, topic: topic, s: s, at: at, cur: cur}
}

// next moves over one entry. On an error it has not moved and may be called again.
func (t *tail) next(ctx context.Context) (event, error) {
	for reopened := false; ; {
		r, err := t.raw(ctx)
		if err != nil {
			return event{}, err
		}
		if r.id.compare(t.at) <= 0 {
			continue // asked for with the entry before, or given again after a lost connection
		}
		e, err := decode(r.payload)
		if err != nil {
			t.at, t.adopt = r.id, t.adopt || errors.Is(err, errDamaged)
			if errors.Is(err, errForeign) {
				t.q.count.foreign.Add(1)
			}
			return event{id: r.id, err: err}, nil
		}
		if e.prev.isNone() && e.base.index < t.s.index && !t.adopt {
			// Whoever wrote that knew an empty topic: one of two who began it, or it is another one.
			lost, broken := t.gone(ctx, r.id)
			if broken != nil {
				t.drop(ctx) // r is to be read again
				return event{}, broken
			}
			if lost != nil {
				t.s, err = e.base, lost
			}
		}
		v := t.s.fold(e, r.id)
		if v == gap {
			if !t.adopt && !reopened {
				// The client may have left entries out while it reconnected.
				t.q.count.gaps.Add(1)
				t.drop(ctx)
				reopened = true
				continue
			}
			if !t.adopt && !t.lax {
				var broken error
				if err, broken = t.loss(ctx, e, r.id); broken != nil {
					t.drop(ctx)
					return event{}, broken
				}
			}
			t.s = e.base
			v = t.s.fold(e, r.id)
		}
		t.at, t.adopt = r.id, false
		switch v {
		case void:
			t.q.count.void.Add(1)
		case duplicate:
			t.q.count.duplicates.Add(1)
		}
		return event{id: r.id, entry: e, verdict: v, err: err}, nil
	}
}

// loss says what is missing between what was read last and e. Where nothing of what was read is
// there any more either, that is what any other reader would be told at its place.
func (t *tail) loss(ctx context.Context, e *entry, id entryID) (lost, broken error) {
	sv, err := t.q.survey(ctx, t.topic)
	if err != nil {
		return nil, err
	}
	if sv.s.trim.entryID.compare(t.at) > 0 {
		return errors.Wrapf(mq.ErrTrimmed, "after entry %s comes %s: the entries between are trimmed", t.at, id), nil
	}
	if lost, err := t.gone(ctx, id); lost != nil || err != nil {
		return lost, err
	}
	return errclass.Mark(&mq.CorruptError{
		Topic:    t.topic,
		Position: point{entryID{t.at.ledger, t.at.entry + 1}, 0}.position(0),
		Detail:   fmt.Sprintf("entries between %s and %s are missing, %d of them counted", t.at, id, int64(e.base.index)-int64(t.s.index)),
	}, errclass.Corrupt), nil
}

// gone says that the topic, which has entry id, begins behind all that was read of it.
func (t *tail) gone(ctx context.Context, id entryID) (lost, broken error) {
	cur, err := t.q.driver.read(ctx, t.topic, none())
	if err != nil {
		return nil, errors.Wrapf(err, "read %s from its beginning", t.topic)
	}
	oldest, err := cur.next(ctx)
	if err := cur.close(ctx); err != nil {
		t.q.o.Logger.Warn("close cursor", "topic", t.topic, "err", err)
	}
	if err != nil {
		return nil, errors.Wrapf(err, "read the oldest entry of %s", t.topic)
	}
	if oldest.id.compare(t.at) > 0 {
		lost = errors.Wrapf(mq.ErrTrimmed, "after entry %s comes %s, and the topic begins at %s: it was deleted, or messages of it were", t.at, id, oldest.id)
	}
	return lost, nil
}

// raw returns the next entry as stored, opening the cursor if need be.
func (t *tail) raw(ctx context.Context) (raw, error) {
	if t.first != nil {
		r := *t.first
		t.first = nil
		return r, nil
	}
	if t.cur == nil {
		cur, err := t.q.driver.read(ctx, t.topic, t.at)
		if err != nil {
			return raw{}, err
		}
		t.cur = cur
	}
	r, err := t.cur.next(ctx)
	if err != nil && ctx.Err() == nil {
		t.drop(ctx) // it may be the cursor that is broken
	}
	return r, err
}

// drop closes the cursor; the next read opens one.
func (t *tail) drop(ctx context.Context) {
	if t.cur != nil {
		if err := t.cur.close(ctx); err != nil {
			t.q.o.Logger.Warn("close cursor", "topic", t.topic, "err", err)
		}
		t.cur = nil
	}
}

// scan reads up to and with entry upTo and returns the state there; visit (may
// be nil) sees every entry that could be decoded. Losses do not stop it: it is
// asked for the state, which does not depend on what is gone.
func (t *tail) scan(ctx context.Context, upTo entryID, visit func(event)) (state, error) {
	defer func() { t.drop(ctx) }()
	t.lax = true
	for t.at.compare(upTo) < 0 {
		ev, err := t.next(ctx)
		if err != nil {
			return state{}, errors.Wrapf(err, "read %s from %s to %s", t.topic, t.at, upTo)
		}
		if visit != nil && ev.entry != nil {
			visit(ev)
		}
	}
	return t.s, nil
}

// survey is what a topic is at its end.
type survey struct {
	s  state
	at entryID // newest entry of any kind
}

// survey reads the end of the topic: mostly one entry, since the newest one
// carries the state before it.
func (q *Queue) survey(ctx context.Context, topic string) (survey, error) {
	at, err := q.driver.last(ctx, topic)
	if err != nil {
		return survey{}, errors.Wrapf(err, "last entry of %s", topic)
	}
	if at.isNone() {
		return survey{newborn(), none()}, nil
	}
	// Entries that are not ours, or damaged, are stepped over backwards.
	for back := int64(0); ; back = back*16 + 15 {
		from := entryID{at.ledger, at.entry - back}
		if from.entry < 0 {
			from = none()
		}
		sv, ok, err := q.stateAt(ctx, topic, from, at)
		if err != nil || ok {
			return sv, err
		}
		if from.isNone() {
			return survey{newborn(), at}, nil // nothing of ours in it
		}
	}
}

// stateAt finds the state at entry upTo, or at a newer one, with the help of
// the first entry from "from" on that can be decoded; ok is false if there is
// none up to upTo.
func (q *Queue) stateAt(ctx context.Context, topic string, from, upTo entryID) (sv survey, ok bool, err error) {
	t := q.tail(topic, newborn(), none(), nil)
	if t.cur, err = q.driver.read(ctx, topic, from); err != nil {
		return sv, false, errors.Wrapf(err, "read %s from %s", topic, from)
	}
	defer func() { t.drop(ctx) }()
	for {
		r, err := t.cur.next(ctx)
		if err != nil {
			return sv, false, errors.Wrapf(err, "read %s from %s", topic, from)
		}
		e, err := decode(r.payload)
		if err != nil {
			if r.id.compare(upTo) >= 0 {
				return sv, false, nil
			}
			continue
		}
		t.s, t.at = e.base, e.prev
		if r.id.follows(e.prev) || from.isNone() {
			t.first = &r // nothing is between
		} else {
			t.drop(ctx)
		}
		s, err := t.scan(ctx, upTo, nil)
		return survey{s, t.at}, err == nil, err
	}
}
