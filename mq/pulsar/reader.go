package pulsar

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// reader implements mq.Reader. A goroutine, the pump, reads entries ahead, so
// that no call of the client can hold up Next beyond its context.
type reader struct {
	q    *Queue
	what string
	t    *tail // of the pump

	from  point  // the pump gives out messages from here on
	since uint64 // and not before this timestamp

	items   chan item
	stop    context.CancelFunc
	ended   chan struct{} // closed when the pump has ended
	closing chan struct{} // closed by Close
	once    sync.Once

	// Of Next only.
	busy atomic.Bool
	rest []mq.Message
	dead error
}

// item is what one entry brought.
type item struct {
	msgs []mq.Message
	err  error
	end  bool // nothing comes after err
}

// OpenReader implements mq.Queue.
func (q *Queue) OpenReader(ctx context.Context, topic string, o mq.ReaderOptions) (mq.Reader, error) {
	name, err := q.enter(ctx, topic)
	if err != nil {
		return nil, errors.Wrapf(err, "open reader of %q", topic)
	}
	if o.Name == "" {
		o.Name = "reader"
	}
	r := &reader{
		q: q, what: "reader " + topic + "/" + o.Name, from: noPoint(), since: o.FromTimestamp,
		items: make(chan item), ended: make(chan struct{}), closing: make(chan struct{}),
	}
	pump, stop := context.WithCancel(q.group.Context())
	r.stop = stop
	if err := q.adopt(r, r.what); err != nil {
		stop()
		return nil, err
	}
	open, done := until(ctx, pump)
	r.t, r.from, err = q.start(open, name, o)
	done()
	if err != nil && pump.Err() != nil {
		err = errors.Wrapf(mq.ErrClosed, "%v", err)
	}
	if err == nil {
		err = q.group.Go(r.what, func(context.Context) error { return r.pump(pump) })
	}
	if err != nil {
		stop()
		close(r.ended)
		if r.t != nil {
			r.t.drop(ctx)
		}
		q.forget(r)
		return nil, errors.Wrapf(err, "open reader of %q from %s", topic, o.From)
	}
	return r, nil
}

// pump reads until ctx ends. An error of the broker is handed out and tried
// again when it has been taken.
func (r *reader) pump(ctx context.Context) error {
	defer close(r.ended)
	for {
		it := r.read(ctx)
		if len(it.msgs) == 0 && it.err == nil {
			continue
		}
		select {
		case r.items <- it:
		case <-ctx.Done():
			return nil
		}
		if it.end {
			<-ctx.Done()
			return nil
		}
	}
}

// read moves over one entry.
func (r *reader) read(ctx context.Context) item {
	ev, err := r.t.next(ctx)
	if err != nil {
		if ctx.Err() == nil {
			r.q.count.readerErrors.Add(1)
		}
		return item{err: errclass.Wrap(err, errclass.Retryable, "%s", r.what)}
	}
	it := item{err: ev.err}
	switch {
	case errors.Is(ev.err, mq.ErrTrimmed):
		return item{err: errors.Wrapf(ev.err, "%s", r.what), end: true}
	case errors.Is(ev.err, errForeign):
		r.q.o.Logger.Warn("entry skipped that is not of this queue", "reader", r.what, "entry", ev.id.String())
		it.err = nil
	case errors.Is(ev.err, errDamaged):
		it.err = r.corrupt(ev.id, ev.err)
	case ev.err != nil:
		r.q.count.corrupt.Add(1)
		r.q.o.Logger.Error("entries are missing", "reader", r.what, "err", ev.err)
	}
	if ev.entry == nil || ev.verdict != counts || ev.entry.kind != data || ev.entry.lastTimestamp < r.since {
		return it
	}
	msgs, err := ev.entry.messages(ev.id)
	if err != nil {
		it.err = errors.CombineErrors(it.err, r.corrupt(ev.id, err))
		return it
	}
	for i := range msgs {
		if (point{ev.id, uint32(i)}).compare(r.from) >= 0 && msgs[i].Timestamp >= r.since {
			it.msgs, r.since = msgs[i:], 0
			break
		}
	}
	return it
}

func (r *reader) corrupt(id entryID, why error) error {
	r.q.count.corrupt.Add(1)
	e := &mq.CorruptError{Topic: r.t.topic, Position: point{id, 0}.position(0), Detail: "entry " + id.String() + ": " + why.Error()}
	r.q.o.Logger.Error("corrupt entry", "reader", r.what, "err", e)
	return errclass.Mark(e, errclass.Corrupt)
}

// Next implements mq.Reader. Errors of class Retryable are the broker's: the
// reader is where it was, and the next Next tries again.
func (r *reader) Next(ctx context.Context) (mq.Message, error) {
	if !r.busy.CompareAndSwap(false, true) {
		return mq.Message{}, errclass.New(errclass.Invalid, "next of %s: called by two goroutines", r.what)
	}
	defer r.busy.Store(false)
	for {
		select {
		case <-r.closing:
			return mq.Message{}, errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
		default:
		}
		if r.dead != nil {
			return mq.Message{}, r.dead
		}
		if err := ctx.Err(); err != nil {
			return mq.Message{}, errors.Wrapf(err, "next of %s", r.what)
		}
		if len(r.rest) > 0 {
			m := r.rest[0]
			r.rest[0] = mq.Message{}
			r.rest = r.rest[1:]
			return m, nil
		}
		select {
		case it := <-r.items:
			r.rest = it.msgs
			if it.end {
				r.dead = it.err
			}
			if it.err != nil {
				return mq.Message{}, it.err
			}
		case <-ctx.Done():
		case <-r.closing:
		case <-r.ended:
			return mq.Message{}, errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
		}
	}
}

// Close implements mq.Reader.
func (r *reader) Close(ctx context.Context) error {
	r.once.Do(func() { close(r.closing) })
	r.stop()
	select {
	case <-r.ended: // soon: every wait of the pump ends with its context
	case <-ctx.Done():
		select {
		case <-r.ended:
		default:
			return errclass.Wrap(ctx.Err(), errclass.Closed, "close %s", r.what)
		}
	}
	if err := r.closeCursor(ctx); err != nil {
		return errclass.Wrap(err, errclass.Closed, "close %s", r.what)
	}
	r.q.forget(r)
	return nil
}

// closeCursor is called when the pump has ended.
func (r *reader) closeCursor(ctx context.Context) error {
	if r.t == nil || r.t.cur == nil {
		return nil
	}
	return r.t.cur.close(ctx)
}
