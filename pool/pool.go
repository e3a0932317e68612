package pool

import (
	"context"
	"runtime/debug"
	"sync"
	"time"

	"github.com/cockroachdb/errors"
	"github.com/panjf2000/ants/v2"

	"github.com/querynode/querynode/internal/errclass"
)

// Pool runs tasks on a bounded number of workers. Create it with New; whoever
// did closes it. All methods may be called from any goroutine.
type Pool struct {
	opts Options
	ants *ants.Pool

	mu struct {
		sync.Mutex
		queue   queue
		running list
		slots   int // loops that run or are being started; at most opts.Workers
		closing bool
		stats   Stats     // counters, CostInUse and the mean
		swept   time.Time // when the queue was last searched for expired tasks
	}
	idle    chan struct{} // closed when closing and no slot is taken
	release func() error  // ends ants once idle; the first call counts
}

// Invariant, under mu: a task is queued only while every slot is taken. A loop
// gives its slot up only when the queue is empty, so no task is left behind.

// New returns a running pool.
func New(opts Options) (*Pool, error) {
	opts.EnsureDefaults()
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	p := &Pool{opts: opts, idle: make(chan struct{})}
	p.release = sync.OnceValue(p.releaseAnts)
	var err error
	// No limit here, and why: see the package comment.
	p.ants, err = ants.NewPool(-1, ants.WithDisablePurge(true), ants.WithPanicHandler(func(v any) {
		p.opts.Logger.Error("pool: panic outside a task", "pool", p.opts.Name, "panic", v, "stack", string(debug.Stack()))
	}))
	if err != nil {
		return nil, errors.Wrapf(err, "pool %q: start ants", opts.Name)
	}
	return p, nil
}

// Submit admits a task or says at once why not. It never waits. The task runs
// under a context that ends with ctx and on Close.
func (p *Pool) Submit(ctx context.Context, t Task) (*Future, error) {
	own := &struct {
		Future
		ctx taskCtx
	}{}
	f := &own.Future
	own.ctx.Context, own.ctx.pool = ctx, p
	f.pool, f.task, f.ctx, f.done = p, t, &own.ctx, make(chan struct{})
	if err := p.admit(ctx, []*Future{f}); err != nil {
		f.ctx.finish()
		return nil, err
	}
	return f, nil
}

// admit lets all of fs in, or none.
func (p *Pool) admit(ctx context.Context, fs []*Future) error {
	cost, err := p.check(ctx, fs)
	if err != nil {
		return err
	}
	now := time.Now()
	var buf [8]*Future
	starting := buf[:0]

	p.mu.Lock()
	dropped, err := p.makeRoomLocked(len(fs), cost, now)
	if err == nil {
		p.mu.stats.Submitted += uint64(len(fs))
		p.mu.stats.CostInUse += cost
		for _, f := range fs {
			f.since = now
			p.mu.queue.push(f)
		}
		for p.mu.slots < p.opts.Workers && p.mu.queue.len > 0 {
			p.mu.slots++
			starting = append(starting, p.takeLocked())
		}
	}
	p.mu.Unlock()

	for _, f := range dropped {
		f.answer(f.expired(now))
	}
	for _, f := range starting {
		p.start(f)
	}
	return err
}

// check finds what is wrong with the tasks themselves, and adds up their cost.
func (p *Pool) check(ctx context.Context, fs []*Future) (cost int64, err error) {
	first, n := fs[0].task.Name, uint64(len(fs))
	if err := p.checkNested(ctx, "submit", first); err != nil {
		p.reject(func(r *Rejections) { r.Nested += n })
		return 0, err
	}
	if ctx.Err() != nil {
		p.reject(func(r *Rejections) { r.Expired += n })
		return 0, errors.Mark(errors.Wrapf(context.Cause(ctx), "submit %s to %s", first, p.opts.Name), ErrExpired)
	}
	for _, f := range fs {
		if f.task.Run == nil || f.task.Lane >= lanes {
			p.reject(func(r *Rejections) { r.Invalid += n })
			return 0, errclass.New(errclass.Invalid, "submit %s to %s: no Run function, or lane %d is unknown",
				f.task.Name, p.opts.Name, f.task.Lane)
		}
		f.cost = max(f.task.Cost, 0)
		if p.opts.MaxCost > 0 && f.cost > p.opts.MaxCost {
			p.reject(func(r *Rejections) { r.Cost += n })
			return 0, errors.Wrapf(ErrTooCostly, "submit %s to %s: costs %d of %d", f.task.Name, p.opts.Name, f.cost, p.opts.MaxCost)
		}
		if cost += f.cost; cost < 0 {
			return 0, errclass.New(errclass.Invalid, "submit %s to %s: the cost of the batch overflows", first, p.opts.Name)
		}
	}
	return cost, nil
}

