package lifecycle

import (
	"slices"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/errclass"
)

// State is where the node is in its life. The zero State is Starting.
type State uint8

// The states, in the order of a whole life. The drawing is in the package comment.
const (
	Starting   State = iota // building its parts
	Recovering              // replaying, loading: alive, not yet ready
	Serving                 // ready
	Draining                // not ready any more, still answers until the endpoint is gone
	Stopping                // refuses requests, finishes what runs, closes its parts
	Stopped                 // nothing is left
	states
)

var stateNames = [states]string{"Starting", "Recovering", "Serving", "Draining", "Stopping", "Stopped"}

// String returns the state's name.
func (s State) String() string {
	if s < states {
		return stateNames[s]
	}
	return "unknown"
}

// Live reports that the process must not be restarted.
func (s State) Live() bool { return s < Stopped }

// Ready reports that new requests should be sent here.
func (s State) Ready() bool { return s == Serving }

// Draining reports that the node is going away.
func (s State) Draining() bool { return s == Draining || s == Stopping }

// Accepts reports that a request that arrives is answered. It outlives Ready:
// clients learn of the drain later than the node does.
func (s State) Accepts() bool { return s == Serving || s == Draining }

// canGo is the transition function: every legal edge, and no other.
func canGo(from, to State) bool {
	switch from {
	case Starting:
		return to == Recovering || to == Stopping
	case Recovering:
		return to == Serving || to == Stopping
	case Serving:
		return to == Draining || to == Stopping
	case Draining:
		return to == Stopping
	case Stopping:
		return to == Stopped
	}
	return false
}

// Change is one transition.
type Change struct {
	From, To State
	Reason   string
	At       time.Time
}

// Machine holds the node's state. Create it with NewMachine; it needs no Close.
type Machine struct {
	mu struct {
		sync.Mutex
		state    State
		history  []Change
		watchers map[chan Change]struct{}
	}
}

// NewMachine returns a Machine in Starting.
func NewMachine() *Machine {
	m := &Machine{}
	m.mu.watchers = map[chan Change]struct{}{}
	return m
}

// State returns the present state.
func (m *Machine) State() State {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.mu.state
}

// History returns every change so far, oldest first.
func (m *Machine) History() []Change {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.mu.history)
}

// To moves to another state and tells the watchers; reason is for people. An
// edge that is not in the drawing is an error of class Conflict and changes
// nothing. Of two calls that race for the same edge one gets the error.
func (m *Machine) To(to State, reason string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from := m.mu.state
	if !canGo(from, to) {
		return errclass.New(errclass.Conflict, "node state: cannot go from %s to %s (%s)", from, to, reason)
	}
	c := Change{From: from, To: to, Reason: reason, At: time.Now()}
	m.mu.state = to
	m.mu.history = append(m.mu.history, c)
	for ch := range m.mu.watchers {
		select {
		case ch <- c:
		default: // invariant: never, the buffer holds a whole life
		}
		if to == Stopped {
			close(ch)
		}
	}
	if to == Stopped {
		clear(m.mu.watchers)
	}
	return nil
}

// Watch returns a channel of the changes from now on, and the state they start
// from. Its buffer holds a whole life, so a slow watcher misses nothing and
// blocks nobody. It is closed after the change to Stopped, or by cancel, which
// may be called at any time.
func (m *Machine) Watch() (now State, changes <-chan Change, cancel func()) {
	ch := make(chan Change, states)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.state == Stopped {
		close(ch)
	} else {
		m.mu.watchers[ch] = struct{}{}
	}
	return m.mu.state, ch, func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if _, ok := m.mu.watchers[ch]; ok {
			delete(m.mu.watchers, ch)
			close(ch)
		}
	}
}
