package node

import (
	"context"
	"maps"
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
// time that a channel was left, and then now and then. Guarded by Node.mu.
type unread struct {
	of       map[string]*unwatched // by vchannel
	watching map[string]int        // about to be watched: no look begins
	lookers  map[string]int        // goroutines that look, by pchannel
	looks    map[string]*look      // by vchannel
}

// look is one that is under way.
type look struct {
	cancel context.CancelFunc
	ended  chan struct{} // closed when it has
}

// unwatched is a channel that was found to be so.
type unwatched struct {
	due    bool      // to be looked at
	first  time.Time // it is known to be so
	since  time.Time // the same, or the time of the last look
	looked uint64    // the term of the log at that; 0 = there was none

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
	return unread{of: map[string]*unwatched{}, watching: map[string]int{}, lookers: map[string]int{}, looks: map[string]*look{}}
}

// looksAfter is how many passes of the keeper a channel is left alone before its log is
// looked at: mostly it is about to be watched, as its owner has just begun.
const looksAfter = 3

// lookFor bounds how long a look reads: one that the queue does not let on must end some time.
// endLook bounds how long it waits for the end of its subscription.
const lookFor, endLook = 5 * time.Minute, 5 * time.Second

// lookersMost is how many channels of a log are looked at at a time: one that takes long does not
// hold up the others, and they do not take all of its readers. Logs do not wait for one another.
const lookersMost = 2

// lookAtUnwatched has the logs looked at that this node owns, of channels that it does not
// watch. It is the keeper's.
func (n *Node) lookAtUnwatched(colls []*catalog.Collection) {
	now := time.Now()
	live, due := map[string]bool{}, map[string][]flush.Log{} // by pchannel
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
				n.mu.unread.of[v.Name] = &unwatched{first: now, since: now}
			case n.mu.unread.looks[v.Name] != nil:
			case n.lookDue(u, w, now.Sub(u.since)) && !n.flusher.KnowsUnstored(v.Name):
				u.due = true
				due[v.PChannel] = append(due[v.PChannel], flush.Log{PChannel: v.PChannel, VChannel: v.Name, CollectionID: coll.ID})
			}
			n.mu.Unlock()
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	maps.DeleteFunc(n.mu.unread.of, func(name string, _ *unwatched) bool { return !live[name] })
	for pchannel, logs := range due {
		for n.mu.unread.lookers[pchannel] < min(len(logs), lookersMost) && n.lookLocked(pchannel, logs) == nil {
		}
	}
}

// lookLocked looks at logs, which are on one pchannel, unless somebody else does before.
func (n *Node) lookLocked(pchannel string, logs []flush.Log) error {
	n.mu.unread.lookers[pchannel]++
	err := n.group.Go("look at logs that nobody watches, on "+pchannel, func(ctx context.Context) error {
		defer func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.lookerEndsLocked(pchannel)
		}()
		for _, log := range logs {
			if ctx.Err() == nil {
				n.lookAt(ctx, log)
			}
		}
		return nil
	})
	if err != nil {
		n.lookerEndsLocked(pchannel)
	}
	return err
}

func (n *Node) lookerEndsLocked(pchannel string) {
	if n.mu.unread.lookers[pchannel]--; n.mu.unread.lookers[pchannel] == 0 {
		delete(n.mu.unread.lookers, pchannel)
	}
}

// lookDue reports whether the log of a channel is to be looked at. What this node writes to it
// later is sealed by age, and known then; deletes are not. Where nothing is written the
// checkpoint is to follow the log, which is not trimmed behind it.
func (n *Node) lookDue(u *unwatched, w *wal.WAL, ago time.Duration) bool {
	if u.looked != w.Term() {
		return ago >= looksAfter*n.o.RefreshInterval
	}
	return ago > n.flusher.SealAge()
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
	if u == nil || !u.due || n.mu.unread.looks[log.VChannel] != nil || n.isWatchedLocked(log.CollectionID, log.VChannel) {
		n.mu.Unlock()
		return
	}
	u.due = false
	stays := time.Since(u.first) > n.flusher.SealAge() // it is not about to be watched
	n.mu.unread.looks[log.VChannel] = &look{cancel, ended}
	n.mu.Unlock()
	var term uint64
	err := lifecycle.Call("look at the log of "+log.VChannel, func() (err error) {
		term, err = n.survey(ctx, log, stays)
		return err
	})
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.mu.unread.looks, log.VChannel)
	switch {
	case err == nil:
		u.since, u.looked, u.told = time.Now(), term, time.Time{}
	case ctx.Err() == nil:
		u.since = time.Now() // not again at once
		if !u.tell(u.since, err) {
			return
		}
		n.o.Logger.Warn("node: whether a log that nobody watches has rows that are not stored is not known yet", "vchannel", log.VChannel, "error", err)
	}
}

