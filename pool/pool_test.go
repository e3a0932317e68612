package pool

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"
	"golang.org/x/sys/unix"

	"github.com/querynode/querynode/internal/errclass"
)

func TestATaskRunsAndItsErrorArrives(t *testing.T) {
	p := open(t, Options{Workers: 2})
	boom := errors.New("boom")
	if err := wait(t, submit(t, p, Task{Name: "fine", Run: nothing})); err != nil {
		t.Fatal(err)
	}
	isErr(t, wait(t, submit(t, p, Task{Name: "bad", Run: func(context.Context) error { return boom }})), boom)
	if s := p.Stats(); s.Completed != 1 || s.Failed != 1 || s.Wait.Total() != 2 || s.Run.Total() != 2 {
		t.Fatalf("stats %+v", s)
	}
}

func TestAPanicIsAnErrorWithAStackAndTheOnlyWorkerLivesOn(t *testing.T) {
	var log bytes.Buffer
	var seen []*PanicError
	p := open(t, Options{Workers: 1, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		OnPanic: func(pe *PanicError) { seen = append(seen, pe); panic("the observer panics too") }})
	cause := errors.New("the cause")
	err := wait(t, submit(t, p, Task{Name: "search segment 42", Run: func(context.Context) error { panic(cause) }}))
	var pe *PanicError
	if !errors.As(err, &pe) {
		t.Fatalf("got %v, want a *PanicError", err)
	}
	if pe.Task != "search segment 42" || !strings.Contains(string(pe.Stack), "pool_test.go") {
		t.Fatalf("task %q, stack %s", pe.Task, pe.Stack)
	}
	isErr(t, err, cause)
	if !errclass.Is(err, errclass.Panicked) {
		t.Fatalf("class %v", errclass.Of(err))
	}
	if err := wait(t, submit(t, p, Task{Name: "next", Run: nothing})); err != nil {
		t.Fatalf("the worker did not survive: %v", err)
	}
	if s := p.Stats(); s.Panicked != 1 || s.Failed != 0 {
		t.Fatalf("stats %+v", s)
	}
	if len(seen) != 1 || strings.Count(log.String(), "task panicked") != 1 {
		t.Fatalf("observed %d times, log: %s", len(seen), log.String())
	}
}

func TestAPanicErrorThatATaskReturnsIsAFailureNotAPanic(t *testing.T) {
	p := open(t, Options{Workers: 1})
	err := wait(t, submit(t, p, Task{Name: "x", Run: func(context.Context) error { return &PanicError{Task: "x", Value: 1} }}))
	if s := p.Stats(); err == nil || s.Failed != 1 || s.Panicked != 0 {
		t.Fatalf("%v, stats %+v", err, s)
	}
}

func TestGoexitIsAnsweredAndTheSlotGoesOn(t *testing.T) {
	p := open(t, Options{Workers: 1})
	release := occupy(t, p)
	exit := submit(t, p, Task{Name: "exit", Run: func(context.Context) error { runtime.Goexit(); return nil }})
	after := submit(t, p, Task{Name: "after", Run: nothing}) // queued behind it: must not be stranded
	release()
	isErr(t, wait(t, exit), ErrGoexit)
	if err := wait(t, after); err != nil {
		t.Fatal(err)
	}
	for range 100 {
		isErr(t, wait(t, submit(t, p, Task{Name: "exit", Run: func(context.Context) error { runtime.Goexit(); return nil }})), ErrGoexit)
	}
	if s := p.Stats(); s.Goexited != 101 {
		t.Fatalf("stats %+v", s)
	}
}

