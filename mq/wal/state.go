package wal

import (
	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// State is where a WAL is in its life; doc.go has the drawing.
type State uint8

// The states.
const (
	Opening    State = iota // taking the topic and finding its end
	Recovering              // replaying
	Ready                   // appends are written
	Closing                 // Close was called; something may still be running
	Closed                  // nothing is left
	Fenced                  // a newer owner has the topic
	Failed                  // something else went wrong; Err tells what
)

// String returns the state's name as used in logs and metrics.
func (s State) String() string {
	switch s {
	case Opening:
		return "opening"
	case Recovering:
		return "recovering"
	case Ready:
		return "ready"
	case Closing:
		return "closing"
	case Closed:
		return "closed"
	case Fenced:
		return "fenced"
	case Failed:
		return "failed"
	}
	return "unknown"
}

// alive reports whether the WAL serves or is on its way to.
func (s State) alive() bool { return s <= Ready }

// legal is the table of edges.
func legal(from, to State) bool {
	switch from {
	case Opening:
		return to == Recovering || to == Closing || to == Fenced || to == Failed
	case Recovering:
		return to == Ready || to == Closing || to == Fenced || to == Failed
	case Ready:
		return to == Closing || to == Fenced || to == Failed
	case Fenced, Failed:
		return to == Closing
	case Closing:
		return to == Closed
	}
	return false
}

// Sentinels; appends return them wrapped. Being fenced is mq.ErrFenced.
var (
	// ErrClosed: the WAL is closing or closed.
	ErrClosed = errclass.Mark(errors.New("wal: closed"), errclass.Closed)
	// ErrFailed: the WAL has failed; its owner opens a new one.
	ErrFailed = errclass.Mark(errors.New("wal: failed"), errclass.Retryable)
)

// transition moves the WAL to state to and does what belongs to the move. It
// reports false, and does nothing, if the edge is not legal from the state that
// the WAL is in: of two that race, such as the end of recovery and Close, one
// loses, and the loser has nothing left to do.
func (w *WAL) transition(to State, cause error) bool {
	w.mu.Lock()
	from := w.mu.state
	if !legal(from, to) {
		w.mu.Unlock()
		return false
	}
	w.mu.state = to
	if w.mu.cause == nil {
		w.mu.cause = cause
	}
	// A channel is closed once: there is one way into Ready, and over tells for done.
	if to == Ready {
		close(w.ready)
	}
	if !w.mu.over && (to == Closed || to == Fenced || to == Failed) {
		w.mu.over = true
		close(w.done)
	}
	w.mu.Unlock()

	if from.alive() && !to.alive() {
		w.leave()
	}
	said := []any{"from", from.String(), "to", to.String()}
	if cause != nil {
		said = append(said, "cause", cause)
	}
	w.log.Info("wal state", said...)
	w.emit(func(ev Events) {
		if ev.StateChanged != nil {
			ev.StateChanged(w.o.PChannel, from, to, cause)
		}
	})
	return true
}

// leave ends the service: refuse, close the closing channel, cancel, answer.
func (w *WAL) leave() {
	err := w.refusal()
	waiting := w.pending.close()
	close(w.closing)
	w.cancel()
	for _, r := range waiting {
		r.answer(Receipt{}, err)
	}
	if r := w.pending.takeRound(); r != nil {
		r.answer(err)
	}
	w.count.refused.Add(uint64(len(waiting)))
}

// fail moves to the state that err asks for.
func (w *WAL) fail(err error) {
	if errors.Is(err, mq.ErrFenced) {
		w.transition(Fenced, err)
		return
	}
	w.transition(Failed, err)
}

// refusal is what an append gets that was never handed to the queue. It must
// not carry an ErrUnknownOutcome of the append that made the WAL fail: the
// outcome of this one is known.
func (w *WAL) refusal() error {
	w.mu.Lock()
	state, cause := w.mu.state, w.mu.cause
	w.mu.Unlock()
	switch {
	case state == Fenced || errors.Is(cause, mq.ErrFenced):
		return errors.Wrapf(mq.ErrFenced, "wal %s term %d", w.o.PChannel, w.o.Term)
	case state == Failed:
		return errors.Wrapf(ErrFailed, "%v", cause)
	case cause != nil: // who closes it may be about to open it anew
		return errors.Wrapf(ErrClosed, "wal %s has failed, %v", w.o.PChannel, cause)
	}
	return errors.Wrapf(ErrClosed, "wal %s", w.o.PChannel)
}
