package catalog

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"slices"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
)

// nameEntry reserves a name for a collection.
type nameEntry struct {
	Header
	Name         string `json:"name"`
	CollectionID int64  `json:"collection_id"`       // 0 = free
	Claim        string `json:"claim,omitempty"`     // tells the call that wrote it
	Condemned    bool   `json:"condemned,omitempty"` // free and about to be deleted: nobody takes it
}

func (e *nameEntry) validate() error {
	var p problems
	p.err(schema.CheckName("reserved", e.Name))
	p.check(e.CollectionID >= 0, "collection id %d, want >= 0", e.CollectionID)
	p.check(!e.Condemned || e.CollectionID == 0, "condemned, but held by collection %d", e.CollectionID)
	return p.join(errclass.Invalid)
}

// nameKey is the entry's key. A name may be as long as a file name; with the
// suffix it would not be one, so a long name ends in a hash. '~' is in no name.
func (c *Catalog) nameKey(name string) string {
	if len(name) > 200 {
		sum := sha256.Sum256([]byte(name))
		name = name[:180] + "~" + hex.EncodeToString(sum[:16])
	}
	return c.o.Prefix + "/names/" + name + ".json"
}

// loadName reads the entry of a name; nil if there is none.
func (c *Catalog) loadName(ctx context.Context, name string) (*nameEntry, string, error) {
	key := c.nameKey(name)
	e, etag, err := load[nameEntry](ctx, c, key, maxSmallManifest)
	switch {
	case errclass.Is(err, errclass.NotFound):
		return nil, "", nil
	case err != nil:
		return nil, "", err
	case e.Name != name:
		// A file system that ignores case, or a copied file.
		return nil, "", errclass.New(errclass.Corrupt, "manifest %s is of the name %q, want %q", key, e.Name, name)
	}
	return e, etag, nil
}

// resolve returns the collection that the name or alias leads to.
func (c *Catalog) resolve(ctx context.Context, name string) (*Collection, error) {
	if err := schema.CheckName("collection", name); err != nil {
		return nil, err
	}
	e, _, err := c.loadName(ctx, name)
	if err != nil {
		return nil, err
	}
	if e != nil && e.CollectionID != 0 {
		col, err := c.loadLive(ctx, e.CollectionID)
		if err != nil && !errclass.Is(err, errclass.NotFound) {
			return nil, err
		}
		if err == nil && col.calls(name) {
			return col, nil
		}
	}
	return nil, errclass.With(errclass.New(errclass.NotFound, "there is no collection or alias %q", name), errclass.Collection)
}

// loadLive reads the manifest of a collection that is not dropped.
func (c *Catalog) loadLive(ctx context.Context, id int64) (*Collection, error) {
	key := c.collectionKey(id)
	col, _, err := load[Collection](ctx, c, key, maxCollectionBytes)
	if err != nil {
		return nil, err
	}
	return col, col.checkLive(key, id)
}

func (c *Collection) checkLive(key string, id int64) error {
	if c.ID != id {
		return errclass.New(errclass.Corrupt, "manifest %s is of collection %d, want %d", key, c.ID, id)
	}
	if c.DroppedTimestamp != 0 {
		return errclass.With(errclass.New(errclass.NotFound, "collection %d (%s) is dropped", id, c.Name), errclass.Collection)
	}
	return nil
}

// claimName reserves the name for the collection. It takes what nobody holds: no
// entry, a free one, one of a dropped or vanished collection. A name that the
// collection itself has reserved but does not use belongs to another call, alive
// or dead, and is refused: two calls must never own one reservation.
func (c *Catalog) claimName(ctx context.Context, name string, id int64) error {
	claim := rand.Text()
	for try := 0; ; try++ {
		e, etag, err := c.loadName(ctx, name)
		if err == nil && e != nil {
			if e.Claim == claim {
				return nil // an earlier try got through
			}
			err = c.checkFree(ctx, e)
		}
		if err == nil {
			next := &nameEntry{Name: name, CollectionID: id, Claim: claim}
			if e != nil {
				next.Version = e.Version
			}
			if err = c.put(ctx, c.nameKey(name), next, maxSmallManifest, etag); err == nil {
				return nil
			}
		}
		if err := c.again(ctx, c.nameKey(name), err, try); err != nil {
			return err
		}
	}
}

// checkFree reports, as an error, who holds the entry.
func (c *Catalog) checkFree(ctx context.Context, e *nameEntry) error {
	switch {
	case e.Condemned:
		return errclass.New(errclass.Retryable, "the name %q is being cleaned up, try again", e.Name)
	case e.CollectionID == 0:
		return nil
	}
	col, err := c.loadLive(ctx, e.CollectionID)
	switch {
	case errclass.Is(err, errclass.NotFound):
		return nil
	case err != nil:
		return err
	case col.Name == e.Name:
		return errclass.With(errclass.New(errclass.Exists, "there is a collection %q already: use it, drop it, or choose another name", e.Name), errclass.Collection)
	case slices.Contains(col.Aliases, e.Name):
		return errclass.With(errclass.New(errclass.Exists, "%q is an alias of collection %q already: drop or alter the alias, or choose another name", e.Name, col.Name), errclass.Alias)
	}
	return errclass.New(errclass.Conflict, "the name %q is reserved by an unfinished change of collection %q: choose another name, or try again in %v, when the reservation has lapsed",
		e.Name, col.Name, c.o.SweepAge)
}

// freeName gives up the reservation if the collection still holds it. A failure
// is only logged: the name no longer leads anywhere, and Sweep frees it.
func (c *Catalog) freeName(ctx context.Context, name string, id int64) {
	_, err := change(ctx, c, c.nameKey(name), maxSmallManifest, func(e *nameEntry, _ bool) error {
		if e.Name != name || e.CollectionID != id {
			return errUnchanged
		}
		e.CollectionID, e.Claim = 0, ""
		return nil
	})
	if err != nil && !errclass.Is(err, errclass.NotFound) {
		c.o.Logger.Warn("catalog: a name stays reserved until the next sweep", "name", name, "error", err)
	}
}

// moveName makes the entry of an alias lead to another collection.
func (c *Catalog) moveName(ctx context.Context, name string, from, to int64) error {
	_, err := change(ctx, c, c.nameKey(name), maxSmallManifest, func(e *nameEntry, repeated bool) error {
		switch {
		case e.CollectionID == to && repeated:
			return errUnchanged
		case e.Name != name || e.CollectionID != from:
			return errclass.New(errclass.Conflict, "the alias %q was changed meanwhile: look at it and try again", name)
		}
		e.CollectionID, e.Claim = to, ""
		return nil
	})
	return err
}