// survey reads the log of a channel from its checkpoint to its end, and tells the flusher
// what is not stored, or, of one that stays as it is, that nothing is. It returns the term under which it did.
func (n *Node) survey(ctx context.Context, log flush.Log, stays bool) (term uint64, err error) {
	w, err := n.wals.Get(log.PChannel)
	if err != nil {
		return 0, err
	}
	end := w.Stats().LastPosition // what there is of the channel up to here is at or before upTo
	upTo := w.LastOf(log.VChannel)
	call, cancel := n.call(ctx)
	defer cancel()
	// The partitions after that: those of all rows up to there are known then, or gone.
	coll, err := n.o.Catalog.CollectionByID(call, log.CollectionID)
	if err != nil {
		return 0, err
	}
	c, err := n.o.Catalog.Channel(call, log.VChannel)
	if err != nil {
		return 0, err
	}
	nothing := c.CheckpointTimestamp >= upTo
	if !nothing {
		s := flush.NewSurvey(upTo, wal.FromTime(time.Now().Add(-n.flusher.SealAge())), func(segment, partition int64) bool {
			return slices.ContainsFunc(c.Segments, func(s catalog.Segment) bool { return s.ID == segment }) ||
				partition != 0 && !slices.ContainsFunc(coll.Partitions, func(p catalog.Partition) bool { return p.ID == partition })
		})
		from, err := n.checkpointOf(call, c, log.PChannel)
		if err != nil {
			return 0, err
		}
		if err := n.readFor(ctx, log, from, s); err != nil {
			return 0, err
		}
		if first, sealed := s.Found(); first != 0 {
			n.flusher.Found(log, first, upTo, sealed)
		}
		nothing = s.Nothing()
	}
	if !nothing || !stays || end.ID == "" || end.Timestamp <= c.CheckpointTimestamp {
		return w.Term(), nil
	}
	if c.Checkpoint == "" {
		// Read from the oldest message that there is: also the oldest that there was?
		if err := n.hasYoung(ctx, log.PChannel); err != nil {
			return 0, err
		}
	}
	return w.Term(), n.flusher.Nothing(ctx, log, w, end)
}

// readFor reads the log of a channel for a survey until that is done.
func (n *Node) readFor(ctx context.Context, log flush.Log, from mq.Position, s *flush.Survey) error {
	call, cancel := n.call(ctx)
	defer cancel()
	h, err := n.o.Dispatcher.Subscribe(call, dispatcher.Subscription{PChannel: log.PChannel, VChannel: log.VChannel, From: from, Sink: s})
	if err != nil {
		return err
	}
	late, again := time.NewTimer(lookFor), time.NewTicker(placeLook)
	defer late.Stop()
	defer again.Stop()
	for over := false; !over; {
		select {
		case <-again.C:
			// One that begins at the oldest message is tried again for ever.
			if info := h.Info(); info.State == dispatcher.Subscribing && errclass.Is(info.LastErr, errclass.Position) {
				over, err = true, errors.Wrap(info.LastErr, "the log cannot be read from the checkpoint")
			}
			continue
		case <-s.Done():
		case <-h.Done():
			err = errors.Wrap(h.Err(), "read the log")
		case <-late.C:
			err = errclass.New(errclass.Retryable, "the log has not been read to its end in %s", lookFor)
		case <-ctx.Done():
			err = ctx.Err()
		}
		over = true
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), endLook)
	defer cancel()
	return errors.CombineErrors(err, h.Close(closing))
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
	l := u.looks[vchannel]
	if l != nil {
		l.cancel()
	}
	n.mu.Unlock()
	over = func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		if u.watching[vchannel]--; u.watching[vchannel] == 0 {
			delete(u.watching, vchannel)
		}
	}
	if l == nil {
		return over, nil
	}
	select {
	case <-l.ended:
		return over, nil
	case <-ctx.Done():
		over()
		return nil, errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for who reads the log of %s", vchannel)
	}
}
