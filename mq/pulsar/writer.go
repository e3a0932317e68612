package pulsar

import (
	"context"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// maxClaims bounds how often OpenProducer tries again when somebody of the same
// term has claimed the topic at the same moment.
const maxClaims = 16

// writer writes the entries of one owner, one at a time. Each tells what came
// before it, and after each the writer knows that all up to it is as it thinks.
type writer struct {
	q     *Queue
	name  string // of the topic at the broker
	term  uint64
	nonce uint64
	s     state // at entry at
	at    entryID

	sender sender // nil until claim
	closed sync.Once
}

// claim takes the topic: it writes a claim and reads what came before it.
func (w *writer) claim(ctx context.Context, as string) error {
	for range maxClaims {
		sv, err := w.q.survey(ctx, w.name)
		if err != nil {
			return err
		}
		if w.term < sv.s.term {
			return errors.Wrapf(mq.ErrFenced, "the topic has term %d", sv.s.term)
		}
		if w.sender == nil {
			if err := w.q.driver.protect(ctx, w.name); err != nil {
				return err
			}
			if w.sender, err = w.q.driver.write(ctx, w.name, as); err != nil {
				return err
			}
		}
		w.s, w.at, w.nonce = sv.s, sv.at, newNonce()
		id, err := w.sender.send(ctx, (&entry{kind: claim, term: w.term, nonce: w.nonce, prev: w.at, base: w.s}).encode())
		if err != nil {
			return err
		}
		if err := w.catchUp(ctx, id, nil); err != nil {
			return err
		}
		switch {
		case w.s.nonce == w.nonce:
			w.q.count.claims.Add(1)
			return nil
		case w.term < w.s.term:
			return errors.Wrapf(mq.ErrFenced, "the topic has just been taken with term %d", w.s.term)
		}
	}
	return errclass.New(errclass.Retryable, "others with term %d take the topic all the time", w.term)
}

// catchUp reads to id, or to the end when the broker did not say where it put
// the entry: one with deduplication acknowledges what it has already with -1:-1.
func (w *writer) catchUp(ctx context.Context, id entryID, visit func(event)) error {
	if id.isNone() {
		var err error
		if id, err = w.q.driver.last(ctx, w.name); err != nil {
			return err
		}
	}
	t := w.q.tail(w.name, w.s, w.at, nil)
	s, err := t.scan(ctx, id, visit)
	if err != nil {
		return err
	}
	w.s, w.at = s, t.at
	return nil
}

// store writes one entry and returns where it is. An error is ErrTooLarge or
// ErrFenced: nothing is stored; or ErrUnknownOutcome.
func (w *writer) store(ctx context.Context, group []*request) (entryID, error) {
	ctx, cancel := context.WithTimeout(ctx, w.q.o.AppendTimeout)
	defer cancel()
	e := entry{kind: data, term: w.term, nonce: w.nonce, prev: w.at, base: w.s}
	size := 0
	for _, r := range group {
		size += len(r.frames)
	}
	e.body = slices.Grow(e.body, size)
	for _, r := range group {
		e.body = append(e.body, r.frames...)
		e.count += uint32(r.count)
		e.lastTimestamp = r.lastTimestamp
	}
	payload := e.encode()
	id, err := w.sender.send(ctx, payload)
	if errclass.Is(err, errclass.Invalid) {
		return none(), errors.Wrapf(mq.ErrTooLarge, "%v", err)
	}
	if err != nil {
		return none(), errors.Wrapf(mq.ErrUnknownOutcome, "%v", err)
	}
	at, err := w.verify(ctx, &e, id)
	if err == nil {
		w.q.count.entries.Add(1)
		w.q.count.messages.Add(uint64(e.count))
		w.q.count.bytes.Add(uint64(len(payload)))
	}
	return at, err
}

// verify makes sure that the entry the broker has put at id counts. When it
// stands right behind the one before, nobody can have claimed the topic between.
// Otherwise (a new ledger, a new owner, a trim, an entry sent twice) it reads.
func (w *writer) verify(ctx context.Context, e *entry, id entryID) (entryID, error) {
	if id.follows(w.at) {
		w.s.fold(e, id) // counts: it was made for this state
		w.at = id
		return id, nil
	}
	w.q.count.rereads.Add(1)
	at := none()
	err := w.catchUp(ctx, id, func(ev event) {
		if ev.verdict == counts && ev.entry.kind == data && ev.entry.nonce == w.nonce && ev.entry.base.index == e.base.index {
			at = ev.id // the first of them, if it was sent twice
		}
	})
	switch {
	case err != nil:
		return none(), errors.Wrapf(mq.ErrUnknownOutcome, "%v", err)
	case !at.isNone():
		return at, nil
	case w.s.nonce != w.nonce:
		w.q.count.fenced.Add(1)
		return none(), errors.Wrapf(mq.ErrFenced, "term %d by term %d", w.term, w.s.term)
	}
	return none(), errors.Wrapf(mq.ErrUnknownOutcome, "acknowledged at %s, but it is not there", id)
}

// closeSender lets go of the connection, after the last send. What it cannot end
// in time goes on under a name in Stats.Calls.
func (w *writer) closeSender(ctx context.Context) {
	w.closed.Do(func() {
		if w.sender == nil {
			return
		}
		if err := w.sender.close(ctx); err != nil {
			w.q.o.Logger.Warn("close sender", "topic", w.name, "err", err)
		}
	})
}
