package catalog

import (
	"context"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"
	"golang.org/x/sync/errgroup"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/lifecycle"
	"github.com/querynode/querynode/internal/objstore"
)

// Files of segments and of deletes are garbage when no manifest names them: they
// were replaced, or whoever uploaded them did not come to its commit. Nothing in
// the bucket tells the second from an upload under way or the first from files
// that another node is about to fetch, so that garbage is removed in two steps:
//
//  1. What is older than FileGrace and not named is condemned: a mark is put.
//  2. What was condemned FileGrace ago and still is not named is deleted, and
//     after that its mark.
//
// CommitFlush refuses a path that is condemned or gone. It looks before it puts,
// and has CallTimeout for both, which is at most half of FileGrace: a commit that
// did not see the mark is in the manifests long before they are read for step 2.
// So nobody's clock has to be right, and no pause of the committer does harm: it
// finds the mark, or no files, or its deadline has passed.
//
// A node that read a manifest before files were replaced has FileGrace from when
// a sweep first saw that they are not named, whichever node swept, and whatever
// was restarted since. Nobody may upload to the same path twice: a sweep that was
// paused before a delete could take the second upload. Those who upload make
// paths of ids, or random numbers, that are used once.

// SegmentFolder is where the folders of a collection's segments are, each called
// by the segment's id, or that and '-' and what makes the upload unique.
func SegmentFolder(collection int64) string {
	return segmentsRoot + strconv.FormatInt(collection, 10)
}

// DeltaFolder is where the files of deletes of a collection are.
func DeltaFolder(collection int64) string {
	return deltasRoot + strconv.FormatInt(collection, 10)
}

const (
	segmentsRoot = "segments/"
	deltasRoot   = "deltas/"
	manifestFile = "/manifest.json" // of a segment, uploaded last and deleted first
)

// FirstForeignID is where the ids of segments begin that are built elsewhere:
// AllocateIDs gives out none of them, and any below it to new segments sooner or later. Their
// folders may be there long before the catalog is told of them: they are garbage
// only once they have been replaced, or their collection is gone.
const FirstForeignID = 1 << 52

// unit is files that belong together: a segment's folder, or one file of deletes.
type unit struct {
	collection int64
	path       string
	newest     time.Time // of its files; zero if only the mark is known
	marked     time.Time // zero = not condemned
	foreign    bool
}

func (c *Catalog) marksFolder() string { return c.o.Prefix + "/condemned/" }

func (c *Catalog) markKey(collection int64, name string) string {
	return c.marksFolder() + strconv.FormatInt(collection, 10) + "/" + name
}

// unitOf tells which unit an object belongs to; false if it is none of ours.
func unitOf(key string) (unit, bool) {
	rest, segment := strings.CutPrefix(key, segmentsRoot)
	if !segment {
		var ok bool
		if rest, ok = strings.CutPrefix(key, deltasRoot); !ok {
			return unit{}, false
		}
	}
	of, below, ok := strings.Cut(rest, "/")
	id, err := strconv.ParseInt(of, 10, 64)
	if !ok || err != nil || id <= 0 || strconv.FormatInt(id, 10) != of {
		return unit{}, false
	}
	if !segment {
		return unit{collection: id, path: key}, true
	}
	folder, _, ok := strings.Cut(below, "/")
	number, _, _ := strings.Cut(folder, "-")
	n, err := strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || n <= 0 {
		return unit{}, false
	}
	return unit{collection: id, path: segmentsRoot + of + "/" + folder, foreign: n >= FirstForeignID}, true
}

// garbage does what is due for files that no manifest names.
func (s *sweep) garbage(ctx context.Context) error {
	units := map[string]*unit{}
	if err := s.marks(ctx, units); err != nil {
		return err
	}
	// The files before the manifests: what is committed meanwhile is seen there.
	for _, root := range []string{segmentsRoot, deltasRoot} {
		if err := s.uploads(ctx, root, units); err != nil {
			return err
		}
	}
	byCollection := map[int64][]*unit{}
	for _, u := range units {
		byCollection[u.collection] = append(byCollection[u.collection], u)
	}
	for id, list := range byCollection {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := s.garbageOf(ctx, id, list); err != nil {
			s.errs = append(s.errs, errors.Wrapf(err, "sweep files of collection %d", id))
		}
	}
	return nil
}

// marks lists what is condemned.
func (s *sweep) marks(ctx context.Context, units map[string]*unit) error {
	folder := s.c.marksFolder()
	return s.each(ctx, folder, func(i objstore.Info) {
		of, name, ok := strings.Cut(strings.TrimPrefix(i.Key, folder), "/")
		id, err := strconv.ParseInt(of, 10, 64)
		if ok && err == nil {
			units[name] = &unit{collection: id, path: name, marked: i.ModTime}
		}
	})
}

// uploads lists what is there and old enough. The files of a unit come one after another.
func (s *sweep) uploads(ctx context.Context, root string, units map[string]*unit) error {
	var last unit
	note := func() {
		if last.path == "" {
			return
		}
		if known := units[last.path]; known != nil {
			known.newest = last.newest
		} else if s.now.Sub(last.newest) >= s.c.o.FileGrace {
			u := last
			units[u.path] = &u
		}
	}
	err := s.each(ctx, root, func(i objstore.Info) {
		u, ok := unitOf(i.Key)
		if !ok {
			return
		}
		if u.path != last.path {
			note()
			last = u
		}
		if i.ModTime.After(last.newest) {
			last.newest = i.ModTime
		}
	})
	note()
	return err
}

