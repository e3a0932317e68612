package node

import (
	"context"
	"fmt"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/mq"
)

// Topic is what a queue that nodes share has of a pchannel, compared with what is stored.
type Topic struct {
	PChannel string
	Channels int         // of collections
	Bounds   mq.Bounds   // what the topic holds
	Stored   mq.Position // the furthest checkpoint; zero = nothing is stored
	Lost     error       // why what comes behind the checkpoints cannot be read; nil = it can
}

// LookAtTopic compares a topic with the checkpoints of its channels. It changes nothing. An
// embedded queue, which has an identity, is of class Invalid.
func LookAtTopic(ctx context.Context, c *catalog.Catalog, q mq.Queue, pchannel string) (Topic, error) {
	t := Topic{PChannel: pchannel}
	if _, private := q.(mq.Private); private {
		return t, errclass.New(errclass.Invalid, "the embedded queue says itself what is lost; see queue.adopt")
	}
	list, err := c.Checkpoints(ctx, pchannel)
	if err != nil {
		return t, err
	}
	t.Channels = len(list)
	t.Bounds, err = q.Bounds(ctx, pchannel)
	switch {
	case errclass.Is(err, errclass.Position):
		t.Lost = errors.Wrap(err, "its messages cannot be read")
		return t, nil
	case err != nil:
		return t, errors.Wrapf(err, "bounds of %s", pchannel)
	}
	tried := map[string]bool{}
	for _, ch := range list {
		if ch.Position == "" {
			continue
		}
		var at mq.Position
		if err := at.UnmarshalText([]byte(ch.Position)); err != nil {
			return t, errclass.Wrap(err, errclass.Corrupt, "checkpoint of %s", ch.VChannel)
		}
		t.Stored = later(t.Stored, at)
		if what, lost := lostIn(t.Bounds, at, at); lost != nil {
			t.Lost = errors.Wrap(lost, what)
		}
		if t.Lost != nil || tried[at.ID] {
			continue
		}
		tried[at.ID] = true
		if t.Lost, err = lostAt(ctx, q, pchannel, at); err != nil {
			return t, errors.Wrapf(err, "read %s at the checkpoint of %s", pchannel, ch.VChannel)
		}
	}
	return t, nil
}

// lostAt asks whether the topic can be read from a position, and why not.
func lostAt(ctx context.Context, q mq.Queue, pchannel string, at mq.Position) (lost, err error) {
	r, err := q.OpenReader(ctx, pchannel, mq.ReaderOptions{From: at, Exclusive: true, Name: "begin-anew"})
	switch {
	case errclass.Is(err, errclass.Position):
		return err, nil
	case err != nil:
		return nil, err
	}
	return nil, r.Close(ctx)
}

// lostIn says what is wrong with a topic that is not the one, or not all of it, in which
// channels were stored up to positions from the lowest to the highest; err nil = as far as its
// bounds tell, it is. Each of these was that of a message, and those are kept.
func lostIn(b mq.Bounds, lowest, highest mq.Position) (what string, err error) {
	switch {
	case b.Last.Before(highest):
		return fmt.Sprintf("%s, and rows up to %s are stored", endText(b.Last), placeText(highest)), mq.ErrAhead
	case !lowest.IsZero() && lowest.Before(b.First):
		return fmt.Sprintf("it begins at %s, and what comes after %s is not stored", placeText(b.First), placeText(lowest)), mq.ErrTrimmed
	}
	return "", nil
}

// lost is the error of a log that is not opened, as what is wrong with it costs rows.
func (n *Node) lost(pchannel, what string, err error) error {
	way := "restore the topic, or configure the cluster that has it. If it is gone for good, stop the nodes, give up what only it had with: querynode queue begin-anew " + pchannel + ", and start them"
	if _, private := n.o.Queue.(mq.Private); private {
		way = "restore it, or configure the right one. To go on without them, move its folder away, start, and do as the node then says"
	}
	return errors.Wrapf(err, "%s is not opened, what is written to it here would be lost: %s. Messages are gone from the queue, or it is another one: %s", pchannel, what, way)
}

// BeginAnew makes the channels of a lost topic begin at the oldest message of the one that
// took its place: what is stored stays, and what only the lost one had is given up. Owners of
// before are fenced, so the nodes are to be stopped before. A topic that is not lost is
// refused, class Conflict. To repeat a call that failed half way is no error.
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
	list, err := c.Checkpoints(ctx, pchannel)
	if err != nil {
		return t, err
	}
	for _, ch := range list {
		if err := c.BeginAnew(ctx, ch.VChannel, term); err != nil && !errclass.Is(err, errclass.NotFound) {
			return t, err
		}
	}
	return t, nil
}

// begins waits for a moment until a channel reads its log, whose place in it was gone before,
// or that could not begin. If the place still is gone the channel is not watched: reads fail
// rather than wait, and it is told what to do.
func (n *Node) begins(ctx context.Context, s *serving, v catalog.VChannel) error {
	n.mu.Lock()
	w := s.channels[v.Name]
	n.mu.Unlock()
	look, late := time.NewTicker(placeLook), time.NewTimer(placeWait)
	defer look.Stop()
	defer late.Stop()
	for w.handle.State() == dispatcher.Subscribing {
		select {
		case <-w.handle.Done():
		case <-look.C:
		case <-late.C:
			return nil // a queue that is slow, or away, may yet have it
		case <-ctx.Done():
			return errclass.Wrap(ctx.Err(), errclass.Retryable, "wait until channel %s reads its log", v.Name)
		}
	}
	err := w.handle.Err()
	if !errclass.Is(err, errclass.Position) {
		return nil
	}
	return errors.CombineErrors(n.lost(v.PChannel, "what comes behind the checkpoint cannot be read", err), n.unwatch(ctx, s, v.Name))
}

// placeLook is how often begins looks, placeWait for how long.
const (
	placeLook = 20 * time.Millisecond
	placeWait = 5 * time.Second
)
