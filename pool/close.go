package pool

import (
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/errors"
)

// Close refuses new tasks, answers the queued ones with ErrClosed, cancels the
// contexts of the running ones and waits for them until ctx ends. It returns nil
// when nothing of the pool is left, else an error that is the context's and
// names the tasks that did not stop; calling it again waits on. It is legal in
// every state, any number of times, from any goroutine but that of a task.
func (p *Pool) Close(ctx context.Context) error {
	if err := p.checkNested(ctx, "close", p.opts.Name); err != nil {
		return err
	}
	p.shut()
	select {
	case <-p.idle:
	default:
		select {
		case <-p.idle:
		case <-ctx.Done():
			return errors.Wrapf(context.Cause(ctx), "close %s: tasks that did not stop: %q", p.opts.Name, p.Running())
		}
	}
	return p.release()
}

// releaseAnts ends ants' idle goroutines. They have only to return, so the time
// is a net, not a plan.
func (p *Pool) releaseAnts() error {
	ctx, cancel := context.WithTimeout(context.Background(), releaseTime)
	defer cancel()
	return errors.Wrapf(p.ants.ReleaseContext(ctx), "close %s: idle workers did not end", p.opts.Name)
}

const releaseTime = 5 * time.Second

// shut is the part of Close that happens once.
func (p *Pool) shut() {
	var dropped, running []*Future
	p.mu.Lock()
	if !p.mu.closing {
		p.mu.closing = true
		for f := p.mu.queue.pop(); f != nil; f = p.mu.queue.pop() {
			p.mu.stats.CostInUse -= f.cost
			p.mu.stats.Cancelled++
			dropped = append(dropped, f)
		}
		for f := p.mu.running.first; f != nil; f = f.next {
			running = append(running, f)
		}
		if p.mu.slots == 0 {
			close(p.idle)
		}
	}
	p.mu.Unlock()
	for _, f := range running {
		f.ctx.end(ErrClosed)
	}
	for _, f := range dropped {
		f.answer(p.notRun(f))
	}
}

// Running returns the sorted names of the tasks that are on a worker now.
func (p *Pool) Running() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	names := make([]string, 0, p.mu.running.len)
	for f := p.mu.running.first; f != nil; f = f.next {
		names = append(names, f.task.Name)
	}
	slices.Sort(names)
	return names
}
