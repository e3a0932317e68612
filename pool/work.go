package pool

import (
	"context"
	"runtime/debug"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// start runs a loop for a slot that the caller has taken, beginning with f.
func (p *Pool) start(f *Future) {
	err := p.ants.Submit(func() { p.loop(f) })
	if err == nil {
		return
	}
	// ants refuses only when it has been released, which happens after the last
	// slot is given up. Answer all the same: a lost task would hang its caller.
	for ; f != nil; f = p.next() {
		p.settle(f, 0, 0, outcomeFailed)
		f.answer(errors.Wrapf(err, "start %s in %s", f.task.Name, p.opts.Name))
	}
}

// loop runs tasks until the queue is empty, then gives its slot up.
func (p *Pool) loop(f *Future) {
	returned := false
	defer func() {
		if returned {
			return
		}
		// A task ended this goroutine with runtime.Goexit (panics do not get here).
		// The slot goes on in another goroutine.
		if next := p.next(); next != nil {
			p.start(next)
		}
	}()
	for now := time.Now(); f != nil; f = p.next() {
		now = p.execute(f, now)
	}
	returned = true
}

// next takes the next task for a slot, or gives the slot up.
func (p *Pool) next() *Future {
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.takeLocked()
	if f == nil {
		p.mu.slots--
		if p.mu.closing && p.mu.slots == 0 {
			close(p.idle)
		}
	}
	return f
}

type outcome uint8

const (
	outcomeGoexit outcome = iota // zero: what is left when Run neither returned nor panicked
	outcomeCompleted
	outcomeFailed
	outcomePanicked
	outcomeExpired
	outcomeCancelled
)

// execute runs one task and answers it, however it ends, which is when the next may
// begin: it may have been admitted a moment after that.
func (p *Pool) execute(f *Future, begin time.Time) (end time.Time) {
	var (
		out outcome
		err = ErrGoexit
	)
	defer func() {
		if out == outcomeGoexit {
			err = errors.Wrapf(ErrGoexit, "%s in %s", f.task.Name, p.opts.Name)
		}
		end = time.Now()
		p.settle(f, max(0, begin.Sub(f.since)), end.Sub(begin), out)
		f.answer(err)
	}()

	if f.ctx.Err() != nil {
		if context.Cause(f.ctx) == ErrClosed {
			out, err = outcomeCancelled, p.notRun(f)
		} else {
			out, err = outcomeExpired, f.expired(begin)
		}
		return end
	}
	returned := false
	err = lifecycle.Call(f.task.Name, func() error {
		// Turns a fault in mapped memory (a file truncated under us) into a panic
		// of this task instead of the end of the process. It is per goroutine.
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		err := f.task.Run(f.ctx)
		returned = true
		return err
	})
	out, err = p.judge(f, err, !returned)
	return end
}

// judge classifies how Run ended and reports a panic.
func (p *Pool) judge(f *Future, err error, panicked bool) (outcome, error) {
	if err == nil {
		return outcomeCompleted, nil
	}
	var pe *PanicError
	if panicked && errors.As(err, &pe) {
		p.opts.Logger.Error("task panicked", "pool", p.opts.Name, "task", f.task.Name, "panic", pe.Value, "stack", string(pe.Stack))
		if p.opts.OnPanic != nil {
			_ = lifecycle.Call(f.task.Name+" OnPanic", func() error { p.opts.OnPanic(pe); return nil })
		}
		return outcomePanicked, err
	}
	if context.Cause(f.ctx) == ErrClosed && errors.Is(err, context.Canceled) {
		err = errclass.Mark(errors.Mark(errors.Wrapf(err, "%s cancelled: %s is closing", f.task.Name, p.opts.Name), ErrClosed), errclass.Closed)
	}
	return outcomeFailed, err
}

// settle takes a task out of the running set and counts it.
func (p *Pool) settle(f *Future, waited, ran time.Duration, out outcome) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mu.running.remove(f)
	s := &p.mu.stats
	s.CostInUse -= f.cost
	switch out {
	case outcomeExpired:
		s.Expired++
		return
	case outcomeCancelled:
		s.Cancelled++
		return
	case outcomeCompleted:
		s.Completed++
	case outcomeFailed:
		s.Failed++
	case outcomePanicked:
		s.Panicked++
	case outcomeGoexit:
		s.Goexited++
	}
	s.Wait.add(waited)
	s.Run.add(ran)
	if s.MeanRun == 0 {
		s.MeanRun = ran
	} else {
		s.MeanRun += (ran - s.MeanRun) / meanWeight
	}
}

// meanWeight makes MeanRun follow about the last 16 tasks.
const meanWeight = 16

func (f *Future) expired(now time.Time) error {
	return errors.Mark(errors.Wrapf(context.Cause(f.ctx), "%s expired after %s in the queue of %s",
		f.task.Name, now.Sub(f.since), f.pool.opts.Name), ErrExpired)
}

func (p *Pool) notRun(f *Future) error {
	return errors.Wrapf(ErrClosed, "%s has not run in %s", f.task.Name, p.opts.Name)
}
