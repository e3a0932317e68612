package lifecycle

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

// ErrStackClosed is returned by Stack.Push after Close has begun. The part was
// not taken: whoever started it must close it.
var ErrStackClosed = errclass.Mark(errors.New("lifecycle: stack is closing"), errclass.Closed)

// DefaultPartTime is what a part without a deadline of its own gets when the
// whole has none either.
const DefaultPartTime = 10 * time.Second

// Stack holds started parts and closes them in reverse order. Push each part
// right after it has started; then a start that fails half-way is undone by
// Close, like a stop. Create it with NewStack.
type Stack struct {
	group *Group
	mu    struct {
		sync.Mutex
		parts   []part // in the order of starting; reversed by the first Close
		closing bool
		reports []PartReport // in the order of closing
	}
	done chan struct{} // closed when the first Close has been through all parts
}

type part struct {
	name     string
	close    func(ctx context.Context) error
	deadline time.Duration
}

// NewStack returns an empty stack.
func NewStack() *Stack {
	return &Stack{group: NewGroup(context.Background(), nil), done: make(chan struct{})}
}

// Push adds a started part. closer must stop it when called once, and return
// when its context ends. deadline is the time that the closer can count on, shortened
// to what the whole has left; 0 means an equal share of that.
func (s *Stack) Push(name string, closer func(ctx context.Context) error, deadline time.Duration) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.closing {
		return errors.Wrapf(ErrStackClosed, "push %s", name)
	}
	s.mu.parts = append(s.mu.parts, part{name: name, close: closer, deadline: max(deadline, 0)})
	return nil
}

// PartReport tells how one part closed.
type PartReport struct {
	Name   string
	Budget time.Duration // what it was given
	Took   time.Duration // until it returned or was given up
	// Err is what the closer returned, *PanicError if it panicked.
	Err error
	// Stuck: the closer had not returned when its time was up. It has been left
	// running, and Goroutines holds the stacks of it and of what it started.
	Stuck      bool
	Goroutines string
	// Skipped: the whole was cancelled before its turn; the closer was not called.
	Skipped bool
}

// Report tells how the parts closed, in the order of closing.
type Report struct {
	Parts []PartReport
	Took  time.Duration
}

// Err returns nil if every part closed cleanly and in time, else one error that
// names each that did not.
func (r *Report) Err() error {
	var all error
	for _, p := range r.Parts {
		switch {
		case p.Stuck:
			all = errors.Join(all, errors.Newf("%s did not stop within %s", p.Name, p.Budget))
		case p.Skipped:
			all = errors.Join(all, errors.Newf("%s was not closed: no time left", p.Name))
		case p.Err != nil:
			all = errors.Join(all, errors.Wrapf(p.Err, "close %s", p.Name))
		}
	}
	return all
}

// Stuck returns the names of the parts that did not stop or were skipped.
func (r *Report) Stuck() []string {
	var names []string
	for _, p := range r.Parts {
		if p.Stuck || p.Skipped {
			names = append(names, p.Name)
		}
	}
	return names
}

// String is for people: one line a part, then the stacks of those that are stuck.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "closed in %s\n", r.Took.Round(time.Millisecond))
	for _, p := range r.Parts {
		how := "closed"
		switch {
		case p.Stuck:
			how = "STUCK"
		case p.Skipped:
			how = "SKIPPED"
		case p.Err != nil:
			how = fmt.Sprintf("failed: %v", p.Err)
		}
		fmt.Fprintf(&b, "  %-20s %8s of %-8s %s\n", p.Name, p.Took.Round(time.Millisecond), p.Budget.Round(time.Millisecond), how)
	}
	for _, p := range r.Parts {
		if p.Goroutines != "" {
			fmt.Fprintf(&b, "\n%s is stuck on:\n%s\n", p.Name, p.Goroutines)
		}
	}
	return b.String()
}

