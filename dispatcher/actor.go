package dispatcher

import (
	"context"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// errHung is the failure of a consumer whose queue call ignores its deadline.
var errHung = errclass.Mark(errors.New("dispatcher: queue call hangs"), errclass.Retryable)

// actor decides for one pchannel who reads what for whom. Everything below
// "owned" is touched by its goroutine only, which does no I/O and never waits
// for anything but its next event.
type actor struct {
	m        *Manager
	pchannel string
	events   chan func()
	wake     chan struct{} // capacity 1: a slot was given back
	done     chan struct{} // closed when run returned
	pending  int           // commands under way; guarded by Manager.mu

	// owned
	closing   bool
	subs      map[*subscription]struct{} // not final, or an Apply still runs
	consumers map[*consumer]struct{}     // those that are closing included
	pumps     map[*pump]struct{}         // those that were abandoned included
	shared    *consumer                  // nil = none
	seat      *consumer                  // the one consumer that needs no slot
	waiting   []*subscription            // for a consumer, oldest first
	starting  []*subscription            // appliers to start after this event
	unserved  bool                       // serve after this event
	stall     stall
}

func newActor(m *Manager, pchannel string) *actor {
	return &actor{
		m: m, pchannel: pchannel,
		events: make(chan func(), 64), wake: make(chan struct{}, 1), done: make(chan struct{}),
		subs: map[*subscription]struct{}{}, consumers: map[*consumer]struct{}{}, pumps: map[*pump]struct{}{},
	}
}

// run handles events until the pchannel has nothing left to look after. It
// outlives the group's context: whoever is closing still reports to it.
func (a *actor) run(context.Context) error {
	defer close(a.done)
	watch := time.NewTicker(max(a.m.o.HangGrace/2, time.Millisecond))
	defer watch.Stop()
	closing := a.m.closing
	for {
		select {
		case fn := <-a.events:
			a.do(fn)
		case <-a.wake:
			a.do(a.serve)
		case <-watch.C:
			a.do(a.watch)
		case <-closing:
			closing = nil
			a.do(a.beginClose)
		}
		if len(a.subs)+len(a.consumers)+len(a.pumps) == 0 && a.m.retire(a) {
			return nil
		}
	}
}

// do runs one event. A panic here is a bug of ours: the subscriptions of the
// pchannel fail, which their owners see; the node and other pchannels live on.
func (a *actor) do(fn func()) {
	err := lifecycle.Call("dispatcher of "+a.pchannel, func() error {
		fn()
		// Not earlier: in the middle of delivering a message nobody may join.
		if a.unserved {
			a.unserved = false
			a.serve()
		}
		return nil
	})
	if err != nil {
		a.m.count.panics.Add(1)
		a.m.o.Logger.Error("dispatcher panicked", "pchannel", a.pchannel, "err", err)
		_ = lifecycle.Call("dispatcher of "+a.pchannel+" failing", func() error { a.failAll(err); return nil })
	}
	for _, s := range a.starting {
		a.startApplier(s)
	}
	clear(a.starting)
	a.starting = a.starting[:0]
}

// post sends an event to the actor; dropped once it has ended.
func (a *actor) post(fn func()) {
	select {
	case a.events <- fn:
	case <-a.done:
	}
}

// ask runs fn in the actor and waits for it; it does not run if ctx ends first.
func (a *actor) ask(ctx context.Context, fn func()) error {
	reply := make(chan struct{})
	select {
	case a.events <- func() { defer close(reply); fn() }:
	case <-a.done:
		return errclass.New(errclass.Closed, "dispatcher of %s has ended", a.pchannel)
	case <-ctx.Done():
		return errors.Wrapf(ctx.Err(), "ask the dispatcher of %s", a.pchannel)
	}
	// The actor never waits, so neither do we for long; giving up here would
	// leave the caller not knowing whether fn ran.
	select {
	case <-reply:
	case <-a.done:
	}
	return nil
}

// after posts fn in d. Timers that are pending when the actor ends do nothing.
func (a *actor) after(d time.Duration, fn func()) {
	time.AfterFunc(d, func() { a.post(fn) })
}

// add takes in a new subscription.
func (a *actor) add(s *subscription) {
	a.subs[s] = struct{}{}
	if a.closing {
		a.endSub(s)
		return
	}
	a.enqueue(s)
}

// endSub begins the end of s on request: Draining, then Closed once no Apply
// runs. It returns the consumer that closes with it, nil if that has others.
func (a *actor) endSub(s *subscription) (closing *consumer) {
	if st := s.state(); st.Final() || st == Draining {
		return nil
	}
	a.to(s, Draining, nil)
	a.leaveQueue(s)
	if c := a.detach(s); c != nil && c.stopping {
		closing = c
	}
	if !s.stop() {
		a.finish(s, Closed, nil)
		return closing
	}
	a.after(a.m.o.DrainTimeout, s.cancelApply)
	return closing
}

// fail ends s because of err.
func (a *actor) fail(s *subscription, err error) {
	if s.state().Final() {
		return
	}
	a.leaveQueue(s)
	a.detach(s)
	if s.stop() {
		a.to(s, Failed, err) // applierEnded will finish it
		a.after(a.m.o.DrainTimeout, s.cancelApply)
		return
	}
	a.finish(s, Failed, err)
}

func (a *actor) failAll(err error) {
	for s := range a.subs {
		a.fail(s, err)
	}
}

// failSubs fails the subscriptions of c that which selects.
func (a *actor) failSubs(c *consumer, err error, which func(*subscription) bool) {
	for _, s := range c.subs {
		if which(s) {
			a.fail(s, err)
		}
	}
}

// finish is the last step of s: no Apply runs any more.
func (a *actor) finish(s *subscription, st State, err error) {
	if !s.state().Final() {
		a.to(s, st, err)
	}
	s.cancelApply() // lets go of its context
	delete(a.subs, s)
	if s.state() == Closed {
		a.m.forget(s)
	}
	closeOnce(s.done)
}

// applierEnded: s was stopped and its applier has noticed.
func (a *actor) applierEnded(s *subscription) {
	if _, ok := a.subs[s]; !ok {
		return
	}
	if st := s.state(); st != Draining && !st.Final() {
		a.endSub(s) // the group is closing under us
		return
	}
	a.finish(s, Closed, nil)
}

// sinkFatal: Apply returned an error that no retry helps against.
func (a *actor) sinkFatal(s *subscription, err error) {
	if _, ok := a.subs[s]; !ok {
		return
	}
	err = errors.Wrapf(err, "apply for %s", s.id.VChannel)
	a.m.o.Logger.Error("subscription failed", "id", s.id, "err", err)
	a.leaveQueue(s)
	a.detach(s)
	a.finish(s, Failed, err)
}

// room: the buffer of s is half empty again.
func (a *actor) room(s *subscription) {
	switch c := s.cons; {
	case c == nil:
		a.unserved = true
	case c.pausedBy == s:
		a.resume(c)
	default:
		a.settle(c)
	}
}

// sinkFails: the sink asks for a retry, or no longer does.
func (a *actor) sinkFails(s *subscription, fails bool) {
	s.sinkFailing = fails
	a.restate(s)
}

// to moves s to a state and tells.
func (a *actor) to(s *subscription, to State, err error) {
	s.mu.Lock()
	from := s.mu.state
	next, bad := move(from, to)
	s.mu.state = next
	if bad == nil && err != nil {
		s.mu.err, s.mu.lastErr = err, err
	}
	s.mu.Unlock()
	if bad != nil {
		a.m.count.illegal.Add(1)
		a.m.o.Logger.Error("bug", "id", s.id, "err", bad)
		return
	}
	a.m.o.Logger.Debug("subscription", "id", s.id, "from", from, "to", to)
	a.m.fire(func() { a.m.o.Events.StateChanged(s.id, from, to, err) })
}

// restate derives the state of s from the facts.
func (a *actor) restate(s *subscription) {
	now := s.state()
	if now.Final() || now == Draining || !s.started {
		return
	}
	want := Lagging
	if c := s.cons; c != nil && c.opened && !s.behind && !s.sinkFailing {
		if want = CatchingUp; c.kind == Shared {
			want, s.solo = Tailing, false
		}
	}
	if now == Subscribing && want == Lagging || now == want {
		return
	}
	if now == Tailing && want == CatchingUp { // there is no such edge: it did lag
		a.to(s, Lagging, nil)
	}
	a.to(s, want, nil)
}

func (a *actor) restateAll(c *consumer) {
	c.entry.set(c.state(), c.kind)
	for _, s := range c.subs {
		a.restate(s)
	}
}

// stall tells whether the process itself stood still: stopped by a signal, or
// with no processor. Then deadlines have passed that nobody had a chance to meet.
type stall struct {
	last time.Time     // of the last look
	over time.Time     // when the last stall was noticed
	late time.Duration // by how much looks come late, of late: others wait as long for a processor
}

// lateness is how many times what looks are late by a call is given besides: it needs a
// processor more than once to come back.
const lateness = 4

// look reports at now whether deadlines mean nothing: since the last look more
// than grace has passed, which was to come twice as often, or the calls have not
// had that time since.
func (s *stall) look(now time.Time, grace time.Duration) bool {
	if !s.last.IsZero() {
		ago := now.Sub(s.last)
		if ago > grace {
			s.over = now
		}
		s.late = max(ago-grace/2, s.late/2)
	}
	s.last = now
	return !s.over.IsZero() && now.Sub(s.over) < grace
}

// watch looks for queue calls that ignore their deadline.
func (a *actor) watch() {
	now := time.Now()
	if a.stall.look(now, a.m.o.HangGrace) {
		return
	}
	grace := a.m.o.HangGrace + lateness*a.stall.late
	for p := range a.pumps {
		what := p.overdue(now, grace)
		if what == "" || p.hung {
			continue
		}
		p.hung = true
		err := errors.Wrapf(errHung, "%s of %s", what, p.entry.name)
		if what == "next" {
			p.forceClose()
		}
		a.leaked(p, err, err)
	}
}

// beginClose: the Manager closes.
func (a *actor) beginClose() {
	a.closing = true
	for s := range a.subs {
		a.endSub(s)
	}
	for c := range a.consumers {
		a.stopConsumer(c)
	}
}

func closeOnce(ch chan struct{}) {
	select {
	case <-ch:
	default:
		close(ch)
	}
}
