package pulsar

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// Queue is an mq.Queue on Apache Pulsar. Create it with Open; whoever opened it
// closes it. One per process and cluster is enough: topics share its connections.
type Queue struct {
	o      Options
	driver driver
	count  counters
	group  *lifecycle.Group // pumps, writers, and every call of the client

	mu struct {
		sync.Mutex
		closed  bool
		handles map[handle]string // open producers and readers
	}
}

var _ mq.Queue = (*Queue)(nil)

type handle interface {
	Close(ctx context.Context) error
}

// Open returns a queue on the cluster at o.URL. It does not connect: a broker
// that is away, or refuses, is the error of the first call that needs it. Errors
// are of class Invalid.
func Open(o Options) (*Queue, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	q := &Queue{o: o, driver: o.driver}
	q.mu.handles = map[handle]string{}
	q.group = lifecycle.NewGroup(context.Background(), func(name string, err error) {
		if err != nil {
			q.o.Logger.Error("queue goroutine ended", "name", name, "err", err)
		}
	})
	if q.driver == nil {
		d, err := newBrokerDriver(&q.o, q.group)
		if err != nil {
			return nil, errors.Wrap(err, "open pulsar queue")
		}
		q.driver = d
	}
	q.driver = &patient{driver: q.driver, timeout: o.ReadyTimeout, retries: &q.count.retries}
	return q, nil
}

// MaxPayloadBytes is Options.MaxPayloadBytes.
func (q *Queue) MaxPayloadBytes() int { return q.o.MaxPayloadBytes }

// enter checks what every call checks and returns the topic's name at the broker.
func (q *Queue) enter(ctx context.Context, topic string) (string, error) {
	q.mu.Lock()
	closed := q.mu.closed
	q.mu.Unlock()
	if closed {
		return "", mq.ErrClosed
	}
	name, err := escape(topic)
	if err != nil {
		return "", err
	}
	return "persistent://" + q.o.Namespace + "/" + name, ctx.Err()
}

// adopt takes h into the register before it does anything that Close must wait for.
func (q *Queue) adopt(h handle, what string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.mu.closed {
		return errors.Wrapf(mq.ErrClosed, "open %s", what)
	}
	q.mu.handles[h] = what
	return nil
}

func (q *Queue) forget(h handle) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.mu.handles, h)
}

// newNonce names a writer: random, so that no two ever have the same.
func newNonce() uint64 {
	for {
		if n := rand.Uint64(); n != 0 {
			return n
		}
	}
}

// Bounds implements mq.Queue.
func (q *Queue) Bounds(ctx context.Context, topic string) (mq.Bounds, error) {
	name, err := q.enter(ctx, topic)
	if err != nil {
		return mq.Bounds{}, errors.Wrapf(err, "bounds of %q", topic)
	}
	sv, err := q.survey(ctx, name)
	if err != nil || sv.s.last.isNone() {
		return mq.Bounds{}, errors.Wrapf(err, "bounds of %q", topic)
	}
	first, err := q.firstPosition(ctx, name, sv)
	if err != nil || first.IsZero() {
		return mq.Bounds{}, errors.Wrapf(err, "bounds of %q", topic)
	}
	return mq.Bounds{First: first, Last: sv.s.lastPosition()}, nil
}

// firstPosition finds the oldest message; zero if somebody else has deleted all.
func (q *Queue) firstPosition(ctx context.Context, name string, sv survey) (mq.Position, error) {
	t, from, err := q.tailFromOldest(ctx, name, sv.s.trim)
	if err != nil {
		return mq.Position{}, err
	}
	defer func() { t.drop(ctx) }()
	for t.at.compare(sv.at) < 0 {
		ev, err := t.next(ctx)
		if err != nil {
			return mq.Position{}, err
		}
		if ev.entry == nil || ev.verdict != counts || ev.entry.kind != data {
			continue
		}
		msgs, err := ev.entry.messages(ev.id)
		if err != nil {
			return point{ev.id, 0}.position(0), nil // damaged, but there: reading it says so
		}
		for i := range msgs {
			if (point{ev.id, uint32(i)}).compare(from) >= 0 {
				return msgs[i].Position, nil
			}
		}
	}
	return mq.Position{}, nil
}

