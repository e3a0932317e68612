package dispatcher

import (
	"slices"
	"time"

	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// Events are called for what happens, from the Manager's goroutines: they must
// not block and must not call the Manager. A nil one is not called; one that
// panics is recovered and counted.
type Events struct {
	// StateChanged: a subscription went from one state to another; err is set for Failed.
	StateChanged func(id ID, from, to State, err error)
	// ConsumerOpened: a reader is open, reading what comes after from.
	ConsumerOpened func(name, pchannel string, from mq.Position)
	// ConsumerFailed: a reader could not be opened or broke; it is rebuilt after retryIn.
	ConsumerFailed func(name, pchannel string, err error, retryIn time.Duration)
	// ConsumerClosed: a consumer has left the register.
	ConsumerClosed func(name, pchannel string)
	// ConsumerLeaked: a consumer's reader hangs or did not close. It stays in the register.
	ConsumerLeaked func(name, pchannel string, err error)
	// HandedOver: a subscription moved to the shared consumer at this position.
	HandedOver func(id ID, at mq.Position)
	// CorruptSkipped: a stored message that cannot be read was skipped.
	CorruptSkipped func(pchannel string, err *mq.CorruptError)
	// PositionLost: a subscription's place is gone and it goes on at the oldest message.
	PositionLost func(id ID, place mq.Position, err error)
	// SetAside: a message that makes Apply panic was skipped.
	SetAside func(id ID, at mq.Position, err error)
	// SinkRetry: Apply failed and is tried again after wait.
	SinkRetry func(id ID, err error, wait time.Duration)
}

// EnsureDefaults replaces nil funcs by ones that do nothing.
func (e *Events) EnsureDefaults() {
	if e.StateChanged == nil {
		e.StateChanged = func(ID, State, State, error) {}
	}
	if e.ConsumerOpened == nil {
		e.ConsumerOpened = func(string, string, mq.Position) {}
	}
	if e.ConsumerFailed == nil {
		e.ConsumerFailed = func(string, string, error, time.Duration) {}
	}
	if e.ConsumerClosed == nil {
		e.ConsumerClosed = func(string, string) {}
	}
	if e.ConsumerLeaked == nil {
		e.ConsumerLeaked = func(string, string, error) {}
	}
	if e.HandedOver == nil {
		e.HandedOver = func(ID, mq.Position) {}
	}
	if e.CorruptSkipped == nil {
		e.CorruptSkipped = func(string, *mq.CorruptError) {}
	}
	if e.PositionLost == nil {
		e.PositionLost = func(ID, mq.Position, error) {}
	}
	if e.SetAside == nil {
		e.SetAside = func(ID, mq.Position, error) {}
	}
	if e.SinkRetry == nil {
		e.SinkRetry = func(ID, error, time.Duration) {}
	}
}

// fire calls an event so that it can't take one of our goroutines down.
func (m *Manager) fire(event func()) {
	if err := lifecycle.Call("dispatcher event", func() error { event(); return nil }); err != nil {
		m.count.panics.Add(1)
		m.o.Logger.Error("event callback panicked", "err", err)
	}
}

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}
