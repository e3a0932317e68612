package node

import (
	"context"
	"slices"
	"sync"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// written makes sure that a topic which is lost is missed: before the first change of a
// channel is written, the catalog knows a position that the topic has, be it the channel's
// checkpoint or, before there is one, where the log was then. It is asked once for each
// channel and term.
type written struct {
	mu struct {
		sync.Mutex
		of map[string]*noting // by vchannel
	}
}

// noting is a question and, once done is closed, its answer.
type noting struct {
	term uint64
	done chan struct{}
	err  error
}

// noteWritten returns once the topic of a channel that is about to be written to cannot be lost unnoticed.
func (n *Node) noteWritten(ctx context.Context, w *wal.WAL, v catalog.VChannel) error {
	if _, private := n.o.Queue.(mq.Private); private || n.o.Sole {
		return nil // it says itself what it has lost
	}
	all := &n.written
	all.mu.Lock()
	q := all.mu.of[v.Name]
	if q == nil || q.term != w.Term() {
		q = &noting{term: w.Term(), done: make(chan struct{})}
		all.mu.of[v.Name] = q
		if err := n.group.Go("note that "+v.PChannel+" is written to", func(ctx context.Context) error {
			q.err = lifecycle.Call("note that "+v.PChannel+" is written to", func() error { return n.note(ctx, w, v) })
			if q.err != nil {
				all.forget(v.Name, q) // the next change tries again
			}
			close(q.done)
			return nil
		}); err != nil {
			delete(all.mu.of, v.Name)
			all.mu.Unlock()
			return err // the node is closing
		}
	}
	all.mu.Unlock()
	select {
	case <-q.done:
		return errors.Wrapf(q.err, "nothing is written to %s: it is noted first that its topic is, so that it is missed if it is lost", v.Name)
	case <-ctx.Done():
		return errclass.Wrap(ctx.Err(), errclass.Retryable, "nothing is written to %s: it has yet to be noted that its topic is", v.Name)
	}
}

// note has the catalog know a position of the topic of a channel.
func (n *Node) note(ctx context.Context, w *wal.WAL, v catalog.VChannel) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.Channel(ctx, v.Name)
	if err != nil || c.Checkpoint != "" {
		return err
	}
	known, err := n.o.Catalog.Written(ctx, v.PChannel)
	if err != nil || slices.Contains(known.VChannels, v.Name) {
		return err
	}
	// Of a message that comes now, behind all that may be trimmed: from its creation on the
	// channel holds that back.
	if err := w.Barrier().Wait(ctx); err != nil {
		return err
	}
	at := w.Stats().LastPosition
	list, err := n.o.Catalog.Checkpoints(ctx, v.PChannel)
	if err != nil && !unreadable(err) {
		return err
	}
	var young []string
	for _, c := range list {
		if c.Position == "" {
			young = append(young, c.VChannel)
		}
	}
	return n.o.Catalog.NoteWritten(ctx, v.PChannel, v.Name, at.String(), young)
}

func (w *written) forget(vchannel string, q *noting) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.mu.of[vchannel] == q {
		delete(w.mu.of, vchannel)
	}
}

// keep forgets channels that there are not any more.
func (w *written) keep(live map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for name := range w.mu.of {
		if !live[name] {
			delete(w.mu.of, name)
		}
	}
}

// hasYoung is has for channels without a checkpoint, by what is known of where the topic was written to for them.
func (n *Node) hasYoung(ctx context.Context, pchannel string) error {
	if _, private := n.o.Queue.(mq.Private); private {
		return nil
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	what, why, err := n.lacksOfYoung(ctx, pchannel)
	if err == nil && why != nil {
		// A first checkpoint may have been stored, and the topic trimmed, between one question and the next;
		// what is lost still is.
		what, why, err = n.lacksOfYoung(ctx, pchannel)
	}
	if err == nil && why != nil {
		return n.lost(pchannel, what, why)
	}
	return err
}

// lacksOfYoung says what of a topic is gone that was written for channels without a checkpoint; why nil = nothing.
func (n *Node) lacksOfYoung(ctx context.Context, pchannel string) (what string, why, err error) {
	list, err := n.o.Catalog.Checkpoints(ctx, pchannel)
	if err != nil && !unreadable(err) { // those that cannot be read hold up no others
		return "", nil, errors.Wrapf(err, "checkpoints of %s", pchannel)
	}
	at, err := youngOf(ctx, n.o.Catalog, pchannel, list)
	if err != nil || at.IsZero() {
		return "", nil, err
	}
	b, err := n.o.Queue.Bounds(ctx, pchannel)
	if errclass.Is(err, errclass.Position) {
		return "its messages cannot be read", err, nil
	}
	if err != nil {
		return "", nil, errors.Wrapf(err, "end of %s", pchannel)
	}
	what, why = lostOfYoung(b, at)
	return what, why, nil
}
