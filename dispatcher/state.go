package dispatcher

import (
	"github.com/querynode/querynode/internal/errclass"
)

// State is where a subscription is in its life; see the drawing in doc.go.
type State uint8

// The states of a subscription. Closed and Failed are final.
const (
	Subscribing State = iota
	CatchingUp
	Tailing
	Lagging
	Draining
	Closed
	Failed
	numStates
)

var stateNames = [numStates]string{
	"subscribing", "catching_up", "tailing", "lagging", "draining", "closed", "failed",
}

// String returns the name used in logs and metrics.
func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return "unknown"
}

// Final reports whether a subscription stays in s for ever.
func (s State) Final() bool { return s == Closed || s == Failed }

// legal[from] is the set of states that may follow from.
var legal = [numStates][numStates]bool{
	Subscribing: {CatchingUp: true, Tailing: true, Draining: true, Failed: true},
	CatchingUp:  {Tailing: true, Lagging: true, Draining: true, Failed: true},
	Tailing:     {Lagging: true, Draining: true, Failed: true},
	Lagging:     {CatchingUp: true, Tailing: true, Draining: true, Failed: true},
	Draining:    {Closed: true, Failed: true},
}

// move is the only transition function: it returns the state after trying to
// go from one to another, and an error of class Conflict, with the state
// unchanged, when there is no such edge.
func move(from, to State) (State, error) {
	if from < numStates && to < numStates && legal[from][to] {
		return to, nil
	}
	return from, errclass.New(errclass.Conflict, "dispatcher: no transition from %s to %s", from, to)
}
