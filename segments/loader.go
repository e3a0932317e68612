package segments

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/cockroachdb/errors"

	"github.com/querynode/querynode/internal/errclass"
	"github.com/querynode/querynode/internal/schema"
	"github.com/querynode/querynode/internal/segfile"
)

// LoadRequest names a sealed segment in object storage.
type LoadRequest struct {
	SegmentID int64
	VChannel  string  // must be watched: its deletes apply to the segment
	Path      string  // folder in the bucket
	Deltas    []Delta // files of deletes in the bucket, for the whole channel
	// DeltasUpTo is the timestamp up to which Deltas are complete: the channel's
	// checkpoint as it stood in the catalog with them. If the channel has let go of
	// later deletes meanwhile, the load fails with class Retryable instead of
	// missing them. 0 = unknown: the caller has seen to it by PinDeletes.
	DeltasUpTo uint64
	// MinTimestamp is what the catalog has: rows that the files say are older count as
	// written then. They are in a segment that was built before it was added to the
	// channel. 0 = all rows are as the files say.
	MinTimestamp uint64
	// Admit is called when everything has been fetched and verified and no reader has
	// seen a row yet; what it returns counts as MinTimestamp. After an error there is no
	// segment. ctx ends with the load. Numbers that are not finite are refused before, as
	// those of rows that are written. Nil = not called: the catalog has the segment.
	Admit    func(ctx context.Context) (minTimestamp uint64, err error)
	Warmup   Warmup                  // "" = as the collection or the node is configured
	Progress func(done, total int64) // nil = not called
}

// Delta is a file of deletes in object storage.
type Delta struct {
	Path         string
	PartitionID  int64  // rows of this partition only; 0 = all
	MaxTimestamp uint64 // of its deletes
}

// loads makes sure that a segment is loaded once at a time, and few at once.
type loads struct {
	slots chan struct{}
	mu    struct {
		sync.Mutex
		flying map[flightKey]*flight
	}
}

type flightKey struct {
	coll *Collection
	id   int64
}

type flight struct {
	channel *Channel
	done    chan struct{}
	err     error
}

func newLoads(n int) *loads {
	l := &loads{slots: make(chan struct{}, n)}
	l.mu.flying = map[flightKey]*flight{}
	return l
}

// join returns the flight of the segment, and starts one if there is none.
func (l *loads) join(k flightKey, ch *Channel, start func(*flight) error) (*flight, error) {
	l.mu.Lock()
	f, ok := l.mu.flying[k]
	if !ok {
		f = &flight{channel: ch, done: make(chan struct{})}
		l.mu.flying[k] = f
	}
	l.mu.Unlock()
	if ok {
		return f, nil
	}
	if err := start(f); err != nil {
		f.err = err
		l.land(k, f)
		return nil, err
	}
	return f, nil
}

// land answers everyone who waits for the flight.
func (l *loads) land(k flightKey, f *flight) {
	l.mu.Lock()
	delete(l.mu.flying, k)
	l.mu.Unlock()
	close(f.done)
}

// Loading returns the ids of segments that are being loaded.
func (s *Set) Loading() []int64 {
	s.loads.mu.Lock()
	defer s.loads.mu.Unlock()
	ids := make([]int64, 0, len(s.loads.mu.flying))
	for k := range s.loads.mu.flying {
		ids = append(ids, k.id)
	}
	slices.Sort(ids)
	return ids
}

// Load makes a sealed segment searchable: fetch, verify, open, apply deletes,
// publish. Callers of the same id share one load; a segment that is loaded is
// left as it is, quarantined or not. The load runs on the Set's own context: a
// caller whose ctx ends stops waiting, the load goes on for the others.
//
// The caller has pinned the channel's deletes (Channel.PinDeletes) before it
// looked up Deltas, and may let go of them when Load returns: the load has a pin
// of its own.
//
// Errors: Corrupt (bytes that are not what the manifest says, a manifest that is
// not of this segment), Invalid (numbers that are not finite, where there is Admit), NotFound,
// Unimplemented (written by a newer version), Exhausted (memory, disk), Retryable (storage,
// LoadTimeout), Conflict (channel not watched, partition dropped), Closed. After an error
// nothing is left of it.
func (c *Collection) Load(ctx context.Context, r LoadRequest) error {
	if c.Loaded(r.SegmentID) {
		return nil
	}
	ch, ok := c.Channel(r.VChannel)
	if !ok {
		return errclass.New(errclass.Conflict, "load segment %d: channel %s is not watched on this node", r.SegmentID, r.VChannel)
	}
	_, err := c.flight(ctx, ch, []LoadRequest{r}, nil)
	return err
}

