package wal

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// hangs are the places where a queue, or a callback, may stop for ever. Each
// says what Close reports, and the state the WAL is in when it is stuck there.
var hangs = []struct {
	name   string
	state  State
	report string
	arm    func(o *Options, h *mqtest.Hooks, s *stalled)
}{
	{"open producer", Opening, "open producer", func(_ *Options, h *mqtest.Hooks, s *stalled) {
		h.BeforeOpenProducer = func(ctx context.Context, _ string, _ mq.ProducerOptions) error { return s.wait(ctx) }
	}},
	{"bounds", Opening, "bounds", func(_ *Options, h *mqtest.Hooks, s *stalled) {
		h.BeforeBounds = func(ctx context.Context, _ string) error { return s.wait(ctx) }
	}},
	{"open reader", Opening, "open reader", func(_ *Options, h *mqtest.Hooks, s *stalled) {
		h.BeforeOpenReader = func(ctx context.Context, _ string, _ mq.ReaderOptions) error { return s.wait(ctx) }
	}},
	{"next", Recovering, "read", func(_ *Options, h *mqtest.Hooks, s *stalled) {
		h.BeforeNext = func(ctx context.Context, _ string) error { return s.wait(ctx) }
	}},
	{"replay", Recovering, "recovery", func(o *Options, _ *mqtest.Hooks, s *stalled) {
		o.Replay = func(ctx context.Context, _ Entry) error { return s.wait(ctx) }
	}},
	{"save checkpoint", Recovering, "recovery", func(o *Options, _ *mqtest.Hooks, s *stalled) {
		o.CheckpointEvery = 1
		o.SaveCheckpoint = func(ctx context.Context, _ mq.Position) error { return s.wait(ctx) }
	}},
	{"append", Ready, "append", func(_ *Options, h *mqtest.Hooks, s *stalled) {
		h.BeforeAppend = func(ctx context.Context, _ string, _ []mq.Message) error { return s.wait(ctx) }
	}},
	{"append when stored", Ready, "append", func(_ *Options, h *mqtest.Hooks, s *stalled) {
		h.AfterAppend = func(ctx context.Context, _ string, _ []mq.Position) error { return s.wait(ctx) }
	}},
}

// seeded returns a queue whose topic holds five entries.
func seeded(t *testing.T) *mqtest.Memory {
	t.Helper()
	q := mqtest.NewMemory(mqtest.MemoryOptions{})
	w := openReady(t, quiet(q))
	for i := range 5 {
		mustAppend(t, w, fmt.Sprint("old", i))
	}
	mustClose(t, w)
	return q
}

// The original bug: a close in a state where appends wait for recovery, and
// recovery for something that hangs. Here for each thing that can hang.
func TestCloseIsBoundedWhereverTheQueueHangs(t *testing.T) {
	for _, hang := range hangs {
		for _, obedient := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, obedient=%v", hang.name, obedient), func(t *testing.T) {
				bubble(t, func(t *testing.T) {
					q, s := seeded(t), newStalled(obedient)
					o, h := quiet(q), mqtest.Hooks{}
					o.CloseTimeout = 2 * time.Second
					o.OpenTimeout, o.AppendTimeout = time.Hour, time.Hour
					hang.arm(&o, &h, s)
					q.SetHooks(h)
					closeWhileStuck(t, q, o, s, hang.state, hang.report)
				})
			})
		}
	}
}

func closeWhileStuck(t *testing.T, q *mqtest.Memory, o Options, s *stalled, state State, report string) {
	t.Helper()
	w := mustOpen(t, o)
	as := appendMany(w, 100)
	synctest.Wait()
	wantState(t, w, state)
	start := time.Now()
	err := w.Close(context.Background())
	took := time.Since(start)
	synctest.Wait()
	for _, a := range as {
		if !isClosed(a.done) {
			t.Fatal("an append still waits after Close")
		}
		wantClass(t, a.err, errclass.Closed)
	}
	if s.obedient {
		if err != nil || took != 0 {
			t.Fatalf("close took %s: %v", took, err)
		}
	} else {
		if took != o.CloseTimeout || !containsText(err, `"`+report+`"`) {
			t.Fatalf("close took %s, %q is not reported: %v", took, report, err)
		}
		wantState(t, w, Closing)
		if report == "recovery" {
			nothingOpen(t, q) // a callback that hangs does not keep the topic
		}
	}
	close(s.free)
	mustClose(t, w)
	if !isClosed(w.Done()) {
		t.Fatal("Done is open after Close")
	}
	nothingOpen(t, q)
}

func TestCloseReportsAProducerThatDoesNotClose(t *testing.T) {
	for _, obedient := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			q, s := seeded(t), newStalled(obedient)
			w := openReady(t, quiet(q))
			synctest.Wait()
			q.SetHooks(mqtest.Hooks{BeforeClose: func(ctx context.Context, _ string) error { return s.wait(ctx) }})
			within(t, w.o.CloseTimeout, func() {
				if err := w.Close(context.Background()); !containsText(err, "close producer") {
					t.Fatalf("close: %v", err)
				}
			})
			close(s.free)
			_ = w.Close(context.Background())
			wantState(t, w, Closed)
		})
	}
}

