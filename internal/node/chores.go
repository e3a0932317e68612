package node

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
)

// chore is what the keeper does for one collection, or for the logs. It is done by one
// goroutine at a time, so that one that waits for a slow storage holds up no other.
type chore struct {
	what string
	do   func(context.Context) error
	busy bool // queued or under way
	more bool // it is to be done again after that
	done bool // at least once
}

// chores are those of a node; guarded by Node.mu. What the keeper asks at each end of a
// chore is kept apart, so that it need not look at all of them.
type chores struct {
	logs    chore
	of      map[int64]*chore // by collection
	queue   []int64
	workers int

	busy   int              // how many are
	fresh  map[int64]*chore // busy, and not done yet; 0 = the logs
	failed map[int64]error  // of their last try; 0 = the logs
	looks  int              // how many fresh and failed ones undone has looked at so far
}

func newChores() chores {
	return chores{of: map[int64]*chore{}, fresh: map[int64]*chore{}, failed: map[int64]error{}}
}

// begin notes that a chore is busy from now on.
func (cs *chores) begin(id int64, c *chore) {
	c.busy = true
	cs.busy++
	if !c.done {
		cs.fresh[id] = c
	}
}

// end notes how a chore has ended, and reports whether the keeper is to be told: of the
// end of all of them, and when something is wrong now or nothing any more. Of what
// else is wrong it learns at its next pass, which is soon then.
func (cs *chores) end(id int64, c *chore, err error) bool {
	fresh, failed := len(cs.fresh), len(cs.failed)
	delete(cs.fresh, id)
	delete(cs.failed, id)
	if err != nil {
		cs.failed[id] = err
	}
	c.busy, c.done = c.more, true
	if c.more {
		cs.queue = append(cs.queue, id)
	} else {
		cs.busy--
	}
	return cs.busy == 0 || (failed == 0) != (len(cs.failed) == 0) || fresh > 0 && len(cs.fresh) == 0
}

// forget drops one that is not busy.
func (cs *chores) forget(id int64) {
	delete(cs.of, id)
	delete(cs.failed, id)
}

// choreWidth is how many collections are looked after at a time.
const choreWidth = 16

// lookAfterLogs has the logs looked after, apart from all collections.
func (n *Node) lookAfterLogs() {
	n.mu.Lock()
	defer n.mu.Unlock()
	c := &n.mu.chores.logs
	if c.busy {
		return // and looked after again at the next pass
	}
	c.what = "logs"
	if n.group.Go("keeper: logs", func(ctx context.Context) error {
		n.choreEnded(ctx, 0, c, lifecycle.Call("keeper", func() error { return n.ownLogs(ctx) }))
		return nil
	}) == nil {
		n.mu.chores.begin(0, c) // else the node is closing
	}
}

// lookAfter has do done for a collection, unless it is being done.
func (n *Node) lookAfter(id int64, what string, do func(context.Context) error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := &n.mu.chores
	c := all.of[id]
	if c == nil {
		c = &chore{}
		all.of[id] = c
	}
	c.what, c.do = what, do
	if c.busy {
		c.more = true // what it has looked at may be older than this
		return
	}
	all.begin(id, c)
	all.queue = append(all.queue, id)
	if all.workers == choreWidth {
		return
	}
	all.workers++
	if n.group.Go(fmt.Sprint("keeper: collections ", all.workers), n.workOff) != nil {
		all.workers--
	}
}

// workOff does chores until none is queued.
func (n *Node) workOff(ctx context.Context) error {
	for {
		n.mu.Lock()
		all := &n.mu.chores
		if len(all.queue) == 0 || ctx.Err() != nil {
			all.workers--
			n.mu.Unlock()
			return nil
		}
		id := all.queue[0]
		all.queue = all.queue[1:]
		c := all.of[id]
		c.more = false
		do := c.do
		n.mu.Unlock()
		n.choreEnded(ctx, id, c, lifecycle.Call("keeper", func() error { return do(ctx) }))
	}
}

