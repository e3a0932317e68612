package dispatcher

import (
	"context"
	"sync"
	"time"

	"github.com/querynode/querynode/mq"
)

// messageOverhead is what a buffered message costs besides key and payload.
const messageOverhead = 80

func sizeOf(m *mq.Message) int64 {
	return int64(len(m.Payload)+len(m.Key)) + messageOverhead
}

// subscription is one vchannel's place on its pchannel, and the buffer between
// the actor, which fills it, and the applier, which empties it into the sink.
type subscription struct {
	m      *Manager
	actor  *actor
	id     ID
	sink   Sink
	since  time.Time
	latest bool
	done   chan struct{}                   // closed once final and no Apply runs
	task   string                          // name of the applier
	run    func(ctx context.Context) error // apply, bound to s once

	// Owned by the actor.
	cons        *consumer
	place       mq.Position // all up to here has been given out, or is not wanted
	solo        bool        // held others up: shares no catch-up consumer until it tails again
	started     bool        // has been attached to an open consumer
	behind      bool        // its buffer overflowed and has not drained yet
	sinkFailing bool        // the sink asked for a retry

	mu struct {
		sync.Mutex
		state    State
		err      error       // why Failed
		lastErr  error       // last error of the sink or the consumer
		pos      mq.Position // last applied
		buf      []mq.Message
		count    int   // given and not applied, the batch in hand included
		bytes    int64 // of those
		applied  uint64
		running  bool               // an applier is running or about to
		sleeping bool               // it waits before a retry
		stopped  bool               // nothing more is taken or given
		wantRoom bool               // the actor waits for the buffer to be half empty
		ctx      context.Context    // of Apply; nil before the first
		cancel   context.CancelFunc // of ctx; called when s is finished, or before to hurry Apply
		consumer uint64             // register id of the consumer it is attached to
	}
}

// setPosition is for the start; after that only ack moves the position.
func (s *subscription) setPosition(pos mq.Position) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.pos = pos
}

func (s *subscription) setConsumer(id uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.consumer = id
}

type pushed uint8

const (
	pushFull pushed = iota
	pushOK
	pushStart // OK, and an applier must be started
)

// push gives m to the applier. It never blocks; on pushFull the actor will be
// told once the buffer is half empty.
func (s *subscription) push(m *mq.Message) pushed {
	size := sizeOf(m)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.mu.stopped:
		return pushOK // nobody wants it any more
	case s.mu.count > 0 && !s.roomLocked(size):
		s.mu.wantRoom = true
		return pushFull
	}
	s.m.buffered.Add(size)
	s.mu.buf = append(s.mu.buf, *m)
	s.mu.count++
	s.mu.bytes += size
	if s.mu.running {
		return pushOK
	}
	s.mu.running = true
	return pushStart
}

func (s *subscription) roomLocked(size int64) bool {
	o := &s.m.o
	return s.mu.count < o.BufferMessages && s.mu.bytes+size <= o.BufferBytes &&
		s.m.buffered.Load()+size <= o.MaxBufferedBytes
}

func (s *subscription) halfEmptyLocked() bool {
	return s.mu.count <= s.m.o.BufferMessages/2 && s.mu.bytes <= s.m.o.BufferBytes/2
}

// roomy reports whether the buffer is at most half full; if not, the actor is
// told when it is.
func (s *subscription) roomy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	ok := s.halfEmptyLocked()
	s.mu.wantRoom = s.mu.wantRoom || !ok
	return ok
}

// take returns the next batch; nil when the applier has to end. The batch is
// cut off the buffer, not copied: push never writes to it again.
func (s *subscription) take() []mq.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.stopped || len(s.mu.buf) == 0 {
		s.mu.running = false
		return nil
	}
	n, bytes := 0, int64(0)
	for n < len(s.mu.buf) && n < s.m.o.BatchMessages {
		bytes += sizeOf(&s.mu.buf[n])
		if n > 0 && bytes > s.m.o.BatchBytes {
			break
		}
		n++
	}
	batch := s.mu.buf[:n:n]
	if s.mu.buf = s.mu.buf[n:]; len(s.mu.buf) == 0 {
		s.mu.buf = nil
	}
	return batch
}

// ack moves the position over msgs, which have been applied or set aside, and
// reports whether the actor waits for the room this makes.
func (s *subscription) ack(msgs []mq.Message) (tellRoom bool) {
	var size int64
	for i := range msgs {
		size += sizeOf(&msgs[i])
	}
	s.m.count.applied.Add(uint64(len(msgs)))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.pos = msgs[len(msgs)-1].Position
	s.mu.applied += uint64(len(msgs))
	if s.mu.stopped {
		return false // stop has given the room back
	}
	s.m.buffered.Add(-size)
	s.mu.count -= len(msgs)
	s.mu.bytes -= size
	if s.mu.wantRoom && s.halfEmptyLocked() {
		s.mu.wantRoom = false
		return true
	}
	return false
}

// stop refuses further messages, drops the buffered ones and ends a wait before
// a retry. It reports whether an applier is still running.
func (s *subscription) stop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopLocked()
	if s.mu.sleeping && s.mu.cancel != nil {
		s.mu.cancel()
	}
	return s.mu.running
}

func (s *subscription) stopLocked() {
	if !s.mu.stopped {
		s.m.buffered.Add(-s.mu.bytes)
	}
	s.mu.stopped = true
	s.mu.buf, s.mu.count, s.mu.bytes = nil, 0, 0
}

func (s *subscription) isStopped() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.stopped
}

// cancelApply cancels the context of a running Apply.
func (s *subscription) cancelApply() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.mu.cancel != nil {
		s.mu.cancel()
	}
}

func (s *subscription) state() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.mu.state
}

// over reports whether s is final and no Apply runs.
func (s *subscription) over() bool {
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

func (s *subscription) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.mu.lastErr = err
}

// SubscriptionInfo describes one subscription.
type SubscriptionInfo struct {
	ID       ID
	State    State
	Position mq.Position // last applied
	Lag      Lag
	Buffered int   // messages given to it and not applied yet
	Bytes    int64 // of those
	Applied  uint64
	Consumer uint64 // number in the consumer's name; 0 = waits for one
	Age      time.Duration
	LastErr  error // last error of its sink or consumer; nil = none so far
}

func (s *subscription) info(now time.Time) SubscriptionInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := SubscriptionInfo{
		ID: s.id, State: s.mu.state, Position: s.mu.pos, Buffered: s.mu.count, Bytes: s.mu.bytes,
		Applied: s.mu.applied, Consumer: s.mu.consumer, Age: now.Sub(s.since), LastErr: s.mu.lastErr,
		Lag: Lag{MS: lagMS(s.mu.pos.Timestamp, now), Messages: -1},
	}
	if s.mu.state == Tailing {
		i.Lag.Messages = int64(s.mu.count)
	}
	return i
}