// garbageOf condemns and deletes files of one collection.
func (s *sweep) garbageOf(ctx context.Context, id int64, units []*unit) error {
	named, gone, err := s.named(ctx, id)
	if err != nil {
		return err
	}
	for _, u := range units {
		switch {
		case u.foreign && u.marked.IsZero() && !gone:
			continue // it may be added yet
		case named[u.path]:
			if u.marked.IsZero() {
				continue
			}
			// A commit that looked before the mark was there.
			err = s.delete(ctx, s.c.markKey(id, u.path))
		case u.marked.IsZero():
			err = s.c.condemn(ctx, id, u.path)
		case s.now.Sub(u.marked) >= s.c.o.FileGrace:
			err = s.removeUnit(ctx, u)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// named returns the paths that manifests of the collection name, and whether it is
// gone. Gone is only what was once there: if the catalog itself is lost, the files
// are all that is left.
func (s *sweep) named(ctx context.Context, id int64) (paths map[string]bool, gone bool, err error) {
	paths = map[string]bool{}
	channels, err := s.c.ListChannels(ctx, id)
	if errclass.Is(err, errclass.NotFound) {
		one, cancel := s.c.deadline(ctx)
		defer cancel()
		ids, _, err := load[idCounter](one, s.c, s.c.idsKey(), maxSmallManifest)
		if err == nil && id >= ids.Next {
			err = errclass.New(errclass.Corrupt, "there are files of collection %d, an id that was never given: they stay", id)
		}
		return paths, true, err
	}
	for _, ch := range channels {
		for _, seg := range ch.Segments {
			paths[seg.Path] = true
		}
		for _, d := range ch.Deltas {
			paths[d.Path] = true
		}
	}
	return paths, false, err
}

func (s *sweep) removeUnit(ctx context.Context, u *unit) error {
	var err error
	if strings.HasPrefix(u.path, deltasRoot) {
		err = s.removeFile(ctx, u.path)
	} else {
		err = s.removeFolder(ctx, u.path)
	}
	if err == nil {
		err = s.delete(ctx, s.c.markKey(u.collection, u.path))
	}
	if err == nil {
		s.swept.Orphans++
		s.c.o.Logger.Debug("catalog: removed files that no manifest names", slog.Int64("collection", u.collection), slog.String("path", u.path))
	}
	return err
}

// condemn puts the mark of a path.
func (c *Catalog) condemn(ctx context.Context, collection int64, name string) error {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	_, err := c.o.Bucket.Put(ctx, c.markKey(collection, name), strings.NewReader(""), 0, objstore.PutOptions{IfNoneMatch: true})
	if errors.Is(err, objstore.ErrPrecondition) {
		return nil // another sweep was faster
	}
	return errors.Wrapf(err, "condemn %s", name)
}

// checkUploads refuses to name files that may be deleted at any moment, or were.
func (c *Catalog) checkUploads(ctx context.Context, collection int64, f *FlushCommit) error {
	paths := map[string]string{} // and what has to be there
	for _, s := range f.AddSegments {
		if u, ok := unitOf(s.Path + manifestFile); ok && u.path == s.Path {
			paths[s.Path] = s.Path + manifestFile
		}
	}
	for _, d := range f.AddDeltas {
		if _, ok := unitOf(d.Path); ok {
			paths[d.Path] = d.Path
		}
	}
	looks, ctx := errgroup.WithContext(ctx)
	looks.SetLimit(uploadsAtOnce)
	for p, file := range paths {
		looks.Go(func() error {
			return lifecycle.Call("look at an upload", func() error { return c.checkUpload(ctx, collection, p, file) })
		})
	}
	return looks.Wait()
}

// uploadsAtOnce is how many uploads are looked at at once: a commit has as many as there are deletes that waited for object storage.
const uploadsAtOnce = 16

func (c *Catalog) checkUpload(ctx context.Context, collection int64, p, file string) error {
	// The mark first: it goes after the files.
	_, err := c.o.Bucket.Head(ctx, c.markKey(collection, p))
	if errclass.Is(err, errclass.NotFound) {
		if _, err = c.o.Bucket.Head(ctx, file); err == nil {
			return nil
		}
	}
	if err == nil || errclass.Is(err, errclass.NotFound) {
		return errclass.New(errclass.Conflict, "%s was uploaded too long ago, its files are being removed or were: upload them to another path", p)
	}
	return errors.Wrapf(err, "look whether %s is condemned", p)
}

// condemnForeign condemns segments that were built elsewhere and replaced: no
// listing tells them from those that are yet to be added. A failure costs room.
func (c *Catalog) condemnForeign(ctx context.Context, ch *Channel, replaced []Segment) {
	for _, s := range replaced {
		u, ok := unitOf(s.Path + manifestFile)
		if !ok || !u.foreign || u.path != s.Path || u.collection != ch.CollectionID {
			continue // a sweep finds it, or it is not in our folders
		}
		if err := c.condemn(ctx, ch.CollectionID, s.Path); err != nil {
			c.o.Logger.Warn("catalog: files of a replaced segment stay", slog.String("path", s.Path), slog.Any("error", err))
		}
	}
}

// each lists the objects under a folder page by page, so that nothing but a page
// is bounded by the deadline.
func (s *sweep) each(ctx context.Context, prefix string, fn func(objstore.Info)) error {
	for last := ""; ; {
		n := 0
		one, cancel := s.c.deadline(ctx)
		err := s.c.o.Bucket.List(one, prefix, last, func(i objstore.Info) error {
			if n == listPage {
				return errPageFull
			}
			n, last = n+1, i.Key
			fn(i)
			return nil
		})
		cancel()
		switch {
		case err == nil:
			return nil
		case !errors.Is(err, errPageFull):
			return errors.Wrapf(err, "list %s", prefix)
		}
	}
}
