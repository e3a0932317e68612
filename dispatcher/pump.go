package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// item is what a reader gave: a message, or the news that one is corrupt.
type item struct {
	msg     mq.Message
	corrupt *mq.CorruptError
}

// pump is one opened reader of a consumer: the goroutine that opens it, reads
// into a bounded inbox and closes it. Only a pump calls the queue. When a call
// hangs, the pump hangs with it and the actor goes on without it.
type pump struct {
	a     *actor
	c     *consumer // used by the actor only
	entry *entry
	start mq.Position // read what comes after it
	// latest: start after the newest message instead.
	latest bool

	ctx    context.Context
	cancel context.CancelFunc
	room   chan struct{} // capacity 1: the inbox was emptied
	ready  func()        // posted when the inbox is no longer empty

	// Owned by the actor.
	abandoned bool // its consumer goes on with another pump
	hung      bool // reported as hanging

	mu struct {
		sync.Mutex
		items    []item
		spare    []item // an emptied slice to fill next
		bytes    int64
		posted   bool // ready has been posted and not been answered
		reader   mq.Reader
		call     string    // queue call that is running; "" = none
		deadline time.Time // of that call
	}
}

// startPump opens a reader for c at its place. c is in the register already.
func (a *actor) startPump(c *consumer) {
	p := &pump{a: a, c: c, entry: c.entry, start: c.pos, latest: c.latest, room: make(chan struct{}, 1)}
	p.ctx, p.cancel = context.WithCancel(a.m.group.Context())
	p.ready = func() { a.ready(p) }
	c.pump = p
	a.pumps[p] = struct{}{}
	c.entry.set(ConsumerOpening, c.kind)
	if err := a.m.group.Go("reader "+c.entry.name, p.run); err != nil {
		a.pumpEnded(p, err, true)
	}
}

func (p *pump) run(context.Context) error {
	defer p.cancel()
	reader, err := p.open()
	if err == nil {
		err = p.read(reader)
	}
	closed := reader == nil || p.closeReader(reader, err)
	p.a.post(func() { p.a.pumpEnded(p, err, closed) })
	return nil
}

// call runs one call of the queue with its own deadline, in sight of the
// actor's watch, and turns a panic in the backend into an error.
func (p *pump) call(what string, parent context.Context, d time.Duration, fn func(ctx context.Context) error) error {
	ctx, cancel := context.WithTimeout(parent, d)
	defer cancel()
	p.enter(what, time.Now().Add(d))
	defer p.enter("", time.Time{})
	return lifecycle.Call(what+" of "+p.entry.name, func() error { return fn(ctx) })
}

func (p *pump) enter(what string, deadline time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.call, p.mu.deadline = what, deadline
}

// stop makes the pump close its reader and end. A call that does not notice is overdue from now on.
func (p *pump) stop() {
	p.cancel()
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.call != "close" && p.mu.deadline.After(now) {
		p.mu.deadline = now
	}
}

// overdue names the call that has overrun its deadline by grace; "" = none.
func (p *pump) overdue(now time.Time, grace time.Duration) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.mu.call == "" || now.Sub(p.mu.deadline) < grace {
		return ""
	}
	return p.mu.call
}

func (p *pump) open() (mq.Reader, error) {
	o, topic := &p.a.m.o, p.a.pchannel
	var bounds mq.Bounds
	err := p.call("bounds", p.ctx, o.OpenTimeout, func(ctx context.Context) (err error) {
		bounds, err = o.Queue.Bounds(ctx, topic)
		return err
	})
	if err != nil {
		return nil, errors.Wrapf(err, "bounds of %s", topic)
	}
	if p.latest {
		p.start = bounds.Last
	}
	var reader mq.Reader
	err = p.call("open", p.ctx, o.OpenTimeout, func(ctx context.Context) (err error) {
		reader, err = o.Queue.OpenReader(ctx, topic, mq.ReaderOptions{From: p.start, Exclusive: true, Name: p.entry.name})
		return err
	})
	if err != nil {
		return nil, errors.Wrapf(err, "open %s after %s", p.entry.name, p.start)
	}
	p.mu.Lock()
	p.mu.reader = reader
	p.mu.Unlock()
	p.a.post(func() { p.a.opened(p, bounds.Last) })
	return reader, nil
}

