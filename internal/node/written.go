package node

import (
	"context"
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
func (n *Node) noteWritten(ctx context.Context, w *wal.WAL, coll *catalog.Collection, v catalog.VChannel) error {
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
			q.err = lifecycle.Call("note that "+v.PChannel+" is written to", func() error { return n.note(ctx, w, coll, v) })
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
func (n *Node) note(ctx context.Context, w *wal.WAL, coll *catalog.Collection, v catalog.VChannel) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.Channel(ctx, v.Name)
	if err != nil || c.Checkpoint != "" {
		return err
	}
	text, err := n.o.Catalog.Written(ctx, v.PChannel)
	if err != nil {
		return err
	}
	if text != "" {
		var known mq.Position
		if known.UnmarshalText([]byte(text)) == nil && known.Timestamp >= coll.CreatedTimestamp {
			return nil
		}
	}
	at := w.Stats().LastPosition
	if at.IsZero() || at.Timestamp < coll.CreatedTimestamp {
		if err := w.Barrier().Wait(ctx); err != nil {
			return err
		}
		at = w.Stats().LastPosition // of a message that came after it, behind all that may be trimmed
	}
	at.Timestamp = max(at.Timestamp, coll.CreatedTimestamp) // by a clock that is ahead, perhaps
	return n.o.Catalog.NoteWritten(ctx, v.PChannel, text, at.String())
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

// hasYoung is has for a topic none of whose channels has a checkpoint yet.
func (n *Node) hasYoung(ctx context.Context, pchannel string) error {
	if _, private := n.o.Queue.(mq.Private); private {
		return nil
	}
	ctx, cancel := n.call(ctx)
	defer cancel()
	at, err := writtenOf(ctx, n.o.Catalog, pchannel)
	if err != nil || at.IsZero() {
		return err
	}
	list, err := n.o.Catalog.Checkpoints(ctx, pchannel)
	if err != nil && !unreadable(err) { // those that cannot be read hold up no others
		return errors.Wrapf(err, "checkpoints of %s", pchannel)
	}
	if !isYoung(list, at) {
		return nil
	}
	b, err := n.o.Queue.Bounds(ctx, pchannel)
	if errclass.Is(err, errclass.Position) {
		return n.lost(pchannel, "its messages cannot be read", err)
	}
	if err != nil {
		return errors.Wrapf(err, "end of %s", pchannel)
	}
	if what, err := lostOfYoung(b, list, at); err != nil {
		return n.lost(pchannel, what, err)
	}
	return nil
}
