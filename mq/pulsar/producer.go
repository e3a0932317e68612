package pulsar

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// producer implements mq.Producer. Appends wait in line for its writer, a
// goroutine that sends one entry at a time.
type producer struct {
	q     *Queue
	topic string // as the caller names it
	what  string
	w     writer

	wake      chan struct{}      // one token: something waits, or the end has come
	stop      context.CancelFunc // cuts the writer
	ended     chan struct{}      // closed when the writer has ended
	abandoned chan struct{}      // closed when Close gave up waiting for appends
	giveUp    func()             // closes it

	appends lifecycle.Gate // refuses when fenced, or when an outcome is unknown
	mu      struct {
		sync.Mutex
		line  []*request
		bytes int // in line
	}
}

// request is one batch.
type request struct {
	frames        []byte
	count         int
	lastTimestamp uint64
	done          chan outcome // buffered
}

// outcome of a request: the place of its first message.
type outcome struct {
	first point
	err   error
}

// OpenProducer implements mq.Queue. The claim is an entry of the log: when the
// call returns, all that earlier owners have stored is before it, and nothing
// that they send from now on counts.
func (q *Queue) OpenProducer(ctx context.Context, topic string, o mq.ProducerOptions) (mq.Producer, error) {
	name, err := q.enter(ctx, topic)
	if err != nil {
		return nil, errors.Wrapf(err, "open producer of %q", topic)
	}
	if o.Name == "" {
		o.Name = "producer"
	}
	p := &producer{
		q: q, topic: topic, what: "producer " + topic + "/" + o.Name,
		wake: make(chan struct{}, 1), ended: make(chan struct{}), abandoned: make(chan struct{}),
	}
	p.giveUp = sync.OnceFunc(func() { close(p.abandoned) })
	p.w.q, p.w.name, p.w.term = q, name, o.Term
	run, stop := context.WithCancel(q.group.Context())
	p.stop = stop
	if err := q.adopt(p, p.what); err != nil {
		stop()
		return nil, err
	}
	open, done := until(ctx, run)
	err = p.w.claim(open, o.Name)
	done()
	if err != nil && run.Err() != nil {
		err = errors.Wrapf(mq.ErrClosed, "%v", err)
	}
	if err == nil {
		err = q.group.Go(p.what, func(context.Context) error { return p.run(run) })
	}
	if err != nil {
		stop()
		close(p.ended)
		p.appends.Shut(mq.ErrClosed)
		p.w.closeSender(ctx)
		q.forget(p)
		return nil, errors.Wrapf(err, "open producer of %q with term %d", topic, o.Term)
	}
	return p, nil
}

// Append implements mq.Producer. When ctx ends while the batch is on its way, it
// waits up to half a second more for the outcome before it says that it is
// unknown. An Exhausted error means that too much waits to be sent already.
func (p *producer) Append(ctx context.Context, msgs ...mq.Message) (at []mq.Position, err error) {
	if err := p.appends.Enter(); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	defer func() { p.leave(err) }()
	if err := ctx.Err(); err != nil {
		return nil, errors.Wrapf(err, "append by %s", p.what)
	}
	if len(msgs) == 0 {
		return nil, nil
	}
	r, err := p.request(msgs)
	if err != nil {
		return nil, err
	}
	if err := p.submit(r); err != nil {
		return nil, err
	}
	res := p.await(ctx, r)
	if res.err != nil {
		return nil, res.err
	}
	at = make([]mq.Position, len(msgs))
	for i := range msgs {
		at[i] = point{res.first.entryID, res.first.slot + uint32(i)}.position(msgs[i].Timestamp)
	}
	return at, nil
}

// request checks the limits and encodes the batch, which the caller may use
// again afterwards.
func (p *producer) request(msgs []mq.Message) (*request, error) {
	size := 0
	for i := range msgs {
		m := &msgs[i]
		if len(m.Key) > mq.MaxKeyBytes || len(m.Payload) > p.q.o.MaxPayloadBytes {
			return nil, errors.Wrapf(mq.ErrTooLarge, "append by %s: message %d: key %d (limit %d), payload %d (limit %d) bytes",
				p.what, i, len(m.Key), mq.MaxKeyBytes, len(m.Payload), p.q.o.MaxPayloadBytes)
		}
		size += frameSize(m)
	}
	if limit := p.q.o.MaxEntryBytes - headerBytes; size > limit {
		return nil, errors.Wrapf(mq.ErrTooLarge, "append by %s: the batch has %d bytes (limit %d)", p.what, size, limit)
	}
	r := &request{frames: make([]byte, 0, size), count: len(msgs), lastTimestamp: msgs[len(msgs)-1].Timestamp, done: make(chan outcome, 1)}
	for i := range msgs {
		r.frames = appendFrame(r.frames, &msgs[i])
	}
	return r, nil
}