// read reads until the pump is stopped or the reader fails.
func (p *pump) read(r mq.Reader) error {
	var corrupt mq.Position // the last message given was this corrupt one
	for {
		if p.ctx.Err() != nil {
			return errStopping
		}
		n := 0
		err := p.call("next", p.ctx, p.a.m.o.PollTimeout, func(ctx context.Context) (err error) {
			n, err = p.readFor(ctx, r, &corrupt)
			return err
		})
		if err != nil {
			return errors.Wrapf(err, "read %s", p.entry.name)
		}
		if n == 0 && p.ctx.Err() == nil {
			p.a.post(func() { p.a.idle(p) })
		}
	}
}

// readFor reads until ctx ends, the reader fails, or it had to wait for room;
// it returns how many messages it read. One context serves many calls of Next:
// making one for each would cost more than reading.
func (p *pump) readFor(ctx context.Context, r mq.Reader, corrupt *mq.Position) (n int, err error) {
	for {
		m, err := r.Next(ctx)
		it := item{msg: m}
		switch {
		case err == nil:
			*corrupt = mq.Position{}
		case errors.As(err, &it.corrupt):
			if at := it.corrupt.Position; !at.IsZero() && *corrupt == at {
				return n, errors.Wrap(err, "the reader does not move past it")
			}
			*corrupt = it.corrupt.Position
		case ctx.Err() != nil && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)):
			return n, nil
		default:
			return n, err
		}
		n++
		// A queue that has messages need not look at the context: each is progress, so
		// that only a single call that does not return counts as one that hangs.
		if waited := p.offer(it); waited || ctx.Err() != nil {
			return n, nil
		}
	}
}

// offer puts it into the inbox, waiting for room until the pump is stopped.
func (p *pump) offer(it item) (waited bool) {
	size := sizeOf(&it.msg)
	o := &p.a.m.o
	for {
		p.mu.Lock()
		if len(p.mu.items) == 0 || len(p.mu.items) < o.InboxMessages && p.mu.bytes+size <= o.InboxBytes {
			if p.mu.items == nil {
				p.mu.items, p.mu.spare = p.mu.spare, nil
			}
			p.mu.items = append(p.mu.items, it)
			p.mu.bytes += size
			tell := !p.mu.posted
			p.mu.posted = true
			p.mu.Unlock()
			if tell {
				p.a.post(p.ready)
			}
			return waited
		}
		p.mu.call, p.mu.deadline = "", time.Time{} // it is us who wait, not the queue
		p.mu.Unlock()
		waited = true
		select {
		case <-p.room:
		case <-p.ctx.Done():
			return true
		}
	}
}

// take empties the inbox.
func (p *pump) take() []item {
	p.mu.Lock()
	items := p.mu.items
	p.mu.items, p.mu.bytes, p.mu.posted = nil, 0, false
	p.mu.Unlock()
	select {
	case p.room <- struct{}{}:
	default:
	}
	return items
}

// recycle gives back a slice that take returned and nobody looks at any more.
func (p *pump) recycle(items []item) {
	clear(items)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.spare = items[:0]
}

// closeReader closes r; when that fails the actor learns of the leak and goes
// on, while this goroutine tries again until it succeeds or the Manager closes.
func (p *pump) closeReader(r mq.Reader, cause error) (closed bool) {
	o := &p.a.m.o
	for attempt := 0; ; attempt++ {
		last := p.a.m.isClosing()
		err := p.call("close", context.WithoutCancel(p.ctx), o.CloseTimeout, r.Close)
		if err == nil || errors.Is(err, mq.ErrClosed) {
			return true
		}
		p.a.post(func() { p.a.leaked(p, cause, errors.Wrapf(err, "close %s", p.entry.name)) })
		if last {
			return false
		}
		t := time.NewTimer(backoff(o.BackoffMin, o.BackoffMax, attempt))
		select {
		case <-t.C:
		case <-p.a.m.closing:
		}
		t.Stop()
	}
}

// forceClose wakes a Next that ignores its context, as mq.Reader.Close promises.
func (p *pump) forceClose() {
	p.mu.Lock()
	r := p.mu.reader
	p.mu.Unlock()
	if r == nil {
		return
	}
	// When the group is closing already, there is no one left to wake it for.
	_ = p.a.m.group.Go("closer of "+p.entry.name, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), p.a.m.o.CloseTimeout)
		defer cancel()
		return errclass.Wrap(r.Close(ctx), errclass.Retryable, "close %s", p.entry.name)
	})
}
