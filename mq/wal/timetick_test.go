package wal

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func ticking(q mq.Queue) Options {
	o := quiet(q)
	o.TimeTickInterval = 200 * time.Millisecond
	return o
}

func ticksIn(t *testing.T, q *mqtest.Memory) (ticks []Entry, rest int) {
	t.Helper()
	for _, m := range q.Messages(topic) {
		e, err := Decode(m)
		if err != nil {
			t.Fatal(err)
		}
		if e.Type != TimeTick {
			rest++
			continue
		}
		if e.VChannel != "" {
			t.Fatalf("a timetick is for %q only", e.VChannel)
		}
		ticks = append(ticks, e)
	}
	return ticks, rest
}

func TestATimetickComesEveryInterval(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		w := openReady(t, ticking(q))
		time.Sleep(time.Second + time.Millisecond)
		synctest.Wait()
		ticks, _ := ticksIn(t, q)
		if len(ticks) != 6 { // one at once
			t.Fatalf("%d timeticks", len(ticks))
		}
		if w.LastTimestamp() != ticks[5].Timestamp || w.Stats().Ticks != 6 {
			t.Fatalf("stats %+v", w.Stats())
		}
		mustClose(t, w)
	})
}

func TestATimetickIsAboveAllThatCameBeforeIt(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		opened := time.Now()
		w := openReady(t, ticking(q))
		for range 50 {
			mustAppend(t, w, "x")
			time.Sleep(17 * time.Millisecond)
		}
		var last uint64
		lastTick := opened
		for _, m := range q.Messages(topic) {
			if m.Timestamp <= last {
				t.Fatalf("%d after %d", m.Timestamp, last)
			}
			last = m.Timestamp
			if e, _ := Decode(m); e.Type == TimeTick {
				lastTick = Time(m.Timestamp)
			} else if late := Time(m.Timestamp).Sub(lastTick); late > 200*time.Millisecond {
				t.Fatalf("no timetick for %s", late)
			}
		}
		mustClose(t, w)
	})
}

func TestADueTimetickGoesWithTheBatch(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		var calls []int
		hold := time.Second
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(_ context.Context, _ string, msgs []mq.Message) error {
			calls = append(calls, len(msgs))
			time.Sleep(hold)
			return nil
		}})
		w := openReady(t, ticking(q))
		as := appendMany(w, 10)
		for _, a := range as {
			<-a.done
		}
		time.Sleep(200 * time.Millisecond)
		as = appendMany(w, 10)
		for _, a := range as {
			<-a.done
		}
		mustClose(t, w)
		if ticks, rest := ticksIn(t, q); len(ticks) < 2 || rest != 20 {
			t.Fatalf("%d timeticks, %d entries in %v", len(ticks), rest, calls)
		}
		if len(calls) > 5 {
			t.Fatalf("calls: %v", calls)
		}
	})
}

func TestATimetickThatIsRefusedIsToldAndTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		told := 0
		o := ticking(q)
		o.Events.TickFailed = func(string, error) { told++ }
		w := openReady(t, o)
		synctest.Wait()
		q.SetHooks(mqtest.Hooks{BeforeAppend: func(context.Context, string, []mq.Message) error {
			return errclass.New(errclass.Exhausted, "disk full")
		}})
		time.Sleep(time.Second)
		synctest.Wait()
		if told == 0 || w.Stats().TickErrors != uint64(told) {
			t.Fatalf("told %d, stats %+v", told, w.Stats())
		}
		wantState(t, w, Ready)
		q.SetHooks(mqtest.Hooks{})
		time.Sleep(200 * time.Millisecond)
		synctest.Wait()
		if ticks, _ := ticksIn(t, q); len(ticks) != 2 {
			t.Fatalf("%d timeticks", len(ticks))
		}
		mustClose(t, w)
	})
}

func TestAnIdleOwnerLearnsThatItIsFenced(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		old := openReady(t, ticking(q))
		synctest.Wait()
		o := ticking(q)
		o.Term = 2
		young := openReady(t, o)
		within(t, 200*time.Millisecond, func() { <-old.Done() })
		wantState(t, old, Fenced)
		mustClose(t, old)
		mustClose(t, young)
		nothingOpen(t, q)
	})
}
