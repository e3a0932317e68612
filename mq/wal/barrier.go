package wal

import (
	"context"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// fenceKey is no vchannel's name: nobody is given a fence.
const fenceKey = "wal-fence"

func isFence(m *mq.Message) bool { return m.Key == fenceKey }

// round is the barriers that wait for the same write.
type round struct {
	done chan struct{} // closed once err is set
	err  error
}

// answer is called once, by whoever has taken the round out of pending.
func (r *round) answer(err error) {
	r.err = err
	close(r.done)
}

// Barrier is a proof of ownership on its way.
type Barrier struct {
	w     *WAL
	round *round // nil = refused
}

// Barrier asks for a proof that this WAL owns its pchannel: that something it
// began to write after this call is stored. Then no newer owner had acknowledged
// anything when Barrier was called, and LastOf covers all that anybody had. All
// barriers that wait when the writer is free share one small entry, which is read
// by nobody; a timetick that is due serves as well.
func (w *WAL) Barrier() Barrier {
	r, err := w.pending.join()
	if err != nil {
		return Barrier{w: w}
	}
	return Barrier{w, r}
}

// Wait returns nil once the proof is there. Errors: that a newer owner is there
// (mq.ErrFenced), class Closed or Retryable when the WAL does not serve any more,
// Exhausted when the queue has no room, and ctx's, of class Retryable.
func (b Barrier) Wait(ctx context.Context) error {
	if b.round == nil {
		return errors.Wrap(b.w.refusal(), "barrier")
	}
	select {
	case <-b.round.done:
		return errors.Wrapf(b.round.err, "wal %s: barrier", b.w.o.PChannel)
	case <-ctx.Done():
		return errclass.Wrap(context.Cause(ctx), errclass.Retryable, "wal %s: barrier: the wal is %s", b.w.o.PChannel, b.w.State())
	}
}

// durable is how far the durable entries of each vchannel reach.
type durable struct {
	mu   sync.Mutex
	last map[string]uint64
}

func (d *durable) note(msgs []mq.Message) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range msgs {
		d.last[msgs[i].Key] = msgs[i].Timestamp
	}
}

// LastOf returns a timestamp T such that each durable entry for the vchannel, of
// this owner or an earlier one, has one at or below: a read at T, once it waited
// for tsafe >= T, sees them all. Unlike LastTimestamp it does not move with what
// is written for others. 0 until Ready.
func (w *WAL) LastOf(vchannel string) uint64 {
	w.durable.mu.Lock()
	defer w.durable.mu.Unlock()
	return max(w.durable.last[vchannel], w.opened.Load())
}

// LastOf is that of the barrier's WAL.
func (b Barrier) LastOf(vchannel string) uint64 { return b.w.LastOf(vchannel) }