func TestAFaultInMappedMemoryCostsOneTask(t *testing.T) {
	path := filepath.Join(t.TempDir(), "segment")
	page := os.Getpagesize()
	if err := os.WriteFile(path, make([]byte, 2*page), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	data, err := unix.Mmap(int(file.Fd()), 0, 2*page, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(data) }()
	if err := file.Truncate(0); err != nil { // the file is truncated under the mapping
		t.Fatal(err)
	}
	p := open(t, Options{Workers: 1})
	var sum byte
	err = wait(t, submit(t, p, Task{Name: "scan", Run: func(context.Context) error { sum += data[page]; return nil }}))
	var pe *PanicError
	if !errors.As(err, &pe) {
		t.Fatalf("got %v, want a *PanicError", err)
	}
	if _, ok := pe.Value.(interface{ Addr() uintptr }); !ok {
		t.Fatalf("the value %T has no address", pe.Value)
	}
	if err := wait(t, submit(t, p, Task{Name: "next", Run: nothing})); err != nil {
		t.Fatal(err)
	}
}

func TestTheTaskContextEndsWithTheSubmitters(t *testing.T) {
	p := open(t, Options{Workers: 1})
	ctx, cancel := context.WithCancel(context.WithValue(context.Background(), ctxKey{}, "trace"))
	running := make(chan struct{})
	f := submitCtx(t, ctx, p, Task{Name: "long", Run: func(ctx context.Context) error {
		if ctx.Value(ctxKey{}) != "trace" {
			t.Error("the context lost its values")
		}
		close(running)
		return untilCancelled(ctx)
	}})
	<-running
	cancel()
	isErr(t, wait(t, f), context.Canceled)
	if s := p.Stats(); s.Failed != 1 || s.Expired != 0 {
		t.Fatalf("stats %+v", s)
	}
}

type ctxKey struct{}

func TestAnExpiredTaskNeverRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Workers: 1})
		if err != nil {
			t.Fatal(err)
		}
		release := occupy(t, p)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var ran atomic.Bool
		f := submitCtx(t, ctx, p, Task{Name: "late", Run: func(context.Context) error { ran.Store(true); return nil }})
		time.Sleep(2 * time.Second)
		synctest.Wait()
		release()
		err = wait(t, f)
		isErr(t, err, ErrExpired, context.DeadlineExceeded)
		if ran.Load() || !strings.Contains(err.Error(), "late expired after 2s") {
			t.Fatalf("ran %v, error %v", ran.Load(), err)
		}
		if _, err := p.Submit(ctx, Task{Name: "too late", Run: nothing}); true {
			isErr(t, err, ErrExpired, context.DeadlineExceeded)
		}
		s := p.Stats()
		if s.Expired != 1 || s.Rejected.Expired != 1 {
			t.Fatalf("stats %+v", s)
		}
		checkBooks(t, s)
		closeInTime(t, p)
	})
}

func TestAWaitThatEndsDropsItsQueuedTaskAtOnce(t *testing.T) {
	p := open(t, Options{Workers: 1})
	release := occupy(t, p)
	defer release()
	ctx, cancel := context.WithCancel(context.Background())
	f := submitCtx(t, ctx, p, Task{Name: "queued", Cost: 5, Run: nothing})
	cancel()
	isErr(t, f.Wait(ctx), ErrExpired, context.Canceled)
	if s := p.Stats(); s.Queued != 0 || s.CostInUse != 0 {
		t.Fatalf("it still takes room: %+v", s)
	}
}

func TestAWaitThatEndsLeavesARunningTaskAlone(t *testing.T) {
	p := open(t, Options{Workers: 1})
	pl := newPlug()
	f := submit(t, p, Task{Name: "slow", Run: pl.run})
	<-pl.running
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := f.Wait(ctx)
	isErr(t, err, ErrUnfinished, context.Canceled)
	if !strings.Contains(err.Error(), "slow") {
		t.Fatalf("%v does not name the task", err)
	}
	close(pl.free)
	if err := wait(t, f); err != nil {
		t.Fatal(err)
	}
}

