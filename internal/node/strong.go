package node

import (
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// strong returns the timestamps that a STRONG read waits for: each channel's is
// at or above that of all that was acknowledged before the call, by anybody.
//
// Where this node is the only one that can write to the queue, it knows. Where
// others can, being the owner of a log is a belief that ends with the next write:
// a successor may have acknowledged rows meanwhile. So the owner writes something
// (wal.Barrier: one write for all reads that wait, in all logs at the same time)
// and answers by what it knows once that is stored. A node that does not own the
// log, or learns by this that it has been replaced, waits for a timetick after now. That
// says nothing of a log whose owner's clock is ahead: see ends.
func (n *Node) strong(ctx context.Context, coll *catalog.Collection) (func(vchannel string) uint64, error) {
	if n.o.Sole {
		return func(vchannel string) uint64 { return n.believed(coll, vchannel) }, nil
	}
	barriers := map[string]wal.Barrier{} // by pchannel
	for _, v := range coll.VChannels {
		if _, ok := barriers[v.PChannel]; ok {
			continue
		}
		if w, err := n.wals.Get(v.PChannel); err == nil && w.State() == wal.Ready {
			barriers[v.PChannel] = w.Barrier()
		}
	}
	now := n.endOfNow()
	for pchannel, b := range barriers {
		err := b.Wait(ctx)
		if errors.Is(err, mq.ErrFenced) {
			delete(barriers, pchannel) // not the owner, as it turns out
			continue
		}
		if err != nil {
			return nil, errclass.Wrap(err, errclass.Retryable, "strong read: this node cannot prove that it still owns the log of %s", pchannel)
		}
	}
	ends, err := n.ends(ctx, coll, func(pchannel string) bool { _, owned := barriers[pchannel]; return !owned })
	if err != nil {
		return nil, err
	}
	at := map[string]uint64{}
	for _, v := range coll.VChannels {
		at[v.Name] = max(now, ends[v.PChannel])
		if b, ok := barriers[v.PChannel]; ok {
			at[v.Name] = b.LastOf(v.Name)
		}
	}
	return func(vchannel string) uint64 {
		if ts, ok := at[vchannel]; ok {
			return ts
		}
		return now
	}, nil
}

// behindFor is how far a channel may be behind the clock and be taken for one that reads
// the end of its log.
const behindFor = 10 * time.Second

// ends returns the timestamps of the newest messages of logs, by pchannel, of which the
// clock does not tell: what a channel has applied is ahead of the clock, or so far
// behind that what comes may be. Then a timetick after now is not after all that was
// acknowledged.
func (n *Node) ends(ctx context.Context, coll *catalog.Collection, ask func(pchannel string) bool) (map[string]uint64, error) {
	now := n.o.Now()
	doubted := map[string]uint64{}
	n.mu.Lock()
	if s := n.mu.serving[coll.ID]; s != nil {
		for _, w := range s.channels {
			if at := wal.Time(w.channel.Tsafe()); ask(w.pchannel) && (at.After(now) || now.Sub(at) > behindFor) {
				doubted[w.pchannel] = 0
			}
		}
	}
	n.mu.Unlock()
	asked := map[string]*logEnd{}
	for pchannel := range doubted {
		asked[pchannel] = n.askEnd(pchannel) // all at the same time
	}
	for pchannel, q := range asked {
		last, err := q.wait(ctx, pchannel)
		if err != nil {
			return nil, errors.Wrap(err, "strong read")
		}
		doubted[pchannel] = last
	}
	return doubted, nil
}

// believed returns a timestamp at or above all that was acknowledged in a channel
// unless this node was replaced as the owner of the log without having noticed.
func (n *Node) believed(coll *catalog.Collection, vchannel string) uint64 {
	i := slices.IndexFunc(coll.VChannels, func(v catalog.VChannel) bool { return v.Name == vchannel })
	if i < 0 {
		return n.endOfNow()
	}
	return n.acknowledged(vchannel, coll.VChannels[i].PChannel)
}

// acknowledged is the timestamp up to which the log of a channel may hold what
// was acknowledged, as far as this node knows: as its owner it wrote all of it
// since it opened the log. On a queue that it has for itself (Options.Sole) this
// is certain: the lock on the queue's folder is a lease that ends with the
// process, and within the process the log of a newer term is opened by this node.
func (n *Node) acknowledged(vchannel, pchannel string) uint64 {
	w, err := n.wals.Get(pchannel)
	if err != nil || w.State() != wal.Ready {
		return n.endOfNow()
	}
	return w.LastOf(vchannel)
}

// endOfNow is the end of this millisecond: what was acknowledged in it is before
// it.
func (n *Node) endOfNow() uint64 { return wal.FromTime(n.o.Now().Add(time.Millisecond)) - 1 }
