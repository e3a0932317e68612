package wal

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Receipt says where an entry is stored and when it was written.
type Receipt struct {
	Position  mq.Position
	Timestamp uint64
}

// doubtError says that nobody knows whether an entry is stored.
type doubtError struct{ cause error }

func (e *doubtError) Error() string        { return "append outcome unknown: " + e.cause.Error() }
func (e *doubtError) Unwrap() error        { return e.cause }
func (e *doubtError) Is(target error) bool { return target == mq.ErrUnknownOutcome }

// inDoubt makes errors.Is(err, mq.ErrUnknownOutcome) true and keeps the cause.
func inDoubt(err error, c errclass.Class) error {
	if errors.Is(err, mq.ErrUnknownOutcome) {
		return errclass.Mark(err, c)
	}
	return errclass.Mark(&doubtError{cause: err}, c)
}

// Append writes e and returns once it is durable. Of e it uses Type, VChannel
// and Body, which it copies. An append before Ready waits for it; appends that
// find no room wait for that. Both end with ctx, and at once when the WAL closes.
//
// On an error the entry is not stored, unless errors.Is(err,
// mq.ErrUnknownOutcome): then it may be, now or within AppendTimeout. Such an
// error may carry the context's. Other errors: class Exhausted (too many
// pending, or the queue has no room), Invalid (mq.ErrTooLarge, no type),
// Closed (ErrClosed), Fenced (mq.ErrFenced), Retryable (ErrFailed).
func (w *WAL) Append(ctx context.Context, e Entry) (Receipt, error) {
	return w.Follow(ctx, e, nil)
}

// Follow is Append that tells what has become of the entry, whether the caller still waits for
// that or not: told is called once, with the timestamp of an entry that is stored or may be, or with 0
// for one that is not and will not be. That may be after Follow has returned, and is
// before it where it returns a Receipt. told must not wait; nil = nobody asks.
func (w *WAL) Follow(ctx context.Context, e Entry, told func(timestamp uint64)) (Receipt, error) {
	r, err := w.enqueue(ctx, e, told)
	if err != nil {
		if told != nil {
			told(0)
		}
		return Receipt{}, err
	}
	select {
	case <-r.done:
		return r.receipt, r.err
	case <-ctx.Done():
		return w.giveUp(ctx, r)
	}
}

// enqueue hands an entry to the writer, who answers it unless an error is returned.
func (w *WAL) enqueue(ctx context.Context, e Entry, told func(uint64)) (*request, error) {
	if e.Type == TimeTick {
		return nil, errclass.New(errclass.Invalid, "wal %s: append: timeticks are written by the WAL itself", w.o.PChannel)
	}
	e.Term = w.o.Term
	m, err := Encode(e)
	if err != nil {
		return nil, errors.Wrapf(err, "wal %s: append", w.o.PChannel)
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Wrapf(context.Cause(ctx), "wal %s: append", w.o.PChannel)
	}
	r := newRequest(m, e.Type)
	r.told = told
	if err := w.pending.add(r); err != nil {
		w.count.refused.Add(1)
		if errors.Is(err, errNoService) {
			return nil, w.refusal()
		}
		return nil, errors.Wrapf(err, "wal %s: append", w.o.PChannel)
	}
	return r, nil
}

// giveUp ends an append whose context has ended.
func (w *WAL) giveUp(ctx context.Context, r *request) (Receipt, error) {
	cause := context.Cause(ctx)
	switch was := w.pending.drop(r); was {
	case waiting:
		r.tell(0)
		return Receipt{}, errclass.Wrap(cause, errclass.Exhausted, "wal %s: append: no room came", w.o.PChannel)
	case queued:
		r.tell(0)
		return Receipt{}, errclass.Wrap(cause, errclass.Retryable, "wal %s: append: not written, the wal is %s", w.o.PChannel, w.State())
	case gone: // its answer is on the way, and it is not stored
		<-r.done
		return r.receipt, r.err
	}
	select {
	case <-r.done:
		return r.receipt, r.err
	default:
		return Receipt{}, inDoubt(errors.Wrapf(cause, "wal %s: append", w.o.PChannel), errclass.Retryable)
	}
}
