package pool

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
)

func TestCloseOfAnIdlePoolAndAgain(t *testing.T) {
	p := open(t, Options{Workers: 1})
	closeInTime(t, p)
	closeInTime(t, p)
	_, err := p.Submit(context.Background(), Task{Name: "late", Run: nothing})
	isErr(t, err, ErrClosed)
	if !errclass.Is(err, errclass.Closed) || p.Stats().Rejected.Closed != 1 {
		t.Fatalf("class %v, stats %+v", errclass.Of(err), p.Stats())
	}
}

func TestCloseAnswersTheQueuedAndCancelsTheRunning(t *testing.T) {
	p := open(t, Options{Workers: 1})
	running := make(chan struct{})
	first := submit(t, p, Task{Name: "running", Run: func(ctx context.Context) error { close(running); return untilCancelled(ctx) }})
	<-running
	b, err := p.SubmitAll(context.Background(), Task{Name: "queued 1", Run: nothing}, Task{Name: "queued 2", Run: nothing})
	if err != nil {
		t.Fatal(err)
	}
	closeInTime(t, p)
	isErr(t, wait(t, first), ErrClosed, context.Canceled)
	<-b.Done()
	for _, err := range b.errs() {
		isErr(t, err, ErrClosed)
	}
	if s := p.Stats(); s.Cancelled != 2 || s.Failed != 1 {
		t.Fatalf("stats %+v", s)
	}
}

func TestCloseMeetsItsDeadlineAndNamesWhatDidNotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Name: "search", Workers: 2})
		if err != nil {
			t.Fatal(err)
		}
		a, b := newPlug(), newPlug()
		fa, fb := submit(t, p, Task{Name: "segment 7", Run: a.run}), submit(t, p, Task{Name: "segment 3", Run: b.run})
		synctest.Wait()
		began := time.Now()
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
		defer cancel()
		err = p.Close(ctx)
		isErr(t, err, context.DeadlineExceeded)
		if took := time.Since(began); took != 3*time.Second || !strings.Contains(err.Error(), `["segment 3" "segment 7"]`) {
			t.Fatalf("after %v: %v", took, err)
		}
		close(a.free)
		close(b.free)
		closeInTime(t, p) // a later Close waits on, and finds them gone
		for _, f := range []*Future{fa, fb} {
			if err := f.Wait(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	})
}

func TestCloseWhileManySubmit(t *testing.T) {
	for round := range 20 {
		p := open(t, Options{Workers: 3, QueueLen: 8})
		var answered, admitted atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for {
					f, err := p.Submit(context.Background(), Task{Name: fmt.Sprint(i), Run: nothing})
					if errors.Is(err, ErrClosed) {
						return
					}
					if errors.Is(err, ErrQueueFull) {
						continue
					}
					admitted.Add(1)
					if err := f.Wait(context.Background()); err != nil && !errors.Is(err, ErrClosed) {
						t.Errorf("round %d: %v", round, err)
					}
					answered.Add(1)
				}
			})
		}
		for admitted.Load() < 50 {
			if err := wait(t, submitRetry(t, p)); err != nil {
				t.Fatal(err)
			}
		}
		for range 3 {
			wg.Go(func() { closeInTime(t, p) })
		}
		wg.Wait()
		if admitted.Load() != answered.Load() {
			t.Fatalf("%d admitted, %d answered", admitted.Load(), answered.Load())
		}
	}
}

func submitRetry(t *testing.T, p *Pool) *Future {
	t.Helper()
	for {
		f, err := p.Submit(context.Background(), Task{Name: "retry", Run: nothing})
		if err == nil {
			return f
		}
		isErr(t, err, ErrQueueFull)
	}
}