// Replace is Load for segments of one channel that take the place of others: in one
// step the view gets all of load and loses drop, sealed ones or growing ones whose
// rows are in load. Readers see one or the other. After an error nothing has changed.
func (c *Collection) Replace(ctx context.Context, vchannel string, load []LoadRequest, drop []int64) error {
	ch, ok := c.Channel(vchannel)
	if !ok {
		return errclass.New(errclass.Conflict, "replace segments: channel %s is not watched on this node", vchannel)
	}
	for {
		load = slices.DeleteFunc(slices.Clone(load), func(r LoadRequest) bool { return c.Loaded(r.SegmentID) })
		if len(load) == 0 {
			return ch.publish(ctx, nil, drop, 0)
		}
		if ours, err := c.flight(ctx, ch, load, drop); ours || err != nil {
			return err
		}
		// Somebody else has loaded the first of them meanwhile.
	}
}

// flight loads the segments of rs, or waits for whoever loads the first of them
// already; ours says which of the two. A flight that was begun for the channel as
// it was before it was watched anew fails for that, not for anything of this one.
func (c *Collection) flight(ctx context.Context, ch *Channel, rs []LoadRequest, drop []int64) (ours bool, err error) {
	for {
		var f *flight
		if ours, f, err = c.flyOrWait(ctx, ch, rs, drop); err == nil || f == nil || f.channel == ch || ctx.Err() != nil {
			return ours, err
		}
	}
}

// flyOrWait is flight for one flight, whatever channel it is of; nil if none has begun.
func (c *Collection) flyOrWait(ctx context.Context, ch *Channel, rs []LoadRequest, drop []int64) (ours bool, f *flight, err error) {
	id := rs[0].SegmentID
	f, err = c.set.loads.join(flightKey{c, id}, ch, func(f *flight) error {
		ours = true
		unpin := ch.PinDeletes()
		err := c.set.group.Go("load segment "+strconv.FormatInt(id, 10), func(ctx context.Context) error {
			c.fly(ctx, f, ch, rs, drop, unpin)
			return nil
		})
		if err != nil {
			unpin()
		}
		return err
	})
	if err != nil {
		return ours, nil, err
	}
	select {
	case <-f.done:
		return ours, f, f.err
	case <-ctx.Done():
		return ours, f, errclass.Wrap(ctx.Err(), errclass.Retryable, "wait for the load of segment %d, which goes on", id)
	}
}

// fly runs one flight and answers everyone who waits for it, whatever happens.
func (c *Collection) fly(ctx context.Context, f *flight, ch *Channel, rs []LoadRequest, drop []int64, unpin func()) {
	l, r := c.set.loads, rs[0]
	f.err = errclass.New(errclass.Internal, "load of segment %d ended without a result", r.SegmentID)
	defer l.land(flightKey{c, r.SegmentID}, f)
	defer unpin() // before the waiters hear of the end: a trim that was put off has been made up for by then
	select {
	case l.slots <- struct{}{}:
		defer func() { <-l.slots }()
	case <-ctx.Done():
		f.err = errclass.Wrap(ctx.Err(), errclass.Closed, "load segment %d", r.SegmentID)
		return
	}
	if len(rs) == 1 && len(drop) == 0 && c.Loaded(r.SegmentID) {
		f.err = nil // by the flight before this one
		return
	}
	timed, cancel := context.WithTimeout(ctx, c.set.o.LoadTimeout)
	defer cancel()
	err := guard("load segment "+strconv.FormatInt(r.SegmentID, 10), func() error { return c.load(timed, ch, rs, drop) })
	switch {
	case err == nil:
	case ctx.Err() != nil:
		err = errclass.Wrap(err, errclass.Closed, "the node is closing")
	case timed.Err() != nil:
		err = errclass.Wrap(err, errclass.Retryable, "not done within %v", c.set.o.LoadTimeout)
	}
	f.err = errors.Wrapf(err, "load segment %d from %s", r.SegmentID, r.Path)
}

