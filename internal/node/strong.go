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
// log, or learns by this that it has been replaced, waits for a timetick after now.
func (n *Node) strong(ctx context.Context, coll *catalog.Collection) (func(vchannel string) uint64, error) {
	if n.o.Sole {
		return n.believed(coll), nil
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
	at := map[string]uint64{}
	for _, v := range coll.VChannels {
		at[v.Name] = now
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

// believed returns, for each channel, a timestamp at or above all that was
// acknowledged unless this node was replaced as the owner of the log without
// having noticed.
func (n *Node) believed(coll *catalog.Collection) func(vchannel string) uint64 {
	return func(vchannel string) uint64 {
		i := slices.IndexFunc(coll.VChannels, func(v catalog.VChannel) bool { return v.Name == vchannel })
		if i < 0 {
			return n.endOfNow()
		}
		return n.acknowledged(vchannel, coll.VChannels[i].PChannel)
	}
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
