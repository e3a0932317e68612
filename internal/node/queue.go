package node

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// queueState is what is known of the queue and a pchannel.
type queueState struct {
	bound bool        // the catalog says that the log is in this node's queue
	begin mq.Position // which begins behind this; zero = at its beginning
	end   mq.Position // up to here at least it has been written
	first mq.Position // of a queue that nodes share: it begins here, or later
	err   error       // why the log is not opened here
}

// queueState returns that of a pchannel.
func (n *Node) queueState(pchannel string) queueState {
	n.mu.Lock()
	defer n.mu.Unlock()
	if s := n.mu.queues[pchannel]; s != nil {
		return *s
	}
	return queueState{}
}

func (n *Node) setQueue(pchannel string, set func(s *queueState)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	s := n.mu.queues[pchannel]
	if s == nil {
		s = &queueState{}
		n.mu.queues[pchannel] = s
	}
	set(s)
}

// queueOf makes sure that the log of a pchannel is in this node's queue, and returns the
// position that the queue begins behind. In another one the positions that the catalog
// knows mean other messages: what is written there is taken for stored, and lost.
func (n *Node) queueOf(ctx context.Context, pchannel string) (begin mq.Position, err error) {
	if s := n.queueState(pchannel); s.bound {
		return s.begin, nil
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	begin, err = n.bind(ctx, pchannel)
	n.setQueue(pchannel, func(s *queueState) { s.bound, s.begin, s.err = err == nil, begin, err })
	return begin, err
}

// elsewhere is why the log of a pchannel is not opened that another queue has, and what
// may be done; which is the same for all logs, and long.
type elsewhere struct {
	pchannel string
	error
}

// Unwrap returns the cause.
func (e *elsewhere) Unwrap() error { return e.error }

func (n *Node) bind(ctx context.Context, pchannel string) (begin mq.Position, err error) {
	private, _ := n.o.Queue.(mq.Private)
	id := ""
	if private != nil {
		id = private.Identity()
	}
	q, err := n.o.Catalog.BindQueue(ctx, pchannel, id)
	if errors.Is(err, catalog.ErrOtherQueue) {
		if id == "" {
			return mq.Position{}, errors.Wrapf(err, "%s is not opened: its messages are in the embedded queue of a node, not in the one that is configured; set queue.kind to embedded", pchannel)
		}
		if n.o.AdoptQueue != id {
			return mq.Position{}, &elsewhere{pchannel, errors.Wrapf(err, "%s is not opened, what is written to it here would be lost. Depending on what happened: "+
				"(1) other nodes with embedded queues use this storage: run one alone (replicas: 1), or use Pulsar; "+
				"(2) the volume of the queue was lost, or another one is mounted: restore it; "+
				"(3) the volume is right, and its file ID alone is not: write into ID the identity that the catalog has in queues/%s.json; "+
				"(4) what only the other queue has is to be given up: start with queue.adopt: %s", pchannel, pchannel, id)}
		}
		q, err = n.adopt(ctx, private, pchannel, q.Identity)
	}
	if err != nil || q == nil || q.Begin == "" {
		return mq.Position{}, err
	}
	err = begin.UnmarshalText([]byte(q.Begin))
	return begin, errclass.Wrap(err, errclass.Corrupt, "beginning of the queue of %s", pchannel)
}

// adopt makes this node's queue take the place of another one: it begins behind all
// that the catalog has of that, so that nothing written from now on is taken for stored.
func (n *Node) adopt(ctx context.Context, q mq.Private, pchannel, instead string) (*catalog.Queue, error) {
	_, highest, _, err := flush.Checkpoints(ctx, n.o.Catalog, pchannel)
	if err != nil {
		return nil, errors.Wrapf(err, "adopt queue %s for %s: checkpoints", q.Identity(), pchannel)
	}
	begin := ""
	if !highest.IsZero() {
		if err := q.Begin(ctx, pchannel, highest); err != nil {
			return nil, errors.Wrapf(err, "adopt queue %s for %s: only one without messages can be; move its folder away and start with an empty one", q.Identity(), pchannel)
		}
		begin = highest.String()
	}
	adopted, err := n.o.Catalog.AdoptQueue(ctx, pchannel, instead, q.Identity(), begin)
	if err == nil {
		n.o.Logger.Warn("node: this queue takes the place of another; what only that had is given up", "pchannel", pchannel,
			"queue", q.Identity(), "instead", instead, "begin", begin)
	}
	return adopted, err
}

// stillIn lets go of a log that another queue has by now.
func (n *Node) stillIn(ctx context.Context, pchannel string, term uint64) error {
	if _, private := n.o.Queue.(mq.Private); !private {
		return nil
	}
	n.setQueue(pchannel, func(s *queueState) { s.bound = false })
	_, err := n.queueOf(ctx, pchannel)
	if errors.Is(err, catalog.ErrOtherQueue) {
		_, ended := n.wals.Remove(ctx, pchannel, term)
		err = errors.CombineErrors(err, ended)
	}
	return err
}

// reaches makes sure that the queue has been written up to a position: one that ends
// before lacks messages, or is another one, and what is written to it up to there is
// taken for stored. One that nodes share still has what comes behind it.
func (n *Node) reaches(ctx context.Context, pchannel string, at mq.Position) error {
	s := n.queueState(pchannel)
	if !at.IsZero() && !s.end.Before(at) && !at.Before(s.first) {
		return nil
	}
	return n.has(ctx, pchannel, at, at)
}

// has is reaches for positions from the lowest to the highest, both zero if there are none, see hasYoung. The queue
// is asked, whatever it said before: a topic can be lost while the node runs, and made anew
// by its next message.
func (n *Node) has(ctx context.Context, pchannel string, lowest, highest mq.Position) error {
	if highest.IsZero() {
		return n.hasYoung(ctx, pchannel)
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	var b mq.Bounds
	var err error
	if q, private := n.o.Queue.(mq.Private); private {
		lowest = mq.Position{} // it says itself what it has not got
		b.Last, err = q.End(ctx, pchannel)
	} else {
		b, err = n.o.Queue.Bounds(ctx, pchannel)
	}
	if errclass.Is(err, errclass.Position) {
		return n.lost(pchannel, "its messages cannot be read", err)
	}
	if err != nil {
		return errors.Wrapf(err, "end of %s", pchannel)
	}
	n.setQueue(pchannel, func(s *queueState) { s.end, s.first = b.Last, b.First })
	if what, err := lostIn(b, lowest, highest); err != nil {
		return n.lost(pchannel, what, err)
	}
	return nil
}

// endText says where a topic ends.
func endText(end mq.Position) string {
	if end.IsZero() {
		return "it has no messages (deleted, or a new cluster)"
	}
	return "it ends at " + placeText(end)
}

// placeText is a position with the time of its timestamp.
func placeText(p mq.Position) string {
	if p.Timestamp == 0 {
		return p.String()
	}
	return fmt.Sprintf("%s (%s)", p, wal.Time(p.Timestamp).UTC().Format(time.RFC3339))
}

// whyNoLog is err, or why the log of a pchannel is not opened on this node.
func (n *Node) whyNoLog(pchannel string, err error) error {
	if s := n.queueState(pchannel); s.err != nil {
		return s.err
	}
	return err
}

// noLog is the error of a write to a log that is not open here, for err of the manager: it is another
// node's, or it is this one's and is being opened, again if it has failed, which passes.
func (n *Node) noLog(pchannel string, err error) error {
	if err = n.whyNoLog(pchannel, err); errclass.Of(err).Retry() {
		return errors.Wrapf(err, "the log of %s takes no writes now", pchannel)
	}
	return errclass.Mark(errors.Wrapf(err, "this node does not own the log of %s", pchannel), errclass.Conflict)
}

// later is the later of two positions in one queue.
func later(a, b mq.Position) mq.Position {
	if a.Before(b) {
		return b
	}
	return a
}
