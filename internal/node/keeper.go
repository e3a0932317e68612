package node

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/mq/wal"
)

// Kick makes the keeper look for work now.
func (n *Node) Kick() {
	select {
	case n.kick <- struct{}{}:
	default:
	}
}

// keep brings what is served to what is to be served, again and again: it looks
// at the state and does what is missing, so that a failure or a crash is
// repaired by the next pass.
func (n *Node) keep(ctx context.Context) error {
	wait := time.NewTimer(0)
	defer wait.Stop()
	k := &keeping{Node: n, ahead: map[string]time.Time{}}
	for {
		passed := false
		var listed error
		select {
		case <-ctx.Done():
			return nil
		case <-n.chored:
			listed = n.unlisted()
		case <-wait.C:
			passed = true
		case <-n.kick:
			passed = true
		}
		if passed {
			k.passes++
			listed = lifecycle.Call("keeper", func() error { return n.pass(ctx) })
		}
		if ctx.Err() != nil {
			return nil
		}
		if passed {
			n.tellAhead(k.ahead)
		}
		next := k.settle(passed, listed)
		// Sooner, never later: chores may end one after the other for long.
		if at := time.Now().Add(next); passed || at.Before(k.due) {
			k.due = at
			wait.Reset(next)
		}
	}
}

// keeping is what the keeper remembers from one look to the next.
type keeping struct {
	*Node
	complete bool // all has been served once
	passes   int
	due      time.Time            // of the next pass
	said     string               // what the log was told last
	saidAt   time.Time            // and when
	ahead    map[string]time.Time // when the log was told of clocks that are ahead
}

// settle finds out what is wrong after a pass, or when a chore has ended, and says when to
// look again.
func (k *keeping) settle(passed bool, listed error) (next time.Duration) {
	failed, opening := k.undone()
	if k.complete {
		opening = nil
	}
	wrong := errors.CombineErrors(listed, failed)
	err := wrong
	if opening != nil {
		err = errors.Join(wrong, opening)
	}
	replay := k.replaying(!k.complete && err == nil)
	k.mu.Lock()
	k.mu.listed, k.mu.problem = listed, errors.CombineErrors(err, replay)
	k.mu.Unlock()
	next = k.o.RefreshInterval
	switch {
	case err != nil:
		// What the first pass has begun has not had the time to end.
		if passed && (k.passes > 1 || wrong != nil) {
			k.tell(err.Error())
		}
		return min(next, time.Second)
	case replay != nil:
		return min(next, replayLook)
	case !k.complete:
		k.complete = true
		close(k.ready)
	}
	return next
}

// tell logs what is wrong, the same once a minute.
func (k *keeping) tell(text string) {
	if text != k.said || time.Since(k.saidAt) > time.Minute {
		k.said, k.saidAt = text, time.Now()
		k.o.Logger.Warn("node: not everything is served; trying again", "error", text)
	}
}

// unlisted is why the last pass could not list the collections.
func (n *Node) unlisted() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.mu.listed
}

// pass looks at what there is to be served and has it looked after; it waits for none of
// that. Collections that cannot be listed do not hold up those that can.
func (n *Node) pass(ctx context.Context) error {
	if n.o.Standalone {
		n.lookAfterLogs()
	}
	n.lookAtTopics()
	colls, err := n.Collections(ctx)
	if err == nil || unreadable(err) {
		n.setAside(0, "collections", err)
		err = nil
	}
	n.mu.Lock()
	serving := slices.Collect(maps.Keys(n.mu.serving))
	n.mu.Unlock()
	live, todo, vchannels := map[int64]bool{}, map[int64]bool{}, map[string]bool{}
	for _, id := range serving {
		todo[id] = true
	}
	for _, coll := range colls {
		live[coll.ID] = true
		for _, v := range coll.VChannels {
			vchannels[v.Name] = true
		}
		if !n.o.Standalone && !todo[coll.ID] {
			continue // it is served once somebody asks for it
		}
		n.lookAfter(coll.ID, fmt.Sprintf("collection %q", coll.Name), func(ctx context.Context) error {
			return errors.Wrapf(n.refresh(ctx, coll), "serve collection %q", coll.Name)
		})
	}
	if err != nil {
		return errors.Wrap(err, "list collections")
	}
	for _, id := range serving {
		if live[id] {
			continue
		}
		n.lookAfter(id, fmt.Sprintf("collection %d", id), func(ctx context.Context) error { return n.dropIfGone(ctx, id) })
	}
	n.forgetChores(live)
	n.flusher.Live(vchannels)
	n.written.keep(vchannels)
	n.lookAtUnwatched(colls)
	return nil
}