func TestAFullQueueIsAnErrorWithARetryHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, err := New(Options{Name: "search", Workers: 1, QueueLen: 2})
		if err != nil {
			t.Fatal(err)
		}
		f := submit(t, p, Task{Name: "teaches the rate", Run: func(context.Context) error { time.Sleep(time.Second); return nil }})
		if err := wait(t, f); err != nil {
			t.Fatal(err)
		}
		release := occupy(t, p)
		submit(t, p, Task{Name: "1", Run: nothing})
		submit(t, p, Task{Name: "2", Run: nothing})
		_, err = p.Submit(context.Background(), Task{Name: "3", Run: nothing})
		isErr(t, err, ErrQueueFull)
		if !errclass.Is(err, errclass.Exhausted) || !errclass.Of(err).Retry() {
			t.Fatalf("class %v", errclass.Of(err))
		}
		if after, ok := RetryAfter(err); !ok || after != 4*time.Second {
			t.Fatalf("retry after %v, want 4s: the running one, two queued and this one at a second each", after)
		}
		release()
		synctest.Wait()
		if s := p.Stats(); s.Rejected.Full != 1 || s.Completed != 4 {
			t.Fatalf("stats %+v", s)
		}
		closeInTime(t, p)
	})
}

func TestCostBoundsAdmissionToo(t *testing.T) {
	p := open(t, Options{Workers: 2, MaxCost: 100})
	pl := newPlug()
	f := submit(t, p, Task{Name: "big", Cost: 70, Run: pl.run})
	<-pl.running
	_, err := p.Submit(context.Background(), Task{Name: "second", Cost: 31, Run: nothing})
	isErr(t, err, ErrQueueFull)
	var full *FullError
	if !errors.As(err, &full) || full.Resource != "cost" || full.Used != 70 || full.Asked != 31 {
		t.Fatalf("%+v", full)
	}
	if err := wait(t, submit(t, p, Task{Name: "fits", Cost: 30, Run: nothing})); err != nil {
		t.Fatal(err)
	}
	_, err = p.Submit(context.Background(), Task{Name: "never", Cost: 101, Run: nothing})
	isErr(t, err, ErrTooCostly)
	if errclass.Of(err).Retry() {
		t.Fatal("retrying cannot help")
	}
	close(pl.free)
	if err := wait(t, f); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.CostInUse != 0 || s.Rejected.Cost != 2 {
		t.Fatalf("stats %+v", s)
	}
}

func TestTheDeadDoNotKeepTheLivingOut(t *testing.T) {
	p := open(t, Options{Workers: 1, QueueLen: 1})
	release := occupy(t, p)
	ctx, cancel := context.WithCancel(context.Background())
	dead := submitCtx(t, ctx, p, Task{Name: "dead", Run: nothing})
	cancel()
	alive := submit(t, p, Task{Name: "alive", Run: nothing})
	isErr(t, wait(t, dead), ErrExpired)
	release()
	if err := wait(t, alive); err != nil {
		t.Fatal(err)
	}
}

func TestNestedUseIsAnErrorNotADeadlock(t *testing.T) {
	p, q := open(t, Options{Name: "p", Workers: 1}), open(t, Options{Name: "q", Workers: 1})
	other := submit(t, p, Task{Name: "other", Run: nothing})
	try := func(ctx context.Context) error {
		if _, err := p.Submit(ctx, Task{Name: "inner", Run: nothing}); !errors.Is(err, ErrNested) {
			return errors.Newf("Submit: %v", err)
		}
		if _, err := p.Run(ctx, Task{Name: "inner", Run: nothing}); !errors.Is(err, ErrNested) {
			return errors.Newf("Run: %v", err)
		}
		if err := other.Wait(ctx); !errors.Is(err, ErrNested) {
			return errors.Newf("Wait: %v", err)
		}
		if err := p.Close(ctx); !errors.Is(err, ErrNested) {
			return errors.Newf("Close: %v", err)
		}
		return nil
	}
	if err := wait(t, submit(t, p, Task{Name: "outer", Run: try})); err != nil {
		t.Fatal(err)
	}
	through := func(ctx context.Context) error { // p -> q -> p is the same deadlock
		errs, err := q.Run(ctx, Task{Name: "in q", Run: try})
		return errors.CombineErrors(err, errs[0])
	}
	if err := wait(t, submit(t, p, Task{Name: "outer", Run: through})); err != nil {
		t.Fatal(err)
	}
	if s := p.Stats(); s.Rejected.Nested != 4 {
		t.Fatalf("stats %+v", s)
	}
}