// leave ends an append. After one whose outcome is unknown the rest is refused.
func (p *producer) leave(err error) {
	if errors.Is(err, mq.ErrUnknownOutcome) {
		p.q.count.unknown.Add(1)
		p.refuse(err)
	}
	p.appends.Leave()
}

// refuse refuses what comes; the first err stays.
func (p *producer) refuse(err error) { p.appends.Refuse(errors.Wrap(err, "refused")) }

// submit puts r in line.
func (p *producer) submit(r *request) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.appends.Refused(); err != nil { // under the lock: what end refuses is not put in line after it
		return errors.Wrapf(err, "append by %s", p.what)
	}
	if len(p.mu.line) > 0 && p.mu.bytes+len(r.frames) > p.q.o.MaxPendingBytes {
		return errclass.New(errclass.Exhausted, "append by %s: %d bytes wait to be sent (limit %d)", p.what, p.mu.bytes, p.q.o.MaxPendingBytes)
	}
	p.mu.line = append(p.mu.line, r)
	p.mu.bytes += len(r.frames)
	p.nudge()
	return nil
}

func (p *producer) nudge() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// withdraw takes r out of the line; it is false if r is on its way.
func (p *producer) withdraw(r *request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := slices.Index(p.mu.line, r)
	if i < 0 {
		return false
	}
	p.mu.line = slices.Delete(p.mu.line, i, i+1)
	p.mu.bytes -= len(r.frames)
	return true
}

// await waits for r as long as there is hope to learn its outcome.
func (p *producer) await(ctx context.Context, r *request) outcome {
	select {
	case res := <-r.done:
		return res
	case <-ctx.Done():
		if p.withdraw(r) {
			return outcome{err: errors.Wrapf(ctx.Err(), "append by %s: nothing is stored", p.what)}
		}
	case <-p.abandoned:
		return outcome{err: errors.Wrapf(mq.ErrUnknownOutcome, "append by %s: closed while the batch was on its way", p.what)}
	}
	grace := time.NewTimer(p.q.o.grace)
	defer grace.Stop()
	select {
	case res := <-r.done:
		return res
	case <-p.abandoned:
	case <-grace.C:
	}
	return outcome{err: errors.Wrapf(mq.ErrUnknownOutcome, "append by %s: %v while the batch was on its way", p.what, ctx.Err())}
}

// run is the writer's goroutine. It ends when ctx does, or when the topic or an
// outcome is lost; who is in line then is told.
func (p *producer) run(ctx context.Context) error {
	defer close(p.ended)
	for {
		group := p.take()
		if len(group) == 0 {
			select {
			case <-p.wake:
				continue
			case <-ctx.Done():
				p.end(errors.Wrapf(mq.ErrClosed, "%s", p.what))
				return nil
			}
		}
		first, err := p.w.store(ctx, group)
		slot := uint32(0)
		for _, r := range group {
			r.done <- outcome{first: point{first, slot}, err: err}
			slot += uint32(r.count)
		}
		if err != nil && !errors.Is(err, mq.ErrTooLarge) {
			p.end(err)
			return nil
		}
	}
}

// take takes from the line what goes into one entry.
func (p *producer) take() []*request {
	p.mu.Lock()
	defer p.mu.Unlock()
	n, size := 0, 0
	for ; n < len(p.mu.line); n++ {
		size += len(p.mu.line[n].frames)
		if n > 0 && size > p.q.o.GroupBytes-headerBytes {
			break
		}
	}
	group := slices.Clone(p.mu.line[:n])
	p.mu.line = slices.Delete(p.mu.line, 0, n)
	for _, r := range group {
		p.mu.bytes -= len(r.frames)
	}
	return group
}

// end refuses what is in line, and all that comes.
func (p *producer) end(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse(err)
	for _, r := range p.mu.line {
		r.done <- outcome{err: errors.Wrapf(err, "append by %s: not sent", p.what)}
	}
	p.mu.line, p.mu.bytes = nil, 0
}

// Close implements mq.Producer.
func (p *producer) Close(ctx context.Context) error {
	p.appends.Shut(mq.ErrClosed)
	var late error
	if err := p.appends.Wait(ctx); err != nil {
		late = errclass.Wrap(err, errclass.Closed, "close %s: appends are still running", p.what)
		p.giveUp() // they return
	}
	p.stop()
	select {
	case <-p.ended: // soon: every wait of the writer ends with its context
	case <-ctx.Done():
		select {
		case <-p.ended:
		default:
			return errors.CombineErrors(late, errclass.Wrap(ctx.Err(), errclass.Closed, "close %s", p.what))
		}
	}
	p.w.closeSender(ctx)
	p.q.forget(p)
	return late
}
