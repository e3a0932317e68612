package lifecycle

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

// at returns a machine that has been brought to s along the drawing.
func at(t *testing.T, s State) *Machine {
	t.Helper()
	m := NewMachine()
	for next := Recovering; next <= s; next++ {
		if err := m.To(next, "test"); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestEveryEdge(t *testing.T) {
	legal := map[[2]State]bool{
		{Starting, Recovering}: true, {Starting, Stopping}: true,
		{Recovering, Serving}: true, {Recovering, Stopping}: true,
		{Serving, Draining}: true, {Serving, Stopping}: true,
		{Draining, Stopping}: true,
		{Stopping, Stopped}:  true,
	}
	for from := range states {
		for to := range states + 1 { // one more than there are
			m := at(t, from)
			err := m.To(to, "test")
			if legal[[2]State{from, to}] {
				if err != nil || m.State() != to {
					t.Errorf("%s to %s: %v, now %s", from, to, err, m.State())
				}
			} else if !errclass.Is(err, errclass.Conflict) || m.State() != from {
				t.Errorf("%s to %s must be refused: %v, now %s", from, to, err, m.State())
			}
		}
	}
}

func TestLiveReadyAndDrainingAreDifferentAnswers(t *testing.T) {
	for s, want := range map[State][4]bool{
		Starting:   {true, false, false, false},
		Recovering: {true, false, false, false},
		Serving:    {true, true, false, true},
		Draining:   {true, false, true, true},
		Stopping:   {true, false, true, false},
		Stopped:    {false, false, false, false},
	} {
		if got := [4]bool{s.Live(), s.Ready(), s.Draining(), s.Accepts()}; got != want {
			t.Errorf("%s: live, ready, draining, accepts = %v, want %v", s, got, want)
		}
	}
}

func TestAWatcherThatNeverReadsMissesNothingAndBlocksNobody(t *testing.T) {
	m := NewMachine()
	now, changes, cancel := m.Watch()
	_, cancelled, stop := m.Watch()
	stop()
	stop() // again is harmless
	for next := Recovering; next <= Stopped; next++ {
		if err := m.To(next, "because"); err != nil {
			t.Fatal(err)
		}
	}
	for c := range changes {
		if c.From != now || c.To != now+1 || c.Reason != "because" {
			t.Fatalf("%+v after %s", c, now)
		}
		now = c.To
	}
	if now != Stopped || len(m.History()) != 5 {
		t.Fatalf("saw up to %s, history %v", now, m.History())
	}
	cancel()
	if _, open := <-cancelled; open {
		t.Fatal("a cancelled watcher was told")
	}
	if s, ch, _ := m.Watch(); s != Stopped {
		t.Fatal(s)
	} else if _, open := <-ch; open {
		t.Fatal("nothing comes after Stopped")
	}
}
