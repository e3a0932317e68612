package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/flush"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq"
	"github.com/querynode/querynode/mq/wal"
)

// LostTopic is a topic of a queue that nodes share which has lost messages that are not stored,
// while the node owns its log, or that the node had yet to read. Most often it was deleted,
// and what was written next has made it again.
type LostTopic struct {
	PChannel string
	Since    time.Time // it is known
	Err      error     // of a reader, all that there is to say
	Reader   bool      // the node had yet to read them, and does not own the log
}

// lostTopics is what a node knows of them, and how it looks for them; guarded by Node.mu.
type lostTopics struct {
	of     map[string]*lostTopic // by pchannel
	looked map[string]time.Time  // and found whole, by pchannel
	busy   bool                  // somebody looks
}

type lostTopic struct {
	LostTopic
	told   time.Time
	sealed bool // what was in memory when it was noticed
}

func newLostTopics() lostTopics {
	return lostTopics{of: map[string]*lostTopic{}, looked: map[string]time.Time{}}
}

// topicLooks is how many passes of the keeper are between two looks at a topic, each of which
// opens some readers: a log is begun anew by the next message, so that nothing else tells of it.
const topicLooks = 6

// lookAtTopics has the topics looked at of the logs that this node owns: one that is lost at
// each pass, the others now and then. It is the keeper's.
func (n *Node) lookAtTopics() {
	if _, private := n.o.Queue.(mq.Private); private || n.o.Sole {
		return // what it has lost it says when it is opened
	}
	now := time.Now()
	var due []*wal.WAL
	own := map[string]bool{}
	for _, st := range n.wals.List() {
		w, err := n.wals.Get(st.PChannel)
		if err != nil || w.State() != wal.Ready {
			continue // who opens it compares it, too
		}
		own[st.PChannel] = true
		n.mu.Lock()
		if n.mu.lost.of[st.PChannel] != nil || now.Sub(n.mu.lost.looked[st.PChannel]) >= topicLooks*n.o.RefreshInterval {
			due = append(due, w)
		}
		n.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := func(pchannel string) bool { return !own[pchannel] }
	maps.DeleteFunc(n.mu.lost.of, func(p string, _ *lostTopic) bool { return gone(p) })
	maps.DeleteFunc(n.mu.lost.looked, func(p string, _ time.Time) bool { return gone(p) })
	if len(due) == 0 || n.mu.lost.busy {
		return
	}
	n.mu.lost.busy = n.group.Go("look at topics", func(ctx context.Context) error {
		defer func() {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.mu.lost.busy = false
		}()
		for _, w := range due {
			if ctx.Err() != nil {
				return nil
			}
			var what string
			var why error
			err := lifecycle.Call("look at topic "+w.PChannel(), func() (err error) {
				what, why, err = n.lacksOf(ctx, w)
				return err
			})
			if err != nil {
				continue // the queue or the storage is away, which is told elsewhere
			}
			n.noteLost(ctx, w.PChannel(), what, why)
		}
		return nil
	}) == nil
}

// lacksOf says what of a topic is gone that is not stored; why nil = nothing.
func (n *Node) lacksOf(ctx context.Context, w *wal.WAL) (what string, why, err error) {
	ctx, cancel := n.call(ctx)
	defer cancel()
	at := w.Stats().LastPosition
	b, err := n.o.Queue.Bounds(ctx, w.PChannel())
	switch {
	case errclass.Is(err, errclass.Position):
		return "its messages cannot be read", err, nil
	case err != nil:
		return "", nil, err
	case b.Last.Before(at):
		return fmt.Sprintf("%s, and this node has written to it up to %s", endText(b.Last), placeText(at)), mq.ErrAhead, nil
	}
	known, err := n.knownOf(ctx, w.PChannel())
	if err != nil {
		return "", nil, err
	}
	what, why = known.compare(b)
	if errors.Is(why, mq.ErrAhead) {
		// What is known is newer than the look at the topic, which had more by then. But for
		// trims it would begin where it did, so that is not looked at again.
		newer, err := n.o.Queue.Bounds(ctx, w.PChannel())
		if err != nil {
			return "", nil, err
		}
		b.Last = newer.Last
		what, why = known.compare(b)
	}
	return what, why, nil
}

// known is what object storage knows of a topic.
type known struct {
	lowest, highest mq.Position // checkpoints
	written         mq.Position // see youngOf
}

func (n *Node) knownOf(ctx context.Context, pchannel string) (k known, err error) {
	var all bool
	k.lowest, k.highest, all, err = flush.Checkpoints(ctx, n.o.Catalog, pchannel)
	if err != nil && !unreadable(err) { // those that cannot be read hold up no others
		return k, err
	}
	if all {
		return k, nil
	}
	list, err := n.o.Catalog.Checkpoints(ctx, pchannel)
	if err != nil && !unreadable(err) {
		return k, err
	}
	k.written, err = youngOf(ctx, n.o.Catalog, pchannel, list)
	return k, err
}

// compare says what is wrong with a topic that begins and ends there.
func (k *known) compare(b mq.Bounds) (what string, err error) {
	if !k.highest.IsZero() {
		if what, err := lostIn(b, k.lowest, k.highest); err != nil {
			return what, err
		}
	}
	return lostOfYoung(b, k.written)
}

// noteLost notes what a look has found. What is gone from a topic and not stored is mostly in
// the memory of this node, for a while: it is sealed at once, so that it is stored before
// the node may die. So the log goes on; once all is stored, nothing is lost.
func (n *Node) noteLost(ctx context.Context, pchannel, what string, why error) {
	now := time.Now()
	n.mu.Lock()
	t := n.mu.lost.of[pchannel]
	if why == nil {
		delete(n.mu.lost.of, pchannel)
		n.mu.lost.looked[pchannel] = now
		n.mu.Unlock()
		if t != nil {
			n.o.Logger.Info("node: the channels of a topic that has lost messages are stored beyond them", "pchannel", pchannel, "since", t.Since)
		}
		return
	}
	if t == nil {
		t = &lostTopic{LostTopic: LostTopic{PChannel: pchannel, Since: now}}
		n.mu.lost.of[pchannel] = t
	}
	t.Err = errors.Wrap(why, what)
	tell, seal := now.Sub(t.told) >= failedToldEvery, !t.sealed
	if tell {
		t.told = now
	}
	text := t.String()
	n.mu.Unlock()
	if tell {
		n.o.Logger.Error("node: " + text)
	}
	if seal && n.sealAll(ctx, pchannel) == nil {
		n.mu.Lock()
		t.sealed = true
		n.mu.Unlock()
	}
}

// sealAll seals what grows on the channels of a pchannel that are watched here.
func (n *Node) sealAll(ctx context.Context, pchannel string) error {
	ctx, cancel := n.call(ctx)
	defer cancel()
	var list []*watch
	n.mu.Lock()
	for _, s := range n.mu.serving {
		for _, w := range s.channels {
			if w.pchannel == pchannel {
				list = append(list, w)
			}
		}
	}
	n.mu.Unlock()
	return together(list, func(w *watch) error {
		_, _, err := n.sealOne(ctx, w)
		return err
	})
}

// notePlace notes how a channel has begun: err says of one that cannot that what comes next
// of its log is gone.
func (n *Node) notePlace(s *serving, v catalog.VChannel, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	was, there := s.lost[v.Name]
	switch {
	case err == nil:
		delete(s.lost, v.Name)
	case errclass.Is(err, errclass.Position):
		if !there {
			was = LostTopic{PChannel: v.PChannel, Since: time.Now()}
		}
		was.Err, was.Reader = err, true
		s.lost[v.Name] = was
	}
}

// lostOf is why one of these channels of a collection cannot be read, if what comes next of its
// log is gone.
func (n *Node) lostOf(s *serving, names []string) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		if t, lost := s.lost[name]; lost && s.channels[name] == nil {
			return errclass.Wrap(t.Err, errclass.Retryable, "channel %s of collection %q cannot be read now", name, s.coll.Info().Name)
		}
	}
	return nil
}

// String says what it is, and what to do.
func (t LostTopic) String() string {
	if t.Reader {
		return t.Err.Error()
	}
	return fmt.Sprintf("topic %s was deleted, or has lost messages, while this node runs: %v. What of them is in the memory of this node is being stored, so leave it running; this ends once all is. "+
		"If it does not, what is missing is gone from the queue: restore the topic, or stop the nodes, give up what only it had with: querynode queue begin-anew %s, and start them", t.PChannel, t.Err, t.PChannel)
}

// LostTopics lists the topics that have lost messages while this node runs, by name. That of
// a reader is a part of Problem, too.
func (n *Node) LostTopics() (all []LostTopic) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, t := range n.mu.lost.of {
		all = append(all, t.LostTopic)
	}
	for _, s := range n.mu.serving {
		for name, t := range s.lost {
			known := slices.ContainsFunc(all, func(o LostTopic) bool { return o.PChannel == t.PChannel })
			if !known && (s.wanted[name] || s.whole.Load()) {
				all = append(all, t)
			}
		}
	}
	slices.SortFunc(all, func(a, b LostTopic) int { return cmp.Compare(a.PChannel, b.PChannel) })
	return all
}
