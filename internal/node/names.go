package node

import (
	"context"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/catalog"
	"github.com/querynode/querynode/internal/errclass"
)

// nameTTL is how long a name is trusted: another node may rename or drop the
// collection meanwhile. Changes made on this node are seen at once.
const nameTTL = 2 * time.Second

// nameCache remembers what collections are called, so that a search does not
// read object storage.
type nameCache struct {
	now func() time.Time
	mu  struct {
		sync.Mutex
		byName map[string]named
		asked  map[string]*asking // the last that has begun, or is to, by name
		epoch  int                // grows with forget: an answer read before it is not kept
	}
}

type named struct {
	coll *catalog.Collection
	at   time.Time
}

func newNameCache(now func() time.Time) *nameCache {
	c := &nameCache{now: now}
	c.mu.byName = map[string]named{}
	c.mu.asked = map[string]*asking{}
	return c
}

// asking is one reading of what a name means.
type asking struct {
	begun bool // who comes now needs the next one; guarded by nameCache.mu
	done  chan struct{}
	coll  *catalog.Collection // with err and over, once done is closed
	err   error
	over  bool // the context of who read has ended: what went wrong is not the others'
}

// renew returns what a name means at a moment after the call. Those who ask while it is
// being read share the next reading.
func (c *nameCache) renew(ctx context.Context, name string, find func(context.Context, string) (*catalog.Collection, error)) (*catalog.Collection, error) {
	for {
		c.mu.Lock()
		before := c.mu.asked[name]
		mine := before == nil || before.begun
		a := before
		if mine {
			a = &asking{done: make(chan struct{})}
			c.mu.asked[name] = a
		}
		c.mu.Unlock()
		if mine {
			c.read(ctx, name, a, before, find)
			return a.coll, a.err
		}
		select {
		case <-a.done:
		case <-ctx.Done():
			return nil, errclass.Wrap(ctx.Err(), errclass.Retryable, "look up collection %q", name)
		}
		if a.err == nil || !a.over {
			return a.coll, a.err
		}
		// Who read for all had less time, or has died of something.
	}
}

// read does the reading a once the one before it has ended.
func (c *nameCache) read(ctx context.Context, name string, a, before *asking, find func(context.Context, string) (*catalog.Collection, error)) {
	a.err, a.over = errclass.New(errclass.Internal, "look up collection %q: it has ended without a result", name), true
	defer func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.mu.asked[name] == a {
			delete(c.mu.asked, name)
		}
		close(a.done)
	}()
	if before != nil {
		select {
		case <-before.done:
		case <-ctx.Done():
			a.err = errclass.Wrap(ctx.Err(), errclass.Retryable, "look up collection %q", name)
			return
		}
	}
	c.mu.Lock()
	a.begun = true
	epoch := c.mu.epoch
	c.mu.Unlock()
	if a.coll, a.err = find(ctx, name); a.err == nil {
		c.keep(name, a.coll, epoch)
	}
	a.over = ctx.Err() != nil
}

// keep remembers an answer that was asked for in an epoch.
func (c *nameCache) keep(name string, coll *catalog.Collection, epoch int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.epoch == epoch {
		if len(c.mu.byName) >= maxNames {
			clear(c.mu.byName)
		}
		c.mu.byName[name] = named{coll, c.now()}
	}
}

// maxNames bounds the cache.
const maxNames = 10_000

func (c *nameCache) get(ctx context.Context, name string, find func(context.Context, string) (*catalog.Collection, error)) (*catalog.Collection, error) {
	c.mu.Lock()
	e, ok := c.mu.byName[name]
	epoch := c.mu.epoch
	c.mu.Unlock()
	if ok && c.now().Sub(e.at) < nameTTL {
		return e.coll, nil
	}
	coll, err := find(ctx, name)
	if err != nil {
		return nil, err
	}
	c.keep(name, coll, epoch)
	return coll, nil
}

// forget drops everything: a change was made on this node.
func (c *nameCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.byName)
	c.mu.epoch++
}
