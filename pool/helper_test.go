package pool

import (
	"context"
	"testing"
	"time"

	"github.com/cockroachdb/errors"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

// open returns a pool that is closed, and checked to hold nothing, at the end of the test.
func open(t testing.TB, opts Options) *Pool {
	t.Helper()
	p, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		closeInTime(t, p)
		s := p.Stats()
		if s.Queued != 0 || s.Running != 0 || s.CostInUse != 0 {
			t.Errorf("after Close: %+v", s)
		}
		checkBooks(t, s)
	})
	return p
}

// checkBooks checks that each admitted task is counted in exactly one place.
func checkBooks(t testing.TB, s Stats) {
	t.Helper()
	ended := s.Completed + s.Failed + s.Panicked + s.Goexited + s.Expired + s.Cancelled
	if s.Submitted != ended+uint64(s.Queued+s.Running) {
		t.Errorf("%d submitted but %d ended, %d queued, %d running", s.Submitted, ended, s.Queued, s.Running)
	}
}

func closeInTime(t testing.TB, p *Pool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := p.Close(ctx); err != nil {
		t.Errorf("Close: %v", err)
	}
}

func submit(t testing.TB, p *Pool, task Task) *Future {
	t.Helper()
	return submitCtx(t, context.Background(), p, task)
}

func submitCtx(t testing.TB, ctx context.Context, p *Pool, task Task) *Future {
	t.Helper()
	f, err := p.Submit(ctx, task)
	if err != nil {
		t.Fatalf("submit %s: %v", task.Name, err)
	}
	return f
}

func wait(t testing.TB, f *Future) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	err := f.Wait(ctx)
	if errors.Is(err, ErrUnfinished) {
		t.Fatal(err)
	}
	return err
}

// isErr fails unless err is each of the targets.
func isErr(t testing.TB, err error, targets ...error) {
	t.Helper()
	for _, target := range targets {
		if !errors.Is(err, target) {
			t.Fatalf("got error %v, want one that is %v", err, target)
		}
	}
}

func nothing(context.Context) error { return nil }

// untilCancelled is a task that does what a task must: end with its context.
func untilCancelled(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

// plug is a task that ignores its context until released, and a way to know that it runs.
type plug struct{ running, free chan struct{} }

func newPlug() *plug { return &plug{make(chan struct{}), make(chan struct{})} }

func (p *plug) run(context.Context) error {
	close(p.running)
	<-p.free
	return nil
}

// occupy fills one worker with a task that stays until the returned func is called.
func occupy(t testing.TB, p *Pool) (release func()) {
	t.Helper()
	pl := newPlug()
	f := submit(t, p, Task{Name: "occupier", Run: pl.run})
	<-pl.running
	return func() {
		t.Helper()
		close(pl.free)
		if err := wait(t, f); err != nil {
			t.Fatal(err)
		}
	}
}

// errs returns each task's error in its place.
func (b *Batch) errs() []error {
	errs := make([]error, len(b.futures))
	for i := range b.futures {
		errs[i] = b.Err(i)
	}
	return errs
}
