package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/cockroachdb/errors"

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
	Unread   error       // manifests, or checkpoints, that cannot be read: of these channels it is not known
}

// LookAtTopic compares a topic with the checkpoints of its channels. It changes nothing. An
// embedded queue, which has an identity, is of class Invalid. What it has found it returns
// with an error, too.
func LookAtTopic(ctx context.Context, c *catalog.Catalog, q mq.Queue, pchannel string) (Topic, error) {
	t, err := lookAtTopic(ctx, c, q, pchannel)
	if err == nil && t.Lost != nil {
		// Nodes that run store and trim between one question and the next; one that is lost still is.
		t, err = lookAtTopic(ctx, c, q, pchannel)
	}
	return t, err
}

func lookAtTopic(ctx context.Context, c *catalog.Catalog, q mq.Queue, pchannel string) (Topic, error) {
	t := Topic{PChannel: pchannel}
	if _, private := q.(mq.Private); private {
		return t, errclass.New(errclass.Invalid, "the embedded queue says itself what is lost; see queue.adopt")
	}
	list, err := c.Checkpoints(ctx, pchannel)
	t.Channels = len(list)
	if unreadable(err) {
		t.Unread = err
	} else if err != nil {
		return t, err
	}
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
			t.Unread = errors.CombineErrors(t.Unread, errclass.Wrap(err, errclass.Corrupt, "checkpoint of %s", ch.VChannel))
			continue
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
	if t.Lost != nil {
		return t, nil
	}
	young, err := youngOf(ctx, c, pchannel, list)
	if err != nil {
		return t, err
	}
	if what, lost := lostOfYoung(t.Bounds, young); lost != nil {
		t.Lost = errors.Wrap(lost, what)
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

// lostOfYoung is lostIn for channels without a checkpoint, by a position that the topic had when it was
// written to for them, zero if there is none: it is not trimmed past that before all have one.
func lostOfYoung(b mq.Bounds, written mq.Position) (what string, err error) {
	const nothing = "it had been written to at %s for a collection of which nothing is stored yet"
	switch {
	case written.IsZero():
	case b.Last.Before(written):
		return fmt.Sprintf("%s, "+nothing, endText(b.Last), placeText(written)), mq.ErrAhead
	case written.Before(b.First):
		return fmt.Sprintf("it begins at %s, "+nothing, placeText(b.First), placeText(written)), mq.ErrTrimmed
	}
	return "", nil
}

// youngOf is a position at which a topic is known to have been written to for channels that have no checkpoint
// yet; zero = there are none, or nothing is known of them. A channel has one of the list, if it can be read.
func youngOf(ctx context.Context, c *catalog.Catalog, pchannel string, list []catalog.Checkpoint) (at mq.Position, err error) {
	if !slices.ContainsFunc(list, func(c catalog.Checkpoint) bool { return c.Position == "" }) {
		return at, nil
	}
	written, err := c.Written(ctx, pchannel)
	if err != nil || !slices.ContainsFunc(list, func(c catalog.Checkpoint) bool {
		return c.Position == "" && slices.Contains(written.VChannels, c.VChannel)
	}) {
		return at, err
	}
	return at, errclass.Wrap(at.UnmarshalText([]byte(written.Position)), errclass.Corrupt, "where the topic of %s was written to", pchannel)
}
