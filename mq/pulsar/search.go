package pulsar

import (
	"context"

	"github.com/cockroachdb/errors"
)

// Limits of a search by timestamp.
const (
	nearEntries = 8   // so many are read rather than searched
	maxProbes   = 160 // more than two numbers of 63 bits need
)

// tailFromTimestamp begins at or before the first message with the timestamp. Each
// entry tells the newest timestamp before it, so that a binary search over the ids
// finds the place: Pulsar gives the next entry there is for any id, also of a
// ledger that never was. The broker's own search by time is not used. It goes by
// the clock of who published; the client's seek does nothing on a reader that began
// at an id, which is said to nobody; and a seek that is cut short, by the death of
// this process or a broker that is frozen, leaves its cursor at the broker, which
// no later run could find.
func (q *Queue) tailFromTimestamp(ctx context.Context, name string, sv survey, timestamp uint64) (*tail, point, error) {
	q.count.timeSearches.Add(1)
	s := search{q: q, name: name, timestamp: timestamp, best: none(), hi: entryID{sv.at.ledger, sv.at.entry + 1}}
	if !sv.s.trim.isNone() {
		s.lo = sv.s.trim.entryID
	}
	if err := s.run(ctx); err != nil {
		return nil, point{}, errors.Wrapf(err, "look for timestamp %d", timestamp)
	}
	if s.best.isNone() || s.best.compare(sv.s.trim.entryID) < 0 {
		return q.tailFromOldest(ctx, name, sv.s.trim)
	}
	return q.tail(name, s.state, s.best, nil), sv.s.trim, nil
}

// search looks for the last entry behind which all timestamps are to come.
type search struct {
	q         *Queue
	name      string
	timestamp uint64

	lo, hi entryID // the next probe is in [lo, hi)
	stride int64   // over a ledger of which nobody knows how long it is

	// Where reading may begin: state is true right after entry best, and its newest
	// timestamp is below the one asked for. Whatever the search was led to believe,
	// a void entry has a state that is past, this is right.
	best  entryID
	state state
}

func (s *search) run(ctx context.Context) error {
	for range maxProbes {
		if s.lo.compare(s.hi) >= 0 || s.lo.ledger == s.hi.ledger && s.hi.entry-s.lo.entry <= nearEntries {
			return nil
		}
		if err := s.probe(ctx, s.middle()); err != nil {
			return err
		}
	}
	return nil
}

// middle is after lo, or lo, and before hi.
func (s *search) middle() entryID {
	switch ledgers := s.hi.ledger - s.lo.ledger; {
	case ledgers > 1:
		return entryID{s.lo.ledger + (ledgers+1)/2, 0}
	case ledgers == 1 && s.hi.entry > 0:
		return entryID{s.hi.ledger, 0}
	case ledgers == 1:
		s.stride = max(2*s.stride, nearEntries)
		return entryID{s.lo.ledger, s.lo.entry + s.stride}
	}
	return entryID{s.lo.ledger, s.lo.entry + (s.hi.entry-s.lo.entry)/2}
}

// probe looks at the first entry at or after id that can be read.
func (s *search) probe(ctx context.Context, id entryID) error {
	s.q.count.timeProbes.Add(1)
	cur, err := s.q.driver.read(ctx, s.name, id)
	if err != nil {
		return err
	}
	t := s.q.tail(s.name, newborn(), none(), cur)
	defer func() { t.drop(ctx) }()
	for {
		// Entries may be deleted meanwhile, and then none comes before the next append.
		wait, cancel := context.WithTimeout(ctx, s.q.o.OperationTimeout/2)
		r, err := cur.next(wait)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err != nil || r.id.compare(s.hi) >= 0 {
			s.hi = id // nothing between
			return nil
		}
		if r.id.compare(id) < 0 {
			continue
		}
		if e, err := decode(r.payload); err == nil {
			s.learn(id, r.id, e)
			return nil
		}
	}
}

// learn takes what entry e at "at" says, which came first at or after id.
func (s *search) learn(id, at entryID, e *entry) {
	if e.base.lastTimestamp >= s.timestamp {
		s.hi = id
		return
	}
	s.lo = entryID{at.ledger, at.entry + 1}
	if e.prev.compare(s.best) > 0 {
		s.best, s.state = e.prev, e.base
	}
}
