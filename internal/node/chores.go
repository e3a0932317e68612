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
	err  error
}

// chores are those of a node; guarded by Node.mu.
type chores struct {
	logs    chore
	of      map[int64]*chore // by collection
	queue   []int64
	workers int
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
	c.what, c.busy = "logs", true
	if n.group.Go("keeper: logs", func(ctx context.Context) error {
		n.choreEnded(ctx, 0, c, lifecycle.Call("keeper", func() error { return n.ownLogs(ctx) }))
		return nil
	}) != nil {
		c.busy = false // closing
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
	c.busy = true
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
	c.busy, c.done, c.err = c.more, true, err
	if c.more {
		n.mu.chores.queue = append(n.mu.chores.queue, id) // this goroutine goes on with it
	}
	n.mu.Unlock()
	select {
	case n.chored <- struct{}{}:
	default:
	}
}

// forgetChores drops those of collections that are neither live nor served.
func (n *Node) forgetChores(live map[int64]bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	gone := func(id int64) bool { return !live[id] && n.mu.serving[id] == nil }
	maps.DeleteFunc(n.mu.chores.of, func(id int64, c *chore) bool { return gone(id) && !c.busy })
	maps.DeleteFunc(n.mu.aside, func(id int64, _ error) bool { return id != 0 && gone(id) })
}

// undone is what the chores could not do at their last try; at the start also those
// that have not ended once.
func (n *Node) undone(start bool) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	var errs []error
	note := func(c *chore) {
		if c.err != nil {
			errs = append(errs, c.err)
		} else if start && !c.done && c.busy {
			errs = append(errs, errclass.New(errclass.Retryable, "%s: being opened", c.what))
		}
	}
	note(&n.mu.chores.logs)
	for _, id := range slices.Sorted(maps.Keys(n.mu.chores.of)) {
		note(n.mu.chores.of[id])
	}
	return errors.Join(errs...)
}

// SetAside is a collection that is not served, since what the catalog says of it cannot
// be read: a manifest is damaged, or was written by a newer build. The rest goes on.
type SetAside struct {
	CollectionID int64 // 0 = manifests of collections, Err names them
	Err          error
}

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
		n.o.Logger.Error("node: set aside, what the catalog says of it cannot be read; the rest goes on. Restore the manifest that is damaged, or update this node if it is of a newer one",
			"what", what, "error", err)
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
		return errors.Wrapf(err, "collection %d is set aside: restore the manifest that is damaged, or update this node if it is of a newer one", id)
	}
	return nil
}
