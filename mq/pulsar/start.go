package pulsar

import (
	"context"

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

// tailFromOldest begins at the trim point, or at the oldest entry there is, if that is not there:
// then what it returns besides is still where messages that may be read begin.
func (q *Queue) tailFromOldest(ctx context.Context, name string, trim point) (*tail, point, error) {
	if !trim.isNone() {
		// The topic may have been deleted and be there again, by what its owner wrote next.
		if t, err := q.tailAt(ctx, name, trim.entryID); !errors.Is(err, mq.ErrTrimmed) {
			return t, trim, err
		}
	}
	t := q.tail(name, newborn(), none(), nil)
	t.adopt = true // somebody else may have deleted entries: what is left is read
	return t, trim, nil
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
