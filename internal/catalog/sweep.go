package catalog

import (
	"context"
	"log/slog"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/objstore"
)

// Swept says what a Sweep did.
type Swept struct {
	Collections int // dropped or never finished, with their channels
	Files       int // of their segments and deltas
	Names       int // freed or deleted
	Aliases     int // listings of aliases that lead elsewhere
	Orphans     int // segments and files of deletes that no manifest named any more
}

// Sweep removes what is left of dropped collections and of calls that did not
// end: files, manifests, reservations; and files that no manifest names, of
// segments that were replaced and of uploads that were not committed, see
// FileGrace. It may run at any time, in any number of processes; it can be
// stopped and repeated. What it cannot remove it skips and reports: the error
// joins all failures, and the rest is swept all the same.
func (c *Catalog) Sweep(ctx context.Context) (Swept, error) {
	s := &sweep{c: c}
	var err error
	if s.now, err = c.storageTime(ctx); err != nil {
		return s.swept, err
	}
	for _, step := range []struct {
		folder string
		do     func(context.Context, objstore.Info) error
	}{
		{"collections/", s.collection},
		{"names/", s.name},
	} {
		found, err := c.list(ctx, step.folder)
		if err != nil {
			s.errs = append(s.errs, err)
			continue
		}
		for _, info := range found {
			if err := step.do(ctx, info); err != nil {
				s.errs = append(s.errs, errors.Wrapf(err, "sweep %s", info.Key))
			}
			if ctx.Err() != nil {
				return s.swept, s.err()
			}
		}
	}
	if err := s.garbage(ctx); err != nil {
		s.errs = append(s.errs, errors.Wrap(err, "sweep files"))
	}
	return s.swept, s.err()
}

// storageTime returns the time by the clock that stamps the objects: this
// process' own may be hours ahead, and all would seem old.
func (c *Catalog) storageTime(ctx context.Context) (time.Time, error) {
	ctx, cancel := c.deadline(ctx)
	defer cancel()
	key := c.clockKey()
	if _, err := c.o.Bucket.Put(ctx, key, strings.NewReader("x"), 1, objstore.PutOptions{}); err != nil {
		return time.Time{}, errors.Wrap(err, "ask the storage for the time")
	}
	info, err := c.o.Bucket.Head(ctx, key)
	return info.ModTime, errors.Wrap(err, "ask the storage for the time")
}

type sweep struct {
	c     *Catalog
	now   time.Time
	swept Swept
	errs  []error
}

func (s *sweep) err() error {
	if len(s.errs) == 0 {
		return nil
	}
	return errclass.Mark(errors.Join(s.errs...), errclass.Of(s.errs[0]))
}

func (s *sweep) old(i objstore.Info, age time.Duration) bool { return s.now.Sub(i.ModTime) >= age }

// collectionID reads the id in a collection's key.
func (c *Catalog) collectionID(key string) (int64, bool) {
	id, err := strconv.ParseInt(strings.TrimSuffix(path.Base(key), ".json"), 10, 64)
	return id, err == nil && id > 0 && c.collectionKey(id) == key
}

