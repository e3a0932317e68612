package dispatcher

import (
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// consumer is a place on the pchannel and those who read from there. It
// outlives its readers: after a failure it opens another at its place. Owned by
// its actor.
type consumer struct {
	kind   Kind
	subs   map[string]*subscription // by vchannel
	pos    mq.Position              // all up to here has been handed out
	target mq.Position              // having reached it, a catch-up consumer is at the tail
	latest bool                     // starts after the newest message, not known yet
	solo   bool                     // nobody joins
	opened bool                     // has a working reader
	tail   bool                     // has been at the tail since it was opened

	entry    *entry
	pump     *pump // nil while it waits to be rebuilt
	attempt  int   // failures in a row
	onSlot   bool  // holds a slot of the Manager; else it has the pchannel's seat
	stopping bool
	gone     chan struct{} // closed when it has left the register, or leaked

	pending  []item        // not handed out: pausedBy has no room
	pausedBy *subscription // nil = not paused
	pauses   int           // numbers the pauses
}

func (c *consumer) state() ConsumerState {
	switch {
	case c.stopping:
		return ConsumerClosing
	case c.pump == nil:
		return ConsumerBackoff
	case !c.opened:
		return ConsumerOpening
	case c.pausedBy != nil:
		return ConsumerPaused
	}
	return ConsumerReading
}

// ready hands out what the pump has read, unless c waits for a buffer.
func (a *actor) ready(p *pump) {
	if c := p.c; c.pump == p && !c.stopping && c.pausedBy == nil {
		a.drain(c)
	}
}

// drain empties the inbox of c's pump.
func (a *actor) drain(c *consumer) {
	p := c.pump
	if items := p.take(); len(items) > 0 && a.feed(c, items) {
		p.recycle(items)
	}
}

// feed hands out items in order. It reports false, and keeps the rest, when c
// has to wait for a subscription's buffer.
func (a *actor) feed(c *consumer, items []item) bool {
	for i := range items {
		if full := a.deliver(c, &items[i]); full != nil {
			c.pending = items[i:]
			c.entry.progress(c.pos, uint64(i), len(c.pending))
			a.pause(c, full)
			return false
		}
	}
	c.pending = nil
	c.entry.progress(c.pos, uint64(len(items)), 0)
	if len(items) > 0 {
		c.attempt = 0
	}
	a.settle(c)
	return true
}

// deliver hands one item to those it is for and moves c's place over it. When
// a subscription that c must wait for has no room it returns that one; the item
// may then be delivered again: each takes only what is after its own place.
func (a *actor) deliver(c *consumer, it *item) (full *subscription) {
	if it.corrupt != nil {
		a.m.count.corrupt.Add(1)
		a.m.o.Logger.Error("corrupt message skipped", "pchannel", a.pchannel, "position", it.corrupt.Position, "err", it.corrupt)
		a.m.fire(func() { a.m.o.Events.CorruptSkipped(a.pchannel, it.corrupt) })
		if c.pos.Before(it.corrupt.Position) {
			c.pos = it.corrupt.Position
		}
		return nil
	}
	m := &it.msg
	if !c.pos.Before(m.Position) {
		a.m.count.duplicates.Add(1)
		return nil
	}
	if m.Key != "" {
		if s := c.subs[m.Key]; s != nil && !a.give(c, s, m) {
			return s
		}
	} else {
		for _, s := range c.subs {
			if !a.give(c, s, m) {
				return s
			}
		}
	}
	c.pos = m.Position
	return nil
}

// give reports false when c has to wait for s.
func (a *actor) give(c *consumer, s *subscription, m *mq.Message) bool {
	if !s.place.Before(m.Position) {
		return true
	}
	switch s.push(m) {
	case pushStart:
		a.starting = append(a.starting, s)
		fallthrough
	case pushOK:
		s.place = m.Position
		return true
	}
	if c.kind == Shared && len(c.subs) > 1 {
		a.fallBehind(s)
		return true
	}
	return false
}

// pause makes c wait for s. A shared consumer that has only s becomes a
// catch-up one: nobody else is served by its going on.
func (a *actor) pause(c *consumer, s *subscription) {
	c.pausedBy = s
	c.pauses++
	if c.kind == Shared {
		a.m.count.overflows.Add(1)
		c.target = c.pending[len(c.pending)-1].msg.Position
		s.behind = true
		a.demote(c)
	}
	a.restateAll(c)
	a.limitPause(c)
}

// limitPause makes sure that the one c waits for does not hold up others for
// long: those on c, or those who wait for a consumer. It loses nothing, as its
// buffer is full.
func (a *actor) limitPause(c *consumer) {
	pause := c.pauses
	a.after(a.m.o.SharePatience, func() {
		switch s := c.pausedBy; {
		case s == nil || c.pauses != pause || c.stopping:
		case len(c.subs) > 1 || a.wanted(c):
			a.fallBehind(s)
		default:
			a.limitPause(c)
		}
	})
}

// resume goes on after a pause.
func (a *actor) resume(c *consumer) {
	if s := c.pausedBy; s != nil {
		s.behind = false
	}
	c.pausedBy = nil
	if c.stopping {
		return
	}
	a.restateAll(c)
	if a.feed(c, c.pending) && c.pump != nil && !c.stopping {
		a.drain(c)
	}
}

// demote makes the shared consumer a catch-up one, without touching its reader.
func (a *actor) demote(c *consumer) {
	c.kind, c.tail = CatchUp, false
	if a.shared == c {
		a.shared = nil
		a.settleAll()
	}
}

// fallBehind takes s off its consumer. Once its buffer has room again it waits
// for a catch-up consumer of its own.
func (a *actor) fallBehind(s *subscription) {
	a.m.count.overflows.Add(1)
	s.behind, s.solo = true, true
	a.detach(s)
	a.restate(s)
	a.enqueue(s)
}

// attach makes c serve s from s.place on.
func (a *actor) attach(s *subscription, c *consumer) {
	c.subs[s.id.VChannel] = s
	s.cons = c
	if c.opened {
		s.started = true
	}
	if c.pausedBy == nil {
		s.behind = false
	}
	s.setConsumer(c.entry.id)
	a.restate(s)
}

// detach takes s off its consumer, which is closed when it was the last. s.place
// then tells where another one has to go on.
func (a *actor) detach(s *subscription) *consumer {
	c := s.cons
	if c == nil {
		return nil
	}
	delete(c.subs, s.id.VChannel)
	s.cons = nil
	s.setConsumer(0)
	if s.place.Before(c.pos) {
		s.place = c.pos
	}
	if len(c.subs) == 0 {
		a.stopConsumer(c)
	}
	if c.pausedBy == s {
		a.resume(c)
	}
	return c
}

// stopConsumer closes c's reader; its entry leaves the register after that.
func (a *actor) stopConsumer(c *consumer) {
	if c.stopping {
		return
	}
	c.stopping = true
	c.pending = nil
	c.entry.set(ConsumerClosing, c.kind)
	if a.shared == c {
		a.shared = nil
	}
	if c.pump == nil {
		a.consumerEnded(c, true)
		return
	}
	c.pump.stop()
	a.settleAll()
}

// consumerEnded gives back what c held. closed tells whether its last reader's Close succeeded.
func (a *actor) consumerEnded(c *consumer, closed bool) {
	delete(a.consumers, c)
	if closed {
		a.unregister(c.entry)
	}
	closeOnce(c.gone)
	switch {
	case c.onSlot:
		a.m.slots.release()
	case a.seat == c:
		a.seat = nil
		a.reseat()
	}
	a.settleAll()
	a.unserved = true
}

// reseat gives the free seat to a consumer that holds a slot, so that a
// pchannel with one consumer never holds a slot.
func (a *actor) reseat() {
	for c := range a.consumers {
		if c.onSlot && !c.stopping {
			c.onSlot = false
			a.seat = c
			a.m.slots.release()
			return
		}
	}
}

func (a *actor) unregister(e *entry) {
	if a.m.register.remove(e) {
		if e.isLeaked() {
			a.m.o.Logger.Info("a consumer that leaked has closed after all", "consumer", e.name)
		}
		a.m.fire(func() { a.m.o.Events.ConsumerClosed(e.name, a.pchannel) })
	}
}

// opened: p's reader is open; last was the newest message just before.
func (a *actor) opened(p *pump, last mq.Position) {
	c := p.c
	if c.pump != p || c.stopping {
		return
	}
	if c.latest {
		c.latest, c.pos = false, p.start
		for _, s := range c.subs {
			s.latest, s.place = false, p.start
			s.setPosition(p.start)
		}
	}
	c.opened, c.tail = true, false
	c.target = last
	c.entry.progress(c.pos, 0, 0)
	a.m.count.opened.Add(1)
	a.m.fire(func() { a.m.o.Events.ConsumerOpened(c.entry.name, a.pchannel, p.start) })
	for _, s := range c.subs {
		s.started = true
	}
	a.restateAll(c)
	a.settle(c)
}

// idle: the queue had nothing for p for a whole PollTimeout.
func (a *actor) idle(p *pump) {
	c := p.c
	if c.pump != p || c.stopping {
		return
	}
	c.tail = true
	a.settle(c)
}

// pumpEnded: p has closed its reader, or gave up closing it.
func (a *actor) pumpEnded(p *pump, err error, closed bool) {
	delete(a.pumps, p)
	c := p.c
	if p.abandoned || c.pump != p {
		if closed {
			a.unregister(p.entry)
		}
		a.unserved = true
		return
	}
	if c.stopping {
		c.pump = nil
		a.consumerEnded(c, closed)
		return
	}
	a.loseReader(c, err)
}

// leaked: the Close of p's reader failed; p goes on trying.
func (a *actor) leaked(p *pump, cause, err error) {
	if p.entry.leak(err) {
		a.m.count.leaks.Add(1)
		a.m.o.Logger.Error("consumer leaked", "consumer", p.entry.name, "err", err)
		a.m.fire(func() { a.m.o.Events.ConsumerLeaked(p.entry.name, a.pchannel, err) })
	}
	c := p.c
	if c.pump != p {
		return
	}
	if c.stopping {
		closeOnce(c.gone)
		return
	}
	a.abandon(p, cause)
}

// abandon lets c go on without p, which hangs or cannot close. p keeps the
// register entry until it has closed its reader; c gets a new one.
func (a *actor) abandon(p *pump, cause error) {
	c := p.c
	p.abandoned = true
	p.stop()
	c.entry = a.m.register.add(a.pchannel, c.kind, c.pos)
	for _, s := range c.subs {
		s.setConsumer(c.entry.id)
	}
	a.loseReader(c, cause)
}

// loseReader decides by the error how c goes on. What has been read and not
// handed out is read again.
func (a *actor) loseReader(c *consumer, err error) {
	began := c.opened
	c.pump, c.opened, c.pending = nil, false, nil
	c.entry.failed(err)
	for _, s := range c.subs {
		s.note(err)
	}
	switch class := errclass.Of(err); {
	case errors.Is(err, mq.ErrTrimmed) || errors.Is(err, mq.ErrAhead):
		// The oldest message has no place, but once a reader is open it was there: the next one
		// would begin behind what is gone.
		if !c.latest && (!c.pos.IsZero() || began) {
			a.positionGone(c, err)
			return
		}
	case class == errclass.Invalid || class == errclass.Unimplemented:
		// It may be the place that is refused, which is that of some of them alone.
		a.failSubs(c, err, func(s *subscription) bool { return !c.pos.Before(s.place) })
		if !c.stopping {
			c.pos = a.earliest(c)
			a.restateAll(c)
			a.rebuildAfter(c, 0)
		}
		return
	}
	wait := backoff(a.m.o.BackoffMin, a.m.o.BackoffMax, c.attempt)
	c.attempt++
	a.m.count.rebuilds.Add(1)
	a.m.o.Logger.Warn("consumer failed", "consumer", c.entry.name, "position", c.pos, "err", err, "wait", wait)
	a.m.fire(func() { a.m.o.Events.ConsumerFailed(c.entry.name, a.pchannel, err, wait) })
	a.restateAll(c)
	a.rebuildAfter(c, wait)
}

func (a *actor) rebuildAfter(c *consumer, wait time.Duration) {
	c.entry.set(ConsumerBackoff, c.kind)
	a.after(wait, func() {
		switch {
		case c.stopping || c.pump != nil:
		case len(a.pumps) > a.m.o.MaxCatchUpPerPChannel: // too many hang: wait for one to end
			a.rebuildAfter(c, a.m.o.BackoffMax)
		default:
			a.startPump(c)
		}
	})
}
