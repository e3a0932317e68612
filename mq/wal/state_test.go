package wal

import (
	"context"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/mqtest"
)

var allStates = []State{Opening, Recovering, Ready, Closing, Closed, Fenced, Failed}

// ways lead a new WAL to each state.
var ways = map[State][]State{
	Opening: nil, Recovering: {Recovering}, Ready: {Recovering, Ready}, Closing: {Closing},
	Closed: {Closing, Closed}, Fenced: {Fenced}, Failed: {Failed},
}

// drawing is what doc.go shows.
var drawing = map[State]map[State]bool{
	Opening:    {Recovering: true, Closing: true, Fenced: true, Failed: true},
	Recovering: {Ready: true, Closing: true, Fenced: true, Failed: true},
	Ready:      {Closing: true, Fenced: true, Failed: true},
	Fenced:     {Closing: true},
	Failed:     {Closing: true},
	Closing:    {Closed: true},
	Closed:     {},
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func TestEveryEdgeIsAsDrawn(t *testing.T) {
	for _, from := range allStates {
		for _, to := range allStates {
			t.Run(from.String()+" to "+to.String(), func(t *testing.T) { checkEdge(t, from, to) })
		}
	}
}

func checkEdge(t *testing.T, from, to State) {
	var told []State
	o := quiet(mqtest.NewMemory(mqtest.MemoryOptions{}))
	o.Events.StateChanged = func(_ string, _, to State, _ error) { told = append(told, to) }
	w, err := prepare(o)
	if err != nil {
		t.Fatal(err)
	}
	defer w.cancel()
	for _, s := range ways[from] {
		if !w.transition(s, errors.New("on the way")) {
			t.Fatalf("no way to %s", s)
		}
	}
	told = nil
	moved := w.transition(to, mq.ErrFenced)
	if moved != drawing[from][to] {
		t.Fatalf("moved = %v, the drawing says %v", moved, drawing[from][to])
	}
	now := from
	if moved {
		now = to
	}
	wantState(t, w, now)
	if len(told) != 0 != moved || moved && told[0] != to {
		t.Fatalf("events: %v", told)
	}
	if got, want := isClosed(w.closing), !now.alive(); got != want {
		t.Fatalf("closing channel closed = %v in %s", got, now)
	}
	if got, want := w.ctx.Err() != nil, !now.alive(); got != want {
		t.Fatalf("context ended = %v in %s", got, now)
	}
	if got, want := isClosed(w.done), now == Closed || from == Fenced || from == Failed || now == Fenced || now == Failed; got != want {
		t.Fatalf("done channel closed = %v in %s", got, now)
	}
	if got, want := isClosed(w.ready), now == Ready || from == Ready; got != want {
		t.Fatalf("ready channel closed = %v in %s", got, now)
	}
	if got, want := w.Err() == nil, now.alive(); got != want {
		t.Fatalf("Err() = %v in %s", w.Err(), now)
	}
}

func TestStatesHaveNames(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range allStates {
		if seen[s.String()] || s.String() == "unknown" {
			t.Fatalf("state %d is called %q", s, s)
		}
		seen[s.String()] = true
	}
	if State(99).String() != "unknown" {
		t.Fatal("a state that is none has a name")
	}
}

func TestOnlyOneOfManyRacingMovesWins(t *testing.T) {
	w, err := prepare(quiet(mqtest.NewMemory(mqtest.MemoryOptions{})))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	won := make(chan State, 60)
	for range 20 {
		for _, to := range []State{Closing, Fenced, Failed} {
			wg.Go(func() {
				if w.transition(to, errors.New("x")) {
					won <- to
				}
			})
		}
	}
	wg.Wait()
	close(won)
	n := 0
	for range won {
		n++
	}
	// Closing may follow a Fenced or Failed that won.
	if n > 2 {
		t.Fatalf("%d moves won", n)
	}
}

func TestOptionsProblemsAreToldTogether(t *testing.T) {
	_, err := Open(Options{MaxBatchEntries: -1, CloseTimeout: -1})
	wantClass(t, err, errclass.Invalid)
	for _, want := range []string{"Queue", "PChannel", "MaxBatchEntries", "CloseTimeout"} {
		if !containsText(err, want) {
			t.Errorf("%q is missing in: %v", want, err)
		}
	}
}

func TestAPanickingEventCostsNothing(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		o := quiet(q)
		o.Events.StateChanged = func(string, State, State, error) { panic("event") }
		w := openReady(t, o)
		mustAppend(t, w, "x")
		mustClose(t, w)
	})
}

func TestADeadWorkerFailsTheWAL(t *testing.T) {
	bubble(t, func(t *testing.T) {
		q := mqtest.NewMemory(mqtest.MemoryOptions{})
		o := quiet(q)
		o.Now = func() time.Time { panic("clock") }
		w := openReady(t, o)
		_, err := w.Append(context.Background(), insert("x"))
		if !errors.Is(err, mq.ErrUnknownOutcome) {
			t.Fatalf("append: %v", err)
		}
		synctest.Wait()
		wantState(t, w, Failed)
		wantClass(t, w.Err(), errclass.Panicked)
		mustClose(t, w)
		nothingOpen(t, q)
	})
}

func containsText(err error, s string) bool { return err != nil && strings.Contains(err.Error(), s) }
