package compact

import (
	"context"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// firstForeignID is where the ids of segments begin that are built elsewhere: their
// folders may be there long before the catalog has them.
const firstForeignID = 1 << 52

// Swept says what a Sweep removed.
type Swept struct {
	Folders int // of segments
	Files   int // their files, and files of deletes
}

// Sweep removes files of collections whose logs this node owns that no manifest
// names: of segments that were replaced, of files of deletes that were merged, and
// what a flush or a compaction that ended early has left. Only what is older than
// the grace goes, so that uploads under way and loads that read the catalog before
// a replacement find their files. Any number of nodes may do so at a time.
func (c *Compactor) Sweep(ctx context.Context) (Swept, error) {
	var swept Swept
	var errs []error
	seen := map[int64]bool{}
	for _, ch := range c.o.Channels() {
		id := ch.Collection().Info().ID
		if seen[id] || ctx.Err() != nil {
			continue
		}
		seen[id] = true
		s, err := c.sweepCollection(ctx, id)
		swept.Folders += s.Folders
		swept.Files += s.Files
		if err != nil {
			errs = append(errs, errors.Wrapf(err, "sweep files of collection %d", id))
		}
	}
	return swept, errors.Join(errs...)
}

// unit is files that belong together: a segment's, or one file of deletes.
type unit struct {
	keys   []string
	newest time.Time
}

func (c *Compactor) sweepCollection(ctx context.Context, id int64) (swept Swept, err error) {
	segs, deltas := "segments/"+strconv.FormatInt(id, 10)+"/", "deltas/"+strconv.FormatInt(id, 10)+"/"
	// The files first, the manifests after them: what is put into one meanwhile is
	// seen there, and what is uploaded meanwhile is not in the list.
	found := map[string]*unit{}
	err = c.list(ctx, segs, func(i objstore.Info) {
		folder, _, ok := strings.Cut(strings.TrimPrefix(i.Key, segs), "/")
		if n, err := strconv.ParseInt(folder, 10, 64); ok && err == nil && n > 0 && n < firstForeignID {
			note(found, path.Join(segs, folder), i)
		}
	})
	if err == nil {
		err = c.list(ctx, deltas, func(i objstore.Info) { note(found, i.Key, i) })
	}
	if err != nil || len(found) == 0 {
		return swept, err
	}
	step, cancel := c.o.step(ctx)
	defer cancel()
	channels, err := c.o.Catalog.ListChannels(step, id)
	if errclass.Is(err, errclass.NotFound) {
		return swept, nil // dropped: the catalog's sweep removes all of it
	}
	if err != nil {
		return swept, err
	}
	for _, ch := range channels {
		for _, s := range ch.Segments {
			delete(found, s.Path)
		}
		for _, d := range ch.Deltas {
			delete(found, d.Path)
		}
	}
	for name, u := range found {
		if c.o.Now().Sub(u.newest) < c.o.FileGrace || c.replacedLately(name) {
			continue
		}
		if err := c.remove(ctx, u.keys); err != nil {
			return swept, err
		}
		swept.Files += len(u.keys)
		if strings.HasPrefix(name, segs) {
			swept.Folders++
		}
	}
	return swept, nil
}

func note(found map[string]*unit, name string, i objstore.Info) {
	u := found[name]
	if u == nil {
		u = &unit{}
		found[name] = u
	}
	u.keys = append(u.keys, i.Key)
	if i.ModTime.After(u.newest) {
		u.newest = i.ModTime
	}
}

func (c *Compactor) list(ctx context.Context, prefix string, fn func(objstore.Info)) error {
	ctx, cancel := c.o.step(ctx)
	defer cancel()
	return c.o.Bucket.List(ctx, prefix, "", func(i objstore.Info) error {
		fn(i)
		return nil
	})
}

// remove deletes files, a segment's manifest first: without it the segment does
// not exist, so that nobody finds half of one.
func (c *Compactor) remove(ctx context.Context, keys []string) error {
	for _, manifest := range []bool{true, false} {
		for _, k := range keys {
			if (path.Base(k) == "manifest.json") != manifest {
				continue
			}
			step, cancel := c.o.step(ctx)
			err := c.o.Bucket.Delete(step, k)
			cancel()
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// replaced notes that the catalog does not name files any more since now.
func (c *Compactor) replaced(names ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, n := range names {
		c.mu.replaced[n] = c.o.Now()
	}
}

// replacedLately reports whether loads may still look for the files.
func (c *Compactor) replacedLately(name string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	at, ok := c.mu.replaced[name]
	if ok && c.o.Now().Sub(at) >= c.o.FileGrace {
		delete(c.mu.replaced, name)
		return false
	}
	return ok
}
