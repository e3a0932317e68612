package node

import (
	"context"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/dispatcher"
	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// unread is what a node knows of channels whose log it owns and that it does not watch.
// What is in such a log and not stored nobody stores. Nothing of that is remembered
// between runs and owners: the log itself is looked at, once for each term of it and each
// time that a channel was left. Guarded by Node.mu.
type unread struct {
	of       map[string]*unwatched // by vchannel
	watching map[string]int        // about to be watched: no look begins
	busy     bool                  // somebody looks
	looking  string                // at this vchannel; "" = at none
	cancel   context.CancelFunc    // ends that look
	ended    chan struct{}         // closed when it has
}

// unwatched is a channel that was found to be so.
type unwatched struct {
	since  time.Time // it is known to be so, or of the last look
	looked uint64    // the term of the log at that; 0 = there was none
	upTo   uint64    // it went

	told time.Time // that looks fail; zero = not, since the last that did not
	as   errclass.Class
}

// failedToldEvery is how often the log is told again of looks at a channel that keep failing,
// as they do for good where a topic is lost.
const failedToldEvery = 5 * time.Minute

// tell reports whether the log is to be told of a look that failed: the first, one of
// another kind, and now and then.
func (u *unwatched) tell(now time.Time, err error) bool {
	class := errclass.Of(err)
	if !u.told.IsZero() && class == u.as && now.Sub(u.told) < failedToldEvery {
		return false
	}
	u.told, u.as = now, class
	return true
}

func newUnread() unread {
	return unread{of: map[string]*unwatched{}, watching: map[string]int{}}
}

// looksAfter is how many passes of the keeper a channel is left alone before its log is
// looked at: mostly it is about to be watched, as its owner has just begun.
const looksAfter = 3

// lookFor bounds how long a look reads: one whose place in the log the queue goes on to refuse must
// not hold up those at other channels. endLook bounds how long it waits for the end of its subscription.
const lookFor, endLook = 5 * time.Minute, 5 * time.Second

// lookAtUnwatched has the logs looked at that this node owns, of channels that it does not
// watch, one after the other. It is the keeper's.
func (n *Node) lookAtUnwatched(colls []*catalog.Collection) {
	now := time.Now()
	live, due := map[string]bool{}, []flush.Log{}
	for _, coll := range colls {
		for _, v := range coll.VChannels {
			live[v.Name] = true
			w, err := n.wals.Get(v.PChannel)
			ready := err == nil && w.State() == wal.Ready
			n.mu.Lock()
			switch u := n.mu.unread.of[v.Name]; {
			case !ready || n.isWatchedLocked(coll.ID, v.Name):
				delete(n.mu.unread.of, v.Name)
			case u == nil:
				n.mu.unread.of[v.Name] = &unwatched{since: now}
			case n.lookDue(u, w, v.Name, now.Sub(u.since)) && !n.flusher.KnowsUnstored(v.Name):
				due = append(due, flush.Log{PChannel: v.PChannel, VChannel: v.Name, CollectionID: coll.ID})
			}
			n.mu.Unlock()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	for name := range n.mu.unread.of {
		if !live[name] {
			delete(n.mu.unread.of, name)
		}
	}
	if len(due) == 0 || n.mu.unread.busy {
		return
	}
	n.mu.unread.busy = n.group.Go("look at logs that nobody watches", func(ctx context.Context) error {
		defer func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.mu.unread.busy = false
		}()
		for _, log := range due {
			if ctx.Err() == nil {
				n.lookAt(ctx, log)
			}
		}
		return nil
	}) == nil
}

// lookDue reports whether the log of a channel is to be looked at. What this node writes to it
// later is sealed by age, and known then; deletes are not.
func (n *Node) lookDue(u *unwatched, w *wal.WAL, vchannel string, ago time.Duration) bool {
	if u.looked != w.Term() {
		return ago >= looksAfter*n.o.RefreshInterval
	}
	return w.LastOf(vchannel) > u.upTo && ago > n.flusher.SealAge()
}

func (n *Node) isWatchedLocked(collection int64, vchannel string) bool {
	s := n.mu.serving[collection]
	return n.mu.unread.watching[vchannel] > 0 || s != nil && s.channels[vchannel] != nil
}

// lookAt finds out whether a log has what is not stored of a channel, unless somebody
// begins to watch it.
func (n *Node) lookAt(ctx context.Context, log flush.Log) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	defer close(ended)
	n.mu.Lock()
	u := n.mu.unread.of[log.VChannel]
	if u == nil || n.isWatchedLocked(log.CollectionID, log.VChannel) {
		n.mu.Unlock()
		return
	}
	n.mu.unread.looking, n.mu.unread.cancel, n.mu.unread.ended = log.VChannel, cancel, ended
	n.mu.Unlock()
	var term, upTo uint64
	err := lifecycle.Call("look at the log of "+log.VChannel, func() (err error) {
		term, upTo, err = n.survey(ctx, log)
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	n.mu.unread.looking = ""
	switch {
	case err == nil:
		u.since, u.looked, u.upTo, u.told = time.Now(), term, upTo, time.Time{}
	case ctx.Err() == nil:
		u.since = time.Now() // not again at once
		if !u.tell(u.since, err) {
			return
		}
		n.o.Logger.Warn("node: whether a log that nobody watches has rows that are not stored is not known yet", "vchannel", log.VChannel, "error", err)
	}
}

// survey reads the log of a channel from its checkpoint to its end, and tells the flusher
// what is not stored. It returns the term under which it did, and how far it went.
func (n *Node) survey(ctx context.Context, log flush.Log) (term, upTo uint64, err error) {
	w, err := n.wals.Get(log.PChannel)
	if err != nil {
		return 0, 0, err
	}
	upTo = w.LastOf(log.VChannel)
	call, cancel := n.call(ctx)
	defer cancel()
	// The partitions after that: those of all rows up to there are known then, or gone.
	coll, err := n.o.Catalog.CollectionByID(call, log.CollectionID)
	if err != nil {
		return 0, 0, err
	}
	c, err := n.o.Catalog.Channel(call, log.VChannel)
	if err != nil {
		return 0, 0, err
	}
	if c.CheckpointTimestamp >= upTo {
		return w.Term(), upTo, nil
	}
	from, err := n.checkpointOf(ctx, c, log.PChannel)
	if err != nil {
		return 0, 0, err
	}
	s := flush.NewSurvey(upTo, wal.FromTime(time.Now().Add(-n.flusher.SealAge())), func(segment, partition int64) bool {
		return slices.ContainsFunc(c.Segments, func(s catalog.Segment) bool { return s.ID == segment }) ||
			partition != 0 && !slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == partition })
	})
	h, err := n.o.Dispatcher.Subscribe(call, dispatcher.Subscription{PChannel: log.PChannel, VChannel: log.VChannel, From: from, Sink: s})
	if err != nil {
		return 0, 0, err
	}
	late := time.NewTimer(lookFor)
	defer late.Stop()
	select {
	case <-s.Done():
	case <-h.Done():
		err = errors.Wrap(h.Err(), "read the log")
	case <-late.C:
		err = errclass.New(errclass.Retryable, "the log has not been read to its end in %s", lookFor)
	case <-ctx.Done():
		err = ctx.Err()
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLook)
	defer cancel()
	err = errors.CombineErrors(err, h.Close(closing))
	if first, sealed := s.Found(); err == nil && first != 0 {
		n.flusher.Found(log, first, upTo, sealed)
	}
	return w.Term(), upTo, err
}

// checkpointOf is the position from which the log of a channel is read.
func (n *Node) checkpointOf(ctx context.Context, c *catalog.Channel, pchannel string) (from mq.Position, err error) {
	from.Timestamp = c.CheckpointTimestamp // what is older is stored, also where it has begun anew
	if c.Checkpoint != "" {
		if err := from.UnmarshalText([]byte(c.Checkpoint)); err != nil {
			return from, errclass.Wrap(err, errclass.Corrupt, "checkpoint")
		}
	}
	begin, err := n.queueOf(ctx, pchannel)
	if err != nil {
		return from, err
	}
	if err := n.reaches(ctx, pchannel, from); err != nil {
		return from, err
	}
	// The rows are the same as of the checkpoint: its timestamp stays.
	from.ID = later(from, begin).ID
	return from, nil
}

// noLooks ends a look at the log of a channel that is about to be watched, which has the one
// subscription that there may be. None begins until the returned function is called.
func (n *Node) noLooks(ctx context.Context, vchannel string) (over func(), err error) {
	n.mu.Lock()
	u := &n.mu.unread
	u.watching[vchannel]++
	delete(u.of, vchannel) // when it is left again, there is another end
	var ended chan struct{}
	if u.looking == vchannel {
		u.cancel()
		ended = u.ended
	}
	n.mu.Unlock()
	over = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if u.watching[vchannel]--; u.watching[vchannel] == 0 {
			delete(u.watching, vchannel)
		}
	}
	if ended == nil {
		return over, nil
	}
	select {
	case <-ended:
		return over, nil
	case <-ctx.Done():
		over()
		return nil, errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for who reads the log of %s", vchannel)
	}
}