// Trim implements mq.Queue. From the moment it returns readers do not begin
// before pos; the broker drops whole ledgers, in its own time. A position after
// the end is refused with mq.ErrAhead.
func (q *Queue) Trim(ctx context.Context, topic string, pos mq.Position) error {
	name, err := q.enter(ctx, topic)
	if err != nil || pos.IsZero() {
		return errors.Wrapf(err, "trim %q", topic)
	}
	target, err := decodePoint(pos)
	if err != nil {
		return errors.Wrapf(err, "trim %q", topic)
	}
	sv, err := q.survey(ctx, name)
	if err != nil {
		return errors.Wrapf(err, "trim %q", topic)
	}
	if target.compare(sv.s.last) > 0 {
		return errors.Wrapf(mq.ErrAhead, "trim %q to %s, the end is %s", topic, pos, sv.s.lastPosition())
	}
	if target.compare(sv.s.trim) > 0 {
		if err := q.mark(ctx, name, sv, target); err != nil {
			return errors.Wrapf(err, "trim %q to %s", topic, pos)
		}
	} else {
		target = sv.s.trim // the release may have failed the last time
	}
	return errors.Wrapf(q.release(ctx, name, target), "trim %q to %s", topic, pos)
}

// mark writes the trim into the log.
func (q *Queue) mark(ctx context.Context, name string, sv survey, target point) error {
	s, err := q.driver.write(ctx, name, "trim")
	if err != nil {
		return err
	}
	_, err = s.send(ctx, (&entry{kind: trim, nonce: newNonce(), prev: sv.at, base: sv.s, target: target}).encode())
	return errors.CombineErrors(err, s.close(ctx))
}

// release lets the broker drop all entries before that of target.
func (q *Queue) release(ctx context.Context, name string, target point) error {
	upTo := entryID{target.ledger, target.entry - 1}
	if upTo.entry < 0 { // the last of the ledger before: the entry itself knows
		t, _, err := q.tailFromOldest(ctx, name, target)
		if err != nil {
			return err
		}
		ev, err := t.next(ctx)
		t.drop(ctx)
		if err != nil || ev.entry == nil || ev.entry.prev.isNone() {
			return err
		}
		upTo = ev.entry.prev
	}
	return q.driver.release(ctx, name, upTo)
}

// Handles lists the open producers and readers, sorted, as "producer
// <topic>/<name>" and "reader <topic>/<name>".
func (q *Queue) Handles() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	names := []string{}
	for _, what := range q.mu.handles {
		names = append(names, what)
	}
	slices.Sort(names)
	return names
}

// Close implements mq.Queue. When ctx ends too early, the error names what is
// still open and which calls of the client have not returned; Close may be
// called again to wait for them.
func (q *Queue) Close(ctx context.Context) error {
	q.mu.Lock()
	q.mu.closed = true
	handles := make([]handle, 0, len(q.mu.handles))
	for h := range q.mu.handles {
		handles = append(handles, h)
	}
	q.mu.Unlock()
	// A broker that is frozen holds up each close by OperationTimeout: all wait at once.
	ended := make(chan error, len(handles))
	for _, h := range handles {
		if q.group.Go("close", func(context.Context) error { ended <- h.Close(ctx); return nil }) != nil {
			ended <- h.Close(ctx) // by an earlier Close the group is at its end already
		}
	}
	for range handles {
		if err := <-ended; err != nil {
			q.o.Logger.Warn("close queue", "err", err)
		}
	}
	err := errors.CombineErrors(q.driver.close(ctx), q.group.Close(ctx))
	if open := q.Handles(); len(open) > 0 {
		err = errors.CombineErrors(errclass.New(errclass.Closed, "not closed: %q", open), err)
	}
	return errors.Wrap(err, "close pulsar queue")
}