// load opens the segments and publishes them together.
func (c *Collection) load(ctx context.Context, ch *Channel, rs []LoadRequest, drop []int64) error {
	start := time.Now()
	var open []*holder
	published := false
	defer func() {
		if !published {
			for _, h := range open {
				c.set.discard(h)
			}
		}
	}()
	upTo, rows := uint64(0), 0
	for _, r := range rs {
		h, err := c.openLoaded(ctx, r)
		if err != nil {
			return errors.Wrapf(err, "segment %d", r.SegmentID)
		}
		open = append(open, h)
		rows += h.visible(Latest)
		if upTo == 0 || r.DeltasUpTo != 0 && r.DeltasUpTo < upTo {
			upTo = r.DeltasUpTo
		}
	}
	if err := ch.publish(ctx, open, drop, upTo); err != nil {
		return err
	}
	published = true
	c.indexScalars()
	c.set.o.Logger.Info("segments: loaded", "segment", rs[0].SegmentID, "segments", len(rs), "replaced", drop, "rows", rows, "took", time.Since(start))
	return nil
}

// openLoaded fetches and opens one segment and applies the deletes in files.
// After an error nothing is left of it.
func (c *Collection) openLoaded(ctx context.Context, r LoadRequest) (_ *holder, err error) {
	set := c.set
	m, err := c.fetchManifest(ctx, r)
	if err != nil {
		return nil, err
	}
	// What the scalars take in memory is in the manifest; the keys' order is put right below.
	heap, err := c.roomFor(r.SegmentID, emptyBytes(m)+m.ScalarBytes+4*m.Rows)
	if err != nil {
		return nil, err
	}
	f := &fetcher{coll: c, request: r, manifest: m, total: toFetch(m, c.schema())}
	s, err := c.openFetched(ctx, f, heap)
	if err != nil {
		return nil, err
	}
	if set.o.Ledger.Above(coolAt) {
		s = set.coldAtOnce(s)
	}
	heap.Commit(s.fixedBytes())
	h := set.hold(s, false)
	kept := false
	defer func() {
		if !kept {
			set.discard(h)
		}
	}()
	if err := f.warmUp(ctx, s); err != nil {
		return nil, err
	}
	since := r.MinTimestamp
	if r.Admit != nil {
		if err := s.rows.CheckFinite(c.schema()); err != nil {
			return nil, err
		}
		if since, err = r.Admit(ctx); err != nil {
			return nil, err
		}
	}
	s.writtenSince(since)
	for _, d := range r.Deltas {
		if err := c.applyDelta(ctx, s, d, r.SegmentID); err != nil {
			return nil, err
		}
	}
	kept = true
	return h, nil
}

// openFetched fetches a segment's files but for vectors and indexes, and opens it. It
// takes heap over; after an error nothing is left of it.
func (c *Collection) openFetched(ctx context.Context, f *fetcher, heap *Reservation) (s *Sealed, err error) {
	disk, m := c.set.disk, f.manifest
	base := m.BaseFiles()
	size, taken := sizeOf(base), false
	dir, ok := "", false
	defer func() {
		// Deferred, because a damaged file may fault while it is opened.
		if !ok {
			heap.Release()
			if taken {
				disk.give(size, roomForRest)
			}
			if dir != "" {
				err = errors.CombineErrors(err, os.RemoveAll(dir))
			}
		}
	}()
	if err := c.fits(m, size); err != nil {
		return nil, err
	}
	if err := disk.takeNow(size, roomForRest); err != nil {
		return nil, err
	}
	taken = true
	if dir, err = f.base(ctx, base); err != nil {
		return nil, err
	}
	if s, err = openSealed(ctx, dir, c.Info(), c.schema, c.set.o.Ledger); err != nil {
		return nil, err
	}
	ok = true
	for _, file := range base { // what has been read does not stay
		if file.Kind == segfile.KindRows || file.Kind == segfile.KindDeletes {
			if os.Remove(filepath.Join(dir, file.Name)) == nil {
				disk.give(file.Size, roomForRest)
				size -= file.Size
			}
		}
	}
	s.heap, s.mapped = heap, c.set.o.Ledger.Force(KindMapped, 0)
	s.commitMapped()
	s.tier.disk = disk
	s.tier.mu.onDisk = size
	for _, v := range s.vectors {
		v.files = f.filesOf(s, v)
	}
	return s, nil
}