func (p *Pool) reject(count func(*Rejections)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	count(&p.mu.stats.Rejected)
}

// makeRoomLocked says whether n tasks may enter now. In a full queue it first
// takes out what has expired, for the caller to answer, so that the dead do not
// keep the living out.
func (p *Pool) makeRoomLocked(n int, cost int64, now time.Time) (dropped []*Future, err error) {
	if p.mu.closing {
		p.mu.stats.Rejected.Closed += uint64(n)
		return nil, errors.Wrapf(ErrClosed, "submit to %s", p.opts.Name)
	}
	full := p.fullLocked(n, cost)
	if full != nil && now.Sub(p.mu.swept) >= minRetryAfter { // bounds what a flood of refusals costs
		p.mu.swept = now
		p.mu.queue.each(func(f *Future) {
			if f.ctx.Err() != nil {
				p.mu.queue.remove(f)
				p.dropLocked(f)
				dropped = append(dropped, f)
			}
		})
		full = p.fullLocked(n, cost)
	}
	switch {
	case full == nil:
		return dropped, nil
	case full.Resource == "cost":
		p.mu.stats.Rejected.Cost += uint64(n)
	default:
		p.mu.stats.Rejected.Full += uint64(n)
	}
	return dropped, full
}

// fullLocked returns nil if there is room. What is larger than a whole bound
// gets in when nothing else is there: it could never run otherwise.
func (p *Pool) fullLocked(n int, cost int64) *FullError {
	var (
		waiting = p.mu.queue.len
		wait    = n - (p.opts.Workers - p.mu.slots) // how many would have to wait
		inUse   = p.mu.stats.CostInUse
		bound   = p.opts.MaxCost
	)
	if waiting+wait > p.opts.QueueLen && (waiting > 0 || n <= p.opts.Workers+p.opts.QueueLen) {
		return &FullError{Pool: p.opts.Name, Resource: "tasks", RetryAfter: p.retryAfterLocked(n),
			Used: int64(waiting), Max: int64(p.opts.QueueLen), Asked: int64(n)}
	}
	if bound > 0 && cost > bound-inUse && inUse > 0 {
		return &FullError{Pool: p.opts.Name, Resource: "cost", RetryAfter: p.retryAfterLocked(n),
			Used: inUse, Max: bound, Asked: cost}
	}
	return nil
}

// retryAfterLocked estimates when what is queued now, and n more, will have
// been served: mean run time x tasks / workers.
func (p *Pool) retryAfterLocked(n int) time.Duration {
	mean := max(p.mu.stats.MeanRun, minRetryAfter)
	ahead := time.Duration(p.mu.queue.len+n)/time.Duration(p.opts.Workers) + 1
	if mean > maxRetryAfter/ahead {
		return maxRetryAfter
	}
	return mean * ahead
}

// takeLocked moves the next task from the queue to the running set.
func (p *Pool) takeLocked() *Future {
	f := p.mu.queue.pop()
	if f != nil {
		p.mu.running.push(f)
	}
	return f
}

// dropLocked counts a task that has left the queue without having run.
func (p *Pool) dropLocked(f *Future) {
	p.mu.stats.CostInUse -= f.cost
	p.mu.stats.Expired++
}

// dropExpired answers those of fs that are queued and whose context has ended.
func (p *Pool) dropExpired(fs []*Future) {
	var dropped []*Future
	p.mu.Lock()
	for _, f := range fs {
		if f.queued && f.ctx.Err() != nil {
			p.mu.queue.remove(f)
			p.dropLocked(f)
			dropped = append(dropped, f)
		}
	}
	p.mu.Unlock()
	now := time.Now()
	for _, f := range dropped {
		f.answer(f.expired(now))
	}
}
