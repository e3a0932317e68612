package dispatcher

import (
	"testing"
	"time"

	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

func TestAStallExcusesWhatHadNoChance(t *testing.T) {
	const grace = 2 * time.Second
	var s stall
	at := time.Now()
	for _, step := range []struct {
		later   time.Duration
		excused bool
	}{
		{time.Second, false}, {time.Second, false}, // as planned
		{10 * time.Second, true},         // stopped
		{100 * time.Millisecond, true},   // the tick that was held back
		{time.Second, true},              // the calls have had a second
		{time.Second, false},             // and now two
		{1900 * time.Millisecond, false}, // late, as a busy machine is
	} {
		at = at.Add(step.later)
		if got := s.look(at, grace); got != step.excused {
			t.Errorf("%s later: excused %v, want %v", step.later, got, step.excused)
		}
	}
}

// TestAStoppedProcessHasNoLeaks: a poll whose end falls into the time in which
// the process stood still is not a leak; one that hangs afterwards is.
func TestAStoppedProcessHasNoLeaks(t *testing.T) {
	inBubble(t, Options{}, func(w *world) {
		h := w.subscribe("p", "a", mq.Position{}, &recorder{})
		w.in(h, Tailing)
		a := w.m.mu.actors["p"]
		stopped := make(chan struct{})
		hooks, release := hanging("next")
		w.q.SetHooks(hooks)
		time.Sleep(2 * time.Second)
		a.post(func() { <-stopped }) // the actor stands still as well
		time.Sleep(10 * time.Second)
		w.q.SetHooks(mqtest.Hooks{})
		release()
		close(stopped)
		time.Sleep(10 * time.Second)
		if st := w.m.Stats(); st.Leaks != 0 {
			t.Errorf("%+v", st)
		}
		w.in(h, Tailing)
		hooks, release = hanging("next")
		w.q.SetHooks(hooks)
		time.Sleep(20 * time.Second)
		if st := w.m.Stats(); st.Leaks == 0 {
			t.Errorf("a reader that hangs is not seen: %+v", st)
		}
		w.q.SetHooks(mqtest.Hooks{})
		release()
	})
}