func sizeOf(files []segfile.File) (n int64) {
	for _, f := range files {
		n += f.Size
	}
	return n
}

// toFetch is the size of the files of a segment that a collection with schema want reads.
func toFetch(m *segfile.Manifest, want *schema.Schema) int64 {
	n := m.DiskBytes()
	for _, f := range m.Schema.Fields {
		if dropped(f, &m.Schema, want) {
			n -= sizeOf(m.FieldFiles(f.ID))
		}
	}
	return n
}

// fits refuses a segment with a field that will never have room on the local disk.
func (c *Collection) fits(m *segfile.Manifest, base int64) error {
	limit, newest := c.set.disk.limit.Load(), c.schema()
	for _, f := range m.Schema.Fields {
		if dropped(f, &m.Schema, newest) { // its files are not fetched
			continue
		}
		if n := sizeOf(m.FieldFiles(f.ID)); limit > 0 && n > limit-base {
			return errclass.With(errclass.New(errclass.Exhausted, "field %q takes %d bytes of the local disk, and the rest of the segment %d; the limit is %d (disk.limit)", f.Name, n, base, limit), errclass.DiskLimit)
		}
	}
	return nil
}

// filesOf are the vectors and the index of a field, which are only in object storage
// so far.
func (f *fetcher) filesOf(s *Sealed, v *sealedVectors) *fieldFiles {
	// What is captured here lives as long as the cold copy of s: not s itself.
	set, dir, file := f.coll.set, s.dir, s.file
	files := file.Manifest().FieldFiles(v.fieldID)
	of := fmt.Sprintf("field %d of segment %d", v.fieldID, s.meta.ID)
	return &fieldFiles{
		disk: set.disk, what: of, bytes: sizeOf(files), timeout: set.o.LoadTimeout, run: set.group.Go,
		fetch: func(ctx context.Context, progress func(int64)) error { return f.files(ctx, dir, files, progress) },
		open:  func(touch bool) error { return v.open(file, touch) },
		shut: func() error {
			err := v.shut()
			for _, one := range files {
				if e := os.Remove(filepath.Join(dir, one.Name)); !errors.Is(e, os.ErrNotExist) {
					err = errors.CombineErrors(err, e)
				}
			}
			return err
		},
		failed: func(err error) {
			set.o.Logger.Warn("segments: files not removed from the local disk", "files", of, "error", err)
		},
	}
}

// warmUp fetches vectors and indexes as the policy says, those of the first fields if
// there is no room for all.
func (f *fetcher) warmUp(ctx context.Context, s *Sealed) error {
	how, ledger := f.coll.warmup(f.request), f.coll.set.o.Ledger
	for _, v := range s.vectors {
		switch how {
		case WarmupSync:
			if err := v.files.settle(ctx, !ledger.Above(coolAt), f.progress); err != nil {
				return errors.Wrapf(err, "field %d", v.fieldID)
			}
		case WarmupAsync:
			v.files.settleLater()
		case WarmupNone:
		}
	}
	return nil
}

// roomFor reserves memory for a segment that is to be loaded. One that takes the place of a growing
// segment gets it in any case: it frees more than it takes.
func (c *Collection) roomFor(id, bytes int64) (*Reservation, error) {
	if freed, ok := c.grows(id); ok && freed > bytes {
		return c.set.o.Ledger.Force(KindSealed, bytes), nil
	}
	return c.set.o.Ledger.Reserve(KindSealed, bytes)
}

// grows reports whether the segment is a growing one, and what that takes.
func (c *Collection) grows(id int64) (bytes int64, ok bool) {
	snap := c.Acquire()
	defer snap.Release()
	h, ok := snap.view.find(id)
	if !ok || !h.growing {
		return 0, false
	}
	return h.bytes(), true
}

// Loaded reports whether the sealed segment is searchable.
func (c *Collection) Loaded(id int64) bool {
	snap := c.Acquire()
	defer snap.Release()
	h, ok := snap.view.find(id)
	return ok && !h.growing
}
