package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
)

// prove finds out whether a channel without a checkpoint is read from where its log began. Such a
// one begins with the oldest message that there is when its reader is opened: if the
// topic was lost before that, with rows that were acknowledged, nothing else would tell.
// Until it is proven nothing of the channel is stored, so that no checkpoint passes over them.
func (n *Node) prove(ctx context.Context, w *watch) {
	look := time.NewTicker(placeLook)
	defer look.Stop()
	wait, told := time.Time{}, time.Now() // until the queue, or the storage, is asked again; since it was told
	for {
		select {
		case <-look.C:
		case <-w.watched.Done():
			return
		case <-ctx.Done():
			return
		}
		if w.handle.State() == dispatcher.Subscribing || time.Now().Before(wait) {
			continue
		}
		err := lifecycle.Call("prove that "+w.channel.Name()+" is read whole", func() error { return n.hasYoung(ctx, w.pchannel) })
		switch {
		case err == nil:
			w.proven.Store(true)
			return
		case errclass.Is(err, errclass.Position):
			w.lost.Store(true)
			n.Kick() // who watches it again finds it lost, and says so
			return
		}
		w.doubt.Store(&err)
		wait = time.Now().Add(proveAgain)
		if time.Since(told) >= failedToldEvery && ctx.Err() == nil && w.watched.Err() == nil {
			told = time.Now()
			n.o.Logger.Warn("node: a channel is not stored before it is known that all of its log is read, which cannot be found out", "vchannel", w.channel.Name(), "error", err)
		}
	}
}

// fromOldest is the sink of a channel that is read from the oldest message there is, as it had no checkpoint
// when its manifest was read. Its reader is open when the first messages come, and nothing is
// applied, so that no read goes by it, before look says that they are the oldest there ever were.
type fromOldest struct {
	dispatcher.Sink
	look   func(ctx context.Context) error
	looked bool // one goroutine at a time applies
}

// Apply applies messages. Errors of look are of class Retryable.
func (f *fromOldest) Apply(ctx context.Context, msgs []mq.Message) error {
	if !f.looked {
		if err := f.look(ctx); err != nil {
			return err
		}
		f.looked = true
	}
	return f.Sink.Apply(ctx, msgs)
}

// stillUnstored makes sure that a channel whose reader is open has no checkpoint. If it has, the owner of the log has
// stored it for the first time since its manifest was read, and may have trimmed the log before the reader was
// opened: what came before is in segments that are not known here. Then the channel begins anew, at the checkpoint.
func (n *Node) stillUnstored(ctx context.Context, w *watch) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.Channel(ctx, w.channel.Name())
	if err != nil {
		return errclass.Wrap(err, errclass.Retryable, "find out whether channel %s is read from where its log began", w.channel.Name())
	}
	if c.Checkpoint == "" {
		return nil
	}
	w.lost.Store(true)
	n.Kick()
	return errclass.New(errclass.Retryable, "channel %s was stored for the first time while its reader was opened: it begins anew", w.channel.Name())
}

// settle waits until it is known of the channels of a collection whether they read all of their logs.
func (n *Node) settle(ctx context.Context, collection int64) error {
	var list []*watch
	n.mu.Lock()
	if s := n.mu.serving[collection]; s != nil {
		list = slices.Collect(maps.Values(s.channels))
	}
	n.mu.Unlock()
	for _, w := range list {
		select {
		case <-w.settled:
		case <-ctx.Done():
			return errclass.Wrap(ctx.Err(), errclass.Retryable, "find out whether channel %s reads all of its log", w.channel.Name())
		}
	}
	return nil
}

// proveAgain is how long prove waits after a question that had no answer.
const proveAgain = time.Second

// provesWithin is how long it mostly takes at most until it is known of a channel that it reads all of its log.
const provesWithin = 30 * time.Second

// Unproven is a channel that this node watches and does not store yet: it has no checkpoint, and it is not known
// whether it reads all of its log, as the queue, or the storage, has not answered.
type Unproven struct {
	VChannel string
	PChannel string
	Since    time.Time // it is watched
	Err      error     // the last answer; nil = the queue has not let it begin
}

// String says what it is.
func (u Unproven) String() string {
	why := "the queue has not let it read yet"
	if u.Err != nil {
		why = u.Err.Error()
	}
	return fmt.Sprintf("channel %s is watched since %s, and nothing of it is stored before it is known that all of its log, %s, is read: %s. What is acknowledged is in the log, which is not trimmed meanwhile",
		u.VChannel, u.Since.UTC().Format(time.RFC3339), u.PChannel, why)
}

// UnprovenChannels lists those for which that takes long, by name.
func (n *Node) UnprovenChannels() (all []Unproven) {
	now := n.o.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, s := range n.mu.serving {
		for name, w := range s.channels {
			if w.proven.Load() || w.lost.Load() || now.Sub(w.since) < provesWithin {
				continue
			}
			u := Unproven{VChannel: name, PChannel: w.pchannel, Since: w.since}
			if why := w.doubt.Load(); why != nil {
				u.Err = *why
			} else {
				u.Err = w.handle.Info().LastErr
			}
			all = append(all, u)
		}
	}
	slices.SortFunc(all, func(a, b Unproven) int { return cmp.Compare(a.VChannel, b.VChannel) })
	return all
}
