package node

import (
	"context"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// AssignChannel makes this node the owner of a pchannel's log for a term; 0 = the
// next one from the catalog. It returns the term and whether the command was too late.
func (n *Node) AssignChannel(ctx context.Context, pchannel string, term uint64) (uint64, bool, error) {
	if pchannel == "" {
		return 0, false, errclass.New(errclass.Invalid, "pchannel: the name is missing")
	}
	if _, err := n.queueOf(ctx, pchannel); err != nil {
		return 0, false, err // before anybody is told of a new owner
	}
	if term == 0 {
		call, cancel := n.call(ctx)
		defer cancel()
		next, err := n.o.Catalog.NextTerm(call, pchannel, n.o.Name)
		if err != nil {
			return 0, false, errors.Wrapf(err, "next term of %s", pchannel)
		}
		term = next
	}
	outcome, err := n.wals.Assign(ctx, pchannel, term)
	return term, outcome == wal.Ignored, err
}

// RemoveChannel ends the ownership of a pchannel's log; term 0 = whatever is in force.
func (n *Node) RemoveChannel(ctx context.Context, pchannel string, term uint64) (ignored bool, err error) {
	if term == 0 {
		w, err := n.wals.Get(pchannel)
		if err != nil {
			return false, err
		}
		term = w.Term()
	}
	outcome, err := n.wals.Remove(ctx, pchannel, term)
	return outcome == wal.Ignored, err
}

// walOptions says how the log of a pchannel is opened: replay begins at the
// lowest checkpoint of the channels it carries.
func (n *Node) walOptions(ctx context.Context, pchannel string, _ uint64) (wal.Options, error) {
	o := n.o.WAL
	o.TailOnly = true // the channels read the log themselves, from their checkpoints
	o.Queue, o.Owner, o.Logger, o.Now, o.Clock = n.o.Queue, n.o.Name, n.o.Logger, n.o.Now, &n.clock
	begin, err := n.queueOf(ctx, pchannel)
	if err != nil {
		return o, err
	}
	var lowest, highest mq.Position
	var all bool
	for tries := 1; ; tries++ {
		before := lowest
		lowest, highest, all, err = flush.Checkpoints(ctx, n.o.Catalog, pchannel)
		switch {
		case unreadable(err):
			// Of some collection, which does not hold up the others. Nothing is read from here,
			// see TailOnly; the log is not trimmed until all can be read.
			n.o.Logger.Error("node: the log is opened without its checkpoint", "pchannel", pchannel, "error", err)
		case err != nil:
			return o, errors.Wrapf(err, "checkpoint of %s", pchannel)
		}
		// Of all channels: what is written before the checkpoint of one is taken for stored. That
		// another has none says nothing of what this one needs.
		err = n.has(ctx, pchannel, lowest, highest)
		if err == nil {
			break
		}
		// The owner of before may have stored and trimmed in between, see beginning.
		if !errclass.Is(err, errclass.Position) || tries == movesMost || tries > 1 && lowest == before {
			return o, err
		}
	}
	if !highest.IsZero() && !all {
		if err := n.hasYoung(ctx, pchannel); err != nil {
			return o, err
		}
	}
	o.Checkpoint = begin
	if all {
		o.Checkpoint = later(lowest, begin)
	}
	// What is written next is newer than all that is stored, also where nothing is left of it.
	o.Checkpoint.Timestamp = max(o.Checkpoint.Timestamp, highest.Timestamp)
	return o, nil
}