func TestAReaderThatDoesNotCloseDelaysNothingButClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := seeded(t), newStalled(false)
		q.SetHooks(mqtest.Hooks{BeforeClose: func(ctx context.Context, what string) error {
			if what == "reader "+topic+"/wal" {
				return s.wait(ctx)
			}
			return nil
		}})
		w := openReady(t, quiet(q))
		mustAppend(t, w, "x")
		if err := w.Close(context.Background()); !containsText(err, "close reader") {
			t.Fatalf("close: %v", err)
		}
		close(s.free)
		if err := w.Close(context.Background()); !containsText(err, "freed") {
			t.Fatalf("the failure to close is not reported: %v", err)
		}
	})
}

func TestCloseEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := seeded(t), newStalled(false)
		o := quiet(q)
		o.Replay = func(ctx context.Context, _ Entry) error { return s.wait(ctx) }
		w := mustOpen(t, o)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		within(t, time.Millisecond, func() { wantClass(t, w.Close(ctx), errclass.Retryable) })
		close(s.free)
		mustClose(t, w)
	})
}

func TestWhatComesAfterTheEndIsClosedWhereItComes(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, late := seeded(t), make(chan struct{})
		q.SetHooks(mqtest.Hooks{BeforeOpenProducer: func(context.Context, string, mq.ProducerOptions) error {
			<-late // and then open all the same
			return nil
		}})
		w := mustOpen(t, quiet(q))
		synctest.Wait()
		if err := w.Close(context.Background()); !containsText(err, "open producer") {
			t.Fatalf("close: %v", err)
		}
		close(late)
		mustClose(t, w)
		nothingOpen(t, q)
	})
}

func TestCloseFromManyGoroutinesAtOnceInEveryState(t *testing.T) {
	for _, state := range allStates {
		t.Run(state.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				q, s := seeded(t), newStalled(true)
				w := inState(t, q, s, state)
				var wg sync.WaitGroup
				for range 20 {
					wg.Go(func() {
						if err := w.Close(context.Background()); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				mustClose(t, w)
				_, err := w.Append(context.Background(), insert("x"))
				want := errclass.Closed
				if state == Fenced {
					want = errclass.Fenced
				}
				wantClass(t, err, want)
				if w.Ready(context.Background()) == nil || w.Err() == nil {
					t.Fatal("a closed WAL is ready")
				}
				nothingOpen(t, q)
			})
		})
	}
}

// inState returns a WAL that has got to state by what happens outside.
func inState(t *testing.T, q *mqtest.Memory, s *stalled, state State) *WAL {
	t.Helper()
	o := quiet(q)
	stop := func(ctx context.Context) error { return s.wait(ctx) }
	switch state {
	case Opening:
		q.SetHooks(mqtest.Hooks{BeforeBounds: func(ctx context.Context, _ string) error { return stop(ctx) }})
	case Recovering:
		o.Replay = func(ctx context.Context, _ Entry) error { return stop(ctx) }
	case Failed:
		q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { return errors.New("no") }})
	}
	w := mustOpen(t, o)
	synctest.Wait()
	switch state {
	case Fenced:
		other := quiet(q)
		other.Term = 2
		mustClose(t, openReady(t, other))
		_, err := w.Append(context.Background(), insert("x"))
		wantClass(t, err, errclass.Fenced)
	case Closing:
		w.transition(Closing, nil) // the reaper goes on to Closed by itself
		return w
	case Closed:
		mustClose(t, w)
	}
	wantState(t, w, state)
	return w
}

func TestReadyEndsWithTheCaller(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := seeded(t), newStalled(true)
		w := inState(t, q, s, Recovering)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := w.Ready(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("ready: %v", err)
		}
		_, err := w.Append(ctx, insert("x"))
		if !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, mq.ErrUnknownOutcome) {
			t.Fatalf("append: %v", err)
		}
		wantState(t, w, Recovering) // the caller's end is not the recovery's
		mustClose(t, w)
	})
}

func TestTrim(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q, s := seeded(t), newStalled(false)
		w := openReady(t, quiet(q))
		r := mustAppend(t, w, "x")
		if err := w.Trim(context.Background(), r.Position); err != nil {
			t.Fatal(err)
		}
		if n := len(q.Messages(topic)); n != 1 {
			t.Fatalf("%d messages left", n)
		}
		q.SetHooks(mqtest.Hooks{BeforeTrim: func(ctx context.Context, _ string, _ mq.Position) error { return s.wait(ctx) }})
		trimmed := make(chan error)
		go func() { trimmed <- w.Trim(context.Background(), r.Position) }()
		synctest.Wait()
		if err := w.Close(context.Background()); !containsText(err, `"trim"`) {
			t.Fatalf("close: %v", err)
		}
		if err := <-trimmed; err == nil {
			t.Fatal("a trim that hangs has succeeded")
		}
		close(s.free)
		mustClose(t, w)
		wantClass(t, w.Trim(context.Background(), r.Position), errclass.Closed)
	})
}
