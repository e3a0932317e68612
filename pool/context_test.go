package pool

import (
	"context"
	"testing"

	"github.com/cockroachdb/errors"
)

type keptKey struct{}

func TestATaskContextIsDerivedOnlyWhenSomebodyWaits(t *testing.T) {
	parent, cancel := context.WithCancel(context.WithValue(t.Context(), keptKey{}, "kept"))
	defer cancel()
	p := open(t, Options{Workers: 1})

	var kept context.Context
	f, err := p.Submit(parent, Task{Name: "asks", Run: func(ctx context.Context) error {
		kept = ctx
		if ctx.Err() != nil || ctx.Value(keptKey{}) != "kept" {
			t.Errorf("error %v, value %v", ctx.Err(), ctx.Value(keptKey{}))
		}
		return nil
	}})
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Wait(parent); err != nil {
		t.Fatal(err)
	}
	if c := kept.(*taskCtx); c.derived.Load() != nil {
		t.Error("a context was derived for a task that did not wait")
	}
	// Somebody kept the context of a task that has ended.
	if !errors.Is(kept.Err(), context.Canceled) {
		t.Errorf("after the task: %v", kept.Err())
	}
	<-kept.Done()
	if !errors.Is(kept.Err(), context.Canceled) {
		t.Errorf("after the task, derived: %v", kept.Err())
	}
}

func TestATaskContextEndsWithTheSubmitters(t *testing.T) {
	for _, wait := range []bool{true, false} {
		cause := errors.New("the client left")
		parent, cancel := context.WithCancelCause(t.Context())
		c := &taskCtx{Context: parent, pool: &Pool{}}
		if wait {
			_ = c.Done()
		}
		child, stop := context.WithCancel(c)
		defer stop()
		cancel(cause)
		<-child.Done()
		if !errors.Is(c.Err(), context.Canceled) || !errors.Is(context.Cause(c), cause) || !errors.Is(context.Cause(child), cause) {
			t.Errorf("waited %t: %v because of %v", wait, c.Err(), context.Cause(c))
		}
	}
}

func TestATaskContextTellsTheCauseOfItsEnd(t *testing.T) {
	c := &taskCtx{Context: t.Context(), pool: &Pool{}}
	c.end(ErrClosed)
	<-c.Done()
	if !errors.Is(c.Err(), context.Canceled) || context.Cause(c) != ErrClosed {
		t.Errorf("%v because of %v", c.Err(), context.Cause(c))
	}
	c.finish()
	if context.Cause(c) != ErrClosed {
		t.Errorf("after finish: %v", context.Cause(c))
	}
}