// choreEnded notes how a chore has ended. What is damaged for good, or of a newer build, is
// set aside: it must not keep the node from being ready.
func (n *Node) choreEnded(ctx context.Context, id int64, c *chore, err error) {
	if ctx.Err() != nil {
		err = nil
	}
	aside := err
	if unreadable(err) {
		err = nil
	} else {
		aside = nil
	}
	if id != 0 {
		n.mu.Lock()
		what := c.what
		n.mu.Unlock()
		n.setAside(id, what, aside)
	} else {
		err = errors.CombineErrors(err, aside)
	}
	n.mu.Lock()
	tell := n.mu.chores.end(id, c, err) // if it is to be done again, this goroutine goes on with it
	n.mu.Unlock()
	if !tell {
		return
	}
	select {
	case n.chored <- struct{}{}:
	default:
	}
}

// forgetChores drops those of collections for which there is nothing to be done.
func (n *Node) forgetChores(live map[int64]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := func(id int64) bool { return n.mu.serving[id] == nil && (!live[id] || !n.o.Standalone) }
	for id, c := range n.mu.chores.of {
		if gone(id) && !c.busy {
			n.mu.chores.forget(id)
		}
	}
	maps.DeleteFunc(n.mu.aside, func(id int64, _ error) bool { return id != 0 && gone(id) })
}

// namedAtMost is how many of the chores that failed, or have not ended yet, are named: a
// storage that is away fails those of thousands of collections.
const namedAtMost = 8

// undone is what the chores could not do at their last try, and those that have not ended
// once.
func (n *Node) undone() (wrong, opening error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	all := &n.mu.chores
	all.looks += len(all.failed)
	var errs []error
	failed := slices.Sorted(maps.Keys(all.failed))
	said := false
	for _, id := range failed[:min(namedAtMost, len(failed))] {
		err := all.failed[id]
		var log *elsewhere
		if errors.As(err, &log) {
			if c := all.of[id]; said && c != nil {
				err = errclass.New(errclass.Of(err), "serve %s: %s is not opened either", c.what, log.pchannel)
			}
			said = true
		}
		errs = append(errs, err)
	}
	if more := len(failed) - namedAtMost; more > 0 {
		errs = append(errs, errclass.New(errclass.Retryable, "and %d collections more", more))
	}
	if len(all.fresh) > namedAtMost {
		return errors.Join(errs...), errclass.New(errclass.Retryable, "%d collections: being opened", len(all.fresh))
	}
	var fresh []error
	all.looks += len(all.fresh)
	for _, id := range slices.Sorted(maps.Keys(all.fresh)) {
		fresh = append(fresh, errclass.New(errclass.Retryable, "%s: being opened", all.fresh[id].what))
	}
	return errors.Join(errs...), errors.Join(fresh...)
}

// SetAside is a collection that is not served, since what the catalog says of it cannot
// be read: a manifest is damaged, or was written by a newer build. The rest goes on.
type SetAside struct {
	CollectionID int64 // 0 = manifests of collections, Err names them
	Err          error
}

// remedy is what helps where unreadable is true.
const remedy = "restore the damaged manifest; if a newer build wrote it, update this node"

// unreadable reports whether manifests cannot be read for good.
func unreadable(err error) bool {
	return errclass.Is(err, errclass.Corrupt) || errclass.Is(err, errclass.Unimplemented)
}

// setAside notes that a collection cannot be served, or that it can (nil), and logs a change.
func (n *Node) setAside(id int64, what string, err error) {
	n.mu.Lock()
	before := n.mu.aside[id]
	if err == nil {
		delete(n.mu.aside, id)
	} else {
		n.mu.aside[id] = err
	}
	n.mu.Unlock()
	switch {
	case err != nil && (before == nil || before.Error() != err.Error()):
		n.o.Logger.Error("node: set aside, what the catalog says of it cannot be read; the rest goes on: "+remedy, "what", what, "error", err)
	case err == nil && before != nil:
		n.o.Logger.Info("node: can be read again", "what", what)
	}
}

// SetAside lists what is set aside, in order of ids.
func (n *Node) SetAside() (all []SetAside) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for id, err := range n.mu.aside {
		all = append(all, SetAside{id, err})
	}
	slices.SortFunc(all, func(a, b SetAside) int { return cmp.Compare(a.CollectionID, b.CollectionID) })
	return all
}

// asideOf is why a collection is set aside; nil = it is not.
func (n *Node) asideOf(id int64) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if err := n.mu.aside[id]; err != nil {
		return errors.Wrapf(err, "collection %d is set aside: %s", id, remedy)
	}
	return nil
}
