package embedded

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// producer implements mq.Producer.
type producer struct {
	q    *Queue
	t    *topic
	term uint64
	what string

	appends   lifecycle.Gate
	letGo     atomic.Bool   // not the owner any more by its own doing
	abandoned chan struct{} // closed when Close gave up waiting for appends
	giveUp    func()        // closes it
}

func newProducer(q *Queue, t *topic, o mq.ProducerOptions) *producer {
	p := &producer{q: q, t: t, term: o.Term, what: "producer " + t.name + "/" + o.Name, abandoned: make(chan struct{})}
	p.giveUp = sync.OnceFunc(func() { close(p.abandoned) })
	return p
}

// leave ends an append. After one whose outcome is unknown the rest is refused.
func (p *producer) leave(err error) {
	if errors.Is(err, mq.ErrUnknownOutcome) {
		p.appends.Refuse(errors.Wrap(mq.ErrUnknownOutcome, "refused: an earlier one is in doubt"))
	}
	p.appends.Leave()
}

// Append implements mq.Producer. When ctx ends while the batch is being synced,
// it waits up to half a second more for the outcome before it says that it is
// unknown. An Exhausted error is a full disk or too much waiting to be written.
func (p *producer) Append(ctx context.Context, msgs ...mq.Message) (at []mq.Position, err error) {
	if err := p.appends.Enter(); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	defer func() { p.leave(err) }()
	if err := ctx.Err(); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	size, err := p.measure(msgs)
	if err != nil {
		return nil, err
	}
	if len(msgs) == 0 {
		return nil, p.stillOwner()
	}
	r := &request{p: p, count: len(msgs), done: make(chan outcome, 1)}
	r.buf = encodeBatch(make([]byte, 0, size), msgs)
	if err := p.t.submit(r); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	res := p.await(ctx, r)
	if res.err != nil {
		return nil, res.err
	}
	at = make([]mq.Position, len(msgs))
	for i := range msgs {
		at[i] = position(res.first+uint64(i), msgs[i].Timestamp)
	}
	return at, nil
}

// measure checks the limits and returns the encoded size.
func (p *producer) measure(msgs []mq.Message) (int, error) {
	size := 0
	for i := range msgs {
		m := &msgs[i]
		if len(m.Key) > mq.MaxKeyBytes || len(m.Payload) > p.q.o.MaxPayloadBytes {
			return 0, errors.Wrapf(mq.ErrTooLarge, "append by %s: message %d: key %d (limit %d), payload %d (limit %d) bytes",
				p.what, i, len(m.Key), mq.MaxKeyBytes, len(m.Payload), p.q.o.MaxPayloadBytes)
		}
		size += frameHeaderBytes + len(m.Key) + len(m.Payload)
	}
	if size > p.q.o.MaxPendingBytes {
		return 0, errors.Wrapf(mq.ErrTooLarge, "append by %s: the batch has %d bytes (limit %d)", p.what, size, p.q.o.MaxPendingBytes)
	}
	return size, nil
}

func (p *producer) stillOwner() error {
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if p.t.mu.owner != p {
		return errors.Wrapf(mq.ErrFenced, "append by %s", p.what)
	}
	return nil
}

// await waits for r as long as there is hope to learn its outcome.
func (p *producer) await(ctx context.Context, r *request) outcome {
	select {
	case res := <-r.done:
		return res
	case <-ctx.Done():
		if p.t.withdraw(r) {
			return outcome{err: errors.Wrapf(ctx.Err(), "append by %s: nothing is stored", p.what)}
		}
	case <-p.abandoned:
		return outcome{err: errors.Wrapf(mq.ErrUnknownOutcome, "append by %s: closed during a write", p.what)}
	}
	grace := time.NewTimer(p.q.o.grace)
	defer grace.Stop()
	select {
	case res := <-r.done:
		return res
	case <-p.abandoned:
	case <-grace.C:
	}
	return outcome{err: errors.Wrapf(mq.ErrUnknownOutcome, "append by %s: %v during a write", p.what, ctx.Err())}
}

// release lets go of the topic if p has it.
func (p *producer) release() {
	p.letGo.Store(true)
	p.t.mu.Lock()
	defer p.t.mu.Unlock()
	if p.t.mu.owner == p {
		p.t.mu.owner = nil
	}
}

// Close implements mq.Producer.
func (p *producer) Close(ctx context.Context) error {
	p.appends.Shut(mq.ErrClosed)
	err := p.appends.Wait(ctx)
	if err != nil {
		p.giveUp() // appends that run return
	}
	p.release()
	if err != nil {
		return errclass.Wrap(err, errclass.Closed, "close %s: appends are still running", p.what)
	}
	p.q.forget(p)
	return nil
}
