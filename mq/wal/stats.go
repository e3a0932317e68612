package wal

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/querynode/querynode/mq"
)

// Progress tells how far a recovery is. It moves while recovery does, so that
// "is it alive" need not be a matter of time.
type Progress struct {
	State    State
	Messages uint64 // read from the queue, corrupt ones included
	Bytes    uint64 // payload bytes of those
	Position mq.Position
	Target   mq.Position // where the replay ends; zero until it is known
	// Share is the part done, 0 to 1, by timestamps; 1 when recovery is over.
	Share float64
}

// Stats are counters since Open and gauges of the moment.
type Stats struct {
	State         State
	LastTimestamp uint64
	LastPosition  mq.Position // newest message written or replayed

	Appended      uint64 // entries acknowledged
	AppendedBytes uint64 // payload bytes of those
	Batches       uint64 // calls that stored something
	Refused       uint64 // appends that got an error and are not stored
	Ticks         uint64
	TickErrors    uint64
	Fences        uint64 // entries written for barriers; a timetick that was due serves as well
	ClockBack     uint64 // timestamps given while the wall clock was behind

	Replayed         uint64 // entries decoded in recovery
	Quarantined      uint64
	UnknownTypes     uint64 // entries of types that this build does not know
	Duplicates       uint64 // messages that the reader gave out again
	Disorder         uint64 // messages whose timestamp is not above the one before
	Gaps             uint64
	Checkpoints      uint64
	CheckpointErrors uint64

	PendingEntries int // appends queued or being written
	PendingBytes   int64
	WaitingEntries int // appends waiting for room
	WaitingBytes   int64
}

type counters struct {
	appended, appendedBytes, batches, refused, ticks, tickErrors, fences, clockBack atomic.Uint64

	replayed, quarantined, unknownTypes, duplicates, disorder, gaps atomic.Uint64
	checkpoints, checkpointErrors                                   atomic.Uint64
}

// Stats returns the counters.
func (w *WAL) Stats() Stats {
	c := &w.count
	s := Stats{
		State: w.State(), LastTimestamp: w.LastTimestamp(), LastPosition: w.progress.position(),
		Appended: c.appended.Load(), AppendedBytes: c.appendedBytes.Load(), Batches: c.batches.Load(),
		Refused: c.refused.Load(), Ticks: c.ticks.Load(), TickErrors: c.tickErrors.Load(), Fences: c.fences.Load(), ClockBack: c.clockBack.Load(),
		Replayed: c.replayed.Load(), Quarantined: c.quarantined.Load(), UnknownTypes: c.unknownTypes.Load(),
		Duplicates: c.duplicates.Load(), Disorder: c.disorder.Load(), Gaps: c.gaps.Load(),
		Checkpoints: c.checkpoints.Load(), CheckpointErrors: c.checkpointErrors.Load(),
	}
	s.PendingEntries, s.PendingBytes, s.WaitingEntries, s.WaitingBytes = w.pending.load()
	return s
}

// keptQuarantines bounds what Quarantined returns.
const keptQuarantines = 128

// progress is what Progress and Quarantined show.
type progress struct {
	mu struct {
		sync.Mutex
		p          Progress
		from, to   uint64 // timestamps between which Share is measured
		newest     mq.Position
		quarantine []Quarantine
	}
}

func (g *progress) begin(checkpoint mq.Position, b mq.Bounds) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.p.Position, g.mu.p.Target, g.mu.newest = checkpoint, b.Last, checkpoint
	g.mu.from, g.mu.to = checkpoint.Timestamp, b.Last.Timestamp
	if g.mu.from == 0 {
		g.mu.from = b.First.Timestamp
	}
}

func (g *progress) advance(at mq.Position, bytes int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.p.Messages++
	g.mu.p.Bytes += uint64(bytes)
	g.mu.p.Position, g.mu.newest = at, at
	if done, all := at.Timestamp-g.mu.from, g.mu.to-g.mu.from; at.Timestamp > g.mu.from && g.mu.to > g.mu.from {
		g.mu.p.Share = max(g.mu.p.Share, min(float64(done)/float64(all), 1))
	}
}

func (g *progress) end(last mq.Position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.p.Share = 1
	if !last.IsZero() {
		g.mu.newest = last
	}
}

func (g *progress) stored(at mq.Position) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.mu.newest = at
}

func (g *progress) position() mq.Position {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mu.newest
}

func (g *progress) keep(q Quarantine) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.mu.quarantine) == keptQuarantines {
		g.mu.quarantine = slices.Delete(g.mu.quarantine, 0, 1)
	}
	g.mu.quarantine = append(g.mu.quarantine, q)
}

// Progress returns how far the recovery is.
func (w *WAL) Progress() Progress {
	state := w.State()
	w.progress.mu.Lock()
	defer w.progress.mu.Unlock()
	p := w.progress.mu.p
	p.State = state
	return p
}

// quarantine counts and names a message that is passed over.
func (w *WAL) quarantine(q Quarantine) {
	q.PChannel = w.o.PChannel
	w.count.quarantined.Add(1)
	w.progress.keep(q)
	w.log.Error("wal quarantined a message", "position", q.Position.String(), "vchannel", q.VChannel,
		"type", q.Type.String(), "reason", q.Reason)
	w.emit(func(ev Events) {
		if ev.Quarantined != nil {
			ev.Quarantined(q)
		}
	})
}
