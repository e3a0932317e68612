package node

import (
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// lost is the error of a log that is not opened, or not read, as what is wrong with it costs rows.
func (n *Node) lost(pchannel, what string, err error) error {
	way := "restore the topic, or configure the cluster that has it. If it is gone for good, stop the nodes, give up what only it had with: querynode queue begin-anew " + pchannel + ", and start them"
	_, private := n.o.Queue.(mq.Private)
	if !private && !n.assigned(pchannel) {
		return errors.Wrapf(err, "what this node has yet to read of %s is gone, and it is not passed over: %s. The topic was deleted, or has lost messages. A node that owns its log and runs has them in memory, and stores them: "+
			"leave it running, this ends once all is stored. If there is none, %s", pchannel, what, way)
	}
	if private {
		way = "restore it, or configure the right one. To go on without them, move its folder away, start, and do as the node then says"
	}
	return errors.Wrapf(err, "%s is not opened, what is written to it here would be lost: %s. Messages are gone from the queue, or it is another one: %s", pchannel, what, way)
}

// BeginAnew makes the channels of a lost topic begin at the oldest message of the one that
// took its place: what is stored stays, and what only the lost one had is given up. Owners of
// before are fenced, so the nodes are to be stopped before. A topic that is not lost is
// refused, class Conflict, also if it was when the call began. To repeat a call that failed half way is no error. Channels whose
// manifest cannot be read stay as they are, see Topic.Unread: once it is restored, the topic
// is lost for them, and is begun anew again.
func BeginAnew(ctx context.Context, c *catalog.Catalog, q mq.Queue, pchannel, who string) (Topic, error) {
	t, err := LookAtTopic(ctx, c, q, pchannel)
	if err != nil {
		return t, err
	}
	if t.Lost == nil {
		return t, errclass.New(errclass.Conflict, "topic %s is not lost: what is behind the checkpoints of its %d channels can be read", pchannel, t.Channels)
	}
	term, err := c.NextTerm(ctx, pchannel, who)
	if err != nil {
		return t, err
	}
	if err := eachChannel(ctx, c, pchannel, &t, func(vchannel string) error {
		_, err := c.CommitFlush(ctx, vchannel, catalog.FlushCommit{Term: term})
		return err
	}); err != nil {
		return t, err
	}
	// Until then a node that was not stopped may have stored what only its memory had.
	if t, err = LookAtTopic(ctx, c, q, pchannel); err != nil {
		return t, err
	}
	if t.Lost == nil {
		return t, errclass.New(errclass.Conflict, "topic %s is not lost any more: a node that runs has stored what was missing, or the topic is back. "+
			"Nothing is given up; nodes that run are fenced, start them again", pchannel)
	}
	if err := eachChannel(ctx, c, pchannel, &t, func(vchannel string) error { return c.BeginAnew(ctx, vchannel, term) }); err != nil {
		return t, err
	}
	// Last: until then a call that failed finds the topic of young channels lost again.
	return t, c.ForgetWritten(ctx, pchannel)
}

// eachChannel changes the channels of a topic that there are. Those whose manifests cannot be read
// are noted, and left.
func eachChannel(ctx context.Context, c *catalog.Catalog, pchannel string, t *Topic, change func(vchannel string) error) error {
	list, err := c.Checkpoints(ctx, pchannel)
	if err != nil && !unreadable(err) {
		return err
	}
	for _, ch := range list {
		err := change(ch.VChannel)
		switch {
		case err == nil, errclass.Is(err, errclass.NotFound):
		case unreadable(err): // by now
			t.Unread = errors.CombineErrors(t.Unread, err)
		default:
			return err
		}
	}
	return nil
}

// assigned reports whether this node is to own the log of a pchannel.
func (n *Node) assigned(pchannel string) bool {
	return slices.ContainsFunc(n.wals.List(), func(st wal.ChannelStatus) bool { return st.PChannel == pchannel && st.Assigned })
}

// begins waits for a moment until a channel reads its log, whose place in it was gone before,
// or that could not begin. If the place still is gone the channel is not watched: reads fail
// rather than wait, and it is told what to do. Unless the checkpoint has moved on meanwhile, as the
// owner of the log has stored what is gone: with look, it is to be watched again then.
func (n *Node) begins(ctx context.Context, s *serving, v catalog.VChannel, look bool) (again bool, err error) {
	n.mu.Lock()
	w := s.channels[v.Name]
	n.mu.Unlock()
	tick, late := time.NewTicker(placeLook), time.NewTimer(placeWait)
	defer tick.Stop()
	defer late.Stop()
	for w.handle.State() == dispatcher.Subscribing {
		select {
		case <-w.handle.Done():
		case <-tick.C:
		case <-late.C:
			return false, nil // a queue that is slow, or away, may yet have it
		case <-ctx.Done():
			return false, errclass.Wrap(ctx.Err(), errclass.Retryable, "wait until channel %s reads its log", v.Name)
		}
	}
	gone := w.handle.Err()
	if !errclass.Is(gone, errclass.Position) {
		return false, nil
	}
	ended := n.unwatch(ctx, s, v.Name)
	if look && ended == nil {
		call, cancel := n.call(ctx)
		defer cancel()
		c, err := n.o.Catalog.Channel(call, v.Name)
		if err != nil {
			return false, err // not known to be lost
		}
		if c.CheckpointTimestamp > w.from {
			return true, nil
		}
	}
	return false, errors.CombineErrors(n.lost(v.PChannel, "what comes behind the checkpoint cannot be read", gone), ended)
}

// movesMost is how often in a row a node that is about to read a log finds its place gone, and
// the checkpoint moved on, before it says that it cannot: it is slow then as to what is stored.
const movesMost = 5

// placeLook is how often begins looks, placeWait for how long.
const (
	placeLook = 20 * time.Millisecond
	placeWait = 5 * time.Second
)
