package dispatcher

import (
	"testing"

	"github.com/querynode/querynode/internal/errclass"
)

func TestEveryTransition(t *testing.T) {
	type edge struct{ from, to State }
	legalEdges := map[edge]bool{}
	for from, tos := range map[State][]State{
		Subscribing: {CatchingUp, Tailing, Draining, Failed},
		CatchingUp:  {Tailing, Lagging, Draining, Failed},
		Tailing:     {Lagging, Draining, Failed},
		Lagging:     {CatchingUp, Tailing, Draining, Failed},
		Draining:    {Closed, Failed},
	} {
		for _, to := range tos {
			legalEdges[edge{from, to}] = true
		}
	}
	for from := range numStates + 1 {
		for to := range numStates + 1 {
			got, err := move(from, to)
			if legalEdges[edge{from, to}] {
				if err != nil || got != to {
					t.Errorf("%s -> %s: %s, %v", from, to, got, err)
				}
			} else if !errclass.Is(err, errclass.Conflict) || got != from {
				t.Errorf("%s -> %s must be refused, got %s, %v", from, to, got, err)
			}
		}
	}
}

func TestStateNames(t *testing.T) {
	seen := map[string]bool{}
	for s := range numStates + 1 {
		if seen[s.String()] || s.String() == "" {
			t.Errorf("state %d has the name %q", s, s)
		}
		seen[s.String()] = true
		if s < numStates && s.Final() != (s == Closed || s == Failed) {
			t.Errorf("%s final: %v", s, s.Final())
		}
	}
}