func TestUrgentGoesFirstButNobodyStarves(t *testing.T) {
	p := open(t, Options{Workers: 1, QueueLen: 100})
	release := occupy(t, p)
	var order []string // one worker: no two tasks append at a time
	add := func(name string, lane Lane) *Future {
		return submit(t, p, Task{Name: name, Lane: lane, Run: func(context.Context) error { order = append(order, name); return nil }})
	}
	last := []*Future{add("n1", Normal), add("n2", Normal)}
	for i := range 20 {
		last = append(last, add(fmt.Sprint("u", i), Urgent))
	}
	release()
	for _, f := range last {
		if err := wait(t, f); err != nil {
			t.Fatal(err)
		}
	}
	if order[0] != "u0" || order[7] != "n1" || order[15] != "n2" || order[21] != "u19" {
		t.Fatalf("order %v", order)
	}
}

func TestBadTasksAndOptionsAreRefused(t *testing.T) {
	p := open(t, Options{Workers: 1})
	for _, task := range []Task{{Name: "no Run"}, {Name: "lane", Lane: 9, Run: nothing}} {
		if _, err := p.Submit(context.Background(), task); !errclass.Is(err, errclass.Invalid) {
			t.Fatalf("%s: %v", task.Name, err)
		}
	}
	_, err := New(Options{Workers: -1, QueueLen: -2, MaxCost: -3})
	for _, part := range []string{"Workers is -1", "QueueLen is -2", "MaxCost is -3"} {
		if !errclass.Is(err, errclass.Invalid) || !strings.Contains(err.Error(), part) {
			t.Fatalf("%v does not say %q", err, part)
		}
	}
}

func TestTenThousandTasksOfAllKinds(t *testing.T) {
	const n, workers = 10_000, 4
	p := open(t, Options{Workers: workers, QueueLen: n})
	var now, peak, runs atomic.Int64
	futures := make([]*Future, n)
	for i := range futures {
		futures[i] = submit(t, p, Task{Name: fmt.Sprint("task ", i), Cost: int64(i % 3), Lane: Lane(i % 2), Run: func(context.Context) error {
			c := now.Add(1)
			defer now.Add(-1)
			for old := peak.Load(); c > old && !peak.CompareAndSwap(old, c); old = peak.Load() {
			}
			runs.Add(1)
			switch i % 10 {
			case 0:
				panic(i)
			case 1:
				runtime.Goexit()
			case 2:
				return errors.Newf("failed")
			}
			return nil
		}})
	}
	for i, f := range futures {
		err := wait(t, f)
		if (err != nil) != (i%10 <= 2) {
			t.Fatalf("task %d: %v", i, err)
		}
	}
	s := p.Stats()
	if runs.Load() != n || peak.Load() > workers || s.Panicked != n/10 || s.Goexited != n/10 || s.Failed != n/10 || s.Completed != n*7/10 {
		t.Fatalf("%d runs, at most %d at a time, %+v", runs.Load(), peak.Load(), s)
	}
}

func BenchmarkSubmitWait(b *testing.B) {
	p := open(b, Options{})
	ctx := context.Background()
	b.ReportAllocs()
	for b.Loop() {
		f, err := p.Submit(ctx, Task{Name: "bench", Run: nothing})
		if err != nil {
			b.Fatal(err)
		}
		if err := f.Wait(ctx); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSubmitWaitParallel(b *testing.B) {
	p := open(b, Options{QueueLen: 4096})
	b.ReportAllocs()
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		ctx := context.Background()
		for pb.Next() {
			f, err := p.Submit(ctx, Task{Name: "bench", Run: nothing})
			if err != nil {
				b.Fatal(err)
			}
			if err := f.Wait(ctx); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkRunBatchOf16(b *testing.B) {
	p := open(b, Options{})
	ctx := context.Background()
	tasks := make([]Task, 16)
	for i := range tasks {
		tasks[i] = Task{Name: "bench", Run: nothing}
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Run(ctx, tasks...); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRefusal(b *testing.B) {
	p := open(b, Options{Workers: 1, QueueLen: -1})
	release := occupy(b, p)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Submit(context.Background(), Task{Name: "bench", Run: nothing}); err == nil {
			b.Fatal("admitted")
		}
	}
	release()
}