// collection removes a dropped or unfinished collection and mends its aliases.
func (s *sweep) collection(ctx context.Context, info objstore.Info) error {
	id, ok := s.c.collectionID(info.Key)
	if !ok {
		return nil // not ours
	}
	one, cancel := s.c.deadline(ctx)
	defer cancel()
	col, etag, err := load[Collection](one, s.c, info.Key, maxCollectionBytes)
	if errclass.Is(err, errclass.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if col.ID != id {
		return errclass.New(errclass.Corrupt, "manifest %s is of collection %d", info.Key, col.ID)
	}
	if col.DroppedTimestamp != 0 {
		if !s.old(info, s.c.o.DropGrace) {
			return nil
		}
		return s.remove(ctx, col)
	}
	if !s.old(info, s.c.o.SweepAge) {
		return nil
	}
	committed, err := s.c.committed(one, col)
	if err != nil {
		return err
	}
	if committed {
		return s.aliases(one, col, etag)
	}
	// A rename between our two reads looks the same. It has changed the manifest,
	// though, before it freed the name, so that this put tells them apart.
	col.DroppedTimestamp = max(1, col.CreatedTimestamp)
	err = s.c.put(one, info.Key, col, maxCollectionBytes, etag)
	if errors.Is(err, objstore.ErrPrecondition) {
		return nil
	}
	if err != nil {
		return err
	}
	return s.remove(ctx, col)
}

// remove deletes files, channels and the collection's manifest, in this order,
// so that a sweep that was stopped finds its way again.
func (s *sweep) remove(ctx context.Context, col *Collection) error {
	for _, v := range col.VChannels {
		ch, err := s.c.Channel(ctx, v.Name)
		if errclass.Is(err, errclass.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		for _, seg := range ch.Segments {
			if err := s.removeFolder(ctx, seg.Path); err != nil {
				return err
			}
		}
		for _, d := range ch.Deltas {
			if err := s.removeFile(ctx, d.Path); err != nil {
				return err
			}
		}
		if err := s.delete(ctx, s.c.channelKey(v.Name)); err != nil {
			return err
		}
	}
	if err := s.delete(ctx, s.c.collectionKey(col.ID)); err != nil {
		return err
	}
	s.swept.Collections++
	s.c.o.Logger.Info("catalog: swept a collection", slog.Int64("collection", col.ID), slog.String("name", col.Name), slog.Bool("dropped", col.DroppedTimestamp != 0))
	return nil
}

// removeFolder deletes all objects below a segment's path. The manifest goes
// first: without it the segment does not exist, so no reader finds half of one.
func (s *sweep) removeFolder(ctx context.Context, folder string) error {
	if err := s.removeFile(ctx, folder+manifestFile); err != nil {
		return err
	}
	for {
		var keys []string
		one, cancel := s.c.deadline(ctx)
		err := s.c.o.Bucket.List(one, folder+"/", "", func(i objstore.Info) error {
			if keys = append(keys, i.Key); len(keys) == listPage {
				return errPageFull
			}
			return nil
		})
		cancel()
		if err != nil && !errors.Is(err, errPageFull) {
			return err
		}
		for _, k := range keys {
			if err := s.removeFile(ctx, k); err != nil {
				return err
			}
		}
		if len(keys) < listPage {
			return nil
		}
	}
}

func (s *sweep) removeFile(ctx context.Context, key string) error {
	if strings.HasPrefix(key, s.c.o.Prefix+"/") {
		return errclass.New(errclass.Corrupt, "a manifest names %s, which is part of the catalog, as a file of a segment", key)
	}
	if err := s.delete(ctx, key); err != nil {
		return err
	}
	s.swept.Files++
	return nil
}

func (s *sweep) delete(ctx context.Context, key string) error {
	ctx, cancel := s.c.deadline(ctx)
	defer cancel()
	return s.c.o.Bucket.Delete(ctx, key)
}

// aliases removes listings that a broken AlterAlias left. The put is conditional
// on the version whose age was seen.
func (s *sweep) aliases(ctx context.Context, col *Collection, etag string) error {
	var wrong []string
	for _, a := range col.Aliases {
		e, _, err := s.c.loadName(ctx, a)
		if err != nil {
			return err
		}
		if e == nil || e.CollectionID != col.ID {
			wrong = append(wrong, a)
		}
	}
	if len(wrong) == 0 {
		return nil
	}
	head, err := s.c.o.Bucket.Head(ctx, s.c.collectionKey(col.ID))
	if err != nil || head.ETag != etag || !s.old(head, s.c.o.SweepAge) {
		return err // changed since: the next sweep looks again
	}
	col.Aliases = slices.DeleteFunc(col.Aliases, func(a string) bool { return slices.Contains(wrong, a) })
	err = s.c.put(ctx, s.c.collectionKey(col.ID), col, maxCollectionBytes, etag)
	if errors.Is(err, objstore.ErrPrecondition) {
		return nil
	}
	if err == nil {
		s.swept.Aliases += len(wrong)
	}
	return err
}

// name frees a reservation that leads nowhere and deletes a free one, each once
// it is old: first it is condemned, so that nobody takes it, then deleted.
func (s *sweep) name(ctx context.Context, info objstore.Info) error {
	if !s.old(info, s.c.o.SweepAge) {
		return nil
	}
	ctx, cancel := s.c.deadline(ctx)
	defer cancel()
	e, etag, err := load[nameEntry](ctx, s.c, info.Key, maxSmallManifest)
	if errclass.Is(err, errclass.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if s.c.nameKey(e.Name) != info.Key {
		return errclass.New(errclass.Corrupt, "manifest %s is of the name %q", info.Key, e.Name)
	}
	// The version read may be younger than the listing.
	head, err := s.c.o.Bucket.Head(ctx, info.Key)
	if err != nil || head.ETag != etag || !s.old(head, s.c.o.SweepAge) {
		return err
	}
	if e.CollectionID != 0 {
		col, err := s.c.loadLive(ctx, e.CollectionID)
		if err == nil && col.calls(e.Name) {
			return nil
		}
		if err != nil && !errclass.Is(err, errclass.NotFound) {
			return err
		}
	}
	if !e.Condemned {
		e.CollectionID, e.Claim, e.Condemned = 0, "", true
		err := s.c.put(ctx, info.Key, e, maxSmallManifest, etag)
		if errors.Is(err, objstore.ErrPrecondition) {
			return nil // taken just now
		}
		if err != nil {
			return err
		}
	}
	if err := s.c.o.Bucket.Delete(ctx, info.Key); err != nil {
		return err
	}
	s.swept.Names++
	return nil
}
