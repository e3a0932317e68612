package dispatcher

import "sync/atomic"

// counters are the sums behind Stats.
type counters struct {
	opened, leaks, rebuilds                    atomic.Uint64
	applied, duplicates, corrupt               atomic.Uint64
	overflows, handovers, promotions           atomic.Uint64
	positionsLost                              atomic.Uint64
	sinkRetries, sinkPanics, setAside, illegal atomic.Uint64
	panics                                     atomic.Uint64
}

// Stats are sums since New, unless said otherwise.
type Stats struct {
	Registered uint64 // consumers entered in the register
	Closed     uint64 // consumers that left it; Registered-Closed are in it now
	Leaked     int    // now in the register with a reader that hangs or did not close
	Leaks      uint64 // times that happened

	ReadersOpened uint64
	Rebuilds      uint64 // readers replaced after a failure
	PositionsLost uint64 // readers that found their position trimmed or ahead

	Applied    uint64 // messages, counted for each subscription
	Duplicates uint64 // messages that a reader gave twice, dropped
	Corrupt    uint64 // stored messages skipped
	SetAside   uint64 // messages skipped because Apply panics on them

	Overflows  uint64 // times a subscription fell off the shared consumer or held up others
	Handovers  uint64 // subscriptions handed over to a shared consumer
	Promotions uint64 // catch-up consumers that became shared

	SinkRetries uint64
	SinkPanics  uint64

	Subscriptions    map[State]int // now; Failed ones until their handle is closed
	BufferedBytes    int64         // now, over all subscriptions
	CatchUpSlotsFree int           // now

	IllegalTransitions uint64 // must be 0: a bug
	Panics             uint64 // in event callbacks or in the dispatcher; must be 0
}

// Stats returns a snapshot.
func (m *Manager) Stats() Stats {
	c := &m.count
	st := Stats{
		Leaks: c.leaks.Load(), ReadersOpened: c.opened.Load(), Rebuilds: c.rebuilds.Load(),
		PositionsLost: c.positionsLost.Load(), Applied: c.applied.Load(), Duplicates: c.duplicates.Load(),
		Corrupt: c.corrupt.Load(), SetAside: c.setAside.Load(), Overflows: c.overflows.Load(),
		Handovers: c.handovers.Load(), Promotions: c.promotions.Load(), SinkRetries: c.sinkRetries.Load(),
		SinkPanics: c.sinkPanics.Load(), BufferedBytes: m.buffered.Load(), CatchUpSlotsFree: m.slots.freeNow(),
		IllegalTransitions: c.illegal.Load(), Panics: c.panics.Load(), Subscriptions: map[State]int{},
	}
	st.Registered, st.Closed = m.register.counts()
	for _, e := range m.register.list() {
		if e.isLeaked() {
			st.Leaked++
		}
	}
	for _, s := range m.snapshot() {
		st.Subscriptions[s.state()]++
	}
	return st
}
