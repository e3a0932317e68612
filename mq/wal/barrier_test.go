package wal

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestABarrierIsAWriteThatNobodyReads(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		r := mustAppend(t, w, "a")
		if err := w.Barrier().Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		stored := q.Messages(topic)
		e, err := Decode(stored[len(stored)-1])
		if err != nil || e.Type != Fence || e.VChannel == "" || e.VChannel == "v1" {
			t.Fatalf("a barrier wrote %+v, %v", e, err)
		}
		if at := w.LastOf("v1"); at != r.Timestamp {
			t.Errorf("the barrier moved LastOf to %d, the entry is at %d", at, r.Timestamp)
		}
		if s := w.Stats(); s.Fences != 1 || s.Ticks != 0 || w.LastTimestamp() != e.Timestamp {
			t.Errorf("stats %+v", s)
		}
		mustClose(t, w)
	})
}

func TestLastOfCoversEarlierOwners(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		r := mustAppend(t, w, "a")
		mustClose(t, w)
		w = openReady(t, quiet(q))
		if at := w.LastOf("v1"); at < r.Timestamp {
			t.Errorf("after another run LastOf is %d, the entry is at %d", at, r.Timestamp)
		}
		mustClose(t, w)
	})
}

// gate holds appends at a hook.
type gate struct{ held, open chan struct{} }

func newGate() *gate { return &gate{held: make(chan struct{}, 100), open: make(chan struct{})} }

func (g *gate) wait() {
	g.held <- struct{}{}
	<-g.open
}

func TestBarriersThatWaitShareOneWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		g := newGate()
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { g.wait(); return nil }})
		var all sync.WaitGroup
		barrier := func() {
			if err := w.Barrier().Wait(context.Background()); err != nil {
				t.Error(err)
			}
		}
		all.Go(barrier)
		<-g.held
		for range 100 {
			all.Go(barrier)
		}
		synctest.Wait()
		close(g.open)
		all.Wait()
		if n := w.Stats().Fences; n != 2 {
			t.Errorf("101 barriers, of which 100 waited, took %d writes", n)
		}
		mustClose(t, w)
	})
}

func TestADueTimetickServesBarriers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, ticking(q))
		synctest.Wait()
		g := newGate()
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { g.wait(); return nil }})
		a := appendLater(context.Background(), w, "a")
		<-g.held
		time.Sleep(time.Second) // a timetick is due
		b := w.Barrier()
		close(g.open)
		<-a.done
		if err := b.Wait(context.Background()); err != nil {
			t.Fatal(err)
		}
		if s := w.Stats(); s.Fences != 0 || s.Ticks < 2 {
			t.Errorf("stats %+v", s)
		}
		mustClose(t, w)
	})
}

// TestABarrierIsNotServedByAnEarlierWrite: a write that was stored before the
// barrier began proves nothing, also if its answer comes after that.
func TestABarrierIsNotServedByAnEarlierWrite(t *testing.T) {
	bubble(t, func(t *testing.T) {
		broker := mqtest.NewBroker(mqtest.MemoryOptions{})
		old := openReady(t, quiet(broker.Connect()))
		g := newGate()
		broker.SetHooks(mqtest.Hooks{AfterAppend: func(context.Context, string, []mq.Position) error { g.wait(); return nil }})
		a := appendLater(context.Background(), old, "a")
		<-g.held
		broker.SetHooks(mqtest.Hooks{})
		o := quiet(broker.Connect())
		o.Term = 2
		next := openReady(t, o)
		mustAppend(t, next, "b")
		b := old.Barrier()
		close(g.open)
		if err := b.Wait(context.Background()); !errors.Is(err, mq.ErrFenced) {
			t.Errorf("a barrier of an owner that was replaced: %v", err)
		}
		if err := old.Barrier().Wait(context.Background()); !errors.Is(err, mq.ErrFenced) || !errclass.Is(err, errclass.Fenced) {
			t.Errorf("a barrier after that: %v", err)
		}
		<-a.done
		mustClose(t, old)
		mustClose(t, next)
	})
}

func TestABarrierEndsWithItsContextAndWithTheWAL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(ctx context.Context, _ string, _ []mq.Message) error { <-ctx.Done(); return ctx.Err() }})
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		taken := w.Barrier()
		wantClass(t, taken.Wait(ctx), errclass.Retryable)
		waits := w.Barrier()
		mustClose(t, w)
		for _, b := range []Barrier{taken, waits, w.Barrier()} {
			wantClass(t, b.Wait(context.Background()), errclass.Closed)
		}
	})
}

func TestAFullQueueFailsABarrierAndNoMore(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, quiet(q))
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error {
			return errclass.New(errclass.Exhausted, "full")
		}})
		wantClass(t, w.Barrier().Wait(context.Background()), errclass.Exhausted)
		q.SetHooks(mqtest.Hooks{})
		if err := w.Barrier().Wait(context.Background()); err != nil {
			t.Error(err)
		}
		mustClose(t, w)
	})
}

// TestAnEntryThatIsTooLargeDoesNotFailABarrier that shares its batch.
func TestAnEntryThatIsTooLargeDoesNotFailABarrier(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{MaxPayloadBytes: 100})
		w := openReady(t, quiet(q))
		g := newGate()
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error { g.wait(); return nil }})
		first := appendLater(context.Background(), w, "a")
		<-g.held
		large := appendLater(context.Background(), w, string(make([]byte, 1000)))
		synctest.Wait()
		b := w.Barrier()
		close(g.open)
		if err := b.Wait(context.Background()); err != nil {
			t.Error(err)
		}
		<-first.done
		<-large.done
		if !errors.Is(large.err, mq.ErrTooLarge) {
			t.Errorf("the large one: %v", large.err)
		}
		mustClose(t, w)
	})
}

// TestLogsThatShareAClock: what is appended after something was acknowledged has
// the later timestamp, also on another pchannel and while the wall clock stands.
func TestLogsThatShareAClock(t *testing.T) {
	q := mqtest.NewMemory(mqtest.MemoryOptions{})
	clock, stands := &Clock{}, time.Now()
	var ws []*WAL
	for _, name := range []string{"p1", "p2", "p3"} {
		o := quiet(q)
		o.PChannel, o.Clock, o.Now = name, clock, func() time.Time { return stands }
		ws = append(ws, openReady(t, o))
	}
	var last uint64
	for i := range 30 {
		r := mustAppend(t, ws[(i*7)%3], "a")
		if r.Timestamp <= last {
			t.Fatalf("%d after %d", r.Timestamp, last)
		}
		last = r.Timestamp
	}
	for _, w := range ws {
		mustClose(t, w)
	}
}