// dropIfGone stops serving a collection that the catalog does not list; it was
// perhaps created after the list was read, so it is asked for by its id.
func (n *Node) dropIfGone(ctx context.Context, id int64) error {
	call, cancel := n.call(ctx)
	defer cancel()
	c, err := n.o.Catalog.CollectionByID(call, id)
	switch {
	case errclass.Is(err, errclass.NotFound), err == nil && c.DroppedTimestamp != 0:
		return n.unserve(ctx, id)
	}
	return err
}

// ownLogs takes the pchannels that this node does not own.
func (n *Node) ownLogs(ctx context.Context) error {
	owned := map[string]bool{}
	for _, st := range n.wals.List() {
		owned[st.PChannel] = st.Assigned
		if st.Assigned && st.State != wal.Ready {
			err := errclass.New(errclass.Retryable, "log of %s is %v", st.PChannel, st.State)
			if st.Err != nil {
				err = errclass.Wrap(st.Err, errclass.Retryable, "log of %s is %v", st.PChannel, st.State)
			}
			return err
		}
		if st.Assigned {
			if err := n.stillIn(ctx, st.PChannel, st.Term); err != nil {
				return err
			}
		}
	}
	for _, p := range n.o.PChannels {
		if owned[p] {
			continue
		}
		if _, _, err := n.AssignChannel(ctx, p, 0); err != nil {
			return errors.Wrapf(err, "own %s", p)
		}
	}
	return nil
}

// refresh watches and loads what is missing of a collection that is served
// whole. A standalone node serves all.
func (n *Node) refresh(ctx context.Context, coll *catalog.Collection) error {
	n.mu.Lock()
	s := n.mu.serving[coll.ID]
	n.mu.Unlock()
	if s == nil && !n.o.Standalone {
		return nil
	}
	created := s == nil
	s, leave, err := n.enter(ctx, coll, true)
	if err != nil {
		return err
	}
	defer leave()
	if s.leaving.Load() {
		return n.finishRelease(ctx, s)
	}
	if created || (n.o.Standalone && s.coll == nil) {
		s.whole.Store(true) // nobody has said yet what is to be served of it
	}
	if !s.whole.Load() {
		return n.tend(ctx, s, coll)
	}
	if err := n.watch(ctx, s, coll, nil); err != nil {
		return err
	}
	if _, err = n.load(ctx, s, coll, nil); forGood(err) {
		return nil // known and reported: see Broken. It must not keep the node from being ready.
	}
	return err
}

// tend keeps what a caller chose of a collection: channels whose subscription has
// failed begin anew, and deletes that are in files by now leave the memory of
// those that others flush, as do growing segments that others have compacted.
func (n *Node) tend(ctx context.Context, s *serving, coll *catalog.Collection) error {
	names := n.wantedOf(s)
	if len(names) == 0 {
		return nil
	}
	if err := n.watch(ctx, s, coll, names); err != nil {
		return err
	}
	// What a channel had when it began anew, and could not be loaded then: reads wait for it.
	if ids := n.askedOf(s); len(ids) > 0 {
		if _, err := n.load(ctx, s, coll, ids); err != nil && !forGood(err) {
			return err
		}
	}
	for _, name := range names {
		ch, ok := s.coll.Channel(name)
		if !ok {
			continue
		}
		call, cancel := n.call(ctx)
		c, err := n.o.Catalog.Channel(call, name)
		cancel()
		if err != nil {
			return err
		}
		ch.TrimDeletes(c.CheckpointTimestamp)
		if err := n.replaceGrowing(ctx, s, coll, ch, c); err != nil {
			return errors.Wrapf(err, "channel %s", name)
		}
	}
	return nil
}
