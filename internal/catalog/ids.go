package catalog

import (
	"context"
	"math"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// MaxIDs is how many ids can be asked for at once.
const MaxIDs = 1 << 24

type idCounter struct {
	Header
	Next int64 `json:"next"` // the first id nobody has taken
}

func (c *idCounter) validate() error {
	if c.Next < 1 {
		return errclass.New(errclass.Invalid, "the next id is %d, want >= 1", c.Next)
	}
	return nil
}

// AllocateIDs returns the first of n consecutive ids that no process has been
// given before and none will be again. n is 1 to MaxIDs; ids start at 1.
func (c *Catalog) AllocateIDs(ctx context.Context, n int) (first int64, err error) {
	if n < 1 || n > MaxIDs {
		return 0, errclass.New(errclass.Invalid, "allocate %d ids: want 1 to %d", n, MaxIDs)
	}
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	if first, ok := c.takeIDs(int64(n)); ok {
		return first, nil
	}
	select {
	case c.refill <- struct{}{}:
		defer func() { <-c.refill }()
	case <-ctx.Done():
		return 0, c.late(ctx, c.idsKey(), nil)
	}
	if first, ok := c.takeIDs(int64(n)); ok {
		return first, nil
	}
	size := int64(max(n, c.o.IDBlock))
	first, err = c.reserveIDs(ctx, size)
	if err != nil {
		return 0, errors.Wrapf(err, "allocate %d ids", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.mu.next, c.mu.end = first+int64(n), first+size
	return first, nil
}

func (c *Catalog) takeIDs(n int64) (first int64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mu.end-c.mu.next < n {
		return 0, false
	}
	c.mu.next += n
	return c.mu.next - n, true
}

// reserveIDs moves the counter. A try whose answer was lost costs a block, never
// a double id.
func (c *Catalog) reserveIDs(ctx context.Context, n int64) (first int64, err error) {
	key := c.idsKey()
	for try := 0; ; try++ {
		_, err := change(ctx, c, key, maxSmallManifest, func(m *idCounter, _ bool) error {
			if m.Next > math.MaxInt64-n {
				return errclass.New(errclass.Exhausted, "the ids are used up")
			}
			first = m.Next
			m.Next += n
			return nil
		})
		if !errclass.Is(err, errclass.NotFound) {
			return first, err
		}
		if err := c.checkNew(ctx); err != nil {
			return 0, err
		}
		err = c.put(ctx, key, &idCounter{Next: 1}, maxSmallManifest, "")
		if err == nil || errors.Is(err, objstore.ErrPrecondition) {
			continue // made, by us or another
		}
		if err := c.again(ctx, key, err, try); err != nil {
			return 0, err
		}
	}
}

// checkNew refuses to start counting from 1 in a catalog that has collections:
// someone deleted the counter, and its ids would be given out again.
func (c *Catalog) checkNew(ctx context.Context) error {
	found, err := c.list(ctx, "collections/")
	if err != nil || len(found) == 0 {
		return err
	}
	// Another process may have made the counter, then a collection, since we looked.
	if _, _, err := load[idCounter](ctx, c, c.idsKey(), maxSmallManifest); !errclass.Is(err, errclass.NotFound) {
		return err
	}
	return errclass.New(errclass.Corrupt, "%s is missing, but there are collections such as %s: put it back with \"next\" above every id in use",
		c.idsKey(), found[0].Key)
}
