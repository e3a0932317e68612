package dispatcher

import (
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/mq"
)

// enqueue finds s a consumer, after this event or when there is a slot.
func (a *actor) enqueue(s *subscription) {
	a.waiting = append(a.waiting, s)
	a.unserved = true
}

func (a *actor) leaveQueue(s *subscription) {
	if i := slices.Index(a.waiting, s); i >= 0 {
		a.waiting = slices.Delete(a.waiting, i, i+1)
	}
}

// serve gives consumers to those who wait: an existing one at their place, or a
// new one while there is a slot. Those whose buffers are too full to make use
// of one are passed over: room brings us back.
func (a *actor) serve() {
	if a.closing {
		a.m.slots.leave(a)
		return
	}
	a.waiting = slices.DeleteFunc(a.waiting, func(s *subscription) bool {
		c := a.joinable(s)
		if c == nil || !s.roomy() {
			return false
		}
		a.attach(s, c)
		return true
	})
	for {
		i := slices.IndexFunc(a.waiting, (*subscription).roomy)
		if i < 0 {
			a.m.slots.leave(a)
			return
		}
		c := a.newConsumer(a.waiting[i])
		if c == nil {
			return
		}
		a.takeGroup(c, a.waiting[i])
		a.startPump(c)
	}
}

// wanted reports whether somebody could use c's place under the caps.
func (a *actor) wanted(c *consumer) bool {
	return slices.ContainsFunc(a.waiting, (*subscription).roomy) || c.onSlot && a.m.slots.wanted()
}

// joinable returns a consumer that s can join without waiting and without
// anybody waiting for it; nil = none. A place ahead of a shared consumer is not
// taken on trust: whether the queue has it shows when a reader is opened there.
func (a *actor) joinable(s *subscription) *consumer {
	if s.latest {
		return nil
	}
	if c := a.shared; c != nil && c.pos.ID == s.place.ID {
		return c
	}
	for c := range a.consumers {
		if c.kind == CatchUp && !c.stopping && !c.solo && !c.latest && !s.solo && c.pausedBy == nil &&
			!s.place.Before(c.pos) && a.near(c.pos, s.place) {
			return c
		}
	}
	return nil
}

// near reports whether two places are close enough to share a consumer.
func (a *actor) near(p, q mq.Position) bool {
	if p.ID == q.ID {
		return true
	}
	if a.m.o.ShareWindow < 0 || p.Timestamp == 0 || q.Timestamp == 0 {
		return false
	}
	ms := mq.Physical(p.Timestamp) - mq.Physical(q.Timestamp)
	return max(ms, -ms) <= int64(a.m.o.ShareWindow/time.Millisecond)
}

// newConsumer returns a consumer at s's place, in the register and not yet
// opened; nil when the caps are reached.
func (a *actor) newConsumer(s *subscription) *consumer {
	onSlot := a.seat != nil
	if len(a.pumps) > a.m.o.MaxCatchUpPerPChannel || len(a.consumers) > a.m.o.MaxCatchUpPerPChannel {
		return nil
	}
	if onSlot && !a.m.slots.acquire(a) {
		return nil
	}
	c := &consumer{
		kind: CatchUp, subs: map[string]*subscription{}, pos: s.place, latest: s.latest, solo: s.solo,
		onSlot: onSlot, gone: make(chan struct{}),
	}
	if !onSlot {
		a.seat = c
	}
	c.entry = a.m.register.add(a.pchannel, CatchUp, c.pos)
	a.consumers[c] = struct{}{}
	return c
}

// takeGroup attaches first to c, and all others that wait and are near it; c
// begins at the earliest of them.
func (a *actor) takeGroup(c *consumer, first *subscription) {
	a.waiting = slices.DeleteFunc(a.waiting, func(s *subscription) bool {
		share := !c.solo && !s.solo && s.latest == c.latest && (c.latest || a.near(first.place, s.place))
		if s != first && !(share && s.roomy()) {
			return false
		}
		if s.place.Before(c.pos) {
			c.pos = s.place
		}
		a.attach(s, c)
		return true
	})
}

// settle ends the catching up of c when it can: it hands its subscriptions over
// to the shared consumer, or becomes it.
func (a *actor) settle(c *consumer) {
	if c.kind != CatchUp || !c.opened || c.stopping || c.pausedBy != nil {
		return
	}
	if !c.pos.Before(c.target) {
		c.tail = true
	}
	switch sh := a.shared; {
	case sh != nil:
		if sh.opened && !c.pos.Before(sh.pos) {
			a.handOver(c, sh)
		}
	case c.tail && c.roomy():
		a.promote(c)
	}
}

// settleAll is for when a shared consumer came or went.
func (a *actor) settleAll() {
	for c := range a.consumers {
		a.settle(c)
	}
}

// roomy reports whether all buffers are half empty. The fuller ones tell later.
func (c *consumer) roomy() bool {
	ok := true
	for _, s := range c.subs {
		ok = s.roomy() && ok
	}
	return ok
}

// handOver moves the subscriptions of c to sh, which is at c's place or before
// it: each takes from sh only what comes after its own place. Those without
// room stay for now, those that c has not reached ask for a reader of their own.
func (a *actor) handOver(c, sh *consumer) {
	for _, s := range c.subs {
		switch {
		case c.pos.Before(s.place):
			a.requeue(s)
		case s.roomy():
			a.detach(s)
			a.attach(s, sh)
			a.m.count.handovers.Add(1)
			a.m.fire(func() { a.m.o.Events.HandedOver(s.id, s.place) })
		}
	}
}

// promote makes c the shared consumer.
func (a *actor) promote(c *consumer) {
	for _, s := range c.subs {
		if c.pos.Before(s.place) {
			a.requeue(s)
		}
	}
	if c.stopping {
		return // nobody was left
	}
	c.kind, c.solo = Shared, false
	a.shared = c
	a.m.count.promotions.Add(1)
	a.restateAll(c)
	a.settleAll()
	a.unserved = true
}

// requeue sends s, whose place is ahead of all that its consumer has seen, to a
// reader opened right there: the queue then says whether it has that place.
func (a *actor) requeue(s *subscription) {
	s.solo = true
	a.detach(s)
	a.restate(s)
	a.enqueue(s)
}

// positionGone applies the policy when the queue no longer has, or never had, c's place.
func (a *actor) positionGone(c *consumer, err error) {
	a.m.count.positionsLost.Add(1)
	a.m.o.Logger.Error("position is gone", "consumer", c.entry.name, "position", c.pos, "err", err)
	if c.kind == Shared {
		a.demote(c)
	}
	ahead := errors.Is(err, mq.ErrAhead)
	if a.m.o.OnPositionGone == SkipToOldest {
		for _, s := range c.subs {
			place := s.place
			if !ahead && c.pos.Before(place) {
				continue // what is gone is not of this one
			}
			if ahead {
				s.place = mq.Position{} // the one backward seek there is, and at open
			}
			a.m.fire(func() { a.m.o.Events.PositionLost(s.id, place, err) })
		}
		c.pos = mq.Position{}
	} else {
		a.failSubs(c, err, func(s *subscription) bool { return ahead || !c.pos.Before(s.place) })
		if c.stopping {
			return
		}
		c.pos = a.earliest(c)
	}
	a.restateAll(c)
	a.rebuildAfter(c, 0)
}

// earliest returns the first place among the subscriptions of c, of which there is at least one.
func (a *actor) earliest(c *consumer) mq.Position {
	first, any := mq.Position{}, false
	for _, s := range c.subs {
		if !any || s.place.Before(first) {
			first, any = s.place, true
		}
	}
	return first
}
