package pulsar

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// start finds where a reader begins: the tail to read from and the first
// message to give out.
func (q *Queue) start(ctx context.Context, name string, o mq.ReaderOptions) (*tail, point, error) {
	if o.Latest && (o.FromTimestamp != 0 || !o.From.IsZero()) || o.FromTimestamp != 0 && !o.From.IsZero() {
		return nil, point{}, errclass.New(errclass.Invalid, "From, FromTimestamp and Latest exclude one another")
	}
	from := noPoint()
	if !o.From.IsZero() {
		var err error
		if from, err = decodePoint(o.From); err != nil {
			return nil, point{}, err
		}
	}
	sv, err := q.survey(ctx, name)
	if err != nil {
		return nil, point{}, err
	}
	switch {
	case o.Latest, o.FromTimestamp > sv.s.lastTimestamp:
		return q.tailFromEnd(name, sv), noPoint(), nil
	case o.FromTimestamp != 0:
		return q.tailFromTimestamp(ctx, name, sv, o.FromTimestamp)
	case from.isNone():
		return q.tailFromOldest(ctx, name, sv.s.trim)
	case from.compare(sv.s.last) > 0:
		return nil, point{}, errors.Wrapf(mq.ErrAhead, "the end is %s", sv.s.lastPosition())
	case from.compare(sv.s.trim) < 0:
		return nil, point{}, errors.Wrapf(mq.ErrTrimmed, "the oldest is %s", sv.s.trim.position(0))
	}
	t, err := q.tailAt(ctx, name, from.entryID)
	if err == nil && o.Exclusive {
		from.slot++ // also right if there is no such slot
	}
	return t, from, err
}

// tailFromEnd begins after the newest entry.
func (q *Queue) tailFromEnd(name string, sv survey) *tail {
	t := q.tail(name, sv.s, sv.at, nil)
	t.adopt = sv.at.isNone()
	return t
}

// tailFromOldest begins at the trim point, or at the oldest entry there is.
func (q *Queue) tailFromOldest(ctx context.Context, name string, trim point) (*tail, point, error) {
	if !trim.isNone() {
		t, err := q.tailAt(ctx, name, trim.entryID)
		return t, trim, err
	}
	t := q.tail(name, newborn(), none(), nil)
	t.adopt = true // somebody else may have deleted entries: what is left is read
	return t, noPoint(), nil
}

// tailAt begins at entry id, which somebody has a position in: it exists, and it
// counts, or it is gone. Pulsar would begin with the next there is; so it looks.
func (q *Queue) tailAt(ctx context.Context, name string, id entryID) (*tail, error) {
	cur, err := q.driver.read(ctx, name, id)
	if err != nil {
		return nil, err
	}
	t := q.tail(name, newborn(), none(), cur)
	r, err := cur.next(ctx)
	for err == nil && r.id.compare(id) < 0 {
		r, err = cur.next(ctx)
	}
	switch {
	case err != nil:
		err = errors.Wrapf(err, "read entry %s", id)
	case r.id != id:
		err = errors.Wrapf(mq.ErrTrimmed, "entry %s is gone, the next is %s", id, r.id)
	}
	if err != nil {
		t.drop(ctx)
		return nil, err
	}
	t.first = &r
	t.at = entryID{id.ledger, id.entry - 1}
	if e, err := decode(r.payload); err == nil {
		t.s = e.base // true at e.prev; between there and here nothing counts
	} else {
		t.adopt = true
	}
	return t, nil
}

// tailFromTimestamp begins at or before the first message with the timestamp.
// The broker's search by time is a hint: the entry it finds tells the newest
// timestamp before it. When that is too new the search was misled, by clocks
// or by a client that did not seek, and reading begins earlier.
func (q *Queue) tailFromTimestamp(ctx context.Context, name string, sv survey, timestamp uint64) (*tail, point, error) {
	q.count.timeSeeks.Add(1)
	for _, margin := range margins() {
		ms := millis(timestamp) - margin.Milliseconds()
		if ms <= 0 {
			break
		}
		s, at, found, err := q.landing(ctx, name, time.UnixMilli(ms))
		if err == nil && !found { // the client says so too when its seek met a reconnect
			s, at, found, err = q.landing(ctx, name, time.UnixMilli(ms))
		}
		if err != nil {
			return nil, point{}, err
		}
		if found && s.lastTimestamp < timestamp {
			if at.isNone() || at.compare(sv.s.trim.entryID) < 0 {
				break // before the oldest
			}
			return q.tail(name, s, at, nil), sv.s.trim, nil
		}
		q.count.timeSeekMisses.Add(1)
	}
	return q.tailFromOldest(ctx, name, sv.s.trim)
}

// landing returns the state before the entry that was published at about t, and
// behind which entry that is; found is false if there is no such entry.
func (q *Queue) landing(ctx context.Context, name string, published time.Time) (s state, at entryID, found bool, err error) {
	cur, err := q.driver.readTime(ctx, name, published)
	if err != nil || cur == nil {
		return s, none(), false, errors.Wrapf(err, "read from time %s", published)
	}
	t := q.tail(name, newborn(), none(), cur)
	defer func() { t.drop(ctx) }()
	for {
		// There is an entry to come. The wait is bounded all the same: a search
		// that was lost must not cost the whole deadline.
		wait, cancel := context.WithTimeout(ctx, q.o.OperationTimeout/2)
		r, err := cur.next(wait)
		cancel()
		if err != nil {
			return s, none(), false, errors.Wrapf(ctx.Err(), "read from time %s", published)
		}
		if e, err := decode(r.payload); err == nil {
			return e.base, e.prev, true, nil
		}
	}
}
