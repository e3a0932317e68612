package dispatcher

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

// What a group is refused for may be the place of one of them.
func TestAPlaceThatIsRefusedIsNotThatOfItsNeighbours(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		first := w.put("p", "a", "b")
		both := make(chan struct{})
		w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { <-both; return nil }})
		bad := w.subscribe("p", "a", mq.Position{ID: "\x00", Timestamp: first.Timestamp}, &recorder{})
		var b recorder
		good := w.subscribe("p", "b", first, &b)
		synctest.Wait()
		if n := len(w.m.Consumers()); n != 1 {
			t.Fatalf("the story needs a group, there are %d consumers", n)
		}
		close(both)
		w.in(bad, Failed)
		w.in(good, Tailing)
		if !errclass.Is(bad.Err(), errclass.Invalid) {
			t.Errorf("%v", bad.Err())
		}
		w.put("p", "b")
		w.got(&b, "p", "b", first)
	})
}

// Nor is what a neighbour has lost.
func TestAPlaceThatIsTrimmedIsLostByThoseBeforeIt(t *testing.T) {
	var lost []string
	o := Options{OnPositionGone: SkipToOldest, Events: Events{PositionLost: func(id ID, _ mq.Position, _ error) { lost = append(lost, id.VChannel) }}}
	inBubble(t, o, func(w *world) {
		early := w.put("p", "")
		late := w.put("p", "", "", "")
		w.put("p", "a", "b")
		both := make(chan struct{})
		w.q.SetHooks(mqtest.Hooks{BeforeBounds: func(context.Context, string) error { <-both; return nil }})
		var a, b recorder
		ha, hb := w.subscribe("p", "a", early, &a), w.subscribe("p", "b", late, &b)
		synctest.Wait()
		w.must(w.q.Trim(w.ctx, "p", late))
		close(both)
		w.in(ha, Tailing)
		w.in(hb, Tailing)
		w.got(&b, "p", "b", late)
		if !slices.Equal(lost, []string{"a"}) {
			t.Errorf("lost is the place of %q, want that of a", lost)
		}
	})
}

// A queue that has messages for longer than a call may take, each after some time, and looks
// at no context, does not hang.
func TestReadingForLongIsNotHanging(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		w.put("p", repeat(200, "a")...)
		w.q.SetHooks(mqtest.Hooks{BeforeNext: func(context.Context, string) error { time.Sleep(100 * time.Millisecond); return nil }})
		var a recorder
		h := w.subscribe("p", "a", mq.Position{}, &a)
		time.Sleep(30 * time.Second)
		w.q.SetHooks(mqtest.Hooks{})
		w.in(h, Tailing)
		w.got(&a, "p", "a", mq.Position{})
		if st := w.m.Stats(); st.Leaks != 0 || st.Rebuilds != 0 {
			t.Errorf("%+v", st)
		}
	})
}

// Where the actor comes late, calls do as well.
func TestABusyMachineGetsMoreTime(t *testing.T) {
	const grace = 2 * time.Second
	var s stall
	at := time.Now()
	for _, step := range []struct{ later, late time.Duration }{
		{time.Second, 0}, {time.Second, 0}, {1800 * time.Millisecond, 800 * time.Millisecond},
		{time.Second, 400 * time.Millisecond}, {1100 * time.Millisecond, 200 * time.Millisecond}, {100 * time.Millisecond, 100 * time.Millisecond},
	} {
		at = at.Add(step.later)
		if s.look(at, grace); s.late != step.late {
			t.Errorf("%s later: late by %s, want %s", step.later, s.late, step.late)
		}
	}
}
