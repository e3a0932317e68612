package pool

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/cockroachdb/errors"
)

func TestRunReportsEachTasksErrorInItsPlace(t *testing.T) {
	p := open(t, Options{Workers: 2})
	boom := errors.New("boom")
	errs, err := p.Run(context.Background(),
		Task{Name: "a", Run: nothing},
		Task{Name: "b", Run: func(context.Context) error { return boom }},
		Task{Name: "c", Run: func(context.Context) error { panic("c") }},
		Task{Name: "d", Run: nothing})
	if err != nil || errs[0] != nil || errs[3] != nil {
		t.Fatalf("%v, %v", errs, err)
	}
	isErr(t, errs[1], boom)
	var pe *PanicError
	if !errors.As(errs[2], &pe) {
		t.Fatalf("got %v", errs[2])
	}
	if errs, err := p.Run(context.Background()); len(errs) != 0 || err != nil {
		t.Fatalf("a batch of nothing: %v, %v", errs, err)
	}
}

func TestABatchIsAdmittedWholeOrNotAtAll(t *testing.T) {
	p := open(t, Options{Workers: 1, QueueLen: 4, MaxCost: 10})
	batch := func(n int, cost int64) []Task {
		tasks := make([]Task, n)
		for i := range tasks {
			tasks[i] = Task{Name: fmt.Sprint("t", i), Cost: cost, Run: nothing}
		}
		return tasks
	}
	ctx := context.Background()
	release := occupy(t, p)
	waiting := submit(t, p, Task{Name: "waits", Cost: 1, Run: nothing})
	errs, err := p.Run(ctx, batch(4, 0)...)
	isErr(t, err, ErrQueueFull)
	if errs != nil || p.Stats().Submitted != 2 {
		t.Fatalf("part of a refused batch got in: %v %+v", errs, p.Stats())
	}
	_, err = p.Run(ctx, batch(2, 5)...)
	isErr(t, err, ErrQueueFull)
	release()
	if err := wait(t, waiting); err != nil {
		t.Fatal(err)
	}
	// Larger than both bounds, but the pool is empty: it would never run otherwise.
	errs, err = p.Run(ctx, batch(50, 3)...)
	if err != nil || len(errs) != 50 || errors.Join(errs...) != nil {
		t.Fatalf("%v, %v", errs, err)
	}
}

func TestRunReturnsWithItsContextAndNamesWhatStillRuns(t *testing.T) {
	p := open(t, Options{Workers: 1})
	ctx, cancel := context.WithCancel(context.Background())
	pl := newPlug()
	b, err := p.SubmitAll(ctx, Task{Name: "stubborn", Run: pl.run}, Task{Name: "queued", Run: nothing})
	if err != nil {
		t.Fatal(err)
	}
	<-pl.running
	cancel()
	err = b.Wait(ctx)
	isErr(t, err, ErrUnfinished, context.Canceled)
	if !strings.Contains(err.Error(), "stubborn") || strings.Contains(err.Error(), "queued") {
		t.Fatalf("%v must name the task that runs and no other", err)
	}
	errs := b.errs()
	isErr(t, errs[0], ErrUnfinished)
	isErr(t, errs[1], ErrExpired, context.Canceled)
	close(pl.free)
	<-b.Done()
	if errs := b.errs(); errs[0] != nil {
		t.Fatal(errs[0])
	}
}

func TestRunEndsWithItsContextWhenItsTasksDo(t *testing.T) {
	p := open(t, Options{Workers: 2})
	ctx, cancel := context.WithCancel(context.Background())
	stop := func(ctx context.Context) error { cancel(); return untilCancelled(ctx) }
	b, err := p.SubmitAll(ctx, Task{Name: "a", Run: stop}, Task{Name: "b", Run: untilCancelled})
	if err != nil {
		t.Fatal(err)
	}
	<-b.Done()
	for _, err := range b.errs() {
		isErr(t, err, context.Canceled)
	}
	if err := b.Wait(ctx); err != nil {
		t.Fatalf("all have answered, so the wait is over: %v", err)
	}
}
