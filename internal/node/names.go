package node

import (
	"context"
	"sync"
	"time"

	"github.com/querynode/querynode/internal/catalog"
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
		epoch  int // grows with forget: an answer read before it is not kept
	}
}

type named struct {
	coll *catalog.Collection
	at   time.Time
}

func newNameCache(now func() time.Time) *nameCache {
	c := &nameCache{now: now}
	c.mu.byName = map[string]named{}
	return c
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
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.epoch == epoch {
		if len(c.mu.byName) >= maxNames {
			clear(c.mu.byName)
		}
		c.mu.byName[name] = named{coll, c.now()}
	}
	return coll, nil
}

// forget drops everything: a change was made on this node.
func (c *nameCache) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.mu.byName)
	c.mu.epoch++
}
