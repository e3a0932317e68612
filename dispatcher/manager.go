package dispatcher

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// Manager owns all consumers of a node. Create it with New, end it with Close.
// All methods are safe for concurrent use.
//
// Lock order: Manager.mu before subscription.mu. register.mu, slots.mu, pump.mu
// and entry.mu are leaves. None is held across I/O or a wait.
type Manager struct {
	o        Options
	group    *lifecycle.Group
	closing  chan struct{} // closed when Close begins
	register register
	slots    slots
	buffered atomic.Int64 // bytes, over all subscriptions
	count    counters

	mu struct {
		sync.Mutex
		closing bool
		actors  map[string]*actor
		subs    map[string]*subscription // by vchannel
		last    uint64                   // registration number
	}
}

// New returns a running Manager. It opens nothing until the first Subscribe.
func New(o Options) (*Manager, error) {
	o.EnsureDefaults()
	if err := o.Validate(); err != nil {
		return nil, err
	}
	m := &Manager{o: o, closing: make(chan struct{})}
	m.group = lifecycle.NewGroup(context.Background(), func(name string, err error) {
		if err != nil {
			m.o.Logger.Error("goroutine ended", "name", name, "err", err)
		}
	})
	m.register.init(o.Name)
	m.slots.init(o.MaxCatchUp)
	m.mu.actors = map[string]*actor{}
	m.mu.subs = map[string]*subscription{}
	return m, nil
}

func (m *Manager) isClosing() bool {
	select {
	case <-m.closing:
		return true
	default:
		return false
	}
}

// Subscribe begins to deliver a vchannel's messages to its sink. It returns as
// soon as the subscription is registered; opening a reader goes on in the
// background, and what comes of it shows in the handle's State, Done and Err.
//
// A vchannel that is subscribed gives class Exists; one that has Failed may be
// subscribed again. After Close the class is Closed.
func (m *Manager) Subscribe(ctx context.Context, sub Subscription) (*Handle, error) {
	if err := sub.validate(); err != nil {
		return nil, err
	}
	s, err := m.admit(sub)
	if err != nil {
		return nil, errors.Wrapf(err, "subscribe %s on %s", sub.VChannel, sub.PChannel)
	}
	defer m.release(s.actor)
	if err := s.actor.ask(ctx, func() { s.actor.add(s) }); err != nil {
		m.forget(s)
		return nil, errors.Wrapf(err, "subscribe %s", sub.VChannel)
	}
	return &Handle{s: s}, nil
}

// admit registers sub and makes sure that its pchannel has an actor, which
// will not retire before release.
func (m *Manager) admit(sub Subscription) (*subscription, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.closing {
		return nil, errclass.New(errclass.Closed, "the dispatcher is closed")
	}
	if old := m.mu.subs[sub.VChannel]; old != nil && !old.over() {
		return nil, errclass.New(errclass.Exists, "already subscribed as registration %d on %s", old.id.Registration, old.id.PChannel)
	}
	a := m.mu.actors[sub.PChannel]
	if a == nil {
		a = newActor(m, sub.PChannel)
		if err := m.group.Go("dispatcher of "+sub.PChannel, a.run); err != nil {
			return nil, err
		}
		m.mu.actors[sub.PChannel] = a
	}
	a.pending++
	m.mu.last++
	s := &subscription{
		m: m, actor: a, sink: sub.Sink, since: time.Now(), place: sub.From, latest: sub.Latest,
		id:   ID{PChannel: sub.PChannel, VChannel: sub.VChannel, Registration: m.mu.last},
		done: make(chan struct{}), task: "sink of " + sub.VChannel,
	}
	s.run = s.apply
	s.mu.pos = sub.From
	m.mu.subs[sub.VChannel] = s
	return s, nil
}

// release allows the actor to retire again.
func (m *Manager) release(a *actor) {
	m.mu.Lock()
	a.pending--
	m.mu.Unlock()
	select {
	case a.wake <- struct{}{}: // it may have waited for this
	default:
	}
}

// retire takes an actor that has nothing to do off the map, unless a command is under way.
func (m *Manager) retire(a *actor) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if a.pending > 0 {
		return false
	}
	delete(m.mu.actors, a.pchannel)
	return true
}

// forget removes s from the index, unless its vchannel has a newer one.
func (m *Manager) forget(s *subscription) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.subs[s.id.VChannel] == s {
		delete(m.mu.subs, s.id.VChannel)
	}
}

