package mqtest

import (
	"context"
	"sync/atomic"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// memProducer implements mq.Producer.
type memProducer struct {
	q     *Memory
	what  string
	topic *memTopic // guarded by Broker.mu like all topics

	appends lifecycle.Gate
	closed  atomic.Bool
}

// take makes p the owner of topic if its term allows.
func (p *memProducer) take(topic string, term uint64) error {
	b := p.q.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topicLocked(topic)
	if term < t.term {
		return errors.Wrapf(mq.ErrFenced, "open producer %s: term %d, the topic is at %d", topic, term, t.term)
	}
	t.term, t.owner, p.topic = term, p, t
	return nil
}

func (p *memProducer) letGo() {
	b := p.q.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	if p.topic.owner == p {
		p.topic.owner = nil
	}
}

// leave ends an append. After one whose outcome is unknown the rest is refused.
func (p *memProducer) leave(err error) {
	if errors.Is(err, mq.ErrUnknownOutcome) {
		p.appends.Refuse(errors.Wrap(mq.ErrUnknownOutcome, "refused: an earlier one is in doubt"))
	}
	p.appends.Leave()
}

// Append implements mq.Producer.
func (p *memProducer) Append(ctx context.Context, msgs ...mq.Message) (at []mq.Position, err error) {
	if err := p.appends.Enter(); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	defer func() { p.leave(err) }()
	for i, m := range msgs {
		if len(m.Key) > mq.MaxKeyBytes || len(m.Payload) > p.q.maxPayload {
			return nil, errors.Wrapf(mq.ErrTooLarge, "append by %s: message %d: key %d, payload %d bytes",
				p.what, i, len(m.Key), len(m.Payload))
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	hooks := p.q.hooks()
	if hooks.BeforeAppend != nil {
		if err := hooks.BeforeAppend(ctx, p.topic.name, msgs); err != nil {
			return nil, errors.Wrapf(err, "append by %s", p.what)
		}
	}
	if at, err = p.store(msgs); err != nil {
		return nil, err
	}
	if hooks.AfterAppend != nil {
		if err := hooks.AfterAppend(ctx, p.topic.name, at); err != nil {
			return nil, errors.Wrapf(mq.ErrUnknownOutcome, "append by %s: %v", p.what, err)
		}
	}
	return at, nil
}

func (p *memProducer) store(msgs []mq.Message) ([]mq.Position, error) {
	b := p.q.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	t := p.topic
	if t.owner != p {
		if p.closed.Load() {
			return nil, errors.Wrapf(mq.ErrClosed, "append by %s", p.what)
		}
		return nil, errors.Wrapf(mq.ErrFenced, "append by %s", p.what)
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	at := make([]mq.Position, len(msgs))
	for i, m := range msgs {
		m = cloneMessage(m)
		m.Position = mq.Position{ID: encodeSeq(t.next()), Timestamp: m.Timestamp}
		t.msgs = append(t.msgs, memMessage{Message: m})
		at[i] = m.Position
	}
	t.wake()
	return at, nil
}

// Close implements mq.Producer.
func (p *memProducer) Close(ctx context.Context) error {
	p.closed.Store(true)
	p.appends.Shut(mq.ErrClosed)
	waitErr := p.appends.Wait(ctx)
	if waitErr != nil {
		waitErr = errors.Wrapf(waitErr, "close %s: appends still run", p.what)
	}
	p.letGo()
	if h := p.q.hooks().BeforeClose; h != nil {
		if err := h(ctx, p.what); err != nil {
			return errors.Wrapf(err, "close %s", p.what)
		}
	}
	if waitErr == nil {
		p.q.forget(p)
	}
	return waitErr
}

// memReader implements mq.Reader.
type memReader struct {
	q       *Memory
	what    string
	topic   *memTopic
	closing context.Context // ended by Close
	wake    context.CancelFunc

	// next and since are touched by Next only.
	next  uint64 // sequence number to give out next
	since uint64 // skip what is older than this timestamp, until one is not
}

// seek finds where to start.
func (r *memReader) seek(topic string, o mq.ReaderOptions) error {
	b := r.q.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	t := b.topicLocked(topic)
	r.topic = t
	switch {
	case o.Latest:
		r.next = t.next()
	case o.From.IsZero():
		r.next, r.since = t.base, o.FromTimestamp
	default:
		r.next = decodeSeq(o.From.ID)
		if r.next >= t.next() {
			return mq.ErrAhead
		}
		if o.Exclusive {
			r.next++
		}
		if r.next < t.base {
			return mq.ErrTrimmed
		}
	}
	return nil
}

// Next implements mq.Reader.
func (r *memReader) Next(ctx context.Context) (mq.Message, error) {
	if r.closing.Err() != nil {
		return mq.Message{}, errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
	}
	if h := r.q.hooks().BeforeNext; h != nil {
		hookCtx, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(r.closing, cancel)
		err := h(hookCtx, r.topic.name)
		stop()
		cancel()
		if r.closing.Err() != nil {
			return mq.Message{}, errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
		}
		if err != nil {
			return mq.Message{}, errors.Wrapf(err, "next of %s", r.what)
		}
	}
	for {
		m, changed, err := r.step()
		if err != nil || changed == nil {
			return m, err
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return mq.Message{}, errors.Wrapf(ctx.Err(), "next of %s", r.what)
		case <-r.closing.Done():
			return mq.Message{}, errors.Wrapf(mq.ErrClosed, "next of %s", r.what)
		}
	}
}

// step returns a message, an error, or the channel to wait on.
func (r *memReader) step() (mq.Message, <-chan struct{}, error) {
	b := r.q.Broker
	b.mu.Lock()
	defer b.mu.Unlock()
	t := r.topic
	if r.next < t.base {
		return mq.Message{}, nil, errors.Wrapf(mq.ErrTrimmed, "next of %s: at %d, the topic begins at %d", r.what, r.next, t.base)
	}
	for r.next < t.next() {
		m := t.msgs[r.next-t.base]
		if m.Timestamp < r.since {
			r.next++
			continue
		}
		r.next, r.since = r.next+1, 0
		if m.corrupt {
			bad := &mq.CorruptError{Topic: t.name, Position: m.Position, Detail: "marked corrupt"}
			return mq.Message{}, nil, errclass.Mark(bad, errclass.Corrupt)
		}
		return cloneMessage(m.Message), nil, nil
	}
	return mq.Message{}, t.changed, nil
}

// Close implements mq.Reader.
func (r *memReader) Close(ctx context.Context) error {
	r.wake()
	if h := r.q.hooks().BeforeClose; h != nil {
		if err := h(ctx, r.what); err != nil {
			return errors.Wrapf(err, "close %s", r.what)
		}
	}
	r.q.forget(r)
	return nil
}