// Close closes the parts, last pushed first, each within its own deadline, longer
// by what ctx has beyond the deadlines of all, and all within ctx. A closer that fails, panics or ignores its context does not
// keep the next from being called. If the parts' deadlines add up to more than
// ctx has left they are shortened in proportion, so that an early part cannot
// use up the time of the later ones. When ctx is cancelled outright the parts
// that have not had their turn are skipped: that is the cut of a second signal.
//
// It may be called again, also at the same time: it then waits for the first
// Close and for closers that were given up, as long as ctx allows, and reports
// how things stand.
func (s *Stack) Close(ctx context.Context) *Report {
	began := time.Now()
	s.mu.Lock()
	first := !s.mu.closing
	if first {
		s.mu.closing = true
		slices.Reverse(s.mu.parts)
		for _, p := range s.mu.parts {
			s.mu.reports = append(s.mu.reports, PartReport{Name: p.name, Skipped: true})
		}
	}
	parts := s.mu.parts // not changed any more
	s.mu.Unlock()

	if first {
		for i := range parts {
			if ctx.Err() != nil {
				break
			}
			s.closePart(ctx, i, parts[i], budget(ctx, parts[i:]))
		}
		close(s.done)
	} else {
		select {
		case <-s.done:
			_ = s.group.Close(ctx) // the report says who has not ended
		case <-ctx.Done():
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return &Report{Parts: slices.Clone(s.mu.reports), Took: time.Since(began)}
}

// closePart gives one part its turn and returns when it has closed or its time
// is up. The goroutine writes the outcome, whenever that is.
func (s *Stack) closePart(whole context.Context, i int, p part, limit time.Duration) {
	// The context ends a little before the time is up: a closer that watches it
	// then still returns in time, and its error says more than "stuck" does.
	ctx, cancel := context.WithTimeout(whole, limit-min(limit/20, maxGrace))
	began := time.Now()
	s.edit(i, func(r *PartReport) { r.Skipped, r.Stuck, r.Budget = false, true, limit })
	ended := make(chan struct{})
	name := "close " + p.name
	err := s.group.Go(name, func(context.Context) error {
		defer close(ended)
		defer cancel()
		err := ErrGoexit
		defer func() {
			took := time.Since(began)
			s.edit(i, func(r *PartReport) { r.Stuck, r.Goroutines, r.Err, r.Took = false, "", err, took })
		}()
		err = Call(p.name, func() error { return p.close(ctx) })
		return nil
	})
	if err != nil { // invariant: the group is closed after the last part only
		cancel()
		s.edit(i, func(r *PartReport) { r.Stuck, r.Err = false, err })
		return
	}
	up := time.NewTimer(limit)
	defer up.Stop()
	select {
	case <-ended:
		return
	case <-up.C:
	case <-whole.Done():
	}
	stacks := goroutinesNamed(name)
	s.edit(i, func(r *PartReport) {
		if r.Stuck {
			r.Took, r.Goroutines = time.Since(began), stacks
		}
	})
}

const maxGrace = 100 * time.Millisecond

func (s *Stack) edit(i int, fn func(*PartReport)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fn(&s.mu.reports[i])
}

// budget is how long the first of parts may take, given what the whole has left
// for all of them: its own deadline, and what the others' deadlines leave over. A
// part without a deadline of its own counts with an equal share.
func budget(ctx context.Context, parts []part) time.Duration {
	own := parts[0].deadline
	end, ok := ctx.Deadline()
	if !ok {
		if own == 0 {
			return DefaultPartTime
		}
		return own
	}
	left := max(time.Until(end), 0)
	share := left / time.Duration(len(parts))
	want, all := own, time.Duration(0)
	if want == 0 {
		want = share
	}
	for _, p := range parts {
		if p.deadline == 0 {
			all += share
		} else {
			all += p.deadline
		}
	}
	if all <= left || all == 0 {
		return want + max(left-all, 0)
	}
	return time.Duration(float64(want) * (float64(left) / float64(all)))
}