// Unsubscribe ends the subscription behind h: nothing more is delivered, a
// running Apply may end (its context is cancelled after Options.DrainTimeout),
// buffered messages are dropped. It waits, until ctx ends, for that and for the
// consumer's Close if nobody else uses it; after an error both go on in the
// background. A stale handle is a no-op, whoever holds the vchannel now.
func (m *Manager) Unsubscribe(ctx context.Context, h *Handle) error {
	if h == nil || h.s.m != m {
		return nil
	}
	s := h.s
	var closing *consumer
	if m.pin(s) {
		err := s.actor.ask(ctx, func() { closing = s.actor.endSub(s) })
		m.release(s.actor)
		if err != nil && !errclass.Is(err, errclass.Closed) {
			return errors.Wrapf(err, "unsubscribe %s", s.id.VChannel)
		}
	}
	select {
	case <-s.done:
	case <-ctx.Done():
		return errors.Wrapf(ctx.Err(), "unsubscribe %s: its sink has not returned", s.id.VChannel)
	}
	m.forget(s)
	if closing == nil {
		return nil
	}
	select {
	case <-closing.gone:
	case <-ctx.Done():
		return errors.Wrapf(ctx.Err(), "unsubscribe %s: consumer %s has not closed", s.id.VChannel, closing.entry.name)
	}
	if closing.entry.isLeaked() {
		return errclass.New(errclass.Retryable, "unsubscribe %s: consumer %s did not close", s.id.VChannel, closing.entry.name)
	}
	return nil
}

// pin keeps the actor of a subscription that has not ended from retiring.
func (m *Manager) pin(s *subscription) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.mu.subs[s.id.VChannel] != s || m.mu.actors[s.id.PChannel] != s.actor {
		return false
	}
	s.actor.pending++
	return true
}

func (m *Manager) snapshot() []*subscription {
	m.mu.Lock()
	defer m.mu.Unlock()
	subs := make([]*subscription, 0, len(m.mu.subs))
	for _, s := range m.mu.subs {
		subs = append(subs, s)
	}
	return subs
}

// Consumers lists the register, oldest first: everything that is, or may be,
// open at the broker. It asks no actor, so it answers when all is stuck.
func (m *Manager) Consumers() []ConsumerInfo {
	now := time.Now()
	attached := map[uint64][]string{}
	for _, s := range m.snapshot() {
		if id := s.info(now).Consumer; id != 0 {
			attached[id] = append(attached[id], s.id.VChannel)
		}
	}
	infos := []ConsumerInfo{}
	for _, e := range m.register.list() {
		i := e.info(now)
		i.VChannels = sorted(attached[e.id])
		infos = append(infos, i)
	}
	return infos
}

// CloseError names what did not stop in time. Its class is Retryable: Close may
// be called again to wait longer.
type CloseError struct {
	Consumers  []string // still in the register
	Sinks      []string // vchannels whose Apply has not returned
	Goroutines []string // all that still run, these included
}

// Error lists the names.
func (e *CloseError) Error() string {
	return fmt.Sprintf("dispatcher: not stopped: consumers %q, sinks %q, goroutines %q", e.Consumers, e.Sinks, e.Goroutines)
}

// Close refuses new subscriptions, ends all there are and closes every consumer
// explicitly. It waits until ctx ends, at most some seconds (the sum of
// DrainTimeout, CloseTimeout and twice HangGrace), and returns a *CloseError
// when something has not stopped by then. It may be called in any state, from
// any goroutine, and again.
func (m *Manager) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, m.o.stopBudget())
	defer cancel()
	m.mu.Lock()
	if !m.mu.closing {
		m.mu.closing = true
		close(m.closing)
	}
	actors := make([]*actor, 0, len(m.mu.actors))
	for _, a := range m.mu.actors {
		actors = append(actors, a)
	}
	m.mu.Unlock()
	for _, a := range actors {
		select {
		case <-a.done:
		case <-ctx.Done():
		}
	}
	groupErr := m.group.Close(ctx)
	left := &CloseError{}
	for _, e := range m.register.list() {
		left.Consumers = append(left.Consumers, e.name)
	}
	for _, s := range m.snapshot() {
		select {
		case <-s.done:
			m.forget(s)
		default:
			left.Sinks = append(left.Sinks, s.id.VChannel)
		}
	}
	if groupErr == nil && len(left.Consumers)+len(left.Sinks) == 0 {
		return nil
	}
	slices.Sort(left.Sinks)
	left.Goroutines = m.group.Running()
	return errclass.Mark(left, errclass.Retryable)
}
